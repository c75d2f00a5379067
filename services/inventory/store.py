"""SQL of inventory: a constant number of statements per transaction.

The lock on a SKU's row is the lock on everything about that SKU: its lines, its queue and its supplies are read and written
only under it.
"""
# ruff: noqa: S608  (nothing is put into these statements but the lists of columns below)

from collections.abc import Collection, Sequence
from typing import Any

from services.inventory.domain import Demand, Ledger, Moved, Sku, State, Supply
from services.inventory.timers import AnswerDue, StockAgain
from shared.contracts.base import Message
from shared.contracts.inventory import DemandServed
from shared.contracts.orders import DemandSet
from shared.contracts.purchasing import StockReceived, SupplyChanged
from shared.contracts.warehouse import BackorderPolicy
from shared.service import Applicable, Connection, Context, Repair

_SKU = "sku, description, backorder, counted, on_hand, allocated, waiting, received_total, needed_by, next_date"
_DEMAND = (
    "order_id, line, sku, wanted, shipped, served, refused, queue_class, queued_at, ordered_at, demand_version, version,"
    " ship_by, promise_version"
)
_SUPPLY = "purchase_order, line, sku, committed, open, expected_on, version"
_MOVEMENT = "sku, kind, on_hand, allocated, waiting, order_id, receipt, purchase_order, line, undoes, cause"
"""Columns in the order of their classes' fields, and of the tables."""

_STUBS = "INSERT INTO sku (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_LOCK_SKUS = f"SELECT {_SKU} FROM sku WHERE sku = ANY($1) ORDER BY sku FOR UPDATE"
_SKUS_OF_LINES = "SELECT DISTINCT sku FROM demand WHERE (order_id, line) IN (SELECT * FROM unnest($1::text[], $2::int[]))"
_DEMANDS = f"""
    SELECT {_DEMAND} FROM demand WHERE (order_id, line) IN (SELECT * FROM unnest($1::text[], $2::int[]))
    ORDER BY order_id, line"""  # the order of what is answered: the same for the same batch
_SUPPLIES = (
    f"SELECT {_SUPPLY} FROM supply WHERE sku = ANY($1) AND open > 0"
    f" UNION SELECT {_SUPPLY} FROM supply WHERE (purchase_order, line) IN (SELECT * FROM unnest($2::text[], $3::int[]))"
)
_RECEIPTS = (
    "SELECT receipt, purchase_order, line, on_hand FROM ledger WHERE kind = 'received'"
    " AND (receipt, purchase_order, line) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::int[]))"
)
_LINES = f"SELECT {_DEMAND} FROM demand WHERE sku = ANY($1)"
_SUMS = (
    "SELECT sku, order_id, line, sum(on_hand)::bigint, sum(allocated)::bigint, sum(waiting)::bigint,"
    " coalesce(sum(on_hand) FILTER (WHERE kind = 'received'), 0)::bigint, count(*) FILTER (WHERE kind = 'counted') FROM ledger WHERE sku = ANY($1) GROUP BY sku, order_id, line"
)
_QUEUES = f"""
    SELECT line.* FROM unnest($1::text[], $2::bigint[]) AS head (sku, lines)
    CROSS JOIN LATERAL (
        SELECT {_DEMAND} FROM demand WHERE demand.sku = head.sku AND wanted > served + refused
        ORDER BY queue_class, queued_at, order_id, demand.line LIMIT head.lines
    ) AS line"""
# Rows are sent as arrays of a table's row type: an array a column costs half as much again.
_UPDATE_SKUS = """
    UPDATE sku SET description = new.description, backorder = new.backorder, counted = new.counted, on_hand = new.on_hand,
        allocated = new.allocated, waiting = new.waiting, received_total = new.received_total, needed_by = new.needed_by,
        next_date = new.next_date, version = new.version
    FROM unnest($1::sku[]) AS new WHERE sku.sku = new.sku"""
_UPDATE_DEMANDS = """
    UPDATE demand SET wanted = new.wanted, shipped = new.shipped, served = new.served, refused = new.refused,
        queue_class = new.queue_class, queued_at = new.queued_at, ordered_at = new.ordered_at, demand_version = new.demand_version,
        version = new.version, ship_by = new.ship_by, promise_version = new.promise_version
    FROM unnest($1::demand[]) AS new WHERE demand.order_id = new.order_id AND demand.line = new.line"""
