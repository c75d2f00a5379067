"""The relay: in order per partition, nothing lost; what it sends twice the receiver applies once."""

import asyncio
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, TopicAuthorizationFailedError

from shared import consumer
from shared import relay as relays
from shared.codec import partition_of
from shared.contracts.orders import ORDERS_DEMAND, DemandSet
from shared.relay import Relay
from shared.runtime import Runtime
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import admin, messages, publish
from tests.integration.runtime.observe import becomes, drained, eventually, ready, stories, units
from tests.integration.runtime.relaying import apply_all, relaying


def names_by_partition(settings: Settings, count: int) -> dict[int, list[str]]:
    """So many account names for each partition."""
    found: dict[int, list[str]] = {number: [] for number in range(settings.partitions)}
    for number in range(1_000):
        names = found[partition_of(f"A{number}", settings.partitions)]
        if len(names) < count:
            names.append(f"A{number}")
    return found


async def limit_messages(settings: Settings, size: int) -> None:
    async with admin(settings) as client:
        topic = settings.topic(ORDERS_DEMAND.name)
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])


async def test_a_refused_record_stops_only_its_partition_and_is_not_overtaken(settings: Settings) -> None:
    await toy.prepare(settings)
    await limit_messages(settings, 5_000)
    [[big, small], [other, *_], *_] = names_by_partition(settings, 2).values()
    await publish(settings, *((toy.order(big, 1), f"{n}") for n in range(60)))  # one transaction, one record of some 15 kB
    async with toy.running(settings) as runtime, toy.running(settings, toy.LISTENER):
        await eventually(lambda: runtime.pool.fetchval("SELECT units = 60 FROM account WHERE name = $1", big))
        await publish(settings, (toy.order(small, 1), "small"), (toy.order(other, 1), "other"))
        await becomes(lambda: heard_by(settings), {other})
        refused = (await runtime.readiness())[1]["refused_by_broker"]
        assert list(refused) == [f"{settings.topic('orders.demand')}/0"]
        assert "MessageSizeTooLarge" in str(refused)
        assert not await ready(runtime)
        await limit_messages(settings, 1_000_000)
        await becomes(lambda: heard_by(settings), {big, small, other})
        await becomes(lambda: stories(settings, toy.LISTENER, "heard"), await stories(settings, toy.TOY, "told"))
        await eventually(lambda: ready(runtime))
    sent = [message.key for message in await messages(settings, ORDERS_DEMAND) if message.key in {big, small}]
    assert sent == [*[big] * 60, small]


async def heard_by(settings: Settings) -> set[str]:
    return set(await stories(settings, toy.LISTENER, "heard"))


async def test_a_blocked_partition_does_not_fill_the_outbox_for_the_others(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await toy.prepare(settings)
    monkeypatch.setattr(consumer, "OUTBOX_LIMIT", 5)
    [[stuck], [free], *_] = names_by_partition(settings, 1).values()
    send = AIOKafkaProducer.send_batch

    async def refused(self: AIOKafkaProducer, batch: Any, topic: str, *, partition: int) -> Any:
        if partition == partition_of(stuck, settings.partitions):
            raise TopicAuthorizationFailedError("not this one")
        return await send(self, batch, topic, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refused)
    async with toy.running(settings) as runtime:
        await publish(settings, (toy.order(stuck, 1), "stuck"))
        for number in range(1, 13):
            await publish(settings, (toy.order(free, 1), f"{number}"))
            await becomes(lambda: units(runtime), {stuck: 1, free: number})
        assert list(runtime.relay.blocked)
    assert not runtime.relay.blocked, "another instance may know better by now"


async def test_a_relay_killed_between_publishing_and_deleting_repeats_itself_harmlessly(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n % 3}", 1), f"{n}") for n in range(12)))
    await apply_all(settings)
    published = asyncio.Event()

    class Stalled:
        """A connection on which deletions never end."""

        def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
            self.fetch = connection.fetch

        async def execute(self, *_: object) -> None:
            published.set()
            await asyncio.Event().wait()

    async with relaying(settings) as (relay, connection, kafka):
        killed = asyncio.create_task(relay.round(Stalled(connection), kafka))  # type: ignore[arg-type]
        await asyncio.wait_for(published.wait(), 20)
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        assert await relay.round(connection, kafka) == 12
    assert len(await messages(settings, ORDERS_DEMAND)) == 24
    async with toy.running(settings, toy.LISTENER):
        await becomes(lambda: stories(settings, toy.LISTENER, "heard"), await stories(settings, toy.TOY, "told"))


async def test_a_second_relay_that_is_late_by_a_whole_story_changes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n % 3}", 1), f"{n}") for n in range(6)))
    await apply_all(settings)
    read, go_on = asyncio.Event(), asyncio.Event()
    send = Relay._send

    async with relaying(settings) as (late, late_connection, late_kafka), relaying(settings) as (relay, connection, kafka):

        async def send_late(self: Relay, *arguments: Any) -> list[int]:
            if self is late:
                read.set()
                await asyncio.wait_for(go_on.wait(), 20)
            return await send(self, *arguments)

        monkeypatch.setattr(Relay, "_send", send_late)
        waiting = asyncio.create_task(late.round(late_connection, late_kafka))
        await asyncio.wait_for(read.wait(), 20)
        assert await relay.round(connection, kafka) == 6
        await publish(settings, *((toy.order(f"A{n % 3}", 1), f"{n}") for n in range(6, 12)))
        await apply_all(settings)
        assert await relay.round(connection, kafka) == 6
        go_on.set()
        await waiting
    assert len(await messages(settings, ORDERS_DEMAND)) == 18
    async with toy.running(settings, toy.LISTENER):
        await becomes(lambda: stories(settings, toy.LISTENER, "heard"), await stories(settings, toy.TOY, "told"))


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber(), KafkaError("Unexpected error during batch delivery")])
async def test_after_an_error_that_no_producer_outlives_it_is_made_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: KafkaError
) -> None:
    await toy.prepare(settings)
    made = 0
    make, send = relays.producer, AIOKafkaProducer.send_batch

    def counted(settings: Settings) -> AIOKafkaProducer:
        nonlocal made
        made += 1
        return make(settings)

    async def broken_first(self: AIOKafkaProducer, batch: Any, topic: str, *, partition: int) -> Any:
        if made == 1:
            raise error
        return await send(self, batch, topic, partition=partition)

    monkeypatch.setattr(relays, "producer", counted)
    monkeypatch.setattr(AIOKafkaProducer, "send_batch", broken_first)
    await publish(settings, (toy.order("A", 1), "1"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 1})
        await eventually(lambda: drained(runtime))
        assert made == 2
    assert [message.wanted for message in await messages(settings, ORDERS_DEMAND) if isinstance(message, DemandSet)] == [1]


async def test_a_relay_that_breaks_while_it_is_stopped_does_not_keep_the_service_from_stopping(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.prepare(settings)

    async def run(_relay: Relay, _connection: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("the broker is gone as well")

    monkeypatch.setattr(Relay, "run", run)
    async with toy.running(settings) as runtime:
        await eventually(lambda: leads(runtime))


async def leads(runtime: Runtime) -> bool:
    return runtime.leading
