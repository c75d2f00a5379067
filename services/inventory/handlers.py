"""The story of inventory: what each message does to the stock, and what is decided once per SKU when all have been applied."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from operator import attrgetter

from services.inventory.domain import Demand, LineKey, Movement, MovementKind, Policy, State, Supply, allocate, promises
from shared.contracts.inventory import DemandRefused, DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.orders import CancelReason, DemandSet
from shared.contracts.purchasing import StockReceived, SupplyChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted
from shared.service import Context, Effect, Refuse, Send


def sku_defined(state: State, message: SkuDefined, context: Context) -> Iterable[Effect]:
    """Sets description and backorder policy for what is ordered from now on; who waits already goes on waiting."""
    state.skus[message.sku] = state.skus[message.sku]._replace(description=message.description, backorder=message.backorder)
    state.touched[message.sku] = context.cause
    return ()


def stock_counted(state: State, message: StockCounted, context: Context) -> Iterable[Effect]:
    """The opening count; a second one is refused, because only a correction could say what it means for units set aside."""
    stock = state.skus[message.sku]
    if stock.counted:
        return [
            Refuse(
                "already_counted", f"{message.sku} has had its opening count; count {message.count} was not applied, nor can any other be"
            )
        ]
    state.skus[message.sku] = stock._replace(counted=True, on_hand=stock.on_hand + message.on_hand)
    state.movements.append(Movement(message.sku, MovementKind.COUNTED, on_hand=message.on_hand, cause=context.cause))
    state.freed[message.sku] = state.touched[message.sku] = context.cause
    return ()


def stock_received(state: State, message: StockReceived, context: Context) -> Iterable[Effect]:
    """Books the good units of a receipt line, once; until purchasing tells the supply's new level they are no longer awaited."""
    receipt = (message.receipt, message.purchase_order, message.line)
    booked = state.receipts.get(receipt)
    if booked is not None:
        again = f"receipt {message.receipt} of {message.purchase_order}/{message.line} was booked before, with {booked} units"
        return () if booked == message.good else [Refuse("already_received", again)]
    state.receipts[receipt] = message.good
    stock = state.skus[message.sku]
    state.skus[message.sku] = stock._replace(on_hand=stock.on_hand + message.good, received_total=stock.received_total + message.good)
    state.movements.append(
        Movement(
            message.sku, MovementKind.RECEIVED, on_hand=message.good, receipt=message.receipt,
            purchase_order=message.purchase_order, line=message.line, cause=context.cause,
        )
    )  # fmt: skip
    supply = state.supplies.get((message.purchase_order, message.line))
    if supply:
        state.supplies[supply.key] = supply._replace(open=max(0, supply.open - message.good))
    state.freed[message.sku] = state.touched[message.sku] = context.cause
    return ()


def supply_changed(state: State, message: SupplyChanged, context: Context) -> Iterable[Effect]:
    """The newest outlook of a purchase-order line. Only another date or another quantity than promised on moves promises:
    what merely arrived was set aside for the head of the queue."""
    known = state.supplies.get((message.purchase_order, message.line))
    if known and message.version <= known.version:
        return ()
    supply = Supply(
        message.purchase_order, message.line, message.sku, message.committed, message.open, message.expected_on, message.version
    )  # fmt: skip
    state.supplies[supply.key] = supply
    if known is None or (known.committed, known.expected_on) != (supply.committed, supply.expected_on):
        state.rescheduled[message.sku] = context.cause
    state.touched[message.sku] = context.cause
    return ()


