"""What orders does with each message, by example."""

from datetime import date

import pytest

from services.orders.handlers import OrderInvalid, invalid
from shared.contracts.base import Message
from shared.contracts.orders import (
    CancelReason,
    CancelRefused,
    DemandSet,
    FieldError,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LinePromised,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
)
from shared.service import Invalid
from tests.unit.orders.desk import ADA, NOON, Desk, cancel, changes, of, placed, shipped

WRONG = (FieldError(field="lines", error="too short"),)


@pytest.fixture
def desk() -> Desk:
    """Order A: five units on line 1, accepted."""
    desk = Desk()
    desk.tell(placed("A", 5))
    return desk


def names(messages: list[Message]) -> list[str]:
    return [type(message).__name__ for message in messages]


def test_an_order_is_accepted_and_its_lines_are_claimed() -> None:
    desk = Desk()
    accepted, *claims = desk.tell(placed("A", 5, 2))
    assert isinstance(accepted, OrderAccepted)
    assert (accepted.customer, accepted.placed_at, len(accepted.lines)) == (ADA, NOON, 2)
    [first, second] = of(DemandSet, claims)
    order = desk.state.orders["A"]
    assert (first.sku, first.wanted, first.shipped, first.version) == ("S1", 5, 0, desk.number)
    assert (first.queued_at, first.ordered_at, first.causation) == (order.queued_at, NOON, f"{desk.number}.0")
    assert (second.line, second.wanted) == (2, 2)
    assert desk.amounts() == (5, 0, 0, 0, 0)


def test_the_same_order_again_has_no_effect(desk: Desk) -> None:
    assert desk.tell(placed("A", 5), placed("A", 5)) == []
    assert desk.refused == []


def test_another_order_under_a_used_id_is_refused(desk: Desk) -> None:
    assert desk.tell(placed("A", 6)) == []
    [refused] = desk.refused
    assert refused.reason == "order_exists"
    assert "another order id" in refused.detail


def test_a_first_answer_allocates_and_backorders_step_by_step(desk: Desk) -> None:
    allocated, backordered = desk.tell(desk.served(2, ship_by=date(2026, 4, 1), promise_version=7))
    assert isinstance(allocated, LineAllocated)
    assert isinstance(backordered, LineBackordered)
    [first], [second] = allocated.lines, backordered.lines
    assert (first.quantity, first.version, first.amounts.pending, first.amounts.allocated) == (2, 1, 3, 2)
    assert (second.quantity, second.version, second.amounts.pending, second.amounts.backordered) == (3, 2, 0, 3)
    assert (second.ship_by, second.promise_version) == (date(2026, 4, 1), 7)


def test_only_the_rise_of_the_level_is_told(desk: Desk) -> None:
    desk.tell(desk.served(2))
    assert list(changes(desk.tell(desk.served(2)))) == []
    assert list(changes(desk.tell(desk.served(5)))) == [("LineAllocated", 1, 3)]
    assert desk.amounts() == (0, 5, 0, 0, 0)


def test_a_moved_date_is_promised_to_what_waits(desk: Desk) -> None:
    desk.tell(desk.served(2, ship_by=date(2026, 4, 1), promise_version=1))
    [promised] = desk.tell(desk.served(2, ship_by=date(2026, 4, 9), promise_version=2))
    assert isinstance(promised, LinePromised)
    assert (promised.lines[0].quantity, promised.lines[0].ship_by) == (3, date(2026, 4, 9))
    [lost] = desk.tell(desk.served(2, ship_by=None, promise_version=3))
    assert isinstance(lost, LinePromised)
    assert lost.lines[0].ship_by is None


def test_no_date_is_promised_once_nothing_waits(desk: Desk) -> None:
    desk.tell(desk.served(2, ship_by=date(2026, 4, 1), promise_version=1))
    assert names(desk.tell(desk.served(5))) == ["LineAllocated"]


def test_an_answer_to_an_older_claim_is_ignored(desk: Desk) -> None:
    old = desk.served(5)
    desk.tell(cancel(line=1, quantity=1))
    assert desk.tell(old) == []
    assert desk.amounts() == (4, 0, 0, 0, 1)
    assert desk.tell(desk.served(4)) != []


def test_an_answer_is_ignored_when_the_claim_changed_in_the_same_transaction(desk: Desk) -> None:
    assert names(desk.tell(cancel(line=1, quantity=1), desk.served(5))) == ["LineCancelled", "DemandSet"]


