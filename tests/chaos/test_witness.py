"""The witness: repeats are fine, contradictions are not."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from deploy.chaos.witness import Witness
from shared.contracts.base import Currency, Message
from shared.contracts.commerce import Customer
from shared.contracts.notifier import NoticeSent
from shared.contracts.orders import Amounts, CancelReason, LineAllocated, LineCancelled, LineChange, LineShipped, OrderAccepted

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)


def amounts(allocated: int = 0, shipped: int = 0, cancelled: int = 0, ordered: int = 5) -> Amounts:
    waits = 5 - allocated - shipped - cancelled
    return Amounts(ordered=ordered, pending=0, allocated=allocated, backordered=waits, shipped=shipped, cancelled=cancelled)


def change(version: int, quantity: int, after: Amounts) -> tuple[LineChange, ...]:
    return (LineChange(line=1, sku="sku-01", quantity=quantity, amounts=after, version=version, ship_by=date(2026, 3, 5)),)


ALLOCATED = LineAllocated(order="A-1", at=AT, lines=change(1, 3, amounts(allocated=3)))
SHIPPED = LineShipped(order="A-1", at=AT, lines=change(2, 3, amounts(shipped=3)), shipment="P-1")
CANCELLED = LineCancelled(order="A-1", at=AT, lines=change(3, 2, amounts(shipped=3, cancelled=2)), reason=CancelReason.CUSTOMER)


def heard(messages: Sequence[Message]) -> Witness:
    witness = Witness()
    for message in messages:
        witness.take(message, AT)
    return witness


def test_a_true_story_with_repeats_is_believed() -> None:
    witness = heard([ALLOCATED, ALLOCATED, SHIPPED, ALLOCATED, SHIPPED, CANCELLED])
    assert not witness.violations
    assert (witness.heard, witness.repeats) == (3, 3)
    assert witness.versions == {("A-1", 1): 3}


@pytest.mark.parametrize(
    ("story", "check"),
    [
        ([ALLOCATED, CANCELLED], "none is missing"),
        ([SHIPPED], "none is missing"),
        ([ALLOCATED, ALLOCATED.model_copy(update={"lines": change(1, 2, amounts(allocated=2))})], "comes again is the same"),
        ([ALLOCATED, SHIPPED.model_copy(update={"lines": change(2, 2, amounts(shipped=3))})], "told once each"),
        ([ALLOCATED, LineAllocated(order="A-1", at=AT, lines=change(2, 0, amounts(shipped=3)))], "told once each"),
        ([ALLOCATED.model_copy(update={"lines": change(1, 3, amounts(allocated=3, ordered=6))})], "add up"),
    ],
)
def test_a_story_that_does_not_hold_together_is_not(story: list[Message], check: str) -> None:
    violations = heard(story).violations
    assert violations
    assert check in violations[0].check
    assert violations[0].row["key"] == "A-1"


def test_there_is_one_acceptance_of_an_order_and_one_notice_of_a_mail() -> None:
    customer = Customer(id="C-1", name="Ann", email="ann@example.com")
    accepted = OrderAccepted(order="A-1", at=AT, placed_at=AT, customer=customer, currency=Currency("EUR"), lines=())
    assert not heard([accepted, accepted]).violations
    assert heard([accepted, accepted.model_copy(update={"at": AT.replace(hour=10)})]).violations
    notice = NoticeSent(order="A-1", mail=str(uuid4()), at=AT, notices=())
    assert not heard([notice, notice]).violations
    assert heard([notice, notice.model_copy(update={"at": AT.replace(hour=10)})]).violations
    assert heard([accepted, notice]).told(OrderAccepted, NoticeSent) == {"OrderAccepted": {"A-1"}, "NoticeSent": {notice.mail}}
