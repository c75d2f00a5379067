"""Whatever befalls the four services, nothing is lost, nothing happens twice, and everything settles; and a seed says it all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import infrastructure
from tests.simulation.laboratory import Laboratory

SEEDS, PART = 200, 20


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_nothing_is_lost_and_nothing_happens_twice(lab: Laboratory, first: int) -> None:
    for seed in range(first, first + PART):
        run = lab.simulate(seed)
        if run.violated is not None:
            pytest.fail(lab.explained(run), pytrace=False)


def test_a_seed_is_the_same_run_to_the_message(lab: Laboratory, servers: infrastructure.Addresses) -> None:
    """In this process once more, whatever ran before; and in another one, where sets and dictionaries are in another order."""
    runs = [lab.simulate(seed) for seed in range(3, 11)]
    # Who waits for a lock goes on while whoever held it does: which of them PostgreSQL hears first is not ours to say.
    alone = [number for number, run in enumerate(runs) if not any("blocked at" in line for line in run.world.timeline)]
    assert len(alone) > 3
    first = [run.digest for run in runs]
    again = [lab.simulate(run.seed).digest for run in reversed(runs)][::-1]
    assert [again[number] for number in alone] == [first[number] for number in alone]
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--from", str(runs[0].seed), "--seeds", str(len(runs)), "--digests"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "11", infrastructure.DATABASE: servers.database_url},
    )  # fmt: skip
    told = elsewhere.stdout.split()
    assert [told[number] for number in alone] == [first[number] for number in alone]
