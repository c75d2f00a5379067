"""A broken SKU or purchase order on its real tables: found, held back with whatever touches it, repaired, caught up with."""

from datetime import timedelta

import pytest

from shared.contracts.purchasing import PurchaseOrderIssued, SupplyChanged
from shared.contracts.suppliers import LineAnswer
from tests.integration.guard.conftest import Make
from tests.integration.guard.keeper import NOON, Keeper
from tests.integration.purchasing.test_store import answer, offer, receipt, shortage

MEANT = (
    "SELECT sku, waiting, received_total, committed FROM sku ORDER BY sku",
    "SELECT purchase_order, line, sku, ordered, declined, closed_short, received FROM purchase_line ORDER BY purchase_order, line",
    "SELECT sku, reason, quantity FROM exception WHERE closed_at IS NULL ORDER BY sku",
    "SELECT kind, key FROM runtime.timer ORDER BY kind, key",
)

DAMAGE = {
    "UPDATE sku SET committed = 2 WHERE sku = 'X'": ("sku:X", True, "SKU X: committed 2 → 9"),
    "UPDATE sku SET waiting = 40 WHERE sku = 'X'": ("sku:X", True, "its numbers are right"),
    "UPDATE exception SET quantity = 4 WHERE sku = 'Z'": ("sku:Z", True, "its numbers are right"),
    "UPDATE exception SET closed_at = now() WHERE sku = 'Z'": ("sku:Z", True, "its numbers are right"),
    "UPDATE purchase_line SET received = 6 WHERE purchase_order = 'A-1' AND line = 1": (
        "purchase_order:A-1", True, "line 1 of A-1: received 6 → 3",
    ),
    "DELETE FROM runtime.timer WHERE kind = 'SupplyOverdue'": ("purchase_order:A-1", True, "its numbers are right"),
    "DELETE FROM runtime.timer WHERE kind = 'WindowClosed'": ("purchase_order:A-2", True, "its numbers are right"),
    "DELETE FROM receipt": ("purchase_order:A-1", False, "line 1 of A-1 has received 3 and closed short 1, its receipts 0 and 0"),
    "UPDATE receipt SET lines = jsonb_set(lines, '{0,good}', '2')": (
        "purchase_order:A-1", False, "inventory has booked 3 units of X, the receipts have 2: were receipts lost?",
    ),
}  # fmt: skip


@pytest.fixture
async def purchasing(keeper: Make) -> Keeper:
    """A-1 is issued: ten X, of which three came and one is closed short, and five Y; A-2 is planned for three W; nobody offers Z."""
    it = await keeper("purchasing")
    await it.hears(offer("A", "X"), offer("A", "Y"), offer("A", "W"), shortage("X", 10, 1), shortage("Y", 5, 1), shortage("Z", 2, 1))
    await it.passes(timedelta(hours=5))
    await it.hears(receipt("R-1", "A-1", 1, "X", good=3, damaged=1))
    await it.hears(shortage("X", 6, 2, 3), shortage("W", 3, 1))
    assert await it.broken() == {}
    assert await it.looks() == []
    return it


async def meant(keeper: Keeper) -> list[list[tuple[object, ...]]]:
    return [[tuple(row) for row in await keeper.pool.fetch(sql)] for sql in MEANT]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_was_changed_by_hand_is_found_and_repaired_or_said(purchasing: Keeper, damage: str) -> None:
    ill, repairable, words = DAMAGE[damage]
    before = await meant(purchasing)
    await purchasing.pool.execute(damage)
    assert await purchasing.looks() == [ill]
    assert await purchasing.repairs(ill, dry_run=True) == (repairable, words) if repairable else True
    repaired, result = await purchasing.repairs(ill)
    assert repaired == repairable
    assert words in result
    if not repairable:
        assert await purchasing.looks() == [ill]
        return
    assert await purchasing.looks() == []
    assert await purchasing.broken() == {}
    if "waiting" not in damage:
        assert await meant(purchasing) == before


async def test_whatever_touches_a_broken_sku_waits_and_the_rest_goes_on(purchasing: Keeper) -> None:
    await purchasing.pool.execute("UPDATE sku SET committed = 2 WHERE sku = 'X'")
    assert await purchasing.looks() == ["sku:X"]
    await purchasing.hears(
        shortage("X", 7, 3, 3), answer("K-1", "A-1", 1, LineAnswer.REJECTED), receipt("R-2", "A-1", 2, "Y", good=5), shortage("Y", 9, 2)
    )
    assert await purchasing.parked() == [
        ("sku:X", "quarantined", "sku:X"),
        ("purchase_order:A-1", "quarantined", "sku:X"),
        ("purchase_order:A-1", "behind_parked", None),  # of another SKU, but of the same order
    ]
    assert await purchasing.pool.fetchval("SELECT waiting FROM sku WHERE sku = 'Y'") == 9
    repaired, result = await purchasing.repairs("sku:X")
    assert repaired, result
    assert result.endswith("what waited for it is replayed, from 2 dead letter(s) on")
    assert await purchasing.parked() == []
    assert await purchasing.looks() == []
    assert await purchasing.pool.fetchval("SELECT received FROM purchase_line WHERE purchase_order = 'A-1' AND line = 2") == 5


async def test_nothing_is_ordered_that_is_broken(purchasing: Keeper) -> None:
    """Somebody planned a thousand by hand: the window stays open until it is repaired."""
    await purchasing.pool.execute("UPDATE purchase_line SET ordered = 1000 WHERE sku = 'W'")
    issued = await purchasing.published(PurchaseOrderIssued)
    assert await purchasing.looks() == ["sku:W"]
    await purchasing.passes(timedelta(hours=5))
    assert await purchasing.published(PurchaseOrderIssued) == issued
    assert await purchasing.parked() == [("supplier:A", "quarantined", "sku:W")]
    repaired, result = await purchasing.repairs("sku:W")
    assert repaired, result
    assert await purchasing.published(PurchaseOrderIssued) == issued + 1
    lines = "SELECT ordered FROM purchase_line JOIN purchase_order USING (purchase_order) WHERE sku = 'W' AND status = 'issued'"
    assert [row["ordered"] for row in await purchasing.pool.fetch(lines)] == [3]
    assert await purchasing.broken() == {}


async def test_inventory_hears_of_every_line_of_what_was_repaired(purchasing: Keeper) -> None:
    await purchasing.pool.execute("DELETE FROM runtime.outbox")
    await purchasing.pool.execute("UPDATE sku SET committed = 2 WHERE sku = 'X'")
    assert (await purchasing.repairs("sku:X"))[0]
    assert await purchasing.published(SupplyChanged) == 1
    assert purchasing.now > NOON
