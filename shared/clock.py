"""Business time. In production it is the wall clock; in a driven local run it is read from the topic `system.clock`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from shared.contracts.system import SYSTEM_CLOCK, ClockSet
from shared.settings import ClockSource, Settings

_PAUSE_SECONDS = 1.0
_LOOK_BACK = 1_000
"""Records among which the latest setting is looked for: the last ones may be no settings."""

log = structlog.get_logger()

Clock = Callable[[], datetime]
"""Answers the business time now (UTC)."""


def wall() -> datetime:
    """The wall clock (UTC)."""
    return datetime.now(UTC)


def business_time(setting: ClockSet, at: datetime) -> datetime:
    """The business time at wall time `at` under a clock setting; a wall clock that steps back does not turn it back."""
    elapsed = max(timedelta(0), at - setting.wall)
    return setting.business.astimezone(UTC) + elapsed * setting.rate


class TopicClock:
    """The business clock as the driver of the run sets it: follows `system.clock` without a group."""

    def __init__(self, settings: Settings) -> None:
        self._partition = TopicPartition(settings.topic(SYSTEM_CLOCK.name), 0)
        self._brokers = settings.kafka_bootstrap_servers
        self._setting: ClockSet | None = None
        self.known = asyncio.Event()

    def __call__(self) -> datetime:
        """The business time now (UTC)."""
        if self._setting is None:
            raise RuntimeError("the business clock has not been set yet: nothing may be applied before it is known")
        return business_time(self._setting, wall())

    async def follow(self) -> None:
        """Reads the latest setting, then every new one, until cancelled; a consumer that breaks meanwhile is made anew. Raises
        KafkaError when there is none to begin with."""
        while True:
            try:
                await self._read()
            except KafkaError as error:
                if not self.known.is_set():
                    raise
                log.warning("the clock's consumer is broken, it will be made anew", error=repr(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self) -> None:
        """What is no setting leaves the clock as it is, and so does what was said before the latest."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, enable_auto_commit=False, fetch_max_wait_ms=500)
        latest: ClockSet | None = None
        try:
            await consumer.start()
            consumer.assign([self._partition])
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            consumer.seek(self._partition, max(0, end - _LOOK_BACK))
            async for record in consumer:
                try:
                    latest = ClockSet.model_validate_json(record.value or b"")
                except ValidationError as error:
                    log.warning("not a clock setting", offset=record.offset, errors=error.error_count())
                if latest is not None and record.offset >= end - 1:
                    self._setting = latest
                    self.known.set()
        finally:
            await consumer.stop()


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Clock]:
    """The system's clock, known before the body runs."""
    if settings.clock is ClockSource.WALL:
        yield wall
        return
    clock = TopicClock(settings)
    task = asyncio.create_task(clock.follow(), name="clock")
    try:
        known = asyncio.create_task(clock.known.wait())
        await asyncio.wait({task, known}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            known.cancel()
            task.result()
        yield clock
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
