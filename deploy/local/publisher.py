"""Publishes public messages as anybody outside would: CloudEvents in binary mode, keyed, acknowledged by every replica."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from shared.codec import cloud_event_headers, encode, partition_of
from shared.contracts.base import Message
from shared.relay import producer
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Publication:
    """A message, who says it (`source`), under which id, and when it happens (business time)."""

    time: datetime
    message: Message
    id: str
    source: str


class Publisher:
    """An open connection for publishing. `send` only hands over; `flush` waits until the broker has everything."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka: AIOKafkaProducer = producer(settings)
        self._on_their_way: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        try:
            await self._kafka.start()
        except BaseException:
            await self._kafka.stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self._kafka.stop()

    async def send(self, message: Message, id_: str, source: str, time: datetime) -> None:
        """Hands the message over; those of one key stay in order. Raises TooLargeError for what no record can carry."""
        self._on_their_way.add(
            await self._kafka.send(
                self._settings.topic(message.TOPIC.name),
                encode(message),
                key=message.key.encode(),
                partition=partition_of(message.key, self._settings.partitions),
                headers=cloud_event_headers(message.TYPE, source, id_, time),
            )
        )

    async def flush(self) -> None:
        """Waits until the broker has acknowledged everything handed over so far; raises what it refused."""
        waiting, self._on_their_way = self._on_their_way, set()
        await asyncio.gather(*waiting)
