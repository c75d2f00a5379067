"""The database is the truth; where the broker's bookmark, or the log itself, says otherwise, every message still counts once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from shared import partitions
from shared.clock import wall
from shared.codec import partition_of
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.door import opened
from shared.http import Edge
from shared.service import NotReadyError
from shared.settings import Settings
from shared.topics import create
from tests.backup import copy_database
from tests.integration.runtime import toy
from tests.integration.runtime.broker import admin, bookmark, publish, raw
from tests.integration.runtime.observe import becomes, drained, eventually, query, ready, stories, units


async def _applied(edge: Edge, key: str) -> bool:
    with suppress(NotReadyError):
        return await edge.applied(COMMERCE_ORDERS.name, key)
    return False


STANDS = "SELECT next FROM runtime.partition WHERE topic = 'commerce.orders' AND next > 0 ORDER BY partition"


async def test_offsets_reset_to_the_earliest_have_no_second_effect(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n % 10}", 1), f"{n}") for n in range(40)))
    async with toy.running(settings) as runtime, toy.running(settings, toy.LISTENER):
        await becomes(lambda: units(runtime), {f"A{n}": 4 for n in range(10)})
        await eventually(lambda: drained(runtime))
        await bookmark(runtime, 0)
        runtime.stopping.set()
    told = await stories(settings, toy.TOY, "told")
    stands = await query(settings, toy.TOY, STANDS)
    await publish(settings, (toy.order("B", 1), "after"))
    async with toy.running(settings) as runtime, toy.running(settings, toy.LISTENER):
        await becomes(lambda: units(runtime), {**{f"A{n}": 4 for n in range(10)}, "B": 1})
        told |= {"B": (await stories(settings, toy.TOY, "told"))["B"]}
        assert await stories(settings, toy.TOY, "told") == told
        await becomes(lambda: stories(settings, toy.LISTENER, "heard"), told)
        assert sum(next_ for (next_,) in await query(settings, toy.TOY, STANDS)) == sum(next_ for (next_,) in stands) + 1


async def test_a_bookmark_ahead_of_the_database_loses_nothing(settings: Settings) -> None:
    """As after an acknowledgement whose transaction never committed."""
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 1), "1"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 1})
        await bookmark(runtime, 3)
        runtime.stopping.set()
    await publish(settings, *((toy.order("A", 10**n), str(n)) for n in range(2, 5)))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 11_101})


async def test_a_bookmark_ahead_is_noticed_although_the_database_was_away_when_partitions_came(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka only logs what a rebalance listener raises, and nothing new comes that would show the gap."""
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 1), "1"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 1})
        await bookmark(runtime, 3)
        runtime.stopping.set()
    await publish(settings, (toy.order("A", 10), "2"), (toy.order("A", 100), "3"))
    answers, away = partitions.stands, [OSError("the database is away")]

    async def stands(pool: Any) -> dict[partitions.Place, int]:
        if away:
            raise away.pop()
        return await answers(pool)

    monkeypatch.setattr(partitions, "stands", stands)
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 111})


async def test_a_database_restored_from_a_backup_catches_up_from_the_log_once(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n}", 1), f"{n}") for n in range(10)))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(10)})
        runtime.stopping.set()
    await copy_database(settings.database_url, settings.database("toy"), settings.database("backup"))
    await publish(settings, *((toy.order(f"A{n}", 10), f"{n}-again") for n in range(10)))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {f"A{n}": 11 for n in range(10)})
        runtime.stopping.set()
    [(before,)] = await query(settings, toy.TOY, "SELECT max(number) FROM runtime.journal")
    await copy_database(settings.database_url, settings.database("backup"), settings.database("toy"))
    await publish(settings, *((toy.order(f"A{n}", 100), f"{n}-last") for n in range(10)))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {f"A{n}": 111 for n in range(10)})
        assert await runtime.pool.fetchval("SELECT max(number) FROM runtime.journal") > before, "numbers rise across the restore"


async def test_a_database_that_falls_behind_while_the_service_runs_is_noticed_by_the_next_batch(settings: Settings) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await publish(settings, *((toy.order("A", 10**n), f"{n}") for n in range(5)))
        await becomes(lambda: units(runtime), {"A": 11_111})
        async with runtime.pool.acquire() as connection, connection.transaction():  # as it was after the first record
            await connection.execute("UPDATE account SET units = 1")
            await connection.execute("UPDATE runtime.partition SET next = 1 WHERE next = 5")
            await connection.execute("DELETE FROM runtime.inbox_external WHERE id <> '0'")
        await publish(settings, (toy.order("A", 10**5), "5"))
        await becomes(lambda: units(runtime), {"A": 111_111})


async def test_a_restored_database_catches_up_where_nothing_new_comes_too(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n}", 1), f"{n}") for n in range(10)))
    await copy_database(settings.database_url, settings.database("toy"), settings.database("backup"))
    for _ in range(2):
        async with toy.running(settings) as runtime:
            await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(10)})
            runtime.stopping.set()
        await copy_database(settings.database_url, settings.database("backup"), settings.database("toy"))


