"""Every bug planted in the rules of inventory is found before anything is saved. (That the real ones break nothing, the house itself
asserts after every transaction of every other test.)"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from services.inventory import handlers
from services.inventory.domain import Demand, MovementKind, Sku, State
from shared.contracts.inventory import DemandServed, ShortageChanged
from shared.contracts.warehouse import BackorderPolicy
from tests.unit.inventory.house import SERVICE, BrokenError, House, counted, day, defined, demand, received, supply

LEDGER, IN_HOUSE, LINES, CLAIMS, IN_TURN, ANSWERS = SERVICE.checks
DECIDE, BOOK = handlers.decide, handlers.book


def play() -> None:
    """A queue that is served in parts, with cancellations of who waits and who was served, a shipment, and refused units."""
    house = House().apply(defined(), counted(4), defined("B", BackorderPolicy.DENY))
    house.apply(demand("O1", 3), demand("O2", 4), demand("O3", 2), demand("O4", 5, sku="B"))
    house.apply(supply(9, day(3)), demand("O1", 3, 2, shipped=2, asks=1))
    house.apply(demand("O3", 1, 2), received(2))
    house.apply(demand("O2", 1, 2), received(2, "R-2"), demand("O5", 4))
    assert house.queue()


def decide(spoil: Callable[[State, list[Any]], list[Any] | None]) -> tuple[str, Any]:
    """What was decided, spoilt in the end: `spoil` changes the state, or answers other effects."""

    def bug(policy: Any, state: State, context: Any) -> list[Any]:
        effects = DECIDE(policy, state, context)
        other = spoil(state, effects)
        return effects if other is None else other

    return "decide", bug


def stock(**fields: Callable[[Sku], Any]) -> tuple[str, Any]:
    def spoil(state: State, _effects: list[Any]) -> None:
        for sku in state.touched:
            it = state.skus[sku]
            state.skus[sku] = it._replace(**{name: value(it) for name, value in fields.items()})

    return decide(spoil)


def line(**fields: Callable[[Demand], Any]) -> tuple[str, Any]:
    """Lines that were claimed for just now, spoilt; their movements stay."""

    def spoil(state: State, _effects: list[Any]) -> None:
        for key in state.claimed:
            it = state.demands[key]
            state.demands[key] = it._replace(**{name: value(it) for name, value in fields.items()})

    return decide(spoil)


def told(kind: type[Any], change: Callable[[Any], Iterable[Any]]) -> tuple[str, Any]:
    """Messages of a kind, replaced by others."""

    def spoil(_state: State, effects: list[Any]) -> list[Any]:
        return [new for each in effects for new in ([each] if type(each.message) is not kind else change(each))]

    return decide(spoil)


def less(each: Any) -> Iterable[Any]:
    name = "served" if isinstance(each.message, DemandServed) else "waiting"
    yield each._replace(message=each.message.model_copy(update={name: getattr(each.message, name) + 1}))


def allocate(served_first: Callable[[Demand], Any], share: int = 1) -> tuple[str, Any]:
    """Another order of the queue, or only a part of what is free."""

    def bug(free: int, waiting: Iterable[Demand]) -> list[Any]:
        given = []
        for it in sorted(waiting, key=served_first):
            if units := min(free // share, it.open):
                given.append((it, units))
                free -= units
        return given

    return "allocate", bug


def without_waiting(state: State, *rest: Any) -> None:
    before = len(state.movements)
    BOOK(state, *rest)
    state.movements[before:] = [each._replace(waiting=0) for each in state.movements[before:]]


def to_another_line(state: State, *rest: Any) -> None:
    BOOK(state, *rest)
    state.movements[:] = [each._replace(line=7) if each.kind is MovementKind.ALLOCATED else each for each in state.movements]


BUGS = {
    "books nothing": (("book", lambda *_: None), LEDGER),
    "does not book who waits": (("book", without_waiting), LEDGER),
    "units from nowhere": (stock(on_hand=lambda it: it.on_hand + 1), LEDGER),
    "counts received units twice": (stock(received_total=lambda it: it.received_total * 2), LEDGER),
    "sells what is not there": (stock(allocated=lambda it: it.on_hand + 1), IN_HOUSE),
    "frees more than is set aside": (stock(allocated=lambda it: -1), IN_HOUSE),
    "books to another line": (("book", to_another_line), LINES),
    "serves without a movement": (line(served=lambda it: it.served + 1, wanted=lambda it: it.wanted + 1), LINES),
    "loses who waits": (line(refused=lambda it: it.refused + it.open), LINES),
    "serves more than is wanted": (line(served=lambda it: it.wanted + 1), CLAIMS),
    "ships what was not served": (line(shipped=lambda it: it.served + 1), CLAIMS),
    "refuses what is served": (line(refused=lambda it: it.wanted + 1), CLAIMS),
    "promises who does not wait": (line(ship_by=lambda it: day(1)), CLAIMS),
    "last come, first served": (allocate(lambda it: [-it.queued_at.timestamp()]), IN_TURN),
    "leaves units free while lines wait": (allocate(lambda it: it.place, share=2), IN_TURN),
    "tells another quantity": (told(DemandServed, less), ANSWERS),
    "tells another shortage": (told(ShortageChanged, less), ANSWERS),
    "answers twice": (told(DemandServed, lambda each: [each, each]), ANSWERS),
    "does not answer": (told(DemandServed, lambda _: []), ANSWERS),
}  # fmt: skip


def test_the_story_that_the_bugs_are_planted_in_is_right() -> None:
    play()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_its_invariant_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (function, bug), invariant = BUGS[name]
    monkeypatch.setattr(handlers, function, bug)
    with pytest.raises(BrokenError) as error:
        play()
    assert invariant in {broken for broken, _, _ in error.value.args[0]}
    assert {aggregate for _, aggregate, _ in error.value.args[0]} <= {"sku:A", "sku:B"}
