"""A broken SKU on its real tables: found, its lines' messages held back too, repaired from its ledger, caught up with."""

import json

import pytest

from services.inventory import handlers
from shared.contracts.inventory import DemandServed, ShortageChanged
from tests.integration.guard.conftest import Make
from tests.integration.guard.keeper import Keeper
from tests.unit.inventory.house import counted, day, defined, demand, received, supply

MEANT = (
    "SELECT sku, on_hand, allocated, waiting, received_total FROM sku ORDER BY sku",
    "SELECT order_id, line, wanted, shipped, served, refused FROM demand ORDER BY order_id, line",
    "SELECT sku, order_id, sum(on_hand), sum(allocated), sum(waiting) FROM ledger GROUP BY 1, 2 ORDER BY 1, 2",
)

DAMAGE = {
    "UPDATE sku SET on_hand = 11 WHERE sku = 'A'": (True, "SKU A: on_hand 11 → 5"),
    "UPDATE sku SET allocated = 2 WHERE sku = 'A'": (True, "SKU A: allocated 2 → 5"),
    "UPDATE sku SET waiting = 9 WHERE sku = 'A'": (True, "SKU A: waiting 9 → 3"),
    "UPDATE sku SET received_total = 0 WHERE sku = 'A'": (True, "SKU A: received_total 0 → 1"),
    "UPDATE demand SET served = 4 WHERE order_id = 'O2'": (True, "line O2/1: served 4 → 2"),
    "UPDATE demand SET shipped = 0 WHERE order_id = 'O1'": (True, "line O1/1: shipped 0 → 1"),
    "UPDATE demand SET wanted = 9 WHERE order_id = 'O3'": (True, "line O3/1: wanted 9 → 2"),
    "UPDATE demand SET wanted = 1 WHERE order_id = 'O1'": (True, "line O1/1: wanted 1 → 4"),
    "UPDATE demand SET refused = -1 WHERE order_id = 'O3'": (False, "only orders knows what is wanted"),
    "UPDATE demand SET ship_by = '2027-01-01' WHERE order_id = 'O1'": (True, "its numbers are right"),
    "UPDATE sku SET on_hand = on_hand + 1, received_total = received_total + 1 WHERE sku = 'A'": (
        False, "1 units more are on hand and received than the ledger has",
    ),
    "DELETE FROM ledger WHERE order_id = 'O1' AND kind = 'shipped'": (True, "ledger of line O1/1: (held, shipped, waiting) (4, 0, 0) → (3, 1, 0)"),
    "UPDATE ledger SET allocated = 1 WHERE order_id = 'O1' AND kind = 'allocated'": (True, "ledger of line O1/1: (held, shipped, waiting)"),
    "DELETE FROM ledger WHERE order_id = 'O3'": (True, "ledger of line O3/1: (held, shipped, waiting) (0, 0, 0) → (0, 0, 2)"),
    "DELETE FROM demand WHERE order_id = 'O2'": (False, "the ledger moves lines that are not there"),
    "DELETE FROM ledger WHERE kind = 'counted' AND sku = 'A'": (False, "the ledger has lost its count"),
    "DELETE FROM ledger WHERE kind = 'received' AND sku = 'A'": (False, "1 units more are on hand and received than the ledger has"),
    "UPDATE ledger SET number = 10 ^ 18 WHERE order_id = 'O1' AND kind = 'allocated'": (False, "the ledger's order is the journal's"),
}  # fmt: skip


@pytest.fixture
async def inventory(keeper: Make) -> Keeper:
    """O1 has shipped one and holds three, O2 holds two and waits for one, O3 waits for two; B is another SKU."""
    it = await keeper("inventory")
    await it.hears(defined(), counted(5), defined("B"), counted(3, "B"))
    await it.hears(demand("O1", 4), demand("O2", 3), demand("O3", 2), demand("O9", 1, sku="B"), supply(3, day(5)))
    await it.hears(demand("O1", 4, 2, shipped=1, asks=1), received(1))
    assert await it.broken() == {}
    assert await it.looks() == []
    return it


