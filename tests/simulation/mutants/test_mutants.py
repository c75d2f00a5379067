"""The harness can fail: each guard that is taken away, and each defect that is put in, is noticed by the check that is there for it."""

import pytest

from tests.simulation.laboratory import Laboratory
from tests.simulation.mutants.surgery import Mutant, hunt
from tests.simulation.mutants.table import MUTANTS, SEEDS

LONG = {"parked key overtaken", "the first supply covers all (OFBiz, D3)"}
"""Hunted for half a minute and more, so by command."""


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, id=each.name, marks=[pytest.mark.slow] if each.name in LONG else []) for each in MUTANTS]
)
def test_a_mutant_is_found(lab: Laboratory, mutant: Mutant) -> None:
    assert hunt(lab, mutant, SEEDS) is not None, f"{mutant.breaks!r} held in {SEEDS} seeds"
