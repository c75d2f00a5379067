"""The harness can fail: each guard that is taken away, and each defect that is put in, is noticed by the check that is there for it."""

import pytest

from tests.simulation.laboratory import Laboratory
from tests.simulation.mutants.surgery import Mutant, hunt
from tests.simulation.mutants.table import MUTANTS, SEEDS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(lab: Laboratory, mutant: Mutant) -> None:
    assert hunt(lab, mutant, SEEDS) is not None, f"{mutant.breaks!r} held in {SEEDS} seeds"
