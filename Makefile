# Everything runs from .venv, which holds exactly what uv.lock names, by hash. `make help` lists the targets.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

# The lock names no package index, so that it serves behind any mirror: uv asks the one that this machine is set up
# with, for itself or for pip.
UV = index="$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}}}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; $(BIN)/uv

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow simulation fuzz chaos chaos-short chaos-long bench bench-smoke overload soak coverage lint format types contracts lock clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY) ## Create .venv with what uv.lock names (again only when that changed)

demo: $(READY) ## Start everything on this machine and watch orders go through
	$(BIN)/backorder demo

test: $(READY) ## Run all tests, on the real Kafka and PostgreSQL (in containers: BACKORDER_TEST_CONTAINERS=1)
	$(BIN)/python -m pytest -n 2

fuzz: $(READY) ## Send bad messages to every topic of a running system (PER_TOPIC=20000 SEED=1 TOPICS=a,b)
	$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(PER_TOPIC),--per-topic $(PER_TOPIC)) $(if $(TOPICS),--topics $(TOPICS)) $(if $(JSON),--json)

chaos: $(READY) ## Break a whole system by a seed, under load, and judge what is left (some ten minutes)
	$(BIN)/backorder chaos

chaos-short: $(READY) ## Every kind of fault once, quickly, and what failed once (some four minutes)
	$(BIN)/backorder chaos --short

chaos-long: $(READY) ## Thirty runs of five minutes, each with a seed of its own; taken up again where it stopped
	$(BIN)/backorder chaos --seed 1 --runs 30 --results .backorder/chaos.jsonl

test-slow: $(READY) ## Run the tests that take minutes: each fault of chaos, each database restored alone, two mutants, load in short
	$(BIN)/python -m pytest -m slow

simulation: $(READY) ## Ten thousand seeds of the four services over a log of our own (some hours)
	$(BIN)/python -m tests.simulation --seeds 10000 --jobs 2

bench: $(READY) ## Measure throughput, latency and cost beside a naive system and the machine's limit (an hour or so)
	$(BIN)/backorder bench

bench-smoke: $(READY) ## The ratios to both, once, quickly (under two minutes)
	$(BIN)/backorder bench --workload uniform --lines 20000 --rounds 1 --no-tune

overload: $(READY) ## Order five times what the system can do for five minutes, and judge how it bears it (half an hour)
	$(BIN)/backorder overload

soak: $(READY) ## Order at half of what the system can do for thirty minutes, and look whether anything grows
	$(BIN)/backorder soak

coverage: $(READY) ## Show what the tests of rules and contracts reach (services run as processes of their own in the others)
	$(BIN)/python -m pytest -n 2 tests/unit tests/contract tests/model --cov --cov-report=term:skip-covered

lint: $(READY) ## Check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY) ## Put style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(READY) ## Check types
	$(BIN)/mypy

contracts: $(READY) ## Check that services stay independent, rules pure, and messages what was released
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.contracts --check
	$(BIN)/python -m tests.contract.release --check

lock: $(BIN)/uv ## Resolve the newest versions that pyproject.toml allows into uv.lock
	$(UV) lock --upgrade
	sed -E -i.bak -e 's#(url = )"https?://[^"]*/([^"/]+)"#\1"https://files.invalid/\2"#' \
		-e 's#(registry = )"https?://[^"]*"#\1"https://index.invalid/simple"#' uv.lock
	rm uv.lock.bak

clean: ## Delete .venv and what tests and tools left; downloaded jars in .cache stay
	rm -rf .venv .backorder/tests .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): uv.lock pyproject.toml Makefile | $(BIN)/uv
	$(BIN)/uv export --quiet --frozen --no-emit-project --output-file .venv/requirements.txt
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes .venv/requirements.txt
	$(BIN)/uv pip install --quiet --offline --python $(BIN)/python --no-deps --editable .
	@touch $@
