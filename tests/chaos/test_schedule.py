"""The schedule: a function of the seed, every kind in turn, alone and in combinations that do not work on one thing twice."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.chaos.schedule import schedule

KINDS = {
    "kill": "services", "stop": "services", "rolling": "services", "broker": "kafka", "group": "kafka", "postgres": "postgres",
    "disk": "postgres", "cut": "network", "mail": "smtp", "clock": "time",
}  # fmt: skip


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    assert schedule(7, 40, 5, KINDS) == schedule(7, 40, 5, KINDS)
    assert schedule(7, 40, 5, KINDS) != schedule(8, 40, 5, KINDS)


@given(seed=st.integers(0, 10**9), faults=st.integers(0, 120), minutes=st.floats(0.1, 60))
def test_a_schedule_holds_what_was_asked_for(seed: int, faults: int, minutes: float) -> None:
    strikes = schedule(seed, faults, minutes, KINDS)
    assert len(strikes) == faults
    assert all(0 <= strike.at <= 60 * minutes + 3 for strike in strikes)
    counts = Counter(strike.kind for strike in strikes)
    times = [counts[kind] for kind in KINDS]
    assert max(times) - min(times) <= 1, "every kind comes once before any comes twice"
    for strike in strikes:
        assert strike.kind not in strike.beside
        works_on = [KINDS[kind] for kind in (strike.kind, *strike.beside)]
        assert len(set(works_on)) == len(works_on), "a scene never works on one thing twice"


def test_faults_come_alone_and_in_combinations() -> None:
    sizes = Counter(len(strike.beside) + 1 for strike in schedule(1, 200, 10, KINDS))
    assert set(sizes) == {1, 2, 3}


def test_one_kind_alone_is_never_combined_with_itself() -> None:
    assert all(not strike.beside for strike in schedule(1, 20, 2, {"kill": "services"}))


def test_no_kinds_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one kind"):
        schedule(1, 5, 1, {})
