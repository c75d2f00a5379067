"""What the machine can do: the unavoidable reads and writes of the work of four services, bare.

    commerce.orders → orders → demand → inventory → allocated → orders → orders.events → notifier
                                        inventory → shortages → purchasing
                  suppliers.messages → purchasing → received → inventory → allocated → …

aiokafka and asyncpg, batches in sets, an outbox; no rules beyond "first come, first served", no checks, headers, promises, time,
recovery. What ours does beyond it, and it leaves out: planned supply does not come back as a promise, so its chain is shorter.
LIMIT_GRAIN (order, batch) = what one internal record carries; LIMIT_LINGER_MS = how long a small batch waits; LIMIT_RECORDS = the most
in a batch.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from tests.bench import rival
from tests.bench.rival import EVENTS, ORDERS, PARTITIONS, RECEIPTS

GRAIN = os.environ.get("LIMIT_GRAIN", "batch")
LINGER = float(os.environ.get("LIMIT_LINGER_MS", "20")) / 1000
RECORDS = int(os.environ.get("LIMIT_RECORDS", "2000"))
READS = {
    "orders": (ORDERS, "allocated"),
    "inventory": ("demand", "received"),
    "purchasing": ("shortages", RECEIPTS),
    "notifier": (EVENTS,),
}

Connection: TypeAlias = Any
Records: TypeAlias = dict[str, list[ConsumerRecord]]
"""Topic → what came of it."""


class OrderLine(msgspec.Struct, gc=False):
    """A line of an order as the shop sends it."""

    line: int
    sku: str
    quantity: int


class Customer(msgspec.Struct, gc=False):
    """Of the customer only the address is kept."""

    email: str


class Order(msgspec.Struct, gc=False):
    """An order as the shop sends it."""

    order: str
    customer: Customer
    lines: list[OrderLine]


class Demand(msgspec.Struct, array_like=True, gc=False):
    """A line on its way between services; `allocated` = units set aside now."""

    order: str
    line: int
    sku: str
    quantity: int
    allocated: int = 0


class Units(msgspec.Struct, array_like=True, gc=False):
    """Units of a SKU: short, or received."""

    sku: str
    units: int


class Arrived(msgspec.Struct, gc=False):
    """A line of a receipt."""

    sku: str
    good: int


class Receipt(msgspec.Struct, gc=False):
    """A receipt as the dock sends it."""

    lines: list[Arrived]


class Decided(msgspec.Struct, gc=False):
    """One line of a decision: units set aside now, and how many were asked for."""

    line: int
    sku: str
    quantity: int
    allocated: int


class Decision(msgspec.Struct, gc=False):
    """What is published of an order."""

    order: str
    lines: list[Decided]


class Out(msgspec.Struct, gc=False):
    """A record to publish."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes


encode = msgspec.json.Encoder().encode
order_of = msgspec.json.Decoder(Order).decode
receipt_of = msgspec.json.Decoder(Receipt).decode
decision_of = msgspec.json.Decoder(Decision).decode
demand_of = msgspec.json.Decoder(list[Demand]).decode
units_of = msgspec.json.Decoder(list[Units]).decode


def partition(key: str) -> int:
    """Where a key goes."""
    return crc32(key.encode()) % PARTITIONS


