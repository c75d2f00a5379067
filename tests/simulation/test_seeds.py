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
    seeds = range(3, 11)
    first = [lab.simulate(seed).digest for seed in seeds]
    assert [lab.simulate(seed).digest for seed in reversed(seeds)] == first[::-1]
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--from", str(seeds[0]), "--seeds", str(len(seeds)), "--digests"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "11", infrastructure.DATABASE: servers.database_url},
    )  # fmt: skip
    assert elsewhere.stdout.split() == first
