"""Reading the log again from a time on: where a stopped service's database says that it stands is moved back.

What it has applied before is dropped by its inbox, or known by what it is about; what it has not is applied. The same goes for
what the service itself has told since (`shared.read_back`).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.databases import Connection, connected
from deploy.local.errors import UserError
from deploy.local.settled import asking, declared
from shared import clock, partitions
from shared.contracts.base import Topic
from shared.settings import Settings

_RUNNING = """
    SELECT DISTINCT regexp_replace(application_name, '-relay$', '') AS instance FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, $1 || '-') ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Move:
    """A partition of a topic that a service reads, or wrote: the offset at which it stood, the one from which it is read again,
    and how many records that are."""

    service: str
    topic: str
    partition: int
    stood: int
    to: int
    records: int


async def rewind(settings: Settings, services: Sequence[str], to: datetime, *, really: bool) -> list[Move]:
    """Moves these services back to the first records since a time (the broker's, wall time), never forward; answers what is moved,
    or, unless `really`, what would be.

    Raises UserError when the log may have lost records since then, or when one of the services runs: it would go on where it is.
    """
    if to > clock.wall():
        raise UserError(f"{to:%Y-%m-%d %H:%M %Z} has not come yet: a service can only go back")
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(asking(settings))
        databases = {name: await stack.enter_async_context(connected(settings, name)) for name in services}
        read = {name: [*declared(name, settings).topics, *declared(name, settings).own] for name in services}
        await _check_whole(settings, kafka, {topic for topics in read.values() for topic in topics}, to)
        moves = [move for name, connection in databases.items() for move in await _moves(settings, kafka, name, read[name], connection, to)]
        if really:
            for name, connection in databases.items():
                await _check_stopped(name, connection)
            for name, connection in databases.items():
                await partitions.save(connection, {(move.topic, move.partition): move.to for move in moves if move.service == name})
        return moves


async def _check_stopped(service: str, connection: Connection) -> None:
    if running := await connection.fetch(_RUNNING, service):
        names = ", ".join(row["instance"] for row in running)
        raise UserError(f"{service} runs ({names}): stop every instance of it first, or it would go on where it is")


async def _check_whole(settings: Settings, kafka: AIOKafkaConsumer, topics: Iterable[Topic], to: datetime) -> None:
    """Raises UserError unless each partition still has its very first record or one from before, or its topic keeps them for so long."""
    kept = await _retention(settings, topics)
    places = [TopicPartition(name, number) for name in kept for number in range(settings.partitions)]
    starts, since = await kafka.beginning_offsets(places), await _since(kafka, places, to)
    for place in places:
        oldest = clock.wall() - kept[place.topic]
        if starts[place] and since.get(place, starts[place]) == starts[place] and to < oldest:
            raise UserError(
                f"the log does not reach back so far: {place.topic}/{place.partition} has lost its first {starts[place]} records, and keeps "
                f"what is younger than {oldest.astimezone(UTC):%Y-%m-%d %H:%M} UTC. Go back to a later time, or restore a younger backup"
            )


async def _retention(settings: Settings, topics: Iterable[Topic]) -> dict[str, timedelta]:
    """How long each topic, by its full name, keeps records for sure."""
    names = sorted(settings.topic(topic.name) for topic in topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await admin.start()
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    finally:
        await admin.close()
    found = {}
    for answer in answers:
        for _, _, _, name, entries in answer.resources:
            milliseconds = next(int(value) for key, value, *_ in entries if key == "retention.ms")
            found[name] = timedelta(milliseconds=milliseconds) if milliseconds >= 0 else timedelta.max
    return found


async def _since(kafka: AIOKafkaConsumer, places: Sequence[TopicPartition], to: datetime) -> Mapping[TopicPartition, int]:
    """The first record of each partition since a time; partitions that have none are left out."""
    found = await kafka.offsets_for_times(dict.fromkeys(places, round(to.timestamp() * 1000)))
    return {place: record.offset for place, record in found.items() if record is not None}


async def _moves(
    settings: Settings, kafka: AIOKafkaConsumer, service: str, topics: Iterable[Topic], connection: Connection, to: datetime
) -> list[Move]:
    """What lies after the time, and before where the database stands."""
    places = {
        TopicPartition(settings.topic(topic.name), number): (topic.name, number)
        for topic in topics
        for number in range(settings.partitions)
    }  # fmt: skip
    stands = await partitions.stands(connection)
    ends, since = await kafka.end_offsets(list(places)), await _since(kafka, list(places), to)
    moves = []
    for at, place in places.items():
        stood, first = stands.get(place, 0), since.get(at, ends[at])
        if first < stood:
            moves.append(Move(service, *place, stood, first, max(0, min(stood, ends[at]) - first)))
    return moves
