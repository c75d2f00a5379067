"""Whatever befalls the four services, nothing is lost, nothing happens twice, and everything settles; and a seed says it all."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import infrastructure
from tests.simulation.laboratory import Laboratory
from tests.simulation.steps import Mixture, crowded, mixture
from tests.simulation.world import World

SEEDS, PART = 200, 20


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_nothing_is_lost_and_nothing_happens_twice(lab: Laboratory, first: int) -> None:
    for seed in range(first, first + PART):
        run = lab.simulate(seed)
        if run.violated is not None:
            pytest.fail(lab.explained(run), pytrace=False)


@pytest.mark.parametrize(("options", "mixture"), [([], mixture), (["--crowded"], crowded)], ids=["as they come", "crowded"])
def test_a_seed_is_the_same_run_to_the_message(
    lab: Laboratory, servers: infrastructure.Addresses, options: list[str], mixture: Callable[[World], Mixture]
) -> None:
    """In this process once more, whatever ran before; and in another one, where sets and dictionaries are in another order."""
    runs = [lab.simulate(seed, mixture=mixture) for seed in range(3, 9)]
    assert any("gets its lock from" in line for run in runs for line in run.world.timeline)
    first = [run.digest for run in runs]
    again = [lab.simulate(run.seed, mixture=mixture).digest for run in reversed(runs)][::-1]
    assert again == first
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--from", str(runs[0].seed), "--seeds", str(len(runs)), "--digests", *options],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "11", infrastructure.DATABASE: servers.database_url},
    )  # fmt: skip
    assert elsewhere.stdout.split() == first
