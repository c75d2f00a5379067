"""purchasing's SQL: what a transaction's messages touch, locked and loaded in sets, and what changed, saved in sets.

Locks, in this order and each in key order: SKUs, suppliers, purchase orders, lines. A SKU's lock holds its offers, its
numbers and its lines; a supplier's lock holds its planned orders. Only which SKUs an order's lines are is read before
locking, and that never changes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from services.purchasing.domain import (
    Acknowledgement,
    Booking,
    ExceptionReason,
    Line,
    LineKey,
    Offer,
    PurchaseOrder,
    Receipt,
    Shortfall,
    Sku,
    Status,
    Supplier,
)
from services.purchasing.state import State, working_set
from services.purchasing.timers import SupplyAgain, SupplyOverdue, WindowClosed
from shared.contracts.inventory import ShortageChanged
from shared.contracts.purchasing import PurchaseOrderIssued, SupplyChanged
from shared.contracts.suppliers import GoodsReceived, OfferChanged, PurchaseOrderAcknowledged, ShipmentNotified
from shared.service import Applicable, Connection, Context, Repair

Column = list[Any]


@dataclass(slots=True)
class Touched:
    """Keys that the messages name. All lines are touched of the orders that are to be issued: planned ones of suppliers whose
    `windows` close, and those that are taken `whole` as they were issued. For `repairs` all lines of the SKUs are, with their
    orders and receipts; `ill` SKUs are named by one."""

    skus: set[str] = field(default_factory=set)
    suppliers: set[str] = field(default_factory=set)
    windows: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    lines: set[LineKey] = field(default_factory=set)
    receipts: set[str] = field(default_factory=set)
    acknowledgements: set[tuple[str, str]] = field(default_factory=set)
    ill: set[str] = field(default_factory=set)
    repairs: bool = False


def touched(messages: Iterable[Applicable]) -> Touched:
    """What these messages are about."""
    keys = Touched(repairs=any(isinstance(message, Repair) for message in messages))
    for message in messages:
        match message:
            case ShortageChanged():
                keys.skus.add(message.sku)
            case OfferChanged():
                keys.skus.add(message.sku)
                keys.suppliers.add(message.supplier)
            case WindowClosed():
                keys.windows.add(message.key)
            case SupplyOverdue():
                keys.lines.add(message.line_key)
                keys.orders.add(message.line_key[0])
            case SupplyAgain() | SupplyChanged() | PurchaseOrderIssued() | Repair():
                _add_own(keys, message)
            case PurchaseOrderAcknowledged() | ShipmentNotified() | GoodsReceived():
                keys.orders.add(message.purchase_order)
                keys.lines.update((message.purchase_order, line.line) for line in message.lines)
        match message:
            case GoodsReceived():
                keys.receipts.add(message.receipt)
            case PurchaseOrderAcknowledged():
                keys.acknowledgements.add((message.supplier, message.acknowledgement))
    return keys


def _add_own(keys: Touched, message: SupplyAgain | SupplyChanged | PurchaseOrderIssued | Repair) -> None:
    """What the service's own messages are about, when it reads them back; and what is to be repaired."""
    match message:
        case Repair() if message.aggregate.startswith("sku:"):
            keys.ill.add(message.key)
        case Repair():
            keys.orders.add(message.key)
            keys.whole.add(message.key)
        case SupplyAgain():
            line, sku = message.line_key
            keys.lines.add(line)
            keys.orders.add(line[0])
            keys.skus.add(sku)
        case SupplyChanged():
            keys.lines.add((message.purchase_order, message.line))
            keys.orders.add(message.purchase_order)
            keys.skus.add(message.sku)
            keys.suppliers.add(message.purchase_order.rpartition("-")[0])
        case PurchaseOrderIssued():
            keys.orders.add(message.purchase_order)
            keys.whole.add(message.purchase_order)
            keys.skus.update(line.sku for line in message.lines)
            keys.suppliers.add(message.supplier)


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks and loads what the messages touch, and what planning their SKUs may touch: offers, suppliers, planned orders."""
    keys = touched(messages)
    known = await tx.fetch(_SKUS_OF_LINES, *_columns(keys.lines, 2), sorted(keys.whole))
    skus = [_sku(row) for row in await _locked(tx, _ADD_SKUS, keys.skus, _LOCK_SKUS, keys.ill | {row["sku"] for row in known})]
    sku_ids = [sku.sku for sku in skus]
    if keys.repairs:
        for purchase_order, line in await tx.fetch(_ALL_LINES, sku_ids):
            keys.orders.add(purchase_order)
            keys.lines.add((purchase_order, line))
    lines = _columns(keys.lines, 2)
    offers = [Offer(**row) for row in await tx.fetch(_OFFERS, sku_ids)]
    planners = {offer.supplier for offer in offers} | keys.windows
    suppliers = [Supplier(**row) for row in await _locked(tx, _ADD_SUPPLIERS, keys.suppliers, _LOCK_SUPPLIERS, planners)]
    orders = [_order(row) for row in await tx.fetch(_LOCK_ORDERS, sorted(keys.orders), [supplier.supplier for supplier in suppliers])]
    planned = [order for order in orders if order.status is Status.PLANNED]
    closing = [order.purchase_order for order in planned if order.supplier in keys.windows or order.purchase_order in keys.whole]
    return working_set(
        skus=skus,
        offers=offers,
        suppliers=suppliers,
        orders=orders,
        lines=[Line(**row) for row in await tx.fetch(_LOCK_LINES, *lines, sku_ids, [order.purchase_order for order in planned], closing)],
        shortfalls=[_shortfall(row) for row in await tx.fetch(_SHORTFALLS, sku_ids)],
        receipts=[_receipt(row) for row in await tx.fetch(_RECEIPTS, sorted(keys.receipts), sorted(keys.orders) if keys.repairs else [])],
        acknowledgements=[Acknowledgement(**row) for row in await tx.fetch(_ACKNOWLEDGEMENTS, *_columns(keys.acknowledgements, 2))],
    )


async def _locked(tx: Connection, add: str, new: set[str], lock: str, known: set[str]) -> Sequence[Mapping[str, Any]]:
    """Rows of these keys, locked in key order; the new ones are first added as stubs, in key order too."""
    await tx.execute(add, sorted(new))
    return await tx.fetch(lock, sorted(new | known))


async def save(tx: Connection, state: State, context: Context) -> None:
    """Writes the rows that changed; what refers to others goes after them, and before them when dropped."""
    await _write(tx, _UPDATE_SKUS, (_sku_values(sku) for sku in state.skus.to_write()))
    await _write(tx, _UPDATE_SUPPLIERS, ((row.supplier, row.next_number) for row in state.suppliers.changed()))
    await _write(
        tx,
        _UPSERT_OFFERS,
        ((row.supplier, row.sku, row.price, row.currency, row.pack, row.minimum, row.lead_days) for row in state.offers.changed()),
    )
    await _write(tx, _DELETE_LINES, state.lines.dropped())
    await _write(tx, _DELETE_ORDERS, ((key,) for key in state.orders.dropped()))
    await _write(tx, _UPSERT_ORDERS, (_order_values(order) for order in state.orders.changed()))
    await _write(tx, _UPSERT_LINES, (_line_values(line) for line in state.lines.to_write()))
    await _write(tx, _CLOSE_SHORTFALLS, ((sku, context.now) for sku in state.shortfalls.dropped()))
    await _write(tx, _UPSERT_SHORTFALLS, ((row.sku, row.reason, row.quantity, row.opened_at) for row in state.shortfalls.changed()))
    await _write(tx, _INSERT_RECEIPTS, (_receipt_values(receipt) for receipt in state.receipts.changed()))
    await _write(
        tx,
        _INSERT_ACKNOWLEDGEMENTS,
        ((row.supplier, row.acknowledgement, row.purchase_order, row.acknowledged_at) for row in state.acknowledgements.changed()),
    )


async def _write(tx: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """One statement for all rows, none for none."""
    values = list(rows)
    if values:
        await tx.execute(statement, *_columns(values, len(values[0])))


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[Column]:
    """Rows as columns, for `unnest`; sorted by what the rows begin with, their key."""
    ordered = sorted(rows, key=lambda row: tuple(row[:2]))
    return [[row[place] for row in ordered] for place in range(width)]


def _sku(row: Mapping[str, Any]) -> Sku:
    return Sku(**{**row, "declined_by": tuple(row["declined_by"])})


def _sku_values(sku: Sku) -> Sequence[Any]:
    # An array of arrays would be flattened; ids have no slashes.
    declined_by = "/".join(sku.declined_by)
    return (
        sku.sku, sku.waiting, sku.needed_by, sku.received_total, sku.shortage_version, sku.committed, sku.attempts, declined_by,
    )  # fmt: skip


def _order(row: Mapping[str, Any]) -> PurchaseOrder:
    return PurchaseOrder(**{**row, "status": Status(row["status"])})


def _order_values(order: PurchaseOrder) -> Sequence[Any]:
    return (
        order.purchase_order, order.supplier, order.currency, order.window_due, order.status, order.issued_at, order.last_line,
    )  # fmt: skip


def _line_values(line: Line) -> Sequence[Any]:
    return (
        line.purchase_order, line.line, line.sku, line.shortage_version, line.attempt, line.ordered, line.declined,
        line.closed_short, line.received, line.unit_price, line.lead_days, line.expected_on,
    )  # fmt: skip


def _shortfall(row: Mapping[str, Any]) -> Shortfall:
    return Shortfall(**{**row, "reason": ExceptionReason(row["reason"])})


def _receipt(row: Mapping[str, Any]) -> Receipt:
    return Receipt(**{**row, "lines": tuple(Booking(**line) for line in json.loads(row["lines"]))})


def _receipt_values(receipt: Receipt) -> Sequence[Any]:
    lines = json.dumps([asdict(booking) for booking in receipt.lines])
    return receipt.receipt, receipt.content, receipt.purchase_order, receipt.received_at, lines


_SKUS_OF_LINES = """
    SELECT sku FROM purchase_line JOIN unnest($1::text[], $2::int[]) AS named (purchase_order, line) USING (purchase_order, line)
    UNION SELECT sku FROM purchase_line WHERE purchase_order = ANY($3)
