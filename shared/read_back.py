"""A database that was restored from a backup learns first what its service has told since.

What others have told, such a database reads again from where it stands (`shared.partitions`). But what its own service told
after the backup it does not know, and the world does: suppliers have their orders, customers their answers. To decide all that
anew would be to tell it twice, and otherwise. So a service names the topics that only it writes, and the relay notes how far
they are published (`shared.relay`). A record beyond that which is not in the outbox either was told by a database that this one
does not know of. Then everything is read again up to where the log stands, in the order that the service names, before the
service goes on: nothing is published, no timer fires and nothing new is taken meanwhile. In all other cases this is two questions.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared import partitions
from shared.clock import Clock
from shared.codec import OUR_SOURCE, Delivery, read
from shared.consumer import ITEMS_PER_TRANSACTION, cut
from shared.contracts.base import Topic
from shared.service import Service
from shared.settings import Settings
from shared.transaction import Transactions

POLL_MS = 500

# One statement, since a relay that works meanwhile deletes the row and moves `next` in one.
_UNKNOWN = """
    SELECT EXISTS (
        SELECT FROM unnest($1::text[], $2::int[], $3::bigint[], $4::uuid[]) AS told (topic, partition, "offset", id)
        WHERE NOT EXISTS (SELECT FROM runtime.outbox WHERE outbox.id = told.id)
          AND NOT EXISTS (SELECT FROM runtime.partition AS p
                          WHERE p.topic = told.topic AND p.partition = told.partition AND p.next > told."offset"))
"""

log = structlog.get_logger()


async def read_back(
    service: Service[Any], settings: Settings, pool: "asyncpg.Pool[Any]", clock: Clock, progress: Callable[[], None] = lambda: None
) -> bool:
    """Returns when the database knows everything that its service has told; answers whether there was anything to read back.

    Instances may do this side by side: they take turns at the partitions' rows, and the inbox drops what another one has applied.
    `progress` is called at least twice a second while there is any, or once for each transaction.
    """
    restored = service.read_back
    if restored is None:
        return False
    async with _started(settings, pool, progress) as unread:
        if not await _lost(service, pool, unread):
            return False
        log.warning("the database was restored: reading back what the service has told")
        transactions = Transactions(restored, settings, pool, clock, read_back=True)
        for topic in restored.topics:
            count = 0
            async for deliveries in unread.records([topic]):
                ours = [if_ours(each, service) for each in deliveries]
                for chunk in cut(ours):
                    # All from `next` on was asked for: what lies before the first record holds none.
                    starts = {place: span.first for place, span in partitions.spans(chunk).items()}
                    await transactions.batch(chunk, starts)
                    count += len(chunk)
                    progress()
            log.info("read back", topic=topic.name, records=count)
    return True


async def _lost(service: Service[Any], pool: "asyncpg.Pool[Any]", unread: "_Unread") -> bool:
    """Whether the service has told something that this database does not know of."""
    async for deliveries in unread.records(service.own):
        told = [(each.topic, each.partition, each.offset, each.envelope.internal) for each in deliveries if _ours(each, service)]
        if await pool.fetchval(_UNKNOWN, *([row[column] for row in told] for column in range(4))):
            return True
    return False


def if_ours(delivery: Delivery, service: Service[Any]) -> Delivery:
    """The record, without content if somebody else wrote it where only the service writes."""
    foreign = delivery.topic in {topic.name for topic in service.own} and not _ours(delivery, service)
    return delivery._replace(messages=(), flaws=()) if foreign else delivery


def _ours(delivery: Delivery, service: Service[Any]) -> bool:
    return delivery.envelope.source == f"{OUR_SOURCE}{service.name}" and delivery.envelope.internal is not None


@dataclass(frozen=True)
class _Unread:
    """What stands in the log between where the database stands and where the topics end."""

    settings: Settings
    pool: "asyncpg.Pool[Any]"
    kafka: AIOKafkaConsumer
    progress: Callable[[], None]

    async def records(self, topics: Iterable[Topic]) -> AsyncIterator[Sequence[Delivery]]:
        """The records of these topics, in batches; each partition in its order."""
        names = {self.settings.topic(topic.name): topic.name for topic in topics}
        places = [TopicPartition(name, number) for name in names for number in range(self.settings.partitions)]
        stands = await partitions.stands(self.pool)
        ends: Mapping[TopicPartition, int] = await self.kafka.end_offsets(places)
        left = [place for place in places if stands.get((names[place.topic], place.partition), 0) < ends[place]]
        if not left:
            return
        starts: Mapping[TopicPartition, int] = await self.kafka.beginning_offsets(left)
        self.kafka.assign(left)
        for place in left:
            following = stands.get((names[place.topic], place.partition), 0)
            if following < starts[place]:
                log.warning("records lost to retention", topic=place.topic, partition=place.partition, since=following, until=starts[place])
            self.kafka.seek(place, max(following, starts[place]))
        while left := [place for place in left if await self.kafka.position(place) < ends[place]]:
            batches = await self.kafka.getmany(*left, timeout_ms=POLL_MS, max_records=ITEMS_PER_TRANSACTION)
            self.progress()
            found = [read(record, names[place.topic]) for place, records in batches.items() for record in records]
            if found:
                yield sorted(found, key=lambda delivery: (delivery.topic, delivery.partition, delivery.offset))


@asynccontextmanager
async def _started(settings: Settings, pool: "asyncpg.Pool[Any]", progress: Callable[[], None]) -> AsyncIterator[_Unread]:
    kafka = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=POLL_MS,
    )
    try:
        await kafka.start()
        yield _Unread(settings, pool, kafka, progress)
    finally:
        await kafka.stop()
