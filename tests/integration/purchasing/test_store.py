"""load and save against PostgreSQL: the same as in memory, in a constant number of statements, whoever else is at work."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, TypeAlias

import asyncpg
import pytest

from services.purchasing import audit, store
from services.purchasing.domain import Status
from services.purchasing.state import State
from services.purchasing.timers import SupplyAgain, SupplyOverdue, WindowClosed
from shared.contracts.base import Currency
from shared.contracts.inventory import ShortageChanged
from shared.contracts.suppliers import (
    AcknowledgedLine,
    Balance,
    GoodsReceived,
    LineAnswer,
    OfferChanged,
    PurchaseOrderAcknowledged,
    ReceivedLine,
)
from shared.service import Applicable, Context, Effect, Schedule, Service, Timer, Unschedule
from tests.unit.purchasing.test_read_back import READ_BACK, Backup, told_by_topic
from tests.unit.purchasing.world import MONDAY, SERVICE, World, messages_of, rows_of, transact

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
SKUS = ["W", "X", "Y", "Z"]
SUPPLIERS = ["A", "B", "C"]
TABLES = ("sku", "offer", "supplier", "purchase_order", "purchase_line", "exception", "receipt", "acknowledgement")


async def apply(tx: Any, messages: Sequence[Applicable], now: datetime, number: int, service: Service[State] = SERVICE) -> list[Effect]:
    """One transaction's load, handlers, decisions and save; timers as the runtime keeps them."""
    state = await store.load(tx, messages)
    effects = transact(state, messages, now, number, service)
    await store.save(tx, state, Context(now, number, "", "", now, now))
    for message in messages:
        if isinstance(message, WindowClosed | SupplyOverdue | SupplyAgain):
            await tx.execute(
                "DELETE FROM runtime.timer WHERE kind = $1 AND key = $2 AND due <= $3", type(message).__name__, message.key, now
            )
    for effect in effects:
        if isinstance(effect, Schedule | Unschedule):
            kind, key = type(effect.timer).__name__, effect.timer.key
            await tx.execute("DELETE FROM runtime.timer WHERE kind = $1 AND key = $2", kind, key)
            if isinstance(effect, Schedule):
                await tx.execute("INSERT INTO runtime.timer (kind, key, due) VALUES ($1, $2, $3)", kind, key, effect.due)
    return effects


def offer(supplier: str, sku: str, price: int = 1, pack: int = 1) -> OfferChanged:
    return OfferChanged(supplier=supplier, sku=sku, price=Decimal(price), currency=Currency("EUR"), pack=pack, lead_days=price)


def shortage(sku: str, waiting: int, version: int, received: int = 0) -> ShortageChanged:
    return ShortageChanged(sku=sku, waiting=waiting, needed_by=MONDAY, received_total=received, version=version)


def receipt(name: str, purchase_order: str, line: int, sku: str, *, good: int, damaged: int = 0) -> GoodsReceived:
    lines = (ReceivedLine(line=line, sku=sku, good=good, damaged=damaged, balance=Balance.FOLLOWS),)
    return GoodsReceived(receipt=name, purchase_order=purchase_order, received_at=MONDAY, lines=lines)


def answer(name: str, purchase_order: str, line: int, said: LineAnswer, quantity: int | None = None) -> PurchaseOrderAcknowledged:
    lines = (AcknowledgedLine(line=line, answer=said, quantity=quantity),)
    supplier = purchase_order.rpartition("-")[0]
    return PurchaseOrderAcknowledged(
        acknowledgement=name, purchase_order=purchase_order, supplier=supplier, acknowledged_at=MONDAY, lines=lines
    )


def a_message(random: Random, numbers: Iterator[int], lines: Sequence[tuple[str, int, str]]) -> Applicable:
    """Any message about few things; `lines` are (purchase order, line, SKU) that may be named."""
    sku, supplier, number = random.choice(SKUS), random.choice(SUPPLIERS), next(numbers)
    purchase_order, line, of = random.choice(lines) if lines else ("A-1", 1, "X")
    makers: list[tuple[int, Callable[[], Applicable]]] = [
        (2, lambda: offer(supplier, sku, random.randint(1, 3), random.choice([1, 6]))),
        (6, lambda: shortage(sku, random.randint(0, 30), number, random.randint(0, 5))),
        (2, lambda: answer(f"A{number}", purchase_order, line, LineAnswer.REJECTED)),
        (2, lambda: answer(f"A{number}", purchase_order, line, LineAnswer.CHANGED, random.randint(1, 9))),
        (4, lambda: receipt(f"R{number}", purchase_order, line, of, good=random.randint(0, 9), damaged=random.randint(0, 1))),
        (2, lambda: WindowClosed(key=supplier)),
        (1, lambda: SupplyOverdue(key=f"{purchase_order}/{line}")),
    ]
    [make] = random.choices([make for _, make in makers], [weight for weight, _ in makers])
    return make()