"""
_ALL_LINES = "SELECT purchase_order, line FROM purchase_line WHERE sku = ANY($1)"
_ADD_SKUS = "INSERT INTO sku (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_LOCK_SKUS = """
    SELECT sku, waiting, needed_by, received_total, shortage_version, committed, attempts, declined_by
    FROM sku WHERE sku = ANY($1) ORDER BY sku FOR UPDATE
"""
_OFFERS = """
    SELECT supplier, sku, price, currency, pack, minimum, lead_days FROM offer WHERE sku = ANY($1)
"""
_ADD_SUPPLIERS = "INSERT INTO supplier (supplier) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_LOCK_SUPPLIERS = "SELECT supplier, next_number FROM supplier WHERE supplier = ANY($1) ORDER BY supplier FOR UPDATE"
_LOCK_ORDERS = """
    SELECT purchase_order, supplier, currency, window_due, status, issued_at, last_line
    FROM purchase_order
    WHERE purchase_order = ANY($1) OR (supplier = ANY($2) AND status = 'planned')
    ORDER BY purchase_order FOR UPDATE
"""
# $1, $2 lines that messages name; $3 × $4 lines of the touched SKUs on planned orders; $5 orders that are to be issued.
_LOCK_LINES = """
    SELECT purchase_order, line, sku, shortage_version, attempt, ordered, declined, closed_short, received,
           unit_price, lead_days, expected_on
    FROM purchase_line
    WHERE (purchase_order, line) IN (
        SELECT purchase_order, line FROM purchase_line
        JOIN unnest($1::text[], $2::int[]) AS named (purchase_order, line) USING (purchase_order, line)
        WHERE sku = ANY($3)
        UNION SELECT purchase_order, line FROM purchase_line WHERE purchase_order = ANY($4) AND sku = ANY($3)
        UNION SELECT purchase_order, line FROM purchase_line WHERE purchase_order = ANY($5)
    )
    ORDER BY purchase_order, line FOR UPDATE
