"""How far a system has come with what was published: snapshots of the log, and which of them every reader has passed.

A snapshot says "everything older than `business` stood in the log before these offsets". Once every service has passed the
offsets of the topics that it reads, nothing older than `business` is unapplied anywhere. This takes one request to the broker
and one query per database, and nothing from the services themselves: they may be down.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeAlias

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.settled import declared
from shared.contracts import TOPICS
from shared.settings import SERVICES, Settings

Place: TypeAlias = tuple[str, int]
"""A topic (its name without namespace) and a partition."""
Offsets: TypeAlias = Mapping[Place, int]
"""Per partition the offset that comes next."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one reader stands: its place in the topics that it reads, and the business times of what it has not finished:
    its oldest unpublished message and its next timer (None = none). `busy` = it has work that is in no topic: mails to send."""

    name: str
    topics: frozenset[str]
    next: Offsets
    unpublished: datetime | None = None
    timer: datetime | None = None
    busy: bool = False

    def passed(self, ends: Offsets) -> bool:
        """Whether it has applied everything before these offsets."""
        return all(self.next.get(place, 0) >= end for place, end in ends.items() if place[0] in self.topics)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything older than `business` stood in the log before these offsets."""

    business: datetime
    ends: Offsets


def snapshot(clock: datetime, standings: Iterable[Standing], ends: Offsets) -> Snapshot:
    """The snapshot at this clock. The standings must have been read before the ends: what was unpublished then is not in the log."""
    held = [moment for standing in standings for moment in (standing.unpublished, standing.timer) if moment is not None]
    return Snapshot(min([clock, *held]), ends)


def idle(standings: Iterable[Standing], ends: Offsets) -> bool:
    """Whether everything in the log is applied and everything that followed from it is in the log: nothing will happen before the
    next timer or the next publication."""
    return all(standing.unpublished is None and not standing.busy and standing.passed(ends) for standing in standings)


def covered(snapshots: Sequence[Snapshot], standings: Sequence[Standing]) -> int:
    """How many of the snapshots, oldest first, every reader has passed."""
    for number, taken in enumerate(snapshots):
        if not all(standing.passed(taken.ends) for standing in standings):
            return number
    return len(snapshots)


_STANDING = (
    "SELECT (SELECT time FROM runtime.outbox ORDER BY seq LIMIT 1) AS unpublished,"
    " (SELECT due FROM runtime.timer ORDER BY due, kind, key LIMIT 1) AS timer,"
    " array(SELECT topic FROM runtime.partition ORDER BY topic, partition) AS topics,"
    " array(SELECT partition FROM runtime.partition ORDER BY topic, partition) AS partitions,"
    " array(SELECT next FROM runtime.partition ORDER BY topic, partition) AS nexts,"
)
_BUSY = {"notifier": " EXISTS (SELECT FROM mail WHERE status = 'queued') AS busy"}


class Observer:
    """Open connections for looking at a system."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = {service: frozenset(topic.name for topic in declared(service, settings).topics) for service in SERVICES}
        self._places = {
            TopicPartition(settings.topic(topic.name), partition): (topic.name, partition)
            for topic in TOPICS
            for partition in range(settings.partitions)
        }
        self._kafka = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
        self._pools: dict[str, asyncpg.Pool[Any]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._kafka.start()
            for service in SERVICES:
                self._pools[service] = await asyncpg.create_pool(self._settings.dsn(service), min_size=0, max_size=1)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.terminate()
        await self._kafka.stop()

    async def standings(self) -> list[Standing]:
        """Where the services stand now. Raises OSError or asyncpg's errors while a database is away."""
        return list(await asyncio.gather(*(self._standing(service, pool) for service, pool in self._pools.items())))

    async def ends(self) -> dict[Place, int]:
        """Where every topic ends now. Raises KafkaError while the broker is away."""
        found = await self._kafka.end_offsets(self._places)
        return {self._places[partition]: end for partition, end in found.items()}

    async def _standing(self, service: str, pool: "asyncpg.Pool[Any]") -> Standing:
        [row] = await pool.fetch(_STANDING + _BUSY.get(service, " false AS busy"))
        places = zip(row["topics"], row["partitions"], strict=True)
        return Standing(
            service, self._topics[service], dict(zip(places, row["nexts"], strict=True)), row["unpublished"], row["timer"], row["busy"]
        )
