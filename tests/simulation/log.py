"""The log that stands in for Kafka: partitions of records, the offsets of groups, and the clients of both, as our code sees them.

A record may be appended again, arrive late or be followed by an offset without a record. What was acknowledged stays, in order.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaTimeoutError, NotEnoughReplicasError

from shared.codec import Delivery, read
from shared.contracts import TOPICS
from shared.partitions import Place
from tests.simulation.processes import called

Record: TypeAlias = "ConsumerRecord[Any, Any]"
Headers = Sequence[tuple[str, bytes | None]]


class Draft(NamedTuple):
    """A record before it has an offset."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class Log:
    """All topics, with the same number of partitions; `now` is the broker's clock."""

    def __init__(self, partitions: int, now: Callable[[], datetime]) -> None:
        self.places: tuple[Place, ...] = tuple((topic.name, number) for topic in TOPICS for number in range(partitions))
        self._now = now
        self._records: dict[Place, list[Record]] = {place: [] for place in self.places}
        self._deliveries: dict[Place, list[Delivery]] = {place: [] for place in self.places}
        self._ends: dict[Place, int] = dict.fromkeys(self.places, 0)
        self.late: list[tuple[Place, list[Draft]]] = []
        """What a producer has sent without an answer, and what may still arrive."""

    def append(self, place: Place, drafts: Iterable[Draft]) -> None:
        """Appends in this order."""
        stamp = int(self._now().timestamp() * 1000)
        for draft in drafts:
            offset = self._ends[place]
            self._ends[place] = offset + 1
            size = len(draft.value or b"")
            record = ConsumerRecord(
                *place, offset, stamp, 0, draft.key, draft.value, None, len(draft.key or b""), size, tuple(draft.headers)
            )
            self._records[place].append(record)
            self._deliveries[place].append(read(record, place[0]))

    def skip(self, place: Place) -> None:
        """An offset that no record has, as after a transaction's marker."""
        self._ends[place] += 1

    def end(self, place: Place) -> int:
        """The offset that the next record will have."""
        return self._ends[place]

    def read(self, place: Place, offset: int, limit: int | None = None) -> list[Record]:
        """Records from this offset on."""
        records = self._records[place]
        start = bisect_left(records, offset, key=lambda record: record.offset)
        return records[start : None if limit is None else start + limit]

    def has(self, place: Place, offset: int) -> bool:
        """Whether there is a record at or after this offset."""
        records = self._records[place]
        return bool(records) and records[-1].offset >= offset

    def deliveries(self, topic: str) -> Iterator[Delivery]:
        """What a topic says, partition by partition, without the repeats of a record."""
        seen: set[tuple[str, str]] = set()
        for delivery in (each for place in self.places if place[0] == topic for each in self._deliveries[place]):
            identity = (delivery.envelope.source, delivery.envelope.id)
            if not delivery.envelope.id or identity not in seen:
                seen.add(identity)
                yield delivery

    def cause(self, delivery: Delivery) -> str:
        """What the record's headers name as the cause of it."""
        [record] = self.read((delivery.topic, delivery.partition), delivery.offset, 1)
        return next((value.decode() for name, value in record.headers if name == "ce_causation"), "")


class Batch:
    """What a producer gathers for one partition."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []

    def append(self, *, key: bytes | None, value: bytes | None, timestamp: int | None, headers: Headers) -> object:
        self.drafts.append(Draft(key, value, headers))
        return self


@dataclass
class Producer:
    """A producer that the broker may refuse, whose answers may be lost, and whose requests may arrive when it has given up."""

    log: Log
    random: Random
    trouble: float = 0.0
    told: list[str] = field(default_factory=list)
    """What went wrong, for the timeline."""

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[SimpleNamespace]":
        place = (topic, partition)
        answer: asyncio.Future[SimpleNamespace] = asyncio.get_running_loop().create_future()
        outcome = "taken" if self.random.random() >= self.trouble else self.random.choice(("refused", "unanswered", "late"))
        if outcome in {"taken", "unanswered"}:
            self.log.append(place, batch.drafts)
        if outcome == "late":
            self.log.late.append((place, batch.drafts))
        if outcome == "taken":
            answer.set_result(SimpleNamespace(offset=self.log.end(place) - len(batch.drafts)))
        else:
            self.told.append(f"{topic}/{partition} {outcome}")
            answer.set_exception(NotEnoughReplicasError() if outcome == "refused" else KafkaTimeoutError())
        return answer


class Group:
    """A service's consumer group: who owns which partition, and its bookmarks."""

    def __init__(self, log: Log, topics: Iterable[str]) -> None:
        self.log = log
        names = set(topics)
        self.places = [place for place in log.places if place[0] in names]
        self.bookmarks: defaultdict[Place, int] = defaultdict(int)


class Member:
    """A member of a group, as the consumer's own client: positions of the partitions that it owns."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.positions: dict[Place, int] = {}
        self.fenced = False

    def assign(self, places: Iterable[Place]) -> None:
        """Owns these partitions from now on, and reads on at the bookmarks."""
        self.positions = {place: self.group.bookmarks[place] for place in places}
        self.fenced = False

    def unread(self) -> list[Place]:
        """Partitions with something to read."""
        return [place for place, position in self.positions.items() if self.group.log.has(place, position)]

    def poll(self, place: Place, limit: int | None) -> list[Record]:
        """The next records, and moves on."""
        records = self.group.log.read(place, self.positions[place], limit)
        self.positions[place] = records[-1].offset + 1
        return records

    # what shared.consumer uses of its client

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(*place) for place in self.positions}

    async def position(self, place: TopicPartition) -> int:
        return self.positions[place.topic, place.partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if (partition.topic, partition.partition) in self.positions:
            self.positions[partition.topic, partition.partition] = offset

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self.group.log.end((place.topic, place.partition)) for place in places}

    async def commit(self, *_: Any) -> None:
        """Sets the bookmarks, unless the group goes on without this member."""
        await called("acknowledge", self._commit)

    async def _commit(self) -> None:
        if self.fenced:
            raise CommitFailedError
        self.group.bookmarks.update(self.positions)