"""
_SHORTFALLS = "SELECT sku, reason, quantity, opened_at FROM exception WHERE sku = ANY($1) AND closed_at IS NULL"
_RECEIPTS = (
    "SELECT receipt, content, purchase_order, received_at, lines::text FROM receipt WHERE receipt = ANY($1) OR purchase_order = ANY($2)"
)
_ACKNOWLEDGEMENTS = """
    SELECT supplier, acknowledgement, purchase_order, acknowledged_at
    FROM acknowledgement JOIN unnest($1::text[], $2::text[]) AS named (supplier, acknowledgement) USING (supplier, acknowledgement)
"""

_UPDATE_SKUS = """
    UPDATE sku SET waiting = n.waiting, needed_by = n.needed_by, received_total = n.received_total,
                   shortage_version = n.shortage_version, committed = n.committed, attempts = n.attempts,
                   declined_by = string_to_array(n.declined_by, '/')
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::text[])
         AS n (sku, waiting, needed_by, received_total, shortage_version, committed, attempts, declined_by)
    WHERE sku.sku = n.sku
"""
_UPDATE_SUPPLIERS = """
    UPDATE supplier SET next_number = n.next_number
    FROM unnest($1::text[], $2::int[]) AS n (supplier, next_number) WHERE supplier.supplier = n.supplier
