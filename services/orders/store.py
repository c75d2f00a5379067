"""Orders and PostgreSQL: loads and locks in sets, writes in sets. The number of statements does not depend on the number of messages."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.orders.domain import Line, Order
from services.orders.handlers import OrderInvalid
from services.orders.read_back import ClaimAgain
from services.orders.state import FactKey, Facts, Recorded, State
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.inventory import DemandRefused, DemandServed
from shared.contracts.orders import (
    CancelRefused,
    LineCancelled,
    LineEvent,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
)
from shared.service import Applicable, Connection, Context, Repair

LINE_COLUMNS = (
    "order_id", "line", "sku", "unit_price", "ordered", "cancelled", "shipped", "served",
    "served_version", "answered", "ship_by", "promise_version", "demand_version", "version",
)  # fmt: skip
"""In the order of `Line`'s fields, and of the table."""


@dataclass(slots=True)
class _Named:
    """What messages name: ids that may become orders (`coming`), orders, all lines of orders (`whole`) or single ones, facts, and
    orders to be repaired (`ill`)."""

    coming: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    single: set[tuple[str, int]] = field(default_factory=set)
    cancellations: set[FactKey] = field(default_factory=set)
    shipments: set[FactKey] = field(default_factory=set)
    ill: set[str] = field(default_factory=set)

    def add(self, message: Applicable) -> None:
        """What others tell of orders. Raises TypeError for what is nothing to this service."""
        match message:
            case OrderPlaced() | OrderInvalid():
                self.coming.add(message.order)
            case DemandServed() | DemandRefused():
                self.single.add((message.order, message.line))
            case OrderCancelRequested(line=None):
                self.whole.add(message.order)
                self.cancellations.add((message.order, message.request))
            case OrderCancelRequested(line=int(line)):
                self.single.add((message.order, line))
                self.cancellations.add((message.order, message.request))
            case ShipmentConfirmed():
                self.single.update((message.order, shipped.line) for shipped in message.lines)
                self.shipments.add((message.order, message.shipment))
            case _:
                self._add_told(message)

    def _add_told(self, message: Applicable) -> None:
        """What orders itself told, is to tell again, or is to put right."""
        match message:
            case OrderAccepted() | OrderRejected():
                self.coming.add(message.order)
            case LineEvent():
                self.single.update((message.order, change.line) for change in message.lines)
            case CancelRefused():
                self.orders.add(message.order)
                self.cancellations.add((message.order, message.request))
            case OrderCompleted():
                self.orders.add(message.order)
            case ClaimAgain():
                self.whole.add(message.key)
            case Repair():
                self.whole.add(message.key)
                self.ill.add(message.key)
            case _:
                raise TypeError(f"orders has no use for {type(message).__name__}")
        match message:
            case LineShipped():
                self.shipments.add((message.order, message.shipment))
            case LineCancelled(request=str(request)):
                self.cancellations.add((message.order, request))


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks the orders that the messages name, then loads the lines and natural keys that they touch.

    Ids that may become orders get a stub first, so that there is a row to lock; a message about an unknown order leaves none.
    """
    state, named = State(), _Named()
    for message in messages:
        named.add(message)
    if named.coming:
        stubs = await tx.fetch(
            "INSERT INTO orders (order_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING order_id", sorted(named.coming)
        )
        state.stubs = {row["order_id"] for row in stubs}
    await _lock(tx, state, named.coming | named.orders | named.whole | {order for order, _ in named.single})
    await _load_lines(tx, state, named.whole, {(order, line) for order, line in named.single if order not in named.whole})
    if named.ill:
        state.recorded = await _recorded(tx, named.ill)
    state.cancellations = await _known(tx, "SELECT order_id, request, content FROM cancellation", "request", named.cancellations)
    state.shipments = await _known(tx, "SELECT order_id, shipment, content FROM shipment", "shipment", named.shipments)
    return state


async def _lock(tx: Connection, state: State, orders: Collection[str]) -> None:
    rows = await tx.fetch(
        "SELECT order_id, status, placed_at, queued_at, content, open_lines, completed_at FROM orders"
        " WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE",
        list(orders),
    )
    for order, status, *rest in rows:
        if status == "accepted":
            state.orders[order] = Order(order, *rest)
        elif status == "rejected":
            state.rejected.add(order)


async def _load_lines(tx: Connection, state: State, whole: set[str], single: set[tuple[str, int]]) -> None:
    columns = ", ".join(LINE_COLUMNS)
    rows: list[Any] = []
    if whole:
        rows += await tx.fetch(f"SELECT {columns} FROM line WHERE order_id = ANY($1)", list(whole))  # noqa: S608  (our own columns)
    if single:
        rows += await tx.fetch(
            f"SELECT {columns} FROM unnest($1::text[], $2::integer[]) AS named (order_id, line) JOIN line USING (order_id, line)",  # noqa: S608
            *_columns(single),
        )
    for row in rows:
        line = Line._make(row)
        state.lines.setdefault(line.order, {})[line.line] = line


async def _recorded(tx: Connection, orders: set[str]) -> dict[str, list[Recorded]]:
    recorded: dict[str, list[Recorded]] = {order: [] for order in orders}
    for order, type_, data in await tx.fetch(
        "SELECT order_id, type, data FROM timeline WHERE order_id = ANY($1) ORDER BY order_id, id", list(orders)
    ):
        recorded[order].append(Recorded(type_, json.loads(data)))
    return recorded


async def _known(tx: Connection, select: str, key: str, facts: set[FactKey]) -> Facts:
    if not facts:
        return Facts()
    rows = await tx.fetch(
        f"{select} JOIN unnest($1::text[], $2::text[]) AS named (order_id, {key}) USING (order_id, {key})", *_columns(facts)
    )
    return Facts({(order, id_): content for order, id_, content in rows})


async def save(tx: Connection, state: State, _context: Context) -> None:
    """Writes what the transaction changed."""
    await _save_orders(tx, state)
    if state.repaired:
        await tx.execute("DELETE FROM line WHERE order_id = ANY($1)", list(state.repaired))
    await _save_lines(tx, state)
    for table, key, facts in (("cancellation", "request", state.cancellations), ("shipment", "shipment", state.shipments)):
        if facts.new:
            rows = [(order, id_, facts.known[order, id_]) for order, id_ in facts.new]
            await tx.copy_records_to_table(table, records=rows, columns=("order_id", key, "content"))
    if state.timeline:
        await tx.copy_records_to_table(
            "timeline",
            records=[
                (order, at, type(message).__name__, message.model_dump_json(exclude=_LEFT_OUT.get(type(message), _ORDER)), cause)
                for order, at, message, cause in state.timeline
            ],
            columns=("order_id", "at", "type", "data", "cause"),
        )
    if state.repaired:
        await tx.execute(_REPAIR_ORDERS, *_columns([(order, state.orders[order].open_lines) for order in state.repaired]))


_REPAIR_ORDERS = """
    UPDATE orders SET open_lines = n.open_lines,
        completed_at = (SELECT at FROM timeline WHERE timeline.order_id = n.order_id AND type = 'OrderCompleted')
    FROM unnest($1::text[], $2::integer[]) AS n (order_id, open_lines) WHERE orders.order_id = n.order_id
