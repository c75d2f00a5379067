"""What tests do to the broker: append records good and bad, move a group's offsets, read a topic back."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.codec import Delivery, cloud_event_headers, encode, partition_of, read
from shared.contracts.base import ListedMessage, Message, Topic
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.outbox import records
from shared.relay import producer
from shared.runtime import Runtime
from shared.service import Send
from shared.settings import Settings
from tests.integration.runtime import toy


@dataclass(frozen=True)
class Raw:
    """A record as it goes over the wire; its partition is that of the key."""

    key: str
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = COMMERCE_ORDERS.name


def raw(
    message: Message, id_: str, *, value: bytes | None = None, source: str = "/test", headers: Mapping[str, bytes | None] | None = None
) -> Raw:
    """A message as a record; `value` and `headers` put something else in place of what is well-formed."""
    formed: dict[str, bytes | None] = dict(cloud_event_headers(message.TYPE, source, id_, toy.DAY))
    return Raw(message.key, value or encode(message), tuple({**formed, **(headers or {})}.items()), message.TOPIC.name)


async def append(settings: Settings, *records: Raw, kafka: AIOKafkaProducer | None = None) -> None:
    """Appends records in this order."""
    async with _started(kafka or producer(settings)) as started:
        for record in records:
            partition = partition_of(record.key, settings.partitions)
            await started.send_and_wait(
                settings.topic(record.topic), record.value, key=record.key.encode(), partition=partition, headers=list(record.headers)
            )


async def publish(settings: Settings, *messages: tuple[Message, str]) -> None:
    """Appends (message, id) as an outsider does."""
    await append(settings, *(raw(message, id_) for message, id_ in messages))


async def tell(settings: Settings, *messages: ListedMessage) -> None:
    """Appends listed messages in one record per partition, as one of our services does."""
    async with _started(producer(settings)) as kafka:
        for record in records([Send(message, "test") for message in messages], settings, toy.DAY):
            headers = cloud_event_headers(record.type, "/backorder/test", str(record.id), record.time)
            await kafka.send_and_wait(record.topic, record.value, partition=record.partition, headers=headers)


async def deliveries(settings: Settings, topic: Topic) -> list[Delivery]:
    """All records of a topic, read, partition by partition, in their order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    async with _started(consumer):
        places = [TopicPartition(settings.topic(topic.name), number) for number in range(settings.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, 0)
        found: list[Delivery] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += [read(record, topic.name) for record in batch]
        return sorted(found, key=lambda delivery: (delivery.partition, delivery.offset))


async def messages(settings: Settings, topic: Topic) -> list[Message]:
    """All messages in a topic, partition by partition, repeats included."""
    return [message for delivery in await deliveries(settings, topic) for _, message in delivery.messages]


async def bookmark(runtime: Runtime, offset: int) -> None:
    """Commits this offset for every partition of a running service, as an operator's reset does: heeded at the next start."""
    assert runtime._consumer
    kafka = runtime._consumer.kafka
    await kafka.commit(dict.fromkeys(kafka.assignment(), offset))


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """The broker's administration."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _started(client: AIOKafkaProducer | AIOKafkaConsumer) -> AsyncIterator[AIOKafkaProducer]:
    await client.start()
    try:
        yield client
    finally:
        await client.stop()