"""
_UPSERT_OFFERS = """
    INSERT INTO offer (supplier, sku, price, currency, pack, minimum, lead_days)
    SELECT * FROM unnest($1::text[], $2::text[], $3::numeric[], $4::text[], $5::int[], $6::int[], $7::int[])
    ON CONFLICT (supplier, sku) DO UPDATE
    SET price = excluded.price, currency = excluded.currency, pack = excluded.pack, minimum = excluded.minimum,
        lead_days = excluded.lead_days
"""
_DELETE_LINES = """
    DELETE FROM purchase_line USING unnest($1::text[], $2::int[]) AS dropped (purchase_order, line)
    WHERE (purchase_line.purchase_order, purchase_line.line) = (dropped.purchase_order, dropped.line)
"""
_DELETE_ORDERS = "DELETE FROM purchase_order WHERE purchase_order = ANY($1)"
_UPSERT_ORDERS = """
    INSERT INTO purchase_order (purchase_order, supplier, currency, window_due, status, issued_at, last_line)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::timestamptz[], $7::int[])
    ON CONFLICT (purchase_order) DO UPDATE
    SET status = excluded.status, issued_at = excluded.issued_at, last_line = excluded.last_line
"""
_UPSERT_LINES = """
    INSERT INTO purchase_line (purchase_order, line, sku, shortage_version, attempt, ordered, declined, closed_short, received,
                               unit_price, lead_days, expected_on)
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[],
                         $10::numeric[], $11::int[], $12::date[])
    ON CONFLICT (purchase_order, line) DO UPDATE
    SET ordered = excluded.ordered, declined = excluded.declined, closed_short = excluded.closed_short,
        received = excluded.received, unit_price = excluded.unit_price, lead_days = excluded.lead_days,
        expected_on = excluded.expected_on
"""
_CLOSE_SHORTFALLS = """
    UPDATE exception SET closed_at = closed.at FROM unnest($1::text[], $2::timestamptz[]) AS closed (sku, at)
    WHERE exception.sku = closed.sku AND exception.closed_at IS NULL
"""
_UPSERT_SHORTFALLS = """
    INSERT INTO exception (sku, reason, quantity, opened_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
    ON CONFLICT (sku) WHERE closed_at IS NULL DO UPDATE SET reason = excluded.reason, quantity = excluded.quantity
"""
_INSERT_RECEIPTS = """
    INSERT INTO receipt (receipt, content, purchase_order, received_at, lines)
    SELECT receipt, content, purchase_order, received_at, lines::jsonb
    FROM unnest($1::text[], $2::bytea[], $3::text[], $4::timestamptz[], $5::text[])
         AS n (receipt, content, purchase_order, received_at, lines)
"""
_INSERT_ACKNOWLEDGEMENTS = """
    INSERT INTO acknowledgement (supplier, acknowledgement, purchase_order, acknowledged_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
"""