async def violations(pool: Pool) -> dict[str, list[asyncpg.Record]]:
    found = {name: await pool.fetch(check) for name, check in audit.CHECKS.items()}
    return {name: rows for name, rows in found.items() if rows}


async def everything(tx: Any) -> dict[str, list[Any]]:
    """Every row of the database, through `load`."""
    skus = [row["sku"] for row in await tx.fetch("SELECT sku FROM sku ORDER BY sku")]
    lines = await tx.fetch("SELECT purchase_order, line, sku FROM purchase_line")
    named: list[Applicable] = [WindowClosed(key=row["supplier"]) for row in await tx.fetch("SELECT supplier FROM supplier")]
    named += [SupplyOverdue(key=f"{row['purchase_order']}/{row['line']}") for row in lines]
    named += [receipt(row["receipt"], "none", 1, "X", good=1) for row in await tx.fetch("SELECT receipt FROM receipt")]
    acknowledgements = await tx.fetch("SELECT supplier, acknowledgement FROM acknowledgement")
    named += [answer(row["acknowledgement"], f"{row['supplier']}-0", 1, LineAnswer.REJECTED) for row in acknowledgements]
    return rows_of(await store.load(tx, [*named, *(shortage(sku, 0, 0) for sku in skus)]))


def batches(random: Random, world: World, versions: Iterator[int], count: int) -> Iterator[list[Applicable]]:
    """What comes next, and the time at which it comes."""
    for _ in range(count):
        lines = [(line.purchase_order, line.line, line.sku) for line in world.state.lines.all()]
        batch = [a_message(random, versions, lines) for _ in range(random.randint(1, 6))]
        world.now += timedelta(hours=random.randint(0, 30))
        yield batch


async def check_same(pool: Pool, tx: Any, world: World) -> None:
    stored, kept = await everything(tx), rows_of(world.state)
    for name, rows in kept.items():
        assert sorted(stored[name], key=repr) == sorted(rows, key=repr), name
    assert await violations(pool) == {}


@pytest.mark.parametrize("seed", range(3))
async def test_the_database_does_what_memory_does(pool: Pool, seed: int) -> None:
    random, world, versions = Random(seed), World(), itertools.count(1)
    async with pool.acquire() as tx:
        for batch in batches(random, world, versions, 80):
            expected = world.apply(*batch)
            async with tx.transaction():
                assert await apply(tx, batch, world.now, world.number) == expected
        await check_same(pool, tx, world)
    assert len(world.state.lines.all()) > 10


@pytest.mark.parametrize("seed", range(3))
async def test_a_restored_database_reads_back_as_memory_does(pool: Pool, seed: int) -> None:
    random, world, versions = Random(seed), World(), itertools.count(1)
    async with pool.acquire() as tx:
        for batch in batches(random, world, versions, 40):
            world.apply(*batch)
            async with tx.transaction():
                await apply(tx, batch, world.now, world.number)
        backup = Backup.of(world)
        for batch in batches(random, world, versions, 40):
            world.apply(*batch)
        restored = backup.begun(world)
        for messages in told_by_topic(world, backup):
            expected = restored.apply(*messages, service=READ_BACK)
            async with tx.transaction():
                assert await apply(tx, messages, restored.now, restored.number, READ_BACK) == expected
        again: list[Timer] = [timer for timer, _ in restored.timers.values() if isinstance(timer, SupplyAgain)]
        assert again
        expected = restored.apply(*again)
        async with tx.transaction():
            assert await apply(tx, again, restored.now, restored.number) == expected
        await check_same(pool, tx, restored)


async def test_whoever_plans_the_same_sku_waits_and_sees_what_was_planned(pool: Pool) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await apply(tx, [offer("A", "X")], MONDAY, 1)
    async with pool.acquire() as first, pool.acquire() as second, pool.acquire() as watcher:
        async with first.transaction():
            await apply(first, [shortage("X", 5, 2)], MONDAY, 2)

            async def plan_too() -> list[Effect]:
                async with second.transaction():
                    return await apply(second, [shortage("X", 7, 3)], MONDAY, 3)

            racing = asyncio.create_task(plan_too())
            waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
            while not await watcher.fetchval(waiting, second.get_server_pid()):
                assert not racing.done()
        [told] = messages_of(await racing)
    assert (told.key, getattr(told, "committed", None)) == ("X", 7)
    assert await pool.fetchval("SELECT count(*) FROM purchase_line") == 1