def demand_set(state: State, message: DemandSet, context: Context) -> Iterable[Effect]:
    """A line's newest claim: books what shipped, and takes back what was set aside for units no longer wanted. Units that
    were never served free nothing."""
    known = state.demands.get((message.order, message.line))
    if known is None:
        known = unclaimed(message)
    elif message.version <= known.version:
        return ()
    if message.sku != known.sku:
        return [Refuse("other_sku", f"{message.order}/{message.line} is a claim on {known.sku}, not on {message.sku}")]
    if not known.shipped <= message.shipped <= known.served:
        allowed = f"between {known.shipped} (shipped before) and {known.served} (ever set aside)"
        return [Refuse("impossible_shipped", f"{message.order}/{message.line}: shipped must be {allowed}, not {message.shipped}")]
    shipped, served = message.shipped - known.shipped, min(known.served, max(message.wanted, message.shipped))
    withdrawn = known.served - served
    key = message.order, message.line
    state.demands[key] = Demand(
        message.order, message.line, message.sku, wanted=message.wanted, shipped=message.shipped, served=served,
        refused=min(known.refused, max(0, message.wanted - served)), queue_class=message.queue_class,
        queued_at=message.queued_at, ordered_at=message.ordered_at, demand_version=message.demand_version, version=message.version,
        ship_by=known.ship_by, promise_version=known.promise_version,
    )  # fmt: skip
    if shipped or withdrawn:
        stock = state.skus[message.sku]
        state.skus[message.sku] = stock._replace(on_hand=stock.on_hand - shipped, allocated=stock.allocated - shipped - withdrawn)
        moved = Movement(message.sku, MovementKind.SHIPPED, order=message.order, line=message.line, cause=context.cause)
        if shipped:
            state.movements.append(moved._replace(on_hand=-shipped, allocated=-shipped))
        if withdrawn:
            state.movements.append(moved._replace(kind=MovementKind.WITHDRAWN, allocated=-withdrawn, undoes=MovementKind.ALLOCATED))
            state.freed[message.sku] = context.cause
    if message.wanted > known.wanted and key in state.stored_demands:
        state.rescheduled[message.sku] = context.cause  # it grows at its old place: those behind it wait for later supply
    state.claimed[key] = state.touched[message.sku] = context.cause
    if message.demand_version > known.demand_version:
        state.unanswered.add(key)
    return ()


def decide(policy: Policy, state: State, context: Context) -> list[Effect]:
    """Once per touched SKU, in sorted order: serve the queue, refuse what may not wait, promise, and tell everyone concerned."""
    today = policy.today(context.now)
    lines: defaultdict[str, list[LineKey]] = defaultdict(list)
    for demand in state.demands.values():
        lines[demand.sku].append(demand.key)
    supplies: defaultdict[str, list[Supply]] = defaultdict(list)
    for supply in state.supplies.values():
        supplies[supply.sku].append(supply)
    effects: list[Effect] = []
    for sku in sorted(state.touched):
        given = _serve(state, sku, lines[sku])
        _refuse(state, sku, lines[sku])
        book(state, sku, lines[sku], given)
        _promise(state, sku, lines[sku], supplies[sku], today)
        effects += _answers(state, sku, lines[sku], context)
        effects += _levels(state, sku, context)
    return effects


def unclaimed(message: DemandSet) -> Demand:
    """A line that nobody has claimed for yet."""
    return Demand(
        message.order, message.line, message.sku, wanted=0, shipped=0, served=0, refused=0, queue_class=message.queue_class,
        queued_at=message.queued_at, ordered_at=message.ordered_at, demand_version=-1, version=-1,
    )  # fmt: skip


def _serve(state: State, sku: str, lines: Sequence[LineKey]) -> dict[LineKey, int]:
    """Sets free units aside for the head of the queue; answers which line got how many."""
    stock = state.skus[sku]
    if stock.free <= 0:
        return {}
    given = allocate(stock.free, (state.demands[key] for key in lines))
    for line, units in given:
        state.demands[line.key] = line._replace(served=line.served + units)
    state.skus[sku] = stock._replace(allocated=stock.allocated + sum(units for _, units in given))
    return {line.key: units for line, units in given}


def _refuse(state: State, sku: str, lines: Sequence[LineKey]) -> None:
    """Units that were claimed just now, are not in stock, and may not wait, never will; units that waited before go on waiting."""
    if state.skus[sku].backorder is BackorderPolicy.ALLOW:
        return
    for key in lines:
        line = state.demands[key]
        refused = line.open - state.waited(key)
        if refused > 0:
            state.demands[key] = line._replace(refused=line.refused + refused)


