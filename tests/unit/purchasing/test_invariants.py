"""Every bug planted in the rules of purchasing is found before anything is saved. (That the real ones break nothing, the world itself
asserts after every transaction of every other test.)"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from services.purchasing import planning
from services.purchasing.domain import Line, Status
from services.purchasing.state import State
from shared.contracts.purchasing import PurchaseOrderIssued, StockReceived, SupplyChanged
from shared.service import Effect, Send
from tests.unit.purchasing import world
from tests.unit.purchasing.world import SERVICE, BrokenError, World, arrived

ADDS_UP, COMMITTED, COVERED, RECEIVED, BOUGHT_ONCE, OUTLOOKS, ISSUED = SERVICE.checks


def play() -> None:
    """Two SKUs are bought, one supplier declines in part, goods come in parts, and what nobody offers is an operator's."""
    it = World()
    it.offer("A", "X")
    it.offer("A", "Y", minimum=10)
    it.short(8, sku="X")
    it.short(3, sku="Y")
    it.short(2, sku="Z")
    it.short(6, sku="X")
    it.close_windows()
    it.answer("A-1", "changed", 1, quantity=4)
    it.receive("A-1", arrived("X", good=3, damaged=1), arrived("Y", line=2, good=10))
    it.short(5, sku="X", received=3)
    it.offer("B", "X")
    it.offer("B", "Z")
    it.close_windows()
    assert it.order("B-1").status is Status.ISSUED


def decide(spoil: Callable[[State, list[Effect]], list[Effect] | None]) -> tuple[Any, str, Any]:
    """What was decided, spoilt in the end: `spoil` changes the state, or answers other effects."""

    def bug(state: State, context: Any) -> list[Effect]:
        effects = list(SERVICE.decide(state, context))
        other = spoil(state, effects)
        return effects if other is None else other

    return world, "SERVICE", replace(SERVICE, decide=bug)


def line(change: Callable[[Line], Line], *, committed: bool = False, when: Callable[[State, Line], bool] = lambda *_: True) -> Any:
    """Lines that changed just now, changed once more; with `committed` their SKU's sum follows."""

    def spoil(state: State, _effects: list[Effect]) -> None:
        for before in state.lines.changed():
            if when(state, before):
                state.lines.put(change(before))
                sku = state.skus[before.sku]
                moved = change(before).committed - before.committed if committed else 0
                state.skus.put(replace(sku, committed=sku.committed + moved))

    return decide(spoil)


def told(kind: type[Any], change: Callable[[Any], Iterable[Any]]) -> Any:
    """Messages of a kind, replaced by others."""

    def spoil(_state: State, effects: list[Effect]) -> list[Effect]:
        return [new for each in effects for new in (change(each) if isinstance(getattr(each, "message", each), kind) else [each])]

    return decide(spoil)


def issued(state: State, line: Line) -> bool:
    return state.orders.loaded[line.purchase_order].status is Status.ISSUED if line.purchase_order in state.orders.loaded else False


def handler(kind: type[Any], change: Callable[[Any], Iterable[Any]]) -> tuple[Any, str, Any]:
    """What handlers themselves send, replaced."""

    def wrap(real: Any) -> Any:
        return lambda *arguments: [new for each in real(*arguments) for new in (change(each) if type(each) is kind else [each])]

    routes = {message: replace(route, handler=wrap(route.handler)) for message, route in SERVICE.routes.items()}
    return world, "SERVICE", replace(SERVICE, routes=routes)


def units_too_many(sent: PurchaseOrderIssued) -> Iterable[Any]:
    yield sent.model_copy(update={"lines": tuple(each.model_copy(update={"quantity": each.quantity + 1}) for each in sent.lines)})


def again(state: State, _effects: list[Effect]) -> None:
    for it in state.lines.changed():
        if it.ordered and not issued(state, it):
            state.change(replace(it, line=it.line + 50), "x")


def without_units(sent: Send) -> Iterable[Any]:
    yield sent._replace(message=sent.message.model_copy(update={"open": 0}))


BUGS = {
    "declines more than was ordered": (line(lambda it: replace(it, declined=it.ordered + 1), committed=True), ADDS_UP),
    "orders more of what is issued": (line(lambda it: replace(it, ordered=it.ordered + 1), committed=True, when=issued), ADDS_UP),
    "takes back what was received": (line(lambda it: replace(it, received=it.received - 1), when=issued), ADDS_UP),
    "changes a line behind its SKU's back": (line(lambda it: replace(it, ordered=it.ordered + 1)), COMMITTED),
    "forgets what nobody can deliver": ((planning, "_report", lambda *_: None), COVERED),
    "counts units that no receipt has": (line(lambda it: replace(it, received=it.received + 1), when=issued), RECEIVED),
    "does not tell inventory to book": (handler(StockReceived, lambda _: []), RECEIVED),
    "tells inventory to book twice": (handler(StockReceived, lambda each: [each, each]), RECEIVED),
    "buys twice for one need": (decide(again), BOUGHT_ONCE),
    "does not tell the outlook": (told(SupplyChanged, lambda _: []), OUTLOOKS),
    "tells another outlook": (told(SupplyChanged, without_units), OUTLOOKS),
    "tells an outlook twice": (told(SupplyChanged, lambda each: [each, each]), OUTLOOKS),
    "issues other quantities": (handler(PurchaseOrderIssued, units_too_many), ISSUED),
    "issues twice": (handler(PurchaseOrderIssued, lambda each: [each, each]), ISSUED),
    "issues in silence": (handler(PurchaseOrderIssued, lambda _: []), ISSUED),
}


def test_the_story_that_the_bugs_are_planted_in_is_right() -> None:
    play()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_its_invariant_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (owner, function, bug), invariant = BUGS[name]
    monkeypatch.setattr(owner, function, bug)
    with pytest.raises(BrokenError) as error:
        play()
    assert invariant in {broken for broken, _, _ in error.value.args[0]}
    assert {aggregate.partition(":")[0] for _, aggregate, _ in error.value.args[0]} <= {"sku", "purchase_order"}