def test_an_older_level_never_overwrites_a_newer_one(desk: Desk) -> None:
    old = desk.served(1, version=50)
    desk.tell(desk.served(3, version=51))
    assert desk.tell(old) == []
    assert desk.amounts() == (0, 3, 2, 0, 0)


def test_answers_about_nothing_we_know_are_ignored(desk: Desk) -> None:
    strange = desk.served(3).model_copy(update={"order": "?"})
    assert desk.tell(strange, desk.unavailable(3).model_copy(update={"line": 9})) == []
    assert desk.refused == []


def test_what_may_not_wait_is_cancelled_with_its_reason(desk: Desk) -> None:
    cancelled, claim = desk.tell(desk.unavailable(2))
    assert isinstance(cancelled, LineCancelled)
    assert (cancelled.reason, cancelled.lines[0].quantity) == (CancelReason.NOT_BACKORDERABLE, 2)
    assert isinstance(claim, DemandSet)
    assert claim.wanted == 3
    assert desk.amounts() == (3, 0, 0, 0, 2)


def test_a_refusal_never_touches_units_that_are_set_aside(desk: Desk) -> None:
    desk.tell(desk.served(4))
    desk.tell(desk.unavailable(3))
    assert desk.amounts() == (0, 4, 0, 0, 1)


def test_a_refusal_of_an_older_claim_is_ignored(desk: Desk) -> None:
    old = desk.unavailable(2)
    desk.tell(cancel(line=1, quantity=1))
    assert desk.tell(old) == []


def test_a_refusal_of_everything_completes_the_order(desk: Desk) -> None:
    assert names(desk.tell(desk.unavailable(5))) == ["LineCancelled", "OrderCompleted", "DemandSet"]


def test_a_cancellation_takes_unserved_units_first(desk: Desk) -> None:
    desk.tell(desk.served(2))
    desk.tell(cancel("r1", line=1, quantity=2))
    assert desk.amounts() == (0, 2, 1, 0, 2)
    desk.tell(cancel("r2", line=1, quantity=2))
    assert desk.amounts() == (0, 1, 0, 0, 4)
    assert desk.state.lines["A"][1].served == 1


def test_what_has_shipped_cannot_be_cancelled(desk: Desk) -> None:
    desk.tell(desk.served(5))
    desk.tell(shipped("p1", (1, 3)))
    told = desk.tell(cancel("r1", line=1, quantity=4))
    [refused] = of(CancelRefused, told)
    assert [(line.line, line.quantity) for line in refused.lines] == [(1, 2)]
    assert list(changes(told)) == [("LineCancelled", 1, 2)]
    assert names(told) == ["LineCancelled", "CancelRefused", "OrderCompleted", "DemandSet"]


def test_cancelling_an_order_cancels_every_line_that_has_not_shipped() -> None:
    desk = Desk()
    desk.tell(placed("A", 5, 2, 1))
    desk.tell(desk.served(2, line=2))
    desk.tell(shipped("p1", (2, 2)))
    told = desk.tell(cancel())
    assert list(changes(told)) == [("LineCancelled", 1, 5), ("LineCancelled", 3, 1)]
    [refused] = of(CancelRefused, told)
    assert [(line.line, line.quantity) for line in refused.lines] == [(2, 2)]
    assert [claim.line for claim in of(DemandSet, told)] == [1, 3]


def test_a_cancellation_of_nothing_is_refused_with_a_reason(desk: Desk) -> None:
    [unknown_line] = of(CancelRefused, desk.tell(cancel("r1", line=7)))
    assert unknown_line.reason == "the order has no line 7"
    desk.tell(cancel("r2"))
    [nothing_left] = of(CancelRefused, desk.tell(cancel("r3")))
    assert nothing_left.reason == "nothing is left to cancel"
    desk.tell(OrderInvalid(order="B", errors=WRONG))
    [rejected] = of(CancelRefused, desk.tell(cancel("r4", order="B")))
    assert "was rejected" in rejected.reason


def test_a_cancellation_of_an_unknown_order_is_kept(desk: Desk) -> None:
    assert desk.tell(cancel(order="?")) == []
    assert [refused.reason for refused in desk.refused] == ["unknown_order"]
    desk.tell(placed("?", 2))
    assert names(desk.tell(cancel(order="?"))) == ["LineCancelled", "OrderCompleted", "DemandSet"]


