"""Every bug planted in the rules of orders is found before anything is saved. (That the real ones break nothing, the desk itself
asserts after every transaction of every other test.)"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from services.orders import domain
from services.orders.domain import Line
from services.orders.state import State
from shared.contracts.orders import OrderCompleted
from shared.service import Send
from tests.unit.orders import desk
from tests.unit.orders.desk import NOON, SERVICE, BrokenError, Desk, cancel, placed, shipped

AMOUNTS, TOLD, OPEN, COMPLETED = SERVICE.checks


def play() -> None:
    """An order's whole life: partly served, partly cancelled, shipped in two parcels, completed."""
    it = Desk()
    it.tell(placed("A", 5, 3), placed("B", 2))
    it.tell(it.served(3), it.served(0, line=2), it.served(2, order="B"))
    it.tell(cancel("r1", "A", 1, 1), cancel("r2", "A", 2))
    it.tell(it.served(4), shipped("p1", (1, 9)))
    it.tell(it.served(4), shipped("p2", (1, 1)), cancel("r3", "B"))
    it.tell(placed("C", 1), cancel("r4", "C"))
    assert all(order.completed for order in it.state.orders.values())


def changed(function: str, **fields: Callable[[Line, Line], Any]) -> tuple[Any, str, Any]:
    """A rule of a line that ends with other values: field → from the line before and after."""
    real = getattr(domain, function)

    def bug(line: Line, *arguments: Any) -> Any:
        after, rest = real(line, *arguments)
        return after._replace(**{name: value(line, after) for name, value in fields.items()}) if after != line else after, rest

    return domain, function, bug


def put_without_counting(state: State, line: Line) -> None:
    state.changed.setdefault((line.order, line.line), state.lines[line.order][line.line])
    state.lines[line.order][line.line] = line


def put_and_count_always(state: State, line: Line) -> None:
    put_without_counting(state, line)
    order = state.orders[line.order]
    state.counted.setdefault(line.order, order)
    state.orders[line.order] = order._replace(open_lines=order.open_lines - 1)


def tell_more(state: State, line: Line, quantity: int, *rest: Any) -> None:
    REAL_TELL(state, line, quantity + 1, *rest)


def tell_twice(state: State, *rest: Any) -> None:
    REAL_TELL(state, *rest)
    REAL_TELL(state, *rest)


def tell_nothing(_state: State, *_rest: Any) -> None:
    pass


def decide(change: Callable[[Any], list[Any]]) -> tuple[Any, str, Any]:
    """What is told at the end, changed effect by effect."""
    return (
        desk,
        "SERVICE",
        replace(SERVICE, decide=lambda state, context: [new for each in SERVICE.decide(state, context) for new in change(each)]),
    )


def spoilt(**fields: Callable[[Line], Any]) -> tuple[Any, str, Any]:
    """Lines that are changed once more when everything has been told."""

    def decide(state: State, context: Any) -> Any:
        yield from SERVICE.decide(state, context)
        for order, number in state.changed:
            line = state.lines[order][number]
            state.lines[order][number] = line._replace(**{name: value(line) for name, value in fields.items()})

    return desk, "SERVICE", replace(SERVICE, decide=decide)


def is_completion(effect: Any) -> bool:
    return isinstance(effect, Send) and isinstance(effect.message, OrderCompleted)


def says_so_too_early(effect: Any) -> list[Any]:
    return [effect, Send(OrderCompleted(order="A", at=NOON), "x")] if isinstance(effect, Send) else [effect]


REAL_TELL = State.tell_line

BUGS = {
    "ships more than was ordered": (spoilt(shipped=lambda line: line.ordered + 1), AMOUNTS),
    "cancels more than is open": (spoilt(cancelled=lambda line: line.ordered - line.shipped + 1), AMOUNTS),
    "ships less than nothing": (spoilt(shipped=lambda line: -1), AMOUNTS),
    "cancels served units without giving them back": (changed("cancel", served=lambda line, after: line.served + 1), AMOUNTS),
    "takes an answer for more than is wanted": (changed("answer", served=lambda line, after: after.ordered + 1), AMOUNTS),
    "forgets the version of a shipment": (changed("ship", version=lambda line, after: line.version), TOLD),
    "skips a version": (changed("cancel", version=lambda line, after: line.version + 2), TOLD),
    "keeps other amounts than it tells": (changed("answer", served=lambda line, after: max(0, after.served - 1)), TOLD),
    "stays pending when it is told as backordered": (changed("answer", answered=lambda line, after: False), TOLD),
    "tells more units than moved": ((State, "tell_line", tell_more), TOLD),
    "tells twice": ((State, "tell_line", tell_twice), TOLD),
    "tells nothing": ((State, "tell_line", tell_nothing), TOLD),
    "does not count": ((State, "put", put_without_counting), OPEN),
    "counts a line that stays open": ((State, "put", put_and_count_always), OPEN),
    "never says that an order is completed": (decide(lambda effect: [] if is_completion(effect) else [effect]), COMPLETED),
    "says so of an order that is open": (decide(says_so_too_early), COMPLETED),
}


def test_the_story_that_the_bugs_are_planted_in_is_right() -> None:
    play()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_its_invariant_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (owner, function, bug), invariant = BUGS[name]
    monkeypatch.setattr(owner, function, bug)
    with pytest.raises(BrokenError) as error:
        play()
    found = {name for name, _, _ in error.value.args[0]}
    assert invariant in found
    assert {aggregate for _, aggregate, _ in error.value.args[0]} <= {"order:A", "order:B", "order:C"}
