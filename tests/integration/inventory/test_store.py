"""Inventory's SQL does what the rows in memory do, at a cost that does not grow, and its audit finds what is wrong."""

import random
from typing import Any

import asyncpg
import pytest

from deploy.local import fairness
from services.inventory import audit, store
from services.inventory.domain import Demand, Movement, MovementKind, Sku, State, Supply
from shared.contracts.warehouse import BackorderPolicy
from shared.service import Context
from tests.integration.inventory.stored import StoredHouse
from tests.unit.inventory.house import NOON, House, counted, day, defined, demand, received, supply
from tests.unit.inventory.test_read_back import READ_BACK, Tapped, backup, by_topic
from tests.unit.inventory.world import SKUS, STEPS, World


async def rows(pool: "asyncpg.Pool[Any]") -> dict[str, Any]:
    """Everything in the tables, as aggregates."""
    stocks, demands, supplies, ledger = [
        await pool.fetch(f"SELECT {columns} FROM {table} ORDER BY {order}")
        for table, columns, order in (
            ("sku", store._SKU, "sku"),
            ("demand", store._DEMAND, "order_id, line"),
            ("supply", store._SUPPLY, "purchase_order, line"),
            ("ledger", store._MOVEMENT, "id"),
        )
    ]
    return {
        "skus": [store._sku(Sku(*row)) for row in stocks],
        "demands": [Demand(*row) for row in demands],
        "supplies": [Supply(*row) for row in supplies],
        "ledger": [Movement(*row) for row in ledger],
    }


def rows_of(house: House) -> dict[str, Any]:
    """The same of a house in memory."""
    return {
        "skus": [house.skus[sku] for sku in sorted(house.skus)],
        "demands": [house.demands[line] for line in sorted(house.demands)],
        "supplies": [house.supplies[line] for line in sorted(house.supplies)],
        "ledger": house.ledger,
    }


async def violations(pool: "asyncpg.Pool[Any]") -> dict[str, int]:
    """Check → number of rows that it complains about, where it does."""
    found = {name: await pool.fetch(sql) for name, sql in audit.CHECKS.items()}
    return {name: len(complaints) for name, complaints in found.items() if complaints}


@pytest.mark.parametrize("seed", range(4))
async def test_the_tables_hold_what_the_rows_in_memory_hold(pool, seed):
    choices = random.Random(seed)
    house, stored = House(), StoredHouse(pool)
    world = World(house)
    opening = [("define", 3), ("define", 1), ("count", 5)]
    for steps in [
        opening,
        *([(choices.choice(STEPS), choices.randrange(10_000)) for _ in range(choices.randint(1, 12))] for _ in range(30)),
    ]:
        messages = world.messages(steps)
        if not messages:
            continue
        house.apply(*messages)
        sent = await stored.apply(*messages)
        assert sorted(sent, key=repr) == sorted(house.sent, key=repr)
        assert await rows(pool) == {
            "skus": [house.skus[sku] for sku in sorted(house.skus)],
            "demands": [house.demands[line] for line in sorted(house.demands)],
            "supplies": [house.supplies[line] for line in sorted(house.supplies)],
            "ledger": house.ledger,
        }
        assert [row["number"] for row in await pool.fetch("SELECT number FROM ledger ORDER BY id")] == house.numbers
    assert await violations(pool) == {}
    assert [tuple(row) for row in await pool.fetch(fairness.ENTRIES)] == house.entries()
    assert await pool.fetchval(audit.COUNTS["lines"]) == len(house.demands)
    assert await pool.fetchval(audit.COUNTS["movements"]) == len(house.ledger) > 20


@pytest.mark.parametrize("seed", range(3))
async def test_restored_tables_read_back_as_rows_in_memory_do(pool, seed):
    choices = random.Random(seed)
    house, stored = Tapped(), StoredHouse(pool)
    world = World(house)
    opening = [("define", 3), ("define", 1), ("count", 5)]
    for steps in [opening, *([(choices.choice(STEPS), choices.randrange(10_000)) for _ in range(8)] for _ in range(10))]:
        messages = world.messages(steps)
        house.apply(*messages)
        await stored.apply(*messages)
    restored, heard, told = backup(house), len(house.heard), len(house.told_ever)
    for _ in range(10):
        house.apply(*world.messages([(choices.choice(STEPS), choices.randrange(10_000)) for _ in range(8)]))
    restored.number = stored.number = 1_000_000
    for messages in by_topic(house.heard[heard:], [message for sent in house.told_ever[told:] for message in sent]):
        restored.apply(*messages, service=READ_BACK)
        assert await stored.apply(*messages, service=READ_BACK) == restored.sent == []
        assert await rows(pool) == rows_of(restored)
    timers, restored.timers = list(restored.timers.values()), {}
    assert timers
    assert sorted(await stored.apply(*timers), key=repr) == sorted(restored.apply(*timers).sent, key=repr)
    assert await rows(pool) == rows_of(restored)
    assert await violations(pool) == {}