def packed(topic: str, items: Iterable[Any], key: Callable[[Any], str]) -> list[Out]:
    """Items as records: one per partition, or one per order where items have one."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    if GRAIN == "order":
        for item in items:
            groups[item.order].append(item)
        return [Out(topic, partition(order), order.encode(), encode(group)) for order, group in groups.items()]
    for item in items:
        groups[partition(key(item))].append(item)
    return [Out(topic, number, None, encode(group)) for number, group in groups.items()]


def units(topic: str, amounts: dict[str, int]) -> list[Out]:
    """Amounts of SKUs as records, one per partition."""
    groups: dict[int, list[Units]] = defaultdict(list)
    for sku, amount in amounts.items():
        groups[partition(sku)].append(Units(sku, amount))
    return [Out(topic, number, None, encode(group)) for number, group in groups.items()]


async def orders(db: Connection, came: Records) -> list[Out]:
    """Stores orders and raises their demand; stores answers and publishes them as decisions, one record per order and batch."""
    placed = [order_of(record.value) for record in came.get(ORDERS, ())]
    answers = [item for record in came.get("allocated", ()) for item in demand_of(record.value)]
    out: list[Out] = []
    if placed:
        demands = [Demand(order.order, line.line, line.sku, line.quantity) for order in placed for line in order.lines]
        await db.execute(
            "INSERT INTO orders.placed SELECT * FROM unnest($1::text[], $2::text[])",
            [order.order for order in placed], [order.customer.email for order in placed],
        )  # fmt: skip
        await db.execute("INSERT INTO orders.line SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::int[])", *columns(demands))
        out += packed("demand", demands, lambda demand: demand.sku)
    if answers:
        await db.execute(
            "UPDATE orders.line l SET allocated = l.allocated + u.units FROM"
            " (SELECT o, n, sum(a)::int AS units FROM unnest($1::text[], $2::int[], $3::int[]) u(o, n, a) GROUP BY o, n) u"
            " WHERE l.order_id = u.o AND l.line = u.n",
            [item.order for item in answers], [item.line for item in answers], [item.allocated for item in answers],
        )  # fmt: skip
        decided: dict[str, list[Decided]] = defaultdict(list)
        for item in answers:
            decided[item.order].append(Decided(item.line, item.sku, item.quantity, item.allocated))
        out += [Out(EVENTS, partition(order), order.encode(), encode(Decision(order, lines))) for order, lines in decided.items()]
    return out


LOCK = "SELECT FROM inventory.stock WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE"
ALLOCATE = """
    WITH line AS MATERIALIZED (
        SELECT u.*, greatest(0, least(u.quantity, s.free - (sum(u.quantity) OVER (PARTITION BY u.sku ORDER BY u.place) - u.quantity)))::int AS units
        FROM unnest($1::text[], $2::int[], $3::text[], $4::int[]) WITH ORDINALITY AS u(order_id, line, sku, quantity, place)
        JOIN inventory.stock s USING (sku)),
    kept AS (INSERT INTO inventory.demand (order_id, line, sku, quantity, allocated)
        SELECT order_id, line, sku, quantity, units FROM line ORDER BY place),
    taken AS (UPDATE inventory.stock s SET free = s.free - t.units
        FROM (SELECT sku, sum(units)::int AS units FROM line GROUP BY sku) t WHERE s.sku = t.sku)
    SELECT array_agg(units ORDER BY place) FROM line"""
RELEASE = """
    WITH came AS (SELECT sku, sum(units)::int AS units FROM unnest($1::text[], $2::int[]) u(sku, units) GROUP BY sku),
    queue AS (SELECT d.place, d.order_id, d.line, d.sku, d.quantity, d.quantity - d.allocated AS open, s.free + c.units AS free,
            sum(d.quantity - d.allocated) OVER (PARTITION BY d.sku ORDER BY d.place) - (d.quantity - d.allocated) AS before
        FROM came c JOIN inventory.stock s USING (sku) JOIN inventory.demand d ON d.sku = c.sku AND d.allocated < d.quantity),
    served AS MATERIALIZED (SELECT *, least(open, free - before)::int AS units FROM queue WHERE before < free),
    kept AS (UPDATE inventory.demand d SET allocated = d.allocated + s.units FROM served s WHERE d.place = s.place),
    taken AS (UPDATE inventory.stock s SET free = s.free + c.units - coalesce(t.units, 0)
        FROM came c LEFT JOIN (SELECT sku, sum(units)::int AS units FROM served GROUP BY sku) t USING (sku) WHERE s.sku = c.sku)
    SELECT order_id, line, sku, quantity, units FROM served"""


async def inventory(db: Connection, came: Records) -> list[Out]:
    """Sets units aside, first come, first served; says what is short."""
    asked = [item for record in came.get("demand", ()) for item in demand_of(record.value)]
    received = [item for record in came.get("received", ()) for item in units_of(record.value)]
    await db.execute(LOCK, sorted({item.sku for item in asked} | {item.sku for item in received}))
    out: list[Out] = []
    if asked:
        for item, allocated in zip(asked, await db.fetchval(ALLOCATE, *columns(asked)), strict=True):
            item.allocated = allocated
        short: dict[str, int] = defaultdict(int)
        for item in asked:
            if item.allocated < item.quantity:
                short[item.sku] += item.quantity - item.allocated
        out += packed("allocated", asked, lambda item: item.order) + units("shortages", short)
    if received:
        rows = await db.fetch(RELEASE, [item.sku for item in received], [item.units for item in received])
        out += packed("allocated", [Demand(*row) for row in rows], lambda item: item.order)
    return out


async def purchasing(db: Connection, came: Records) -> list[Out]:
    """Adds what is short to the open purchase of its SKU; books receipts and passes them on."""
    short: dict[str, int] = defaultdict(int)
    for record in came.get("shortages", ()):
        for item in units_of(record.value):
            short[item.sku] += item.units
    good: dict[str, int] = defaultdict(int)
    for record in came.get(RECEIPTS, ()):
        for line in receipt_of(record.value).lines:
            good[line.sku] += line.good
    if short:
        await db.execute(
            "INSERT INTO purchasing.line AS l SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT (sku) DO UPDATE SET ordered = l.ordered + excluded.ordered",
            *by_sku(short),
        )  # fmt: skip
    if good:
        await db.execute(
            "UPDATE purchasing.line l SET received = l.received + u.good FROM unnest($1::text[], $2::int[]) u(sku, good) WHERE l.sku = u.sku",
            *by_sku(good),
        )  # fmt: skip
    return units("received", good)


async def notifier(db: Connection, came: Records) -> list[Out]:
    """Keeps what customers are to be told."""
    told = [(decision_of(record.value).order, record.value.decode()) for record in came[EVENTS]]
    await db.execute(
        "INSERT INTO notifier.notice (order_id, body) SELECT * FROM unnest($1::text[], $2::text[])", *map(list, zip(*told, strict=True))
    )
    return []


HANDLERS: dict[str, Callable[[Connection, Records], Awaitable[list[Out]]]] = {
    "orders": orders, "inventory": inventory, "purchasing": purchasing, "notifier": notifier,
}  # fmt: skip


def columns(items: Sequence[Demand]) -> tuple[list[Any], ...]:
    """What is asked for, as sets are written: orders, lines, SKUs, quantities."""
    return [item.order for item in items], [item.line for item in items], [item.sku for item in items], [item.quantity for item in items]


def by_sku(amounts: dict[str, int]) -> list[list[Any]]:
    """SKUs in the order in which rows are locked, and their amounts."""
    skus = sorted(amounts)
    return [skus, [amounts[sku] for sku in skus]]


async def polled(consumer: AIOKafkaConsumer) -> AsyncIterator[Records]:
    """Batches by topic. A small one waits a little and takes what has come meanwhile."""
    while True:
        found = await consumer.getmany(timeout_ms=200, max_records=RECORDS)
        if LINGER and found and sum(map(len, found.values())) < RECORDS // 2:
            await asyncio.sleep(LINGER)
            for place, records in (await consumer.getmany(timeout_ms=0, max_records=RECORDS)).items():
                found.setdefault(place, []).extend(records)
        came: Records = defaultdict(list)
        for place, records in found.items():
            came[place.topic.removeprefix(f"{rival.NAMESPACE}.")] += records
        if came:
            yield came


async def serve(service: str) -> None:
    """Batch → one transaction (state and outbox) → publish → acknowledge. What is published leaves the outbox with the next batch."""
    handle = HANDLERS[service]
    consumer = AIOKafkaConsumer(
        *map(rival.topic, READS[service]), bootstrap_servers=rival.KAFKA, group_id=rival.topic(service), enable_auto_commit=False,
        auto_offset_reset="earliest", fetch_max_wait_ms=100,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=rival.KAFKA, acks="all", max_batch_size=1_000_000)
    await producer.start()
    await consumer.start()
    db = await rival.connected()
    await rival.ready([consumer])
    last = 0
    async for came in polled(consumer):
        async with db.transaction():
            out = await handle(db, came)
            await db.execute(f"DELETE FROM {service}.outbox WHERE id <= $1", last)
            if out:
                last = await db.fetchval(
                    f"WITH kept AS (INSERT INTO {service}.outbox (topic, value) SELECT * FROM unnest($1::text[], $2::bytea[]) RETURNING id)"
                    " SELECT max(id) FROM kept",
                    [record.topic for record in out], [record.value for record in out],
                )  # fmt: skip
        await publish(producer, out)
        await consumer.commit()


async def publish(producer: AIOKafkaProducer, out: Sequence[Out]) -> None:
    """Sends records as whole batches, and waits for the broker."""
    sent, batches = [], dict[tuple[str, int], Any]()
    for record in out:
        place = rival.topic(record.topic), record.partition
        batch = batches.get(place) or batches.setdefault(place, producer.create_batch())
        if batch.append(key=record.key, value=record.value, timestamp=None) is None:
            sent.append(await producer.send_batch(batches.pop(place), place[0], partition=place[1]))
            batch = batches.setdefault(place, producer.create_batch())
            batch.append(key=record.key, value=record.value, timestamp=None)
    sent += [await producer.send_batch(batch, name, partition=number) for (name, number), batch in batches.items()]
    await asyncio.gather(*sent)


TABLES = """
    CREATE SCHEMA orders;
    CREATE TABLE orders.placed (order_id text PRIMARY KEY, email text NOT NULL);
    CREATE TABLE orders.line (order_id text, line int, sku text NOT NULL, quantity int NOT NULL, allocated int NOT NULL DEFAULT 0,
        PRIMARY KEY (order_id, line)) WITH (fillfactor = 80);
    CREATE SCHEMA inventory;
    CREATE TABLE inventory.stock (sku text PRIMARY KEY, free int NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE inventory.demand (place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id text NOT NULL, line int NOT NULL,
        sku text NOT NULL, quantity int NOT NULL, allocated int NOT NULL) WITH (fillfactor = 80);
    CREATE INDEX ON inventory.demand (sku, place) WHERE allocated < quantity;
    CREATE SCHEMA purchasing;
    CREATE TABLE purchasing.line (sku text PRIMARY KEY, ordered int NOT NULL, received int NOT NULL DEFAULT 0) WITH (fillfactor = 50);
    CREATE SCHEMA notifier;
    CREATE TABLE notifier.notice (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id text NOT NULL, body text NOT NULL);
"""


async def tables(stock: rival.Stock) -> None:
    """Makes the tables and books the opening stock."""
    db = await rival.connected()
    await db.execute(TABLES)
    for service in READS:
        await db.execute(
            f"CREATE TABLE {service}.outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL, value bytea NOT NULL)"
        )
    await db.copy_records_to_table("stock", schema_name="inventory", records=list(stock.items()), columns=["sku", "free"])
    await db.execute("ANALYZE")
    await db.close()


if __name__ == "__main__":
    rival.main(tuple(READS), READS, tables, serve, uvloop.run)
