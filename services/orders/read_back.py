"""After a restore: what orders told when its database was already backed up. Whoever heard it holds orders to it: an order that
was accepted is, and its lines are as they were told last.

Nothing of it is told again. What was told of a line came of answers and wishes that are read again later; by then they are known
here as well. When everything has been read, orders claims these lines anew (`ClaimAgain`).
"""

from collections.abc import Iterable, Iterator

from services.orders import domain, handlers
from services.orders.handlers import OrderInvalid
from services.orders.state import State
from shared.contracts.base import Message
from shared.contracts.commerce import OrderPlaced
from shared.contracts.orders import CancelRefused, LineCancelled, LineEvent, LineShipped, OrderAccepted, OrderCompleted, OrderRejected
from shared.service import Context, Effect, Schedule, Timer


class ClaimAgain(Timer):
    """The lines of the order `key` are to be claimed again, as they are by then: which claim inventory knows, nobody can say."""


def order_accepted(state: State, message: OrderAccepted, context: Context) -> Iterator[Effect]:
    """The order is ours, and this is when it queued."""
    if message.order in state.orders:
        return
    placed = OrderPlaced(
        order=message.order, placed_at=message.placed_at, customer=message.customer, currency=message.currency, lines=message.lines
    )
    handlers.accept(state, placed, message.queued_at or context.appended, context.number)
    yield _remembered(state, message.order, message, context)


def order_rejected(state: State, message: OrderRejected, context: Context) -> Iterable[Effect]:
    """Its sender knows what was wrong."""
    if message.order not in state.orders and message.order not in state.rejected:
        handlers.reject(state, message.order, message.errors)
        state.timeline.append((message.order, context.time, message, context.cause))
    return ()


def order_invalid(state: State, message: OrderInvalid, context: Context) -> Iterable[Effect]:
    """An order that cannot be read is rejected, unless that has been told."""
    return () if message.order in state.rejected else handlers.order_invalid(state, message, context)


def line_told(state: State, message: LineEvent, context: Context) -> Iterator[Effect]:
    """The lines are as they were told, and the parcel or the wish behind it is known. Where a part of a parcel was refused, that is
    reported again when it is read again: other units were counted than it says."""
    order, news = message.order, False
    for change in message.lines:
        line = state.line(order, change.line)
        if line is not None and change.version > line.version:
            state.put(domain.told(line, change, context.number))
            news = True
    if not news:
        return
    match message:
        case LineShipped():
            state.shipments.admit((order, message.shipment), domain.counted((change.line, change.quantity) for change in message.lines))
        case LineCancelled(request=str(request)):
            state.cancellations.admit((order, request), domain.CONTENT_LOST)
    yield _remembered(state, order, message, context)


def cancel_refused(state: State, message: CancelRefused, context: Context) -> Iterator[Effect]:
    """The wish has been answered."""
    key = message.order, message.request
    if state.cancellations.admit(key, domain.CONTENT_LOST) is None or key in state.cancellations.new:
        yield _remembered(state, message.order, message, context)


def order_completed(state: State, message: OrderCompleted, context: Context) -> Iterator[Effect]:
    """Nothing of it is open any more, and everybody knows."""
    order = state.orders.get(message.order)
    if order is not None and not order.completed:
        state.complete(order, message.at)
        yield _remembered(state, message.order, message, context)


def claim_again(state: State, timer: ClaimAgain, context: Context) -> Iterable[Effect]:
    """Claims the order's lines; completes it if that had not been told."""
    order = state.orders.get(timer.key)
    if order is not None:
        state.claims.update(dict.fromkeys(((line.order, line.line) for line in state.lines[order.order].values()), context.cause))
        if not order.open_lines and not order.completed:
            state.complete(order, context.now)
            state.tell(order.order, OrderCompleted(order=order.order, at=context.now), context)
    return ()


def _remembered(state: State, order: str, message: Message, context: Context) -> Effect:
    """Adds what was told to the order's timeline."""
    state.timeline.append((order, context.time, message, context.cause))
    return Schedule(ClaimAgain(key=order), context.now)
