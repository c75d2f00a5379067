"""What happens in a run, in one line each, for people who watch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from shared.contracts.base import Message
from shared.contracts.notifier import NoticeSent
from shared.contracts.orders import (
    CancelRefused,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LineChange,
    LinePromised,
    LineShipped,
    OrderAccepted,
)
from shared.contracts.purchasing import PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived, LineAnswer, PurchaseOrderAcknowledged


def headlines(message: Message) -> Iterator[tuple[datetime, str]]:
    """Business time (UTC) and text of what is worth a line; nothing for everything else."""
    write = _WRITERS.get(type(message))
    if write is not None:
        yield from ((at.astimezone(UTC), text) for at, text in write(message))


Headlines = Iterable[tuple[datetime, str]]


def _accepted(event: OrderAccepted) -> Headlines:
    lines = ", ".join(f"{line.quantity} × {line.sku}" for line in event.lines)
    yield event.placed_at, f"order {event.order} of {event.customer.name}: {lines}"


def _backordered(event: LineBackordered) -> Headlines:
    for change in event.lines:
        yield event.at, f"order {event.order}: {_units(change)} backordered, {_promise(change)}"


def _promised(event: LinePromised) -> Headlines:
    for change in event.lines:
        yield event.at, f"order {event.order}: {_units(change)} now {_promise(change)}"


def _allocated(event: LineAllocated) -> Headlines:
    for change in event.lines:
        yield event.at, f"order {event.order}: {_units(change)} set aside"


def _shipped(event: LineShipped) -> Headlines:
    yield event.at, f"order {event.order}: {', '.join(_units(change) for change in event.lines)} shipped"


def _cancelled(event: LineCancelled) -> Headlines:
    for change in event.lines:
        yield event.at, f"order {event.order}: {_units(change)} cancelled ({event.reason.replace('_', ' ')})"


def _refused(event: CancelRefused) -> Headlines:
    yield event.at, f"order {event.order}: cancellation refused, {event.reason}"


def _issued(order: PurchaseOrderIssued) -> Headlines:
    lines = ", ".join(f"{line.quantity} × {line.sku}" for line in order.lines)
    yield order.issued_at, f"purchase order {order.purchase_order}: {lines}"


def _acknowledged(answer: PurchaseOrderAcknowledged) -> Headlines:
    for line in answer.lines:
        if line.answer is LineAnswer.REJECTED:
            yield answer.acknowledged_at, f"{answer.supplier} rejects line {line.line} of {answer.purchase_order}"
        elif line.answer is LineAnswer.CHANGED:
            yield answer.acknowledged_at, f"{answer.supplier} moves line {line.line} of {answer.purchase_order} to {line.expected_on}"


def _received(receipt: GoodsReceived) -> Headlines:
    lines = ", ".join(f"{line.good} × {line.sku}" for line in receipt.lines)
    yield receipt.received_at, f"receipt {receipt.receipt}: {lines}"


def _mailed(mail: NoticeSent) -> Headlines:
    kinds = ", ".join(sorted({notice.kind.replace("_", " ") for notice in mail.notices}))
    yield mail.at, f"mail about order {mail.order}: {kinds}"


def _units(change: LineChange) -> str:
    return f"{change.quantity} × {change.sku}"


def _promise(change: LineChange) -> str:
    return f"promised for {change.ship_by}" if change.ship_by else "no date yet"


_WRITERS: Mapping[type[Message], Callable[[Any], Headlines]] = {
    OrderAccepted: _accepted,
    LineBackordered: _backordered,
    LinePromised: _promised,
    LineAllocated: _allocated,
    LineShipped: _shipped,
    LineCancelled: _cancelled,
    CancelRefused: _refused,
    PurchaseOrderIssued: _issued,
    PurchaseOrderAcknowledged: _acknowledged,
    GoodsReceived: _received,
    NoticeSent: _mailed,
}