async def meant(keeper: Keeper) -> list[list[tuple[object, ...]]]:
    return [[tuple(row) for row in await keeper.pool.fetch(sql)] for sql in MEANT]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_was_changed_by_hand_is_found_and_repaired_or_said(inventory: Keeper, damage: str) -> None:
    repairable, words = DAMAGE[damage]
    before = await meant(inventory)
    await inventory.pool.execute(damage)
    assert await inventory.looks() == ["sku:A"]
    [(right_until, number, message)] = await inventory.pool.fetch(
        "SELECT DISTINCT right_until, number, message FROM runtime.quarantine"
    )  # fmt: skip
    assert right_until is not None
    assert number is None or "number" in damage
    assert message is None or "number" in damage
    spoilt = await meant(inventory)
    await inventory.hears(demand("O4", 1), demand("O3", 1, 2), received(3, "R-2"), demand("O8", 1, sku="B"))
    waits = [("sku:A", "quarantined", "sku:A"), ("line:O4/1", "quarantined", "sku:A"), ("line:O3/1", "quarantined", "sku:A")]
    assert await inventory.parked() == waits
    assert await inventory.pool.fetchval("SELECT served FROM demand WHERE order_id = 'O8'") == 1
    would = await inventory.repairs("sku:A", dry_run=True)
    assert would[0] == repairable
    assert words in would[1]
    assert await inventory.parked() == waits
    assert [[row for row in rows if "O8" not in row and "B" not in row] for rows in await meant(inventory)] == [
        [row for row in rows if "B" not in row] for rows in spoilt
    ]
    assert await inventory.repairs("sku:A") == would
    if not repairable:
        assert await inventory.looks() == ["sku:A"]
        return
    assert would[1].endswith("what waited for it is replayed, from 3 dead letter(s) on")
    assert await inventory.parked() == []
    assert await inventory.looks() == []
    assert await inventory.broken() == {}
    stock = {row[0]: row[1:] for row in (await meant(inventory))[0]}
    assert stock["A"] == (8, 8, 0, 4)
    served = {row[0]: row[4] for row in (await meant(inventory))[1]}
    assert served | {"O9": 1, "O8": 1} == {"O1": 4, "O2": 3, "O3": 1, "O4": 1, "O9": 1, "O8": 1}
    assert [row[:2] for row in before[2]] == [row[:2] for row in (await meant(inventory))[2] if row[1] not in ("O4", "O8")]


async def test_a_bug_in_a_rule_reaches_no_table_and_holds_back_its_own_line_only(
    inventory: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is served from its end."""
    real = handlers.allocate  # type: ignore[attr-defined]
    before = await meant(inventory)
    monkeypatch.setattr(handlers, "allocate", lambda free, lines: real(free, sorted(lines, key=lambda line: line.place)[-1:]))
    await inventory.hears(received(1, "R-2"), demand("O8", 1, sku="B"), demand("O7", 1, sku="B"))
    assert await inventory.parked() == [("sku:A", "invariant_broken", None)]
    detail = await inventory.pool.fetchval("SELECT detail FROM runtime.dead_letter")
    assert detail.startswith("first come, first served: sku:A: O3/1 was served, O2/1 stands before it and waits")
    assert [row for row in (await meant(inventory))[0] if row[0] == "A"] == [row for row in before[0] if row[0] == "A"]
    assert await inventory.pool.fetchval("SELECT sum(served) FROM demand WHERE sku = 'B'") == 3
    assert await inventory.looks() == []
    await inventory.hears(demand("O4", 1))
    assert await inventory.parked() == [("sku:A", "invariant_broken", None)]
    monkeypatch.undo()
    letter = await inventory.pool.fetchval("SELECT id FROM runtime.dead_letter")
    await inventory.pool.execute("INSERT INTO runtime.dead_letter_request (letter, action, actor) VALUES ($1, 'replay', 'ann')", letter)
    await inventory.repairs("sku:A")
    assert await inventory.parked() == []
    assert await inventory.pool.fetchval("SELECT served FROM demand WHERE order_id = 'O2'") == 3


async def test_a_message_to_a_broken_sku_waits_even_before_anybody_looked(inventory: Keeper) -> None:
    """Each line has an aggregate of its own; the SKU's first message finds it broken, and the others wait for it too."""
    await inventory.pool.execute("UPDATE sku SET allocated = 1 WHERE sku = 'A'")
    await inventory.hears(*(demand(f"O{number}", 1) for number in range(20, 150)), demand("O1", 4, 3, shipped=3, asks=1))
    assert {reason for _, reason, _ in await inventory.parked()} <= {"quarantined"}
    assert await inventory.broken() != {}
    repaired, done = await inventory.repairs("sku:A")
    assert repaired, done
    assert await inventory.parked() == []
    assert await inventory.broken() == {}
    assert await inventory.looks() == []


async def test_everybody_hears_of_a_repaired_sku(inventory: Keeper) -> None:
    await inventory.pool.execute("DELETE FROM runtime.outbox")
    await inventory.pool.execute("UPDATE sku SET waiting = 9 WHERE sku = 'A'")
    assert (await inventory.repairs("sku:A"))[0]
    assert await inventory.published(ShortageChanged) == 1
    rows = await inventory.pool.fetch(
        "SELECT convert_from(value, 'UTF8')::jsonb -> 'items' AS items FROM runtime.outbox WHERE type = $1", DemandServed.TYPE
    )
    assert sorted(item["order"] for row in rows for item in json.loads(row["items"])) == ["O1", "O2", "O3"]
