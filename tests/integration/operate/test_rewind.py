"""`backorder rewind` on real databases and a real broker: what is moved, and what is refused."""

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.local import system
from deploy.local.databases import connected
from deploy.local.errors import UserError
from deploy.local.rewind import Move, rewind
from deploy.local.settled import declared
from shared import db
from shared.clock import wall
from shared.codec import partition_of
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.contracts.orders import ORDERS_EVENTS
from shared.partitions import stands
from shared.settings import Settings
from shared.transaction import Transactions
from tests.contract.examples import ORDER
from tests.integration.runtime.broker import admin, deliveries, publish

EVER = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def ordered(settings: Settings) -> Settings:
    """A system whose orders has applied an order, which came in three messages."""
    await system.prepare(settings)
    await publish(settings, *((ORDER, str(number)) for number in range(3)))
    await catch_up(settings)
    return settings


async def catch_up(settings: Settings) -> int:
    """Applies what has been ordered; answers how many messages were new."""
    pool = await db.pool(settings, "orders")
    try:
        records = await deliveries(settings, COMMERCE_ORDERS)
        return await Transactions(declared("orders", settings), settings, pool, wall).batch(records, {})
    finally:
        await pool.close()


async def stand(settings: Settings) -> int:
    """Where orders stands in the partition of the order."""
    async with connected(settings, "orders") as connection:
        return (await stands(connection))[COMMERCE_ORDERS.name, place(settings).partition]


def place(settings: Settings) -> TopicPartition:
    return TopicPartition(settings.topic(COMMERCE_ORDERS.name), partition_of(ORDER.key, settings.partitions))


async def test_it_says_what_it_would_move_and_moves_it_only_then(ordered: Settings) -> None:
    expected = [Move("orders", COMMERCE_ORDERS.name, place(ordered).partition, 3, 0, 3)]
    assert await rewind(ordered, ["orders", "notifier"], EVER, really=False) == expected
    assert await stand(ordered) == 3
    assert await rewind(ordered, ["orders", "notifier"], EVER, really=True) == expected
    assert await stand(ordered) == 0
    assert await rewind(ordered, ["orders"], EVER, really=True) == [], "never forward"
    assert await catch_up(ordered) == 0, "what was applied has no second effect"
    assert await stand(ordered) == 3


async def test_what_came_before_is_not_read_again(ordered: Settings) -> None:
    times = [each.envelope.appended for each in await deliveries(ordered, COMMERCE_ORDERS)]
    [move] = await rewind(ordered, ["orders"], times[-1], really=True)
    assert move.to == times.index(times[-1]) == await stand(ordered)
    assert await rewind(ordered, ["orders"], times[-1] + timedelta(milliseconds=1), really=True) == []


async def test_a_service_that_runs_is_not_moved(ordered: Settings) -> None:
    pool = await db.pool(ordered, "orders")
    try:
        await pool.fetchval("SELECT 1")
        assert len(await rewind(ordered, ["orders"], EVER, really=False)) == 1
        with pytest.raises(UserError, match=r"orders runs \(orders-1\): stop every instance"):
            await rewind(ordered, ["inventory", "orders"], EVER, really=True)
    finally:
        await pool.close()
    assert await stand(ordered) == 3


async def test_what_the_log_has_lost_cannot_be_read_again(ordered: Settings) -> None:
    async with admin(ordered) as client:
        await client.delete_records({place(ordered): RecordsToDelete(2)})
    for really in (False, True):
        with pytest.raises(UserError, match=r"commerce\.orders/\d has lost its first 2 records, and keeps what is younger than 20"):
            await rewind(ordered, ["orders"], EVER, really=really)
    assert await stand(ordered) == 3
    assert await rewind(ordered, ["notifier"], EVER, really=True) == [], "nobody else's business"
    [move] = await rewind(ordered, ["orders"], wall() - timedelta(days=6), really=True)
    assert (move.to, move.records) == (2, 1)


async def test_offsets_of_another_cluster_are_brought_back_to_this_one(ordered: Settings) -> None:
    async with connected(ordered, "orders") as connection:
        await connection.execute("INSERT INTO runtime.partition VALUES ($1, 1, 5000)", ORDERS_EVENTS.name)
    moves = await rewind(ordered, ["orders"], EVER, really=True)
    assert Move("orders", ORDERS_EVENTS.name, 1, 5000, 0, 0) in moves


async def test_nobody_goes_back_to_tomorrow(ordered: Settings) -> None:
    with pytest.raises(UserError, match="has not come yet"):
        await rewind(ordered, ["orders"], wall() + timedelta(days=1), really=True)
