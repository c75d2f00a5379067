"""How the HTTP edge reaches the log and the database: with clients of its own, on a loop of its own.

A batch of two thousand orders keeps a service's loop busy for a good part of a second. Whoever asks by HTTP, a probe most of all,
shall not wait for that: so the edge has a thread, and takes turns with the batch every few milliseconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from shared.clock import Clock
from shared.codec import cloud_event_headers, encode, partition_of
from shared.contracts.base import Message
from shared.http import Edge
from shared.relay import is_dead, producer
from shared.service import NotReadyError
from shared.settings import Settings

_PAUSE_SECONDS = 0.5

log = structlog.get_logger()


class Door:
    """The clients of Kafka that an edge appends and asks with; made anew when they break."""

    def __init__(self, settings: Settings, pool: "asyncpg.Pool[Any]", now: Clock) -> None:
        self._settings, self._pool, self._now = settings, pool, now
        self._broken = asyncio.Event()
        self.producer: AIOKafkaProducer | None = None
        self._asker: AIOKafkaConsumer | None = None

    async def keep_open(self) -> None:
        """Until cancelled; while the broker is away, whoever asks is told so."""
        while True:
            with contextlib.suppress(KafkaError, OSError):
                await self._open()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _open(self) -> None:
        kafka, asker = producer(self._settings), AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_bootstrap_servers)
        self._broken.clear()
        try:
            await kafka.start()
            await asker.start()
            self.producer, self._asker = kafka, asker
            await self._broken.wait()
            log.warning("the producer of the HTTP edge has ended, it will be made anew")
        finally:
            self.producer = self._asker = None
            await asker.stop()
            await kafka.stop()

    async def append(self, message: Message, source: str, id_: str, actor: str) -> None:
        """Returns once the log has it. Raises NotReadyError and KafkaError."""
        if self.producer is None:
            raise NotReadyError("the log cannot be reached yet")
        partition = partition_of(message.key, self._settings.partitions)
        headers = cloud_event_headers(message.TYPE, source, id_, self._now(), actor=actor)
        try:
            await self.producer.send_and_wait(
                self._settings.topic(message.TOPIC.name), encode(message), key=message.key.encode(), partition=partition, headers=headers
            )
        except KafkaError as error:
            if is_dead(error):
                self._broken.set()
            raise

    async def applied(self, topic: str, key: str) -> bool:
        """Whether the service has applied everything that stands in the key's partition now. Raises NotReadyError and KafkaError."""
        if self._asker is None:
            raise NotReadyError("the log cannot be reached yet")
        partition = partition_of(key, self._settings.partitions)
        place = TopicPartition(self._settings.topic(topic), partition)
        end = (await self._asker.end_offsets([place]))[place]
        stands = await self._pool.fetchval("SELECT next FROM runtime.partition WHERE topic = $1 AND partition = $2", topic, partition)
        return int(stands or 0) >= int(end)


@contextlib.asynccontextmanager
async def opened(settings: Settings, pool: "asyncpg.Pool[Any]", now: Clock) -> AsyncIterator[Edge]:
    """An edge on this loop. `now` = business time, for what is appended."""
    door = Door(settings, pool, now)
    opening = asyncio.create_task(door.keep_open(), name="door")
    try:
        yield Edge(settings, pool, door.append, door.applied)
    finally:
        opening.cancel()
        await asyncio.wait([opening], timeout=5)  # a producer's last words may wait for a broker that is gone
