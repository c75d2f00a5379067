"""Publishes public messages as anybody outside would: CloudEvents in binary mode, keyed, acknowledged by every replica."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from shared.codec import cloud_event_headers, encode, partition_of
from shared.contracts.base import Message
from shared.relay import producer
from shared.settings import Settings

PATIENCE_SECONDS = 20.0
"""So long one attempt to append may take."""


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

    async def send(self, said: Publication) -> None:
        """Hands the message over; those of one key stay in order. Raises TooLargeError for what no record can carry."""
        message = said.message
        self._on_their_way.add(
            await self._kafka.send(
                self._settings.topic(message.TOPIC.name),
                encode(message),
                key=message.key.encode(),
                partition=partition_of(message.key, self._settings.partitions),
                headers=cloud_event_headers(message.TYPE, said.source, said.id, said.time),
            )
        )

    async def flush(self) -> None:
        """Waits until the broker has acknowledged everything handed over so far; raises what it refused."""
        waiting, self._on_their_way = self._on_their_way, set()
        await asyncio.gather(*waiting)


class Persistent:
    """A connection that does not take no for an answer: each record is sent until the broker has acknowledged it.

    A repeat after an unknown outcome may stand in the log twice, under the same id. Whoever needs an order awaits one before the next.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._renew(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await _stopped(self._kafka)

    async def append(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, partition: int, headers: Sequence[tuple[str, Any]] = ()
    ) -> RecordMetadata:
        """Appends to the topic (its name without namespace); answers where. Raises MessageSizeTooLargeError: that will never do."""
        while True:
            kafka = self._kafka
            if kafka is not None:
                try:
                    future = await kafka.send(self._settings.topic(topic), value, key=key, partition=partition, headers=list(headers))
                    return await asyncio.wait_for(future, PATIENCE_SECONDS)
                except MessageSizeTooLargeError:
                    raise
                except (KafkaError, TimeoutError, OSError):
                    pass
            # An idempotent producer that has lost count never finds it again; a new one begins anew.
            await asyncio.sleep(0.2)
            await self._renew(kafka)

    async def _renew(self, broken: AIOKafkaProducer | None) -> None:
        async with self._renewing:
            if self._kafka is not broken:
                return
            await _stopped(self._kafka)
            self._kafka = None
            kafka = producer(self._settings)
            try:
                await kafka.start()
                self._kafka = kafka
            except (KafkaError, TimeoutError, OSError):
                pass
            finally:
                if self._kafka is not kafka:
                    await _stopped(kafka)


async def _stopped(kafka: AIOKafkaProducer | None) -> None:
    """Lets go of a connection whose last words may wait for ever."""
    if kafka is not None:
        with suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(kafka.stop(), 5)
