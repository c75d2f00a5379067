"""What orders does with each message: `(state, message, context) → effects`. The story of the service, top to bottom.

An order's own messages are collected in `state` and published by `decide`, one per kind, when the whole transaction is known.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from services.orders import domain
from services.orders.domain import Line, Order
from services.orders.state import Changed, State, messages
from shared.contracts.base import Identifier
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.inventory import DemandRefused, DemandServed
from shared.contracts.orders import (
    CancelReason,
    CancelRefused,
    DemandSet,
    FieldError,
    LineCancelled,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
    RefusedLine,
)
from shared.service import Context, Effect, Invalid, Local, Refuse, Send

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


class OrderInvalid(Local):
    """An order came that cannot be read, but whose id can: its sender deserves an answer."""

    order: Identifier
    errors: tuple[FieldError, ...]


def invalid(record: Invalid) -> OrderInvalid | None:
    """Turns an unreadable OrderPlaced into something that can be answered, if it says at least which order it is."""
    if "OrderPlaced" not in record.type:
        return None
    try:
        order = _IDENTIFIER.validate_python(record.data.get("order"))
    except ValidationError:
        return None
    return OrderInvalid(order=order, errors=record.errors)


def demand_served(state: State, message: DemandServed, context: Context) -> Iterable[Effect]:
    """Inventory's answer counts if it answers the line's latest `wanted`; it answers each of them, so nothing is lost by waiting."""
    line = state.line(message.order, message.line)
    if line is None or message.demand_version != line.demand_version or message.version < line.served_version:
        return ()
    after, steps = domain.answer(line, message)
    if after != line:
        state.put(after)
    for step in steps:
        state.tell_line(step.line, step.quantity, step.kind, {"at": context.now}, context)
    return ()


def demand_refused(state: State, message: DemandRefused, context: Context) -> Iterable[Effect]:
    """What is not in stock and may not wait is cancelled, if the refusal is about the line's latest claim.

    One that crossed a cancellation would otherwise cancel units that are set aside.
    """
    line = state.line(message.order, message.line)
    if line is None or message.demand_version != line.demand_version:
        return ()
    after, done = domain.refuse(line, message.quantity, context.number)
    if done:
        _cancelled(state, after, done, context, reason=message.reason)
    return ()


def order_placed(state: State, message: OrderPlaced, context: Context) -> Iterable[Effect]:
    """Accepts the order and claims its lines. One id is one order, whatever message it comes in."""
    content = domain.content_of(message)
    existing = state.orders.get(message.order)
    if existing is not None:
        return () if existing.content == content else (_order_exists(message.order),)
    accept(state, message, context.appended, context.number)
    for ordered in message.lines:
        state.claims[message.order, ordered.line] = context.cause
    accepted = OrderAccepted(
        order=message.order,
        at=context.now,
        placed_at=message.placed_at,
        queued_at=context.appended,
        customer=message.customer,
        currency=message.currency,
        lines=message.lines,
    )
    state.tell(message.order, accepted, context)
    return ()


def accept(state: State, placed: OrderPlaced, queued_at: datetime, number: int) -> None:
    """Makes it an order of ours, whose lines are to be claimed under this number."""
    state.rejected.discard(placed.order)
    state.stubs.discard(placed.order)
    state.errors.pop(placed.order, None)
    state.placed[placed.order] = placed
    content = domain.content_of(placed)
    state.orders[placed.order] = Order(placed.order, placed.placed_at, queued_at, content, open_lines=len(placed.lines))
    state.lines[placed.order] = {
        ordered.line: Line(placed.order, ordered.line, ordered.sku, ordered.unit_price, ordered.quantity, demand_version=number)
        for ordered in placed.lines
    }


def order_invalid(state: State, message: OrderInvalid, context: Context) -> Iterable[Effect]:
    """Tells the sender what is wrong. An order that was accepted under this id stays as it is."""
    if message.order in state.orders:
        return ()
    reject(state, message.order, message.errors)
    state.tell(message.order, OrderRejected(order=message.order, at=context.now, errors=message.errors), context)
    return ()


def reject(state: State, order: str, errors: tuple[FieldError, ...]) -> None:
    """Makes it an order that could not be accepted."""
    state.rejected.add(order)
    state.stubs.discard(order)
    state.errors[order] = errors


def order_cancel_requested(state: State, message: OrderCancelRequested, context: Context) -> Iterable[Effect]:
    """Cancels at once whatever has not shipped, unserved units first; the rest is refused, and the asker is told so."""
    if message.order not in state.orders and message.order not in state.rejected:
        return (_unknown_order(message.order, "cancellation", message.request),)
    content = domain.content_of(message)
    known = state.cancellations.admit((message.order, message.request), content)
    if known is not None:
        return () if known in {content, domain.CONTENT_LOST} else (_used_again(message.order, "cancellation", message.request),)
    wishes = _wishes(state, message)
    too_late: list[RefusedLine] = []
    cancelled = 0
    for line, quantity in wishes:
        after, done = domain.cancel(line, quantity, context.number)
        if done:
            _cancelled(state, after, done, context, reason=CancelReason.CUSTOMER, request=message.request)
        if done < quantity:
            too_late.append(RefusedLine(line=line.line, quantity=quantity - done))
        cancelled += done
    if too_late or not cancelled:
        reason = _why_refused(state, message, wishes, too_late)
        refused = CancelRefused(order=message.order, at=context.now, request=message.request, reason=reason, lines=tuple(too_late))
        state.tell(message.order, refused, context)
    return ()


def shipment_confirmed(state: State, message: ShipmentConfirmed, context: Context) -> Iterable[Effect]:
    """Counts what has shipped, up to what was allocated; what goes beyond is kept as a dead letter, since nobody can ship what we
    never set aside."""
    if message.order not in state.orders:
        return (_unknown_order(message.order, "shipment", message.shipment),)
    content = domain.content_of(message)
    known = state.shipments.admit((message.order, message.shipment), content)
    if known is not None:
        same = known in {content, domain.counted(_by_line(message))}
        return () if same else (_used_again(message.order, "shipment", message.shipment),)
    parcel = {"at": message.shipped_at, "shipment": message.shipment, "carrier": message.carrier, "tracking": message.tracking}
    unknown: list[str] = []
    surplus: list[str] = []
    for number, quantity in _by_line(message):
        line = state.line(message.order, number)
        if line is None:
            unknown.append(f"line {number} ({quantity} shipped)")
            continue
        after, done = domain.ship(line, quantity)
        if done:
            state.put(after)
            state.claims[line.order, line.line] = context.cause
            state.tell_line(after, done, LineShipped, parcel, context, apart=message.shipment)
        if done < quantity:
            surplus.append(f"line {number} ({quantity} shipped, {line.allocated} allocated)")
    return _refusal(message, unknown, surplus)


def decide(state: State, context: Context) -> Iterator[Effect]:
    """Publishes each touched order's story, completes it if nothing is open any more, and sends every changed claim once."""
    for order_id, story in state.stories.items():
        published = list(messages(order_id, story))
        order = state.orders.get(order_id)
        last = next((told for told in reversed(story) if isinstance(told, Changed)), None)
        if order is not None and last is not None and not order.open_lines and not order.completed:
            state.complete(order, context.now)
            published.append(Send(OrderCompleted(order=order_id, at=context.now), last.cause, last.actor))
        state.timeline.extend((order_id, context.now, send.message, send.cause) for send in published)
        yield from published
    for (order_id, number), cause in state.claims.items():
        order, line = state.orders[order_id], state.lines[order_id][number]
        yield DemandSet(
            causation=cause,
            order=order_id,
            line=number,
            sku=line.sku,
            wanted=line.wanted,
            shipped=line.shipped,
            queued_at=order.queued_at,
            ordered_at=order.placed_at,
            demand_version=line.demand_version,
            version=context.number,
        )