def book(
    state: State, sku: str, lines: Sequence[LineKey], given: Mapping[LineKey, int], kind: MovementKind = MovementKind.ALLOCATED
) -> None:
    """Writes to the ledger what lines were given and who joined or left the queue, net of the transaction and in queue order:
    so the ledger says who waited at every commit, and a line that is served at once costs no entry more."""
    moved = [(line.place, line, line.open - state.waited(key)) for key, line in state.changed(lines)]
    for _, line, joined in sorted(entry for entry in moved if entry[2] or entry[1].key in given):
        units = given.get(line.key, 0)
        waited = min(units, max(0, -joined))
        cause = state.cause(line, state.freed)
        if units:
            state.movements.append(Movement(sku, kind, allocated=units, waiting=-waited, order=line.order, line=line.line, cause=cause))
        if joined > 0:
            state.movements.append(Movement(sku, MovementKind.BACKORDERED, waiting=joined, order=line.order, line=line.line, cause=cause))
        elif cancelled := -joined - waited:
            state.movements.append(
                Movement(
                    sku, MovementKind.CANCELLED, waiting=-cancelled, order=line.order, line=line.line,
                    undoes=MovementKind.BACKORDERED, cause=cause,
                )
            )  # fmt: skip


def _promise(state: State, sku: str, lines: Sequence[LineKey], supplies: Sequence[Supply], today: date) -> None:
    """Counts who waits, and promises: to the whole queue where supply was rescheduled, else only to lines that joined its tail.
    (A joiner with an earlier place is treated as the tail too: never too early a date.) Who no longer waits has no promise."""
    demands = state.demands
    waiting = state.stored_skus[sku].waiting
    for key, line in list(state.changed(lines)):
        waiting += line.open - state.waited(key)
        if line.ship_by and not line.open:
            demands[key] = line._replace(ship_by=None)
    queue = sorted((line for key in lines if (line := demands[key]).open), key=attrgetter("place"))
    promised = queue if sku in state.rescheduled else [line for line in queue if not state.waited(line.key)]
    units = [line.open for line in promised]
    *days, next_date = promises(waiting - sum(units), [*units, 1], supplies, today)
    for line, day in zip(promised, days, strict=True):
        if day != line.ship_by:
            demands[line.key] = line._replace(ship_by=day, promise_version=line.promise_version + 1)
    state.skus[sku] = state.skus[sku]._replace(waiting=waiting, needed_by=queue[0].ordered_at if queue else None, next_date=next_date)


def _answers(state: State, sku: str, lines: Sequence[LineKey], context: Context) -> Iterable[Effect]:
    """One DemandServed for each line with a new demand version, another quantity served or another promise; with a new version
    also what is refused of it. That units have shipped is no news to orders."""
    reason = CancelReason.UNKNOWN_SKU if state.skus[sku].backorder is None else CancelReason.NOT_BACKORDERABLE
    for key in lines:
        line, stored, answered = state.demands[key], state.stored_demands.get(key), key in state.unanswered
        if line is stored and not answered:
            continue
        cause = state.cause(line, state.freed if stored and line.served != stored.served else state.rescheduled)
        if answered and line.refused:
            yield Send(
                DemandRefused(
                    order=line.order, line=line.line, quantity=line.refused, reason=reason,
                    demand_version=line.demand_version, causation=cause,
                ), cause,
            )  # fmt: skip
        if answered or stored is None or (line.served, line.promise_version) != (stored.served, stored.promise_version):
            yield Send(
                DemandServed(
                    order=line.order, line=line.line, served=line.served, refused=line.refused, ship_by=line.ship_by,
                    promise_version=line.promise_version, demand_version=line.demand_version, version=context.number, causation=cause,
                ), cause,
            )  # fmt: skip


def _levels(state: State, sku: str, context: Context) -> Iterable[Effect]:
    """What changed for purchasing, and what changed for the shop (that more units wait is no news to it); after a restore or a repair
    all of it."""
    stored, stock, cause = state.stored_skus[sku], state.skus[sku], state.touched[sku]
    again = sku in state.again or sku in state.repaired
    if stock.shortage != stored.shortage or again:
        yield Send(
            ShortageChanged(
                sku=sku, waiting=stock.waiting, needed_by=stock.needed_by, received_total=stock.received_total,
                version=context.number, causation=cause,
            ), cause,
        )  # fmt: skip
    if stock.shown and (stock.shown != stored.shown or again):
        available, backorderable, next_date = stock.shown
        yield Send(
            StockLevelChanged(
                sku=sku, at=context.now, available=available, waiting=stock.waiting, backorderable=backorderable,
                next_date=next_date, version=context.number,
            ), cause,
        )  # fmt: skip