async def test_many_at_once_neither_deadlock_nor_buy_twice(pool: Pool) -> None:
    numbers, versions = itertools.count(1), itertools.count(1)
    async with pool.acquire() as tx, tx.transaction():
        await apply(tx, [offer(supplier, sku) for supplier in SUPPLIERS for sku in SKUS], MONDAY, next(numbers))

    async def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(60):
            lines = [tuple(row) for row in await pool.fetch("SELECT purchase_order, line, sku FROM purchase_line")]
            batch = [a_message(random, versions, lines) for _ in range(random.randint(1, 6))]
            async with pool.acquire() as tx, tx.transaction():
                number = next(numbers)
                await apply(tx, batch, MONDAY + timedelta(hours=number), number)

    await asyncio.gather(*(work(seed) for seed in range(5)))
    assert await violations(pool) == {}
    assert await pool.fetchval("SELECT count(*) FROM purchase_line") > 20


async def test_the_number_of_statements_does_not_grow_with_the_batch(pool: Pool) -> None:
    async def statements(count: int, version: int) -> int:
        names = [f"{version}-{number}" for number in range(count)]
        batch = [*(offer("A", sku) for sku in names), *(shortage(sku, 5, version) for sku in names)]
        seen: list[str] = []
        async with pool.acquire() as tx, tx.transaction():
            with tx.query_logger(lambda query: seen.append(query.query)):
                state = await store.load(tx, batch)
                transact(state, batch, MONDAY, version, SERVICE)
                await store.save(tx, state, Context(MONDAY, version, "", "", MONDAY, MONDAY))
        return len(seen)

    await statements(1, 1)  # a connection's first statements look types up
    assert await statements(1, 2) == await statements(300, 3)


async def test_one_need_cannot_have_two_lines(pool: Pool) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await apply(tx, [offer("A", "X"), shortage("X", 5, 1)], MONDAY, 1)
        await tx.execute(
            "INSERT INTO purchase_order SELECT 'A-2', supplier, currency, window_due, status, issued_at, 1 FROM purchase_order"
        )
        with pytest.raises(asyncpg.UniqueViolationError, match="sku_shortage_version_attempt"):
            await tx.execute(
                "INSERT INTO purchase_line SELECT 'A-2', line, sku, shortage_version, attempt, ordered, declined, closed_short, received,"
                " unit_price, lead_days, expected_on FROM purchase_line"
            )


CORRUPTIONS = {
    "a SKU's committed units are the sum over its lines": "UPDATE sku SET committed = committed + 1 WHERE sku = 'X'",
    "a line's received units are those of its receipts": "UPDATE purchase_line SET received = received + 1 WHERE sku = 'X'",
    "every need is bought, or an operator's": "UPDATE sku SET waiting = waiting + 9 WHERE sku = 'X'",
    "an open exception has a need": "UPDATE sku SET waiting = 0 WHERE sku = 'Z'",
    "a planned order has a window that will close": "DELETE FROM runtime.timer WHERE kind = 'WindowClosed'",
    "issued units with a date become overdue": "DELETE FROM runtime.timer WHERE kind = 'SupplyOverdue'",
    "an issued order has lines, each with units": "DELETE FROM purchase_line WHERE sku = 'X'",
    "nothing is bought twice for one need": """
        ALTER TABLE purchase_line DROP CONSTRAINT purchase_line_sku_shortage_version_attempt_key;
        UPDATE purchase_line SET sku = 'X', shortage_version = 1, attempt = 1
    """,
    "ordered = outstanding + received + declined + closed short, none negative": """
        ALTER TABLE purchase_line DROP CONSTRAINT purchase_line_check; UPDATE purchase_line SET declined = ordered WHERE sku = 'X'
    """,
}


@pytest.mark.parametrize("check", audit.CHECKS)
async def test_the_audit_sees_what_is_wrong(pool: Pool, check: str) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await apply(tx, [offer("A", "X"), offer("B", "Y"), shortage("X", 5, 1), shortage("Z", 3, 1)], MONDAY, 1)
        await apply(tx, [WindowClosed(key="A")], MONDAY + timedelta(hours=4), 2)
        await apply(tx, [receipt("R", "A-1", 1, "X", good=2), shortage("Y", 4, 3)], MONDAY + timedelta(hours=5), 3)
    assert await violations(pool) == {}
    assert await pool.fetchval("SELECT array_agg(status ORDER BY status) FROM purchase_order") == [Status.ISSUED, Status.PLANNED]
    await pool.execute(CORRUPTIONS[check])
    assert check in await violations(pool)


async def test_the_audit_counts(pool: Pool) -> None:
    assert [await pool.fetchval(count) for count in audit.COUNTS.values()] == [0] * len(audit.COUNTS)
