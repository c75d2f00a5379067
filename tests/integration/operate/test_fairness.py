"""The audit reads in inventory's real ledger who was served out of turn, even where all sums are right."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from deploy.local import system
from deploy.local.audit import Audit, audit
from shared.settings import Settings
from tests.integration.inventory.stored import StoredHouse
from tests.unit.inventory.house import TODAY, defined, demand, received

CHECK = "inventory: first come, first served, at every commit"


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator["asyncpg.Pool[Any]"]:
    """A system's inventory in which two lines waited for two units each, and were served in turn."""
    await system.prepare(settings)
    async with asyncpg.create_pool(settings.dsn("inventory"), min_size=0, max_size=2) as connections:
        stored = StoredHouse(connections)
        await stored.apply(defined(), demand("O1", 2), demand("O2", 2))
        await stored.apply(received(2))
        await stored.apply(received(2, "R-2"))
        yield connections


def broken(outcome: Audit) -> set[str]:
    """The checks of inventory's own that complain."""
    return {name for name, check in outcome.checks.items() if name.startswith("inventory: ") and check.violations}


async def test_a_queue_that_was_served_in_turn_is_as_it_must_be(settings: Settings, pool: "asyncpg.Pool[Any]") -> None:
    outcome = await audit(settings, today=TODAY)
    assert (outcome.checks[CHECK].checked, broken(outcome)) == (4, set())
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 6


async def test_who_was_served_out_of_turn_is_named_though_every_sum_is_right(settings: Settings, pool: "asyncpg.Pool[Any]") -> None:
    swapped = "UPDATE ledger SET order_id = CASE order_id WHEN 'O1' THEN 'O2' ELSE 'O1' END WHERE kind = 'allocated'"
    await pool.execute(swapped)
    outcome = await audit(settings, today=TODAY)
    assert broken(outcome) == {CHECK}
    assert [each for each in outcome.violations() if each["check"] == CHECK] == [
        {
            "check": CHECK,
            "service": "inventory",
            "row": {"sku": "A", "number": 2, "order_id": "O2", "line": 1, "given": 2, "ahead": "O1/1", "ahead_waiting": 2},
            "expected": "first come, first served, at every commit",
        }
    ]
    assert not outcome.ok


async def test_a_ledger_that_does_not_follow_the_journal_proves_nothing_and_is_named(settings: Settings, pool: "asyncpg.Pool[Any]") -> None:
    await pool.execute("UPDATE ledger SET number = 5 - number WHERE number > 1")
    outcome = await audit(settings, today=TODAY)
    assert broken(outcome) == {"inventory: the ledger's order is the journal's"}
    [violation] = outcome.checks["inventory: the ledger's order is the journal's"].violations
    assert (violation["row"]["number"], violation["row"]["before"]) == (2, 3)