"""
_ORDER = {"order"}
_LEFT_OUT: dict[type[Message], set[str]] = {OrderAccepted: {"order", "customer"}}
"""Personal data stands once, in `orders`."""


async def _save_orders(tx: Connection, state: State) -> None:
    if state.placed:
        await tx.execute(
            """
            UPDATE orders SET status = 'accepted', errors = NULL,
                customer_id = n.customer_id, customer_name = n.name, customer_email = n.email,
                customer_language = n.language, customer_zone = n.zone,
                currency = n.currency, placed_at = n.placed_at, queued_at = n.queued_at, content = n.content,
                open_lines = n.open_lines, completed_at = n.completed_at
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                        $8::timestamptz[], $9::timestamptz[], $10::bytea[], $11::integer[], $12::timestamptz[])
              AS n (order_id, customer_id, name, email, language, zone, currency, placed_at, queued_at, content, open_lines, completed_at)
            WHERE orders.order_id = n.order_id
            """,
            *_columns([_placed_row(placed, state.orders[placed.order]) for placed in state.placed.values()]),
        )
    whole = state.placed.keys() | state.repaired
    counted = [state.orders[order] for order in state.counted if order not in whole]
    if counted:
        await tx.execute(
            """
            UPDATE orders SET open_lines = n.open_lines, completed_at = n.completed_at
            FROM unnest($1::text[], $2::integer[], $3::timestamptz[]) AS n (order_id, open_lines, completed_at)
            WHERE orders.order_id = n.order_id
            """,
            *_columns([(order.order, order.open_lines, order.completed_at) for order in counted]),
        )
    if state.errors:
        await tx.execute(
            """
            UPDATE orders SET status = 'rejected', errors = n.errors::jsonb
            FROM unnest($1::text[], $2::text[]) AS n (order_id, errors) WHERE orders.order_id = n.order_id
            """,
            list(state.errors),
            [json.dumps([error.model_dump() for error in errors]) for errors in state.errors.values()],
        )
    if state.stubs:
        await tx.execute("DELETE FROM orders WHERE order_id = ANY($1)", list(state.stubs))


def _placed_row(placed: OrderPlaced, order: Order) -> tuple[Any, ...]:
    customer = placed.customer
    return (
        order.order, customer.id, customer.name, customer.email, customer.language, customer.time_zone,
        str(placed.currency), order.placed_at, order.queued_at, order.content, order.open_lines, order.completed_at,
    )  # fmt: skip


async def _save_lines(tx: Connection, state: State) -> None:
    whole = state.placed.keys() | state.repaired
    new = [line for order in whole for line in state.lines[order].values()]
    if new:
        await tx.copy_records_to_table("line", records=new, columns=LINE_COLUMNS)
    changed = [state.lines[order][line] for order, line in state.changed if order not in whole]
    if changed:
        await tx.execute(
            # `line` alone is a type of PostgreSQL's own.
            """
            UPDATE line SET cancelled = n.cancelled, shipped = n.shipped, served = n.served, served_version = n.served_version,
                answered = n.answered, ship_by = n.ship_by, promise_version = n.promise_version,
                demand_version = n.demand_version, version = n.version
            FROM unnest($1::public.line[]) AS n WHERE line.order_id = n.order_id AND line.line = n.line
            """,
            changed,
        )


def _columns(rows: Collection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows (at least one) as columns, as `unnest` takes them."""
    return list(zip(*rows, strict=True))