async def test_a_sku_carries_the_number_of_its_latest_transaction_and_a_line_the_version_of_its_claim(pool):
    stored = StoredHouse(pool)
    await stored.apply(defined(), counted(1), demand("O1", 1, version=7), demand("O2", 1, version=8))
    await stored.apply(received(1), demand("O1", 1, version=9, shipped=1, asks=7))
    assert await pool.fetch("SELECT order_id, demand_version, version FROM demand ORDER BY 1") == [("O1", 7, 9), ("O2", 8, 8)]
    assert await pool.fetchval("SELECT version FROM sku") == 2
    assert await pool.fetch("SELECT number, kind, order_id, waiting FROM ledger ORDER BY id") == [
        (1, "counted", None, 0), (1, "allocated", "O1", 0), (1, "backordered", "O2", 1), (2, "received", None, 0),
        (2, "shipped", "O1", 0), (2, "allocated", "O2", -1),
    ]  # fmt: skip


async def test_a_batch_takes_as_many_statements_as_one_message_of_each_kind(pool):
    stored = StoredHouse(pool)
    await stored.apply(*(defined(sku) for sku in SKUS), demand("O1", 2), demand("O2", 2), supply(9, day(2)))
    # The driver asks a connection once what the rows of each table are made of.
    await stored.apply(counted(1, "C"), received(1, "R-0", sku="C"), demand("O1", 1, version=2))
    await stored.apply(counted(1), received(1), supply(8, day(2), version=2), demand("O3", 1), demand("O2", 1, version=2))
    few = stored.statements
    many = [demand(f"O{number}", 3, sku=SKUS[number % 3]) for number in range(100, 400)]
    receipts = [received(2, f"R-{number}", sku=SKUS[number % 3]) for number in range(2, 60)]
    supplies = [supply(number, day(number), purchase_order=f"P-{number}", sku=SKUS[number % 3]) for number in range(1, 60)]
    await stored.apply(counted(4, "B"), *receipts, *supplies, *many, demand("O2", 0, version=3))
    assert stored.statements == few > 0
    assert await violations(pool) == {}


async def test_a_long_queue_is_read_from_its_head_by_its_index(pool):
    stored = StoredHouse(pool)
    await stored.apply(defined(), *(demand(f"O{number}", 2, at=number % 97) for number in range(3_000)))
    await pool.execute("ANALYZE demand")
    plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {store._QUEUES}", ["A"], [5]))
    assert "demand_queue" in plan
    assert "Sort" not in plan
    assert "rows=3000" not in plan


async def test_the_database_orders_ids_as_the_code_does(pool):
    """A locale's collation would put 'a' before 'B': another queue than the code's, and another order of locks."""
    await StoredHouse(pool).apply(defined(), *(demand(order, 1, at=0) for order in ("a", "B", "é", "_", "Z9", "Z10")))
    await StoredHouse(pool, number=1).apply(received(3))
    assert await pool.fetch("SELECT order_id FROM demand WHERE served = 1 ORDER BY order_id") == [("B",), ("Z10",), ("Z9",)]
    collations = await pool.fetch(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name = ANY($1)", ["sku", "order_id", "purchase_order", "receipt"],
    )  # fmt: skip
    assert collations == [("C",)]  # whatever the locale of the database


@pytest.mark.parametrize("known", [True, False])
async def test_two_transactions_take_turns_at_a_sku_even_if_it_is_new(pool, known):
    if known:
        await StoredHouse(pool).apply(defined())
    async with pool.acquire() as first, pool.acquire() as second:
        await second.execute("SET lock_timeout = '50ms'")
        async with first.transaction():
            assert (await store.load(first, [defined("B"), demand("O1", 1)])).skus.keys() == {"A", "B"}
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with second.transaction():
                    await store.load(second, [received(1)])
        async with first.transaction(), second.transaction():
            await store.load(first, [defined("B")])
            await store.load(second, [received(1)])


