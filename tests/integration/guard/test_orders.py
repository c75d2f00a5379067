"""A broken order on its real tables: found, held back, repaired from its story, caught up with."""

import pytest

from shared.contracts.inventory import DemandServed
from shared.contracts.orders import DemandSet
from tests.integration.guard.conftest import Make
from tests.integration.guard.keeper import Keeper
from tests.unit.orders.desk import cancel, placed, shipped

MEANT = (
    "SELECT order_id, line, sku, ordered, cancelled, shipped, served, answered, version FROM line ORDER BY order_id, line",
    "SELECT order_id, status, open_lines, completed_at FROM orders ORDER BY order_id",
    "SELECT order_id, type, data FROM timeline ORDER BY order_id, id",
)
GONE = "its story has 0 times OrderAccepted"

DAMAGE = {
    "UPDATE orders SET open_lines = 7 WHERE order_id = 'A'": (True, "open lines 7 → 2, completed: False → False"),
    "UPDATE orders SET completed_at = now() WHERE order_id = 'A'": (True, "open lines 2 → 2, completed: True → False"),
    "UPDATE orders SET completed_at = NULL WHERE order_id = 'B'": (True, "open lines 0 → 0, completed: False → True"),
    "UPDATE line SET version = 9 WHERE order_id = 'A' AND line = 1": (True, "line 1: version 9 → 3"),
    "UPDATE line SET served = 5 WHERE order_id = 'A' AND line = 1": (True, "line 1: served 5 → 3"),
    "UPDATE line SET shipped = 3 WHERE order_id = 'A' AND line = 1": (True, "line 1: shipped 3 → 1"),
    "UPDATE line SET ordered = 4 WHERE order_id = 'A' AND line = 1": (True, "line 1: ordered 4 → 5"),
    "UPDATE line SET answered = false WHERE order_id = 'A' AND line = 1": (True, "line 1: answered False → True"),
    "UPDATE line SET sku = 'S9' WHERE order_id = 'A' AND line = 2": (True, "line 2: sku S9 → S2"),
    "DELETE FROM line WHERE order_id = 'A' AND line = 1": (True, "line 1 was lost: ordered=5"),
    "INSERT INTO line SELECT order_id, 9, sku, unit_price, 1, 0, 0, 0, 0, false, NULL, 0, 0, 0 FROM line WHERE order_id = 'A' AND line = 2": (
        True, "line 9 was never accepted: removed",
    ),
    "DELETE FROM timeline WHERE type = 'OrderAccepted' AND order_id = 'A'": (False, GONE),
    "DELETE FROM timeline WHERE type = 'LineShipped' AND order_id = 'A'": (False, "line 1 has version 3 with "),
    "DELETE FROM orders WHERE order_id = 'A'": (False, "the order itself is not there as accepted"),
    "UPDATE timeline SET cause = '' WHERE order_id = 'A'": (False, "everything told names its cause"),
}  # fmt: skip


async def demand_version(keeper: Keeper, order: str, line: int) -> int:
    return int(await keeper.pool.fetchval("SELECT demand_version FROM line WHERE order_id = $1 AND line = $2", order, line))


async def served(keeper: Keeper, units: int, order: str, line: int = 1) -> DemandServed:
    number = await demand_version(keeper, order, line)
    return DemandServed(order=order, line=line, served=units, demand_version=number, version=number + 10**6)


@pytest.fixture
async def orders(keeper: Make) -> Keeper:
    """A has shipped one of five, holds two, waits for two, and has another line; B is completed."""
    keeper_of_orders = await keeper("orders")
    await keeper_of_orders.hears(placed("A", 5, 3), placed("B", 1))
    await keeper_of_orders.hears(await served(keeper_of_orders, 3, "A"), await served(keeper_of_orders, 1, "B"))
    await keeper_of_orders.hears(shipped("p1", (1, 1)), shipped("p2", (1, 1), order="B"))
    assert await keeper_of_orders.broken() == {}
    assert await keeper_of_orders.looks() == []
    return keeper_of_orders


async def meant(keeper: Keeper) -> list[list[tuple[object, ...]]]:
    return [[tuple(row) for row in await keeper.pool.fetch(sql)] for sql in MEANT]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_was_changed_by_hand_is_found_and_repaired_or_said(orders: Keeper, damage: str) -> None:
    repairable, words = DAMAGE[damage]
    ill = "order:B" if "'B'" in damage else "order:A"
    before = await meant(orders)
    await orders.pool.execute(damage)
    assert await orders.looks() == [ill]
    spoilt = await meant(orders)
    await orders.hears(cancel("r1", "A", 2, 1), cancel("r1", "B", 1), placed("C", 1))
    assert await orders.parked() == [(ill, "quarantined", ill)]
    assert await orders.pool.fetchval("SELECT count(*) FROM timeline WHERE order_id = 'C'") == 1
    would = await orders.repairs(ill, dry_run=True)
    assert would[0] == repairable
    assert words in would[1]
    assert len(await orders.parked()) == 1
    now = await meant(orders)
    assert [[row for row in rows if row[0] == ill[-1]] for rows in now] == [[row for row in rows if row[0] == ill[-1]] for rows in spoilt]
    assert await orders.repairs(ill) == would
    if not repairable:
        assert await orders.looks() == [ill]
        return
    assert would[1].endswith("what waited for it is replayed, from 1 dead letter(s) on")
    assert await orders.looks() == []
    assert await orders.broken() == {}
    assert await orders.parked() == []
    lines, heads, story = await meant(orders)
    assert [row[:4] for row in lines if row[0] != "C"] == [row[:4] for row in before[0]]
    assert [row for row in lines if row[:2] == ("A", 1)] == [row for row in before[0] if row[:2] == ("A", 1)]
    assert heads[1] == before[1][1]
    assert all(entry in story for entry in before[2])
    assert await orders.pool.fetchval("SELECT cancelled FROM line WHERE order_id = 'A' AND line = 2") == 1


async def test_a_stub_that_was_left_behind_goes(orders: Keeper) -> None:
    await orders.pool.execute("INSERT INTO orders (order_id) VALUES ('X')")
    assert await orders.looks() == ["order:X"]
    await orders.hears(placed("X", 2))
    assert await orders.repairs("order:X") == (
        True,
        "a row that never became an order was removed; what waited for it is replayed, from 1 dead letter(s) on",
    )
    assert await orders.looks() == []
    assert await orders.pool.fetchval("SELECT status FROM orders WHERE order_id = 'X'") == "accepted"


async def test_inventory_hears_every_claim_of_a_repaired_order(orders: Keeper) -> None:
    before = await orders.published(DemandSet)
    await orders.pool.execute("UPDATE line SET served = 5 WHERE order_id = 'A' AND line = 1")
    assert (await orders.repairs("order:A"))[0]  # nobody needs to have found it before
    assert await orders.published(DemandSet) > before
    await orders.hears(await served(orders, 4, "A"))
    assert await orders.pool.fetchval("SELECT allocated FROM line_amounts WHERE order_id = 'A' AND line = 1") == 3
