"""Has everything settled? Nothing unread in the topics, nothing unpublished, no timer due, no mail and no operator's wish open."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from time import monotonic
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from deploy.local.databases import Connection, connected
from deploy.local.errors import UserError
from shared import batches, clock
from shared.service import Service
from shared.settings import SERVICES, Settings

POLL_SECONDS = 0.2
CLOCK_SECONDS = 10.0
"""A driven system's clock is in its topic; so long we wait for the first setting."""

_QUEUED = {"notifier": "(SELECT count(*) FROM mail WHERE status = 'queued')"}
_STANDS = """
    SELECT (SELECT coalesce(jsonb_agg(jsonb_build_array(topic, partition, next)), '[]') FROM runtime.partition) AS stands,
           (SELECT count(*) FROM runtime.outbox) AS outbox,
           (SELECT count(*) FROM runtime.timer WHERE due <= $1) AS timers,
           (SELECT count(*) FROM runtime.dead_letter_request WHERE done_at IS NULL)
             + (SELECT count(*) FROM runtime.repair WHERE done_at IS NULL) AS requests,
           {mails} AS mails,
           (SELECT last_value FROM runtime.journal_number) AS number
"""
"""One statement, so that all of it is of one moment: what leaves one of these numbers enters another."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one service has before it: unread records by topic, unpublished records, timers due, operators' requests, mails; and the
    number of its last transaction."""

    lag: dict[str, int] = field(default_factory=dict)
    outbox: int = 0
    timers: int = 0
    requests: int = 0
    mails: int = 0
    number: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return any((self.lag, self.outbox, self.timers, self.requests, self.mails))

    def __str__(self) -> str:
        parts = [f"{count} unread of {topic}" for topic, count in sorted(self.lag.items())]
        named = {"unpublished": self.outbox, "timers due": self.timers, "requests": self.requests, "mails queued": self.mails}
        return ", ".join([*parts, *(f"{count} {name}" for name, count in named.items() if count)])


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is still under way, by service; false when everything has settled. Nothing happened between two that are false and equal."""

    services: dict[str, Waiting]

    def __bool__(self) -> bool:
        """Whether anything is under way."""
        return any(self.services.values())

    def __str__(self) -> str:
        return "; ".join(f"{name}: {waiting}" for name, waiting in self.services.items() if waiting) or "nothing"


Look: TypeAlias = Callable[[], Awaitable[Unsettled]]


async def settled(settings: Settings) -> Unsettled:
    """What is under way now. Raises UserError when the system cannot be asked."""
    async with watching(settings) as look:
        return await look()


async def wait_settled(settings: Settings, seconds: float) -> Unsettled:
    """Waits until everything has settled, at most so long (wall time); answers what is still under way then."""
    async with watching(settings) as look:
        return await at_rest(look, monotonic() + seconds)


async def at_rest(look: Look, deadline: float) -> Unsettled:
    """Looks until everything has settled, or until this moment (monotonic seconds); answers the last look."""
    while (found := await look()) and monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    return found


@asynccontextmanager
async def business_clock(settings: Settings) -> AsyncIterator[clock.Clock]:
    """The system's clock. Raises UserError when the driver of the system has not set it."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CLOCK_SECONDS):
                now = await stack.enter_async_context(clock.started(settings))
        except (KafkaError, TimeoutError) as error:
            raise UserError("the business clock is not known: the broker does not answer, or nobody has set the clock yet") from error
        yield now


def declared(name: str, settings: Settings) -> Service[Any]:
    """A service as it declares itself under these settings."""
    service: Service[Any] = import_module(f"services.{name}.app").service(settings)
    return service


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[Look]:
    """A way to look as often as one likes. Raises UserError when the system cannot be asked."""
    topics = {name: [topic.name for topic in declared(name, settings).topics] for name in SERVICES}
    places = {
        (topic, partition): TopicPartition(settings.topic(topic), partition)
        for topic in sorted({topic for taken in topics.values() for topic in taken})
        for partition in range(settings.partitions)
    }
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(asking(settings))
        connections = {name: await stack.enter_async_context(connected(settings, name)) for name in SERVICES}
        now = await stack.enter_async_context(business_clock(settings))

        async def look() -> Unsettled:
            at = now()
            rows = await asyncio.gather(*(_stands(connections[name], name, at) for name in SERVICES))
            # The ends are asked last: whatever a service did after it was looked at shows as a record that is unread.
            ends = await consumer.end_offsets(list(places.values()))
            starts = await consumer.beginning_offsets(list(places.values()))
            span = {key: (starts[place], ends[place]) for key, place in places.items()}
            return Unsettled({name: _waiting(row, topics[name], span) for name, row in zip(SERVICES, rows, strict=True)})

        yield look


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, that reads what the services can read. Raises UserError when the broker does not answer."""
    batches.guard()
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await consumer.start()
    except KafkaError as error:
        await consumer.stop()
        raise UserError(
            f"the broker at {settings.kafka_bootstrap_servers} does not answer: start the system with `backorder up`"
        ) from error
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _stands(connection: Connection, service: str, at: datetime) -> dict[str, Any]:
    row = await connection.fetchrow(_STANDS.format(mails=_QUEUED.get(service, "0")), at)
    return dict(row or {})


def _waiting(row: dict[str, Any], topics: list[str], span: dict[tuple[str, int], tuple[int, int]]) -> Waiting:
    """One service's row against the logs' starts and ends; what a log has already forgotten is not waited for."""
    stands = {(topic, partition): following for topic, partition, following in json.loads(row["stands"])}
    lag = dict.fromkeys(topics, 0)
    for (topic, partition), (start, end) in span.items():
        if topic in lag:
            lag[topic] += max(0, end - max(start, stands.get((topic, partition), 0)))
    counts = {name: row[name] for name in ("outbox", "timers", "requests", "mails", "number")}
    return Waiting({topic: count for topic, count in lag.items() if count}, **counts)