def test_a_cancellation_is_known_by_its_request(desk: Desk) -> None:
    desk.tell(cancel("r1", line=1, quantity=1))
    assert desk.tell(cancel("r1", line=1, quantity=1)) == []
    assert desk.refused == []
    assert desk.tell(cancel("r1", line=1, quantity=2)) == []
    assert [refused.reason for refused in desk.refused] == ["cancellation_exists"]
    assert desk.amounts() == (4, 0, 0, 0, 1)


def test_a_shipment_counts_up_to_what_is_allocated(desk: Desk) -> None:
    desk.tell(desk.served(2))
    told = desk.tell(shipped("p1", (1, 3), (9, 1)))
    [event] = of(LineShipped, told)
    assert (event.shipment, event.at, event.lines[0].quantity) == ("p1", NOON, 2)
    [claim] = of(DemandSet, told)
    assert (claim.wanted, claim.shipped) == (5, 2)
    [refused] = desk.refused
    assert refused.reason == "shipped_more_than_allocated"
    assert "line 1 (3 shipped, 2 allocated)" in refused.detail
    assert "line 9 (1 shipped)" in refused.detail


def test_a_parcel_that_lists_a_line_twice_ships_the_sum(desk: Desk) -> None:
    desk.tell(desk.served(5))
    assert list(changes(desk.tell(shipped("p1", (1, 1), (1, 2))))) == [("LineShipped", 1, 3)]


def test_a_shipment_is_known_by_its_parcel(desk: Desk) -> None:
    desk.tell(desk.served(5))
    desk.tell(shipped("p1", (1, 1)))
    assert desk.tell(shipped("p1", (1, 1))) == []
    assert desk.refused == []
    desk.tell(shipped("p1", (1, 2)), shipped("p1", (1, 9), order="?"))
    assert [refused.reason for refused in desk.refused] == ["shipment_exists", "unknown_order"]
    desk.tell(shipped("p2", (4, 1)))
    assert desk.refused[-1].reason == "unknown_line"
    assert desk.amounts() == (0, 4, 0, 1, 0)


def test_an_order_completes_once_and_last(desk: Desk) -> None:
    desk.tell(desk.served(5))
    told = desk.tell(shipped("p1", (1, 5)))
    assert names(told) == ["LineShipped", "OrderCompleted", "DemandSet"]
    desk.tell(desk.served(5), cancel("r9"))
    assert len(desk.sent_of(OrderCompleted)) == 1


def test_an_order_may_be_placed_and_cancelled_in_one_transaction() -> None:
    desk = Desk()
    told = desk.tell(placed("A", 5), cancel(line=1, quantity=2), cancel("r2"))
    assert names(told) == ["OrderAccepted", "LineCancelled", "LineCancelled", "OrderCompleted", "DemandSet"]
    [claim] = of(DemandSet, told)
    assert (claim.wanted, claim.causation) == (0, f"{desk.number}.2")
    causes = {(send.cause, send.actor) for send in desk.sent if isinstance(send.message, LineCancelled)}
    assert causes == {(f"{desk.number}.1", "actor.1"), (f"{desk.number}.2", "actor.2")}


def test_an_unreadable_order_is_rejected_and_may_come_again() -> None:
    desk = Desk()
    [rejected] = desk.tell(OrderInvalid(order="A", errors=WRONG))
    assert isinstance(rejected, OrderRejected)
    assert rejected.errors == WRONG
    assert names(desk.tell(placed("A", 5))) == ["OrderAccepted", "DemandSet"]
    assert desk.tell(OrderInvalid(order="A", errors=WRONG)) == []
    assert "A" not in desk.state.errors


@pytest.mark.parametrize(
    ("type_", "data", "answered"),
    [
        ("backorder.commerce.OrderPlaced.v1", {"order": "A", "lines": []}, True),
        ("backorder.commerce.OrderPlaced.v2", {"order": " A "}, True),
        ("backorder.commerce.OrderPlaced.v1", {"order": 7}, False),
        ("backorder.commerce.OrderPlaced.v1", {"order": "a/b"}, False),
        ("backorder.commerce.OrderPlaced.v1", {}, False),
        ("backorder.commerce.ShipmentConfirmed.v1", {"order": "A"}, False),
    ],
)
def test_only_an_order_with_a_readable_id_is_answered(type_: str, data: dict[str, object], *, answered: bool) -> None:
    expected = OrderInvalid(order="A", errors=WRONG) if answered else None
    assert invalid(Invalid(type_, data, WRONG)) == expected