_UPSERT_SUPPLIES = """
    INSERT INTO supply SELECT * FROM unnest($1::supply[])
    ON CONFLICT (purchase_order, line) DO UPDATE
    SET committed = excluded.committed, open = excluded.open, expected_on = excluded.expected_on, version = excluded.version"""


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks the SKUs of the messages (unknown ones become stubs); loads the lines, supplies and receipts that the messages name,
    and every supply of these SKUs that is still to come; for a repair all lines, and the sums of the ledger."""
    told = {(message.order, message.line) for message in messages if type(message) is DemandServed}
    told |= {message.line_key for message in messages if type(message) is AnswerDue}
    lines = told | {(message.order, message.line) for message in messages if isinstance(message, DemandSet)}
    # All else is keyed by SKU, which for a line never changes.
    named = {message.key for message in messages if isinstance(message, Message | StockAgain) and type(message) is not DemandServed}
    if told:
        named |= {row["sku"] for row in await tx.fetch(_SKUS_OF_LINES, *_columns(told, 2))}
    ill = {message.key for message in messages if isinstance(message, Repair)}
    skus = sorted(named | ill)
    supplies = {(message.purchase_order, message.line) for message in messages if isinstance(message, StockReceived | SupplyChanged)}
    receipts = {(message.receipt, message.purchase_order, message.line) for message in messages if isinstance(message, StockReceived)}
    await tx.execute(_STUBS, sorted(named))
    stocks = [_sku(Sku._make(row)) for row in await tx.fetch(_LOCK_SKUS, skus)]
    demands = [Demand._make(row) for row in await tx.fetch(_DEMANDS, *_columns(lines, 2))] if lines else []
    if ill:
        demands += [Demand._make(row) for row in await tx.fetch(_LINES, list(ill))]
    coming = [Supply._make(row) for row in await tx.fetch(_SUPPLIES, skus, *_columns(supplies, 2))]
    booked = await tx.fetch(_RECEIPTS, *_columns(receipts, 3)) if receipts else []
    return State(
        skus={stock.sku: stock for stock in stocks},
        demands={demand.key: demand for demand in demands},
        supplies={supply.key: supply for supply in coming},
        receipts={(receipt, purchase_order, line): good for receipt, purchase_order, line, good in booked},
        ledgers=await _ledgers(tx, ill) if ill else {},
    )


async def _ledgers(tx: Connection, skus: Collection[str]) -> dict[str, Ledger]:
    ledgers = {sku: Ledger() for sku in skus}
    for sku, order, line, on_hand, allocated, waiting, received, counts in await tx.fetch(_SUMS, list(skus)):
        ledger = ledgers[sku]
        ledger.on_hand += on_hand
        ledger.allocated += allocated
        ledger.waiting += waiting
        ledger.received += received
        ledger.counts += counts
        if order is not None:
            ledger.lines[order, line] = Moved(allocated, -on_hand, waiting)
    return ledgers


async def prepare(tx: Connection, state: State) -> None:
    """Loads the heads of the queues that the changed stock can serve, and the whole queues whose supply was rescheduled."""
    reads = state.queue_reads()
    if reads:
        state.add_queue(Demand._make(row) for row in await tx.fetch(_QUEUES, list(reads), list(reads.values())))


async def save(tx: Connection, state: State, context: Context) -> None:
    """Writes what changed; SKUs carry the transaction's number as their version."""
    repaired = state.repaired
    skus = [sku for key, sku in state.skus.items() if sku != state.stored_skus[key] or key in repaired]
    if skus:
        await tx.execute(_UPDATE_SKUS, [(*sku, context.number) for sku in skus])
    known = [line for key, line in state.demands.items() if line != state.stored_demands.get(key, line) or line.sku in repaired]
    if known:
        await tx.execute(_UPDATE_DEMANDS, known)
    new = [line for key, line in state.demands.items() if key not in state.stored_demands]
    if new:
        await tx.copy_records_to_table("demand", records=new, columns=_DEMAND.split(", "))
    supplies = [supply for key, supply in state.supplies.items() if supply != state.stored_supplies.get(key)]
    if supplies:
        await tx.execute(_UPSERT_SUPPLIES, supplies)
    if state.movements:
        entries = [(*movement, context.number, context.now) for movement in state.movements]
        await tx.copy_records_to_table("ledger", records=entries, columns=[*_MOVEMENT.split(", "), "number", "at"])


def _sku(row: Sku) -> Sku:
    """The row's policy as the word of the contract."""
    return row._replace(backorder=BackorderPolicy(row.backorder)) if row.backorder else row


def _columns(rows: Collection[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows as `count` arrays, for unnest."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]