async def test_a_topic_that_was_made_anew_is_read_from_its_start(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order("A", 1), f"{n}") for n in range(6)))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 6})
        runtime.stopping.set()
    async with admin(settings) as client:
        await client.delete_topics([settings.topic(COMMERCE_ORDERS.name)])
        # A broker that hears of both at once would go on with the old log.
        await eventually(lambda: gone(client, settings.topic(COMMERCE_ORDERS.name)))
    await eventually(lambda: created(settings))
    await publish(settings, (toy.order("A", 1), "0"), (toy.order("A", 10), "new"), (toy.order("A", 100), "newer"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 116})
        assert await query(settings, toy.TOY, STANDS) == [(3,)]
        await publish(settings, (toy.order("A", 1_000), "newest"))
        await becomes(lambda: units(runtime), {"A": 1_116})
        assert await query(settings, toy.TOY, STANDS) == [(4,)]


async def gone(client: AIOKafkaAdminClient, topic: str) -> bool:
    """Whether the broker has let go of the topic."""
    return topic not in await client.list_topics()


async def created(settings: Settings) -> bool:
    """Whether the deleted topic could be made again (the broker deletes in its own time)."""
    return bool(await create(settings))


async def test_records_lost_to_retention_are_reported_and_the_rest_applied(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order("A", 10**n), f"{n}") for n in range(6)))
    place = TopicPartition(settings.topic(COMMERCE_ORDERS.name), partition_of("A", settings.partitions))
    async with admin(settings) as client:
        await client.delete_records({place: RecordsToDelete(before_offset=3)})
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 111_000})
        assert await query(settings, toy.TOY, STANDS) == [(6,)]


async def test_offsets_that_hold_no_record_are_no_gap(settings: Settings) -> None:
    """A shop that writes in Kafka transactions leaves offsets to the broker's own markers: nothing can ever be read there."""
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await in_a_kafka_transaction(settings, 1, 2)
        await becomes(lambda: units(runtime), {"A": 3})
        await in_a_kafka_transaction(settings, 4)
        await becomes(lambda: units(runtime), {"A": 7})
        await publish(settings, (toy.order("A", 8), "plain"))
        await becomes(lambda: units(runtime), {"A": 15})
        assert await ready(runtime)


async def test_a_log_that_ends_with_a_marker_is_read_to_its_end(settings: Settings) -> None:
    """Nothing may ever come behind the marker that would show it."""
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await in_a_kafka_transaction(settings, 1, 2)
        await becomes(lambda: query(settings, toy.TOY, STANDS), [(3,)])
        async with in_transaction(settings, 4):
            await becomes(lambda: query(settings, toy.TOY, STANDS), [(4,)])
        await becomes(lambda: query(settings, toy.TOY, STANDS), [(5,)])
        assert await units(runtime) == {"A": 7}
        async with opened(settings, runtime.pool, wall) as edge:
            await eventually(lambda: _applied(edge, "A"))  # what is not there will not come, an HTTP edge may say
        runtime.stopping.set()
    await in_a_kafka_transaction(settings, 8)
    async with toy.running(settings) as runtime:
        await becomes(lambda: query(settings, toy.TOY, STANDS), [(7,)])
        runtime.stopping.set()
    # As after an end between applying the record and reading the marker.
    await set_back(settings, 6)
    async with toy.running(settings):
        await becomes(lambda: query(settings, toy.TOY, STANDS), [(7,)])


async def test_a_marker_does_not_hide_that_the_database_is_behind(settings: Settings) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await publish(settings, *((toy.order("A", 10**n), f"{n}") for n in range(3)))
        async with in_transaction(settings, 1_000):
            await becomes(lambda: units(runtime), {"A": 1_111})
            # As it was after the first record; what comes next is the marker alone.
            await set_back(settings, 1)
            await query(settings, toy.TOY, "UPDATE account SET units = 1")
            await query(settings, toy.TOY, "DELETE FROM runtime.inbox_external WHERE id <> '0'")
        await publish(settings, (toy.order("B", 1), "other"))
        await becomes(lambda: query(settings, toy.TOY, "SELECT units FROM account WHERE name = 'B'"), [(1,)])
        await publish(settings, (toy.order("A", 10_000), "last"))
        await becomes(lambda: units(runtime), {"A": 11_111, "B": 1})


async def set_back(settings: Settings, following: int) -> None:
    await query(settings, toy.TOY, f"UPDATE runtime.partition SET next = {following} WHERE next > {following}")


async def in_a_kafka_transaction(settings: Settings, *quantities: int) -> None:
    async with in_transaction(settings, *quantities):
        pass


@asynccontextmanager
async def in_transaction(settings: Settings, *quantities: int) -> AsyncIterator[None]:
    """Orders in a Kafka transaction, which ends after the body."""
    kafka = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, transactional_id=f"{settings.namespace}-shop")
    async with kafka, kafka.transaction():
        for quantity in quantities:
            record = raw(toy.order("A", quantity), f"transactional-{quantity}")
            partition = partition_of("A", settings.partitions)
            await kafka.send(settings.topic(record.topic), record.value, partition=partition, headers=list(record.headers))
        await kafka.flush()
        yield
