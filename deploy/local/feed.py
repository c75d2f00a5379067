"""Reads public topics as anybody outside would: from the beginning, without a group, without a mark on the system."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.coverage import Place
from shared import batches
from shared.codec import read
from shared.contracts.base import Message, Topic
from shared.settings import Settings

Listener: TypeAlias = Callable[[Message, datetime], None]
"""Hears a message and the broker's wall time of its record."""


class Feed:
    """Tells every message of the topics, in order per key, to all listeners. `next` says how far it has come."""

    def __init__(self, settings: Settings, topics: Sequence[Topic], *listeners: Listener) -> None:
        batches.guard()  # outsiders write to some of these topics
        self.topics = frozenset(topic.name for topic in topics)
        self.next: dict[Place, int] = {}
        self._listeners = listeners
        self._places = {
            TopicPartition(settings.topic(topic.name), partition): (topic.name, partition)
            for topic in topics
            for partition in range(settings.partitions)
        }
        self._kafka = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )

    async def __aenter__(self) -> Self:
        await self._kafka.start()
        self._kafka.assign(list(self._places))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kafka.stop()

    async def round(self, wait_ms: int = 0) -> int:
        """Tells what has come, waiting so long if nothing has; answers how many records. What cannot be read is nothing to an outsider."""
        batches = await self._kafka.getmany(timeout_ms=wait_ms, max_records=1000)
        for partition, records in batches.items():
            topic, number = self._places[partition]
            for record in records:
                appended = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                for _, message in read(record, topic).messages:
                    for listener in self._listeners:
                        listener(message, appended)
            self.next[topic, number] = records[-1].offset + 1
        return sum(len(records) for records in batches.values())

    async def catch_up(self) -> None:
        """Tells everything that stands in the topics now."""
        ends = await self._kafka.end_offsets(list(self._places))
        while any([await self._kafka.position(place) < end for place, end in ends.items()]):
            await self.round(wait_ms=100)