def _cancelled(state: State, after: Line, done: int, context: Context, *, reason: CancelReason, request: str | None = None) -> None:
    state.put(after)
    state.claims[after.order, after.line] = context.cause
    facts = {"at": context.now, "reason": reason, "request": request}
    state.tell_line(after, done, LineCancelled, facts, context, f"{reason}/{request}")


def _wishes(state: State, message: OrderCancelRequested) -> list[tuple[Line, int]]:
    """The lines that a cancellation is about, each with the units that it wants gone."""
    if message.line is None:
        return [(line, line.wanted) for _, line in sorted(state.lines.get(message.order, {}).items())]
    line = state.line(message.order, message.line)
    return [] if line is None else [(line, line.wanted if message.quantity is None else message.quantity)]


def _why_refused(state: State, message: OrderCancelRequested, wishes: Sequence[tuple[Line, int]], too_late: Sequence[RefusedLine]) -> str:
    if message.order in state.rejected:
        return "the order was rejected: there is nothing to cancel"
    if not wishes:
        return f"the order has no line {message.line}"
    return "these units have shipped or were cancelled before" if too_late else "nothing is left to cancel"


def _by_line(message: ShipmentConfirmed) -> list[tuple[int, int]]:
    """Units per line: a parcel may list a line several times."""
    units: Counter[int] = Counter()
    for shipped in message.lines:
        units[shipped.line] += shipped.quantity
    return sorted(units.items())


def _refusal(message: ShipmentConfirmed, unknown: Sequence[str], surplus: Sequence[str]) -> Iterable[Effect]:
    """One dead letter for all of a shipment that could not be counted."""
    if not unknown and not surplus:
        return ()
    reason = "shipped_more_than_allocated" if surplus else "unknown_line"
    parts = [f"more was shipped than allocated: {', '.join(surplus)}"] * bool(surplus)
    parts += [f"the order has no such line: {', '.join(unknown)}"] * bool(unknown)
    return (Refuse(reason, f"shipment {message.shipment!r} of order {message.order!r}: {'; '.join(parts)}. The rest was counted."),)


def _unknown_order(order: str, kind: str, id_: str) -> Refuse:
    return Refuse("unknown_order", f"{kind} {id_!r} is about order {order!r}, which was never accepted; replay it once the order is here")


def _order_exists(order: str) -> Refuse:
    return Refuse(
        "order_exists",
        f"order {order!r} was accepted with other content and stays as it is; "
        "cancel what is not wanted, and place what is new under another order id",
    )


def _used_again(order: str, kind: str, id_: str) -> Refuse:
    return Refuse(
        f"{kind}_exists",
        f"{kind} {id_!r} of order {order!r} was applied with other content; a repeat must be identical, anything else needs an id of its own",
    )
