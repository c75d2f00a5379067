"""Tests run on containers if that is asked for, and on nothing else then: without a Docker engine they end at once and say so."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import infrastructure
from deploy.local.infrastructure import Addresses
from tests import containers, infra

NOWHERE = "unix:///nowhere/docker.sock"


@pytest.mark.parametrize(("value", "wanted"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_containers_are_used_if_they_are_asked_for(value: str | None, wanted: bool) -> None:
    assert containers.wanted({} if value is None else {containers.WANTED: value}) is wanted


def test_without_an_engine_the_suite_ends_at_once_with_one_sentence() -> None:
    environment = {**os.environ, containers.WANTED: "1", "DOCKER_HOST": NOWHERE}
    pytest_ = (sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "tests/unit/shared")
    ended = subprocess.run(pytest_, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "passed" not in ended.stdout
    [sentence] = ended.stderr.strip().splitlines()
    assert sentence.startswith(f"ERROR: {containers.WANTED} is set, but no Docker engine answers: start one")


def test_with_an_engine_every_process_of_the_run_finds_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    running = []

    @contextmanager
    def started() -> Iterator[Addresses]:
        running.append(True)
        yield Addresses("container:9092", "postgresql://container/postgres")
        running.clear()

    monkeypatch.setattr(containers, "servers", started)
    monkeypatch.setenv(containers.WANTED, "1")
    for name in (infrastructure.KAFKA, infrastructure.DATABASE, infra.RUN):
        monkeypatch.setenv(name, "as it was")
    infra.begin()
    assert infra.addresses() == Addresses("container:9092", "postgresql://container/postgres")
    assert running
    infra.end()
    assert not running
