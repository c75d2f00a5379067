"""After a restore: what the house holds, what orders claim, and then what inventory had answered when its database was already
backed up. Whoever was told that units are set aside has them, and who shipped has shipped.

Meanwhile nobody is served, refused, promised or told anything: what stands in between is past. Units that are claimed are held out
of the queue until it is known how they were answered; then each SKU is decided and told of once (`StockAgain`), and each claim
that was never answered is (`AnswerDue`).
"""

from collections.abc import Iterable, Iterator

from services.inventory import handlers
from services.inventory.domain import LineKey, MovementKind, State
from services.inventory.timers import AnswerDue, StockAgain
from shared.contracts.inventory import DemandServed
from shared.contracts.orders import DemandSet
from shared.service import Connection, Context, Effect, Schedule, Unschedule


def demand_set(state: State, message: DemandSet, context: Context) -> Iterator[Effect]:
    """A line's claim as ever, but that what has shipped was set aside before, though it is not known here."""
    key = message.order, message.line
    line = state.demands.get(key) or handlers.unclaimed(message)
    if message.version > line.version and message.sku == line.sku:
        state.demands[key] = line
        _set_aside(state, key, message.shipped - line.served)
    yield from handlers.demand_set(state, message, context)
    if key in state.unanswered:
        line = state.demands[key]
        state.demands[key] = line._replace(refused=line.refused + max(0, line.open - state.waited(key)))
        yield Schedule(AnswerDue.of(key), context.now)


def demand_served(state: State, message: DemandServed, context: Context) -> Iterator[Effect]:
    """Inventory has told so. What is no longer wanted of it has been taken back since."""
    key = message.order, message.line
    line = state.demands.get(key)
    if line is None:
        return
    _set_aside(state, key, min(message.served, max(line.wanted, line.shipped)) - line.served)
    line = state.demands[key]
    if message.demand_version == line.demand_version:
        line = line._replace(refused=min(message.refused, max(0, line.wanted - line.served)))
        yield Unschedule(AnswerDue.of(key))
    if message.promise_version >= line.promise_version:
        line = line._replace(ship_by=message.ship_by, promise_version=message.promise_version)
    state.demands[key] = line
    state.touched[line.sku] = context.cause


def answer_due(state: State, timer: AnswerDue, context: Context) -> Iterable[Effect]:
    """The claim is decided and answered now, as if it had just come."""
    line = state.demands.get(timer.line_key)
    if line is not None:
        state.demands[line.key] = line._replace(refused=0)
        state.claimed[line.key] = state.touched[line.sku] = context.cause
        state.unanswered.add(line.key)
    return ()


def stock_again(state: State, timer: StockAgain, context: Context) -> Iterable[Effect]:
    """Serves and promises the whole queue, and tells everyone of the SKU, changed or not."""
    state.freed[timer.key] = state.rescheduled[timer.key] = state.touched[timer.key] = context.cause
    state.again.add(timer.key)
    return ()


async def prepare(_tx: Connection, _state: State) -> None:
    """No queue is served."""


def decide(state: State, context: Context) -> Iterator[Effect]:
    """Only books who has what, and who waits; whatever else there is to be done of a SKU is done afterwards."""
    for key, line in state.demands.items():
        if line.ship_by and not line.open:
            state.demands[key] = line._replace(ship_by=None)
    for sku in sorted(state.touched):
        lines = [line for line in state.demands.values() if line.sku == sku]
        handlers.book(state, sku, [line.key for line in lines], state.restored, MovementKind.RESTORED)
        joined = sum(line.open - state.waited(line.key) for line in lines)
        state.skus[sku] = state.skus[sku]._replace(waiting=state.skus[sku].waiting + joined)
        yield Schedule(StockAgain(key=sku), context.now)


def _set_aside(state: State, key: LineKey, units: int) -> None:
    """Gives a line up to so many of the free units that it was given before."""
    line = state.demands[key]
    stock = state.skus[line.sku]
    units = min(units, stock.free)
    if units <= 0:
        return
    served = line.served + units
    state.demands[key] = line._replace(served=served, refused=min(line.refused, max(0, line.wanted - served)))
    state.skus[line.sku] = stock._replace(allocated=stock.allocated + units)
    state.restored[key] = state.restored.get(key, 0) + units
