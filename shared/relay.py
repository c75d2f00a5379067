"""The relay: publishes the outbox, in order per target partition, and deletes what the broker has acknowledged.

One per service, by a session advisory lock on the very connection it works on. A second one for a moment is harmless: both
publish each partition in order, and receivers drop the later copies. Per partition one batch is in flight, so a refused
batch is never overtaken; it stops only its own partition, and shows in readiness.

With the rows it deletes it notes up to where the service's own topics stand: what is there beyond, and is not in the outbox,
this database does not know of (`shared.read_back`).
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId

from shared.codec import OUR_SOURCE, cloud_event_headers
from shared.contracts.base import Topic
from shared.settings import Settings

ROWS_PER_ROUND = 2_000
BATCH_BYTES = 1_040_000
"""Below the broker's limit for a batch, above the largest message: one batch per partition and round."""
POLL_SECONDS = 0.1
_FATAL = (OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId)
_PUBLISHED = """
    WITH deleted AS (DELETE FROM runtime.outbox WHERE seq = ANY($1::bigint[]))
    INSERT INTO runtime.partition SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[])
    ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next
"""

log = structlog.get_logger()


def producer(settings: Settings) -> AIOKafkaProducer:
    """A producer that loses nothing: every in-sync replica acknowledges, retries do not duplicate or reorder."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, acks="all", enable_idempotence=True,
        max_batch_size=BATCH_BYTES, max_request_size=BATCH_BYTES, request_timeout_ms=20_000,
    )  # fmt: skip


def is_dead(error: KafkaError) -> bool:
    """Whether the producer that raised this never recovers by itself: an idempotent one has lost count, or its sender has ended (what
    a broker refuses has a class of its own)."""
    return isinstance(error, _FATAL) or type(error) is KafkaError


class Relay:
    """State of one process' relay; `blocked` names partitions that the broker refuses, with the reason."""

    def __init__(self, settings: Settings, service: str, own: Iterable[Topic] = ()) -> None:
        self._settings = settings
        self._source = f"{OUR_SOURCE}{service}"
        self._own = {settings.topic(topic.name): topic.name for topic in own}
        self._stands: dict[tuple[str, int], int] = {}  # in own topics: the offset after what was published last
        self._wake = asyncio.Event()
        self._retry_at: dict[tuple[str, int], float] = {}
        self.blocked: dict[tuple[str, int], str] = {}
        self.sent = 0

    def wake(self) -> None:
        """There are new rows."""
        self._wake.set()

    async def run(self, connection: "asyncpg.Connection[Any]") -> None:
        """Publishes until cancelled or until connection or producer break (the caller starts it anew)."""
        kafka = producer(self._settings)
        try:
            await kafka.start()
            while True:
                self._wake.clear()
                if not await self.round(connection, kafka):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        finally:
            # From now on another instance may know better.
            self.blocked.clear()
            self._retry_at.clear()
            await kafka.stop()

    async def round(self, connection: "asyncpg.Connection[Any]", kafka: AIOKafkaProducer) -> int:
        """Publishes the oldest rows, one batch per partition; answers how many rows are gone."""
        now = monotonic()
        resting = [place for place, at in self._retry_at.items() if at > now]
        rows = await connection.fetch(
            "SELECT seq, topic, partition, key, id, type, time, causation, actor, value FROM runtime.outbox"
            " WHERE (topic, partition) NOT IN (SELECT * FROM unnest($1::text[], $2::int[])) ORDER BY seq LIMIT $3",
            [topic for topic, _ in resting], [partition for _, partition in resting], ROWS_PER_ROUND,
        )  # fmt: skip
        if not rows:
            return 0
        places: dict[tuple[str, int], list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            places[row["topic"], row["partition"]].append(row)
        answers = await asyncio.gather(*(self._send(kafka, place, batch) for place, batch in places.items()))
        gone = [seq for answer in answers for seq in answer]
        if gone:
            told = [(*place, self._stands.pop(place)) for place in sorted(self._stands)]
            await connection.execute(_PUBLISHED, gone, *([row[column] for row in told] for column in range(3)))
            self.sent += len(gone)
        return len(gone)

    async def _send(self, kafka: AIOKafkaProducer, place: tuple[str, int], rows: Sequence[asyncpg.Record]) -> list[int]:
        """Sends as many of a partition's rows as fit into a batch; answers those that the broker has."""
        topic, partition = place
        batch = kafka.create_batch()
        packed = []
        for row in rows:
            headers = cloud_event_headers(row["type"], self._source, str(row["id"]), row["time"], row["causation"], row["actor"])
            if batch.append(key=row["key"], value=row["value"], timestamp=None, headers=headers) is None:
                break
            packed.append(row["seq"])
        try:
            acknowledged = await asyncio.wait_for(await kafka.send_batch(batch, topic, partition=partition), timeout=30)
        except KafkaError as error:
            if is_dead(error):
                raise  # it is made anew, the outbox still has everything
            self.blocked[place] = f"{type(error).__name__}: {error}"
            self._retry_at[place] = monotonic() + 1.0
            log.warning("publication refused", topic=topic, partition=partition, error=self.blocked[place])
            return []
        self.blocked.pop(place, None)
        self._retry_at.pop(place, None)
        if topic in self._own and acknowledged.offset >= 0:  # else the broker knows only that it has had this batch before
            self._stands[self._own[topic], partition] = acknowledged.offset + len(packed)
        return packed
