"""Whether everyone was served in turn, judged from the ledger alone: by example, by a naive judge, and against allocators that cheat."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from deploy.local.fairness import Entry, unfair
from services.inventory import domain, handlers
from services.inventory.domain import Demand
from tests.unit.inventory.house import House, counted, defined, demand, received
from tests.unit.inventory.world import World, batches

MORNING = datetime(2026, 3, 2, tzinfo=UTC)


def entry(number: int, order: str, at: int, *, given: int = 0, waiting: int = 0, sku: str = "A", queue_class: int = 0) -> Entry:
    """What a commit wrote about a line that queued at minute `at`."""
    return sku, number, order, 1, queue_class, MORNING + timedelta(minutes=at), given, waiting


def found(*history: Entry) -> list[tuple[int, str, int, str, int]]:
    """(number, who was given, how many, who stood ahead, how many waited there)."""
    return [
        (each["number"], each["order_id"], each["given"], each["ahead"], each["ahead_waiting"]) for each in unfair(history)
    ]  # fmt: skip


WAIT = (entry(1, "O1", 1, waiting=2), entry(1, "O2", 2, waiting=2))


@pytest.mark.parametrize(
    ("history", "violations"),
    [
        ((), []),
        ((*WAIT, entry(2, "O1", 1, given=2, waiting=-2), entry(3, "O2", 2, given=2, waiting=-2)), []),
        ((*WAIT, entry(2, "O1", 1, given=2, waiting=-2), entry(2, "O2", 2, given=1, waiting=-1)), []),  # the last one partially
        ((*WAIT, entry(2, "O1", 1, given=1, waiting=-1)), []),  # nobody stands ahead of oneself
        ((*WAIT, entry(2, "O2", 2, given=2, waiting=-2)), [(2, "O2", 2, "O1/1", 2)]),
        ((*WAIT, entry(2, "O1", 1, given=1, waiting=-1), entry(2, "O2", 2, given=1, waiting=-1)), [(2, "O2", 1, "O1/1", 1)]),
        ((*WAIT, entry(2, "O2", 2, given=1, waiting=-1), entry(2, "O1", 1, given=2, waiting=-2)), []),  # the commit counts, not its rows
        ((*WAIT, entry(2, "O1", 1, waiting=-2), entry(2, "O2", 2, given=1, waiting=-1)), []),  # cancelled: waits no more
        ((*WAIT, entry(2, "O3", 3, given=1)), [(2, "O3", 1, "O1/1", 2)]),  # a newcomer, served at once
        ((entry(1, "O2", 2, given=1), entry(2, "O1", 1, waiting=1)), []),  # its place is earlier, but nobody knew of it
        ((entry(1, "O2", 2, given=1), entry(1, "O1", 1, waiting=1)), [(1, "O2", 1, "O1/1", 1)]),  # known by then
        ((*WAIT, entry(2, "O0", 0, waiting=1), entry(3, "O1", 1, given=2, waiting=-2)), [(3, "O1", 2, "O0/1", 1)]),
        ((entry(1, "O1", 1, waiting=1), entry(2, "O2", 2, given=1, sku="B")), []),  # another SKU's queue
        ((entry(1, "O1", 1, waiting=1, queue_class=1), entry(2, "O2", 2, given=1)), []),  # class before time
        ((entry(1, "O1", 1, waiting=1), entry(2, "O2", 0, given=1, queue_class=1)), [(2, "O2", 1, "O1/1", 1)]),
        ((entry(1, "O1", 1, waiting=1), entry(2, "O2", 1, given=1)), [(2, "O2", 1, "O1/1", 1)]),  # ties: by order
        (
            (*WAIT, entry(2, "O1", 1, given=2, waiting=-2), entry(3, "O1", 1, waiting=1), entry(4, "O2", 2, given=1, waiting=-1)),
            [(4, "O2", 1, "O1/1", 1)],  # who comes back stands at the old place
        ),
    ],
)
def test_a_line_is_given_units_only_if_nobody_known_waits_ahead_of_it(history, violations):
    assert found(*history) == violations


def naive(history: Iterable[Entry]) -> Iterator[tuple[str, int, str, int]]:
    """(SKU, number, order, order ahead), by looking at everyone after every commit."""
    for sku, of_sku in groupby(history, itemgetter(0)):
        waiting: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        for number, commit in groupby(of_sku, itemgetter(1)):
            rows = [((queue_class, at, order, line), units, change) for _, _, order, line, queue_class, at, units, change in commit]
            for place, _, change in rows:
                waiting[place] += change
            queue = sorted(place for place, units in waiting.items() if units > 0)
            yield from ((sku, number, place[2], queue[0][2]) for place, units, _ in rows if units and queue and queue[0] < place)


@st.composite
def anything(draw: st.DrawFn) -> list[Entry]:
    """A ledger that nobody answers for: lines of fixed places that come, go, come back and are served in any turn."""
    steps = st.tuples(st.sampled_from("AB"), st.integers(0, 1), st.integers(0, 5), st.integers(0, 2), st.integers(-3, 3))
    number, rows = 0, []
    for sku, following, who, units, change in draw(st.lists(steps, max_size=40)):
        number += following
        rows.append(entry(number, f"{sku}{who}", who * 7 % 4, given=units, waiting=change, sku=sku, queue_class=who % 2))
    return sorted(rows, key=itemgetter(0))


@settings(max_examples=300, deadline=None)
@given(anything())
def test_the_lazy_heap_judges_as_who_looks_at_everyone(history):
    assert [
        (each["sku"], each["number"], each["order_id"], each["ahead"].split("/")[0]) for each in unfair(history)
    ] == list(naive(history))  # fmt: skip


def lived(steps: list[list[tuple[str, int]]]) -> list[Entry]:
    """The ledger after the batches of a world in which nothing else guards the turn."""
    house = House(guarded=False)
    world = World(house)
    for batch in steps:
        house.apply(*world.messages(batch))
    return house.entries()


@settings(max_examples=150, deadline=None)
@given(batches)
def test_whatever_happens_everyone_is_served_in_turn(steps):
    assert list(unfair(lived(steps))) == []


def by(key: Callable[[Demand], Any]) -> Callable[[int, Iterable[Demand]], list[tuple[Demand, int]]]:
    """An allocator that goes by another order."""

    def cheat(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
        given = []
        for line in sorted(lines, key=key):
            if units := min(free, line.open):
                given.append((line, units))
                free -= units
        return given

    return cheat


def without_the_head(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
    """An allocator that lets the head of the queue stand, if there is somebody else."""
    queue = sorted((line for line in lines if line.open), key=lambda line: line.place)
    return domain.allocate(free, queue[1:] or queue)


def only_whole(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
    """An allocator that passes over whom it cannot serve in full."""
    given = []
    for line in sorted(lines, key=lambda line: line.place):
        if 0 < line.open <= free:
            given.append((line, line.open))
            free -= line.open
    return given


def one_each(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
    """An allocator that gives everyone a unit, as far as they go."""
    return [(line, 1) for line in sorted((line for line in lines if line.open), key=lambda line: line.place)[: max(0, free)]]


CHEATS = {
    "the newest first": by(lambda line: (-line.queued_at.timestamp(), line.order)),
    "by order id": by(lambda line: line.key),
    "the smallest first": by(lambda line: (line.open, line.place)),
    "not the head": without_the_head,
    "whole lines only": only_whole,
    "one each": one_each,
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS)
def test_an_allocator_that_cheats_is_found_out(monkeypatch, cheat):
    """`find` raises when no history of five hundred gives it away."""
    monkeypatch.setattr(handlers, "allocate", cheat)
    find(batches, lambda steps: any(unfair(lived(steps))), settings=settings(max_examples=500, derandomize=True, phases=[Phase.generate]))


def test_a_cheat_is_named_with_the_line_it_passed_over(monkeypatch):
    monkeypatch.setattr(handlers, "allocate", CHEATS["the newest first"])
    house = House(guarded=False).apply(defined(), counted(1), demand("O1", 3), demand("O2", 2)).apply(received(2))
    assert list(unfair(house.entries())) == [
        {"sku": "A", "number": 1, "order_id": "O2", "line": 1, "given": 1, "ahead": "O1/1", "ahead_waiting": 3},
        {"sku": "A", "number": 2, "order_id": "O2", "line": 1, "given": 1, "ahead": "O1/1", "ahead_waiting": 2},
    ]
