"""Three brokers on this machine: one may die at any time, and nothing that was acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local import infrastructure, kafka, processes, system
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.records import records
from shared import topics
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.relay import producer
from shared.settings import Settings
from tests.integration.runtime.observe import becomes

BROKERS = ("kafka-1", "kafka-2", "kafka-3")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv(infrastructure.KAFKA, raising=False)
    home = Home(tmp_path / "home")
    yield home
    kafka.stop(home)


async def in_sync_needed(bootstrap: str, *names: str) -> list[str]:
    """`min.insync.replicas` of these topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answers = [await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]) for name in names]
        return [entry[1] for [answer] in answers for entry in answer.resources[0][4] if entry[0] == "min.insync.replicas"]
    finally:
        await admin.close()


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[list[int]]:
    """Appends numbers, many at a time, all the while; answers those that were acknowledged."""
    acknowledged: list[int] = []
    numbers = count()
    kafka_producer: AIOKafkaProducer = producer(settings)
    await kafka_producer.start()

    async def work() -> None:
        for number in numbers:
            await kafka_producer.send_and_wait(settings.topic(COMMERCE_ORDERS.name), b"%d" % number, key=b"%d" % number)
            acknowledged.append(number)

    workers = [asyncio.create_task(work()) for _ in range(20)]
    try:
        yield acknowledged
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await kafka_producer.stop()


async def more(acknowledged: list[int], by: int = 500) -> None:
    wanted = len(acknowledged) + by
    async with asyncio.timeout(90):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)


async def make_group(settings: Settings) -> None:
    """The first group makes Kafka create its own topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, group_id="first")
    await consumer.start()
    consumer.assign([TopicPartition(settings.topic(COMMERCE_ORDERS.name), 0)])
    await consumer.commit({TopicPartition(settings.topic(COMMERCE_ORDERS.name), 0): 0})
    await consumer.stop()


async def stored(settings: Settings) -> list[int]:
    places = [TopicPartition(settings.topic(COMMERCE_ORDERS.name), number) for number in range(settings.partitions)]
    return sorted(int(record.value) for record in await records(settings.kafka_bootstrap_servers, places))


async def test_what_a_cluster_acknowledged_survives_whoever_dies(home: Home) -> None:
    home.create()
    bootstrap = kafka.start(home, brokers=3)
    assert [kafka.is_ready(home, name) for name in BROKERS] == [True] * 3
    settings = Settings(kafka_bootstrap_servers=bootstrap, replication=3, partitions=3)
    await topics.create(settings)
    await make_group(settings)
    await becomes(lambda: in_sync_needed(bootstrap, COMMERCE_ORDERS.name, "__consumer_offsets"), ["2", "2"])

    async with producing(settings) as acknowledged:
        await more(acknowledged)
        await asyncio.to_thread(system.kill, home, "kafka-2")
        assert not await asyncio.to_thread(kafka.is_ready, home, "kafka-2")
        await more(acknowledged)
        await asyncio.to_thread(system.start_broker, home, "kafka-2")
        await more(acknowledged)
    kept = await stored(settings)
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept)), "an idempotent producer repeats nothing"

    kafka.stop(home)
    assert processes.running(home) == []
    assert kafka.start(home) == bootstrap, "three as before, on the ports as before"
    assert set(acknowledged) <= set(await stored(settings))

    for name in BROKERS:
        system.kill(home, name)
    assert kafka.start(home) == bootstrap
    assert set(acknowledged) <= set(await stored(settings))

    with pytest.raises(UserError, match="set up with 3"):
        kafka.start(home, brokers=1)


def test_two_brokers_are_not_offered(home: Home) -> None:
    with pytest.raises(UserError, match="2 brokers"):
        kafka.start(home, brokers=2)
