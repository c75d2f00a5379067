"""Somebody changes a row by hand: what touches it waits, everything else flows, and a repair puts it right and catches up."""

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from deploy.local.cli import app
from shared.settings import SERVICES
from tests.flows.outside import Outside, eventually


async def backorder(world: Outside, *arguments: str) -> tuple[int, Any]:
    """Exit code and answer of a command."""
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json", "--home", str(world.home.path)])
    return result.exit_code, json.loads(result.stdout)


async def test_a_row_changed_by_hand_holds_back_its_own_until_it_is_repaired(world: Outside) -> None:
    sku, other = world.name("sku"), world.name("sku")
    await world.stock(sku, 5)
    await world.stock(other, 5)
    before = world.order((sku, 2))
    await world.publish(before)
    await world.line(before.order, allocated=2)
    await world.rows("inventory", "UPDATE sku SET allocated = 3 WHERE sku = $1", sku)

    async def broken() -> list[dict[str, Any]]:
        return list((await backorder(world, "quarantine", "list"))[1])

    await eventually(broken, "somebody to look at the tables")
    order = world.order((sku, 1), (other, 1))
    await world.publish(order)
    await world.line(order.order, 2, allocated=1)
    await world.line(order.order, 1, pending=1)
    letter = await world.dead_letter("inventory", "quarantined", waits_for=f"sku:{sku}")
    assert letter["aggregate"] == f"line:{order.order}/1"
    ill = f"inventory/sku:{sku}"
    found = await broken()
    assert {(each["id"], each["waiting"]) for each in found} == {(ill, 1)}
    assert "allocated = 3, ledger_allocated = 2" in found[0]["detail"]
    _, overview = await backorder(world, "overview")
    assert overview["quarantined"].keys() == {ill}
    code, audit = await backorder(world, "audit", "--wait", "30")
    assert code == 1
    assert {(each["service"], each["row"]["aggregate"]) for each in audit["checks"]["nothing is quarantined"]["violations"]} == {
        ("inventory", f"sku:{sku}")
    }
    assert audit["checks"]["inventory: the ledger's sums are the balances"]["violations"] == []

    words = f"SKU {sku}: allocated 3 → 2; what waited for it is replayed, from 1 dead letter(s) on"
    code, would = await backorder(world, "quarantine", "repair", ill, "--why", "a hand slipped", "--dry-run")
    assert (code, would["result"]) == (0, words)
    await world.line(order.order, 1, pending=1)
    code, done = await backorder(world, "quarantine", "repair", ill, "--why", "a hand slipped", "--actor", "ann")
    assert (code, done["result"]) == (0, words)
    await world.line(order.order, 1, allocated=1)
    code, again = await backorder(world, "quarantine", "repair", ill, "--why", "to be sure")
    assert (code, again["result"]) == (1, "cannot be repaired: nothing is wrong with it")
    _, shown = await backorder(world, "quarantine", "show", ill)
    assert shown["waiting"] == []
    assert all(finding["released_at"] for finding in shown["findings"])
    assert [(each["actor"], each["reason"], each["result"]) for each in shown["repairs"]][1] == ("ann", "a hand slipped", words)
    assert await broken() == []
    _, audit = await backorder(world, "audit", "--wait", "30", "--from-log")
    for name, check in audit["checks"].items():
        if name.startswith(SERVICES):
            assert check["violations"] == [], name
