"""Whoever owns partitions locks their rows in one order, known and new ones alike: else two owners may wait for each other."""

import asyncio

from shared import db, partitions
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.observe import eventually

NEW, KNOWN = ("commerce.orders", 0), ("commerce.orders", 1)
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def test_a_known_row_is_not_held_while_a_new_one_before_it_is_waited_for(settings: Settings) -> None:
    await toy.prepare(settings)
    pool = await db.pool(settings, toy.TOY.name)

    async def both() -> dict[partitions.Place, int]:
        async with pool.acquire() as tx, tx.transaction():
            return await partitions.lock(tx, [NEW, KNOWN])

    async with pool.acquire() as tx, tx.transaction():
        await partitions.lock(tx, [KNOWN])
    async with pool.acquire() as first, first.transaction():
        await partitions.lock(first, [NEW])
        waiting = asyncio.create_task(both())
        await eventually(lambda: pool.fetchval(WAITING))
        await asyncio.wait_for(partitions.lock(first, [KNOWN]), 30)
    assert await waiting == {NEW: 0, KNOWN: 0}
    await pool.close()