async def test_supply_that_has_come_is_not_read_again(pool):
    await StoredHouse(pool).apply(defined(), *(supply(number % 2, day(1), purchase_order=f"P-{number}") for number in range(6)))
    async with pool.acquire() as tx, tx.transaction():
        assert (await store.load(tx, [defined()])).supplies.keys() == {("P-1", 1), ("P-3", 1), ("P-5", 1)}
        assert ("P-2", 1) in (await store.load(tx, [received(1, purchase_order="P-2")])).supplies


async def test_a_receipt_line_that_comes_again_books_nothing(pool):
    stored = StoredHouse(pool)
    await stored.apply(defined(), received(3))
    assert await stored.apply(received(3)) == []
    assert await pool.fetchval("SELECT on_hand FROM sku") == 3


async def test_the_database_itself_books_a_receipt_line_once(pool):
    state = State()
    state.movements += [Movement("A", MovementKind.RECEIVED, on_hand=1, receipt="R-1", purchase_order="P-1", line=1, cause="m")] * 2
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.acquire() as tx, tx.transaction():
            await store.save(tx, state, Context(NOON, 1, "", "", NOON, NOON))


async def test_what_is_set_aside_cannot_exceed_what_is_there(pool):
    await StoredHouse(pool).apply(defined(), counted(2), demand("O1", 2))
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("UPDATE sku SET on_hand = 1")


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("UPDATE sku SET on_hand = on_hand + 1 WHERE sku = 'A'", "the ledger's sums are the balances"),
        ("DELETE FROM sku WHERE sku = 'A'", "the ledger's sums are the balances"),
        ("DELETE FROM ledger WHERE kind = 'allocated'", "the ledger's sums are the balances"),
        ("UPDATE sku SET waiting = waiting + 1 WHERE sku = 'A'", "the ledger's sums are the balances"),
        ("DELETE FROM ledger WHERE kind = 'backordered'", "the ledger's sums are the balances"),
        ("UPDATE ledger SET number = 0 WHERE kind = 'received'", "the ledger's order is the journal's"),
        (
            "UPDATE demand SET served = served - 1 WHERE order_id = 'O1'",
            "allocated is what is served and not shipped, waiting what is open",
        ),
        ("UPDATE sku SET waiting = waiting + 1 WHERE sku = 'A'", "allocated is what is served and not shipped, waiting what is open"),
        ("UPDATE sku SET on_hand = allocated - 1 WHERE sku = 'A'", "free units are never negative"),
        ("UPDATE sku SET on_hand = on_hand + 1 WHERE sku = 'A'", "nothing lies free while a line waits"),
        ("UPDATE sku SET received_total = 0 WHERE sku = 'A'", "what was received is in the ledger, once"),
        ("UPDATE sku SET received_total = 7 WHERE sku = 'B'", "what was received is in the ledger, once"),
        ("UPDATE demand SET wanted = 1 WHERE order_id = 'O1'", "a line is served what it wants, or what has shipped"),
        ("UPDATE demand SET shipped = served + 1 WHERE order_id = 'O1'", "a line is served what it wants, or what has shipped"),
        ("UPDATE demand SET served = 1, shipped = 0 WHERE order_id = 'O1'", "each line moved as the ledger says"),
        ("DELETE FROM demand WHERE order_id = 'O1'", "each line moved as the ledger says"),
        ("UPDATE ledger SET waiting = waiting + 1 WHERE order_id = 'O2'", "each line moved as the ledger says"),
        ("UPDATE demand SET wanted = wanted + 1 WHERE order_id = 'O2'", "each line moved as the ledger says"),
        ("UPDATE demand SET ship_by = '2026-03-03' WHERE order_id = 'O1'", "who does not wait has no promise"),
    ],
)
async def test_the_audit_finds_damage(pool, damage, check):
    stored = StoredHouse(pool)
    await stored.apply(
        defined(), defined("B", BackorderPolicy.DENY), counted(1), demand("O1", 3), demand("O2", 2), demand("O3", 1, sku="B")
    )
    await stored.apply(received(2), demand("O1", 3, version=2, shipped=1))
    assert await violations(pool) == {}
    await pool.execute("ALTER TABLE sku DROP CONSTRAINT sku_check")
    await pool.execute(damage)
    assert check in await violations(pool)


async def test_a_promise_in_the_past_is_found(pool):
    await StoredHouse(pool).apply(defined(), supply(1, day(0)), demand("O1", 1), demand("O2", 1))
    assert await pool.fetch(audit.PROMISE_IN_THE_PAST, day(1)) == []
    assert [row["order_id"] for row in await pool.fetch(audit.PROMISE_IN_THE_PAST, day(2))] == ["O1"]
