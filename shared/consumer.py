"""The batch subscriber: FastStream's loop, hardened, around `Transactions.batch`.

What is guarded against here was seen to lose records or to stop silently: headers and bodies that break FastStream's parser
before any handler runs, a cancellation that leaks out of a handler and ends the loop, retries without a pause, a
rebalance while a batch is in flight, replies to a topic of the sender's choice, topics made on the fly with one partition.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream import AckPolicy, BaseMiddleware, StreamMessage
from faststream.kafka import KafkaBroker, KafkaMessage

from shared import metrics, partitions
from shared.codec import Delivery, read
from shared.db import TRANSIENT
from shared.partitions import BehindError, Place
from shared.service import NotReadyError, Service
from shared.settings import Settings
from shared.transaction import Transactions

ITEMS_PER_TRANSACTION = 2_000
OUTBOX_LIMIT = 50_000
"""Rows waiting for publication beyond which consumption pauses."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_MARKERS_SECONDS = 5.0

log = structlog.get_logger()


class BackpressureError(Exception):
    """The outbox is full: what comes in must wait until the broker takes what goes out."""


class _Harden(BaseMiddleware):
    """Pauses before a failed batch is read again, and keeps a leaked cancellation from ending the loop for good."""

    def __init__(self, msg: Any, /, *, context: Any, failed: Callable[[BaseException | None], Awaitable[None]]) -> None:
        super().__init__(msg, context=context)
        self._failed = failed

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        try:
            result = await call_next(msg)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # we are being stopped
            await self._failed(error)
            raise RuntimeError("a cancellation leaked out of a handler") from error
        except Exception as error:
            await self._failed(error)
            raise
        await self._failed(None)
        return result


class _Barrier(ConsumerRebalanceListener):  # type: ignore[misc]
    """Lets a batch in flight end, acknowledgement included, before its partitions go to another member, or come back."""

    def __init__(
        self, in_flight: asyncio.Lock, revoked: Callable[[], None], assigned: Callable[[set[TopicPartition]], Awaitable[None]]
    ) -> None:
        self._in_flight = in_flight
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002  (eager: all of them)
        async with self._in_flight:
            self._revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("assigned", partitions=len(assigned))
        metrics.ASSIGNMENTS.inc()
        async with self._in_flight:
            await self._assigned(assigned)


async def _sanitised(message: tuple[ConsumerRecord[Any, Any], ...], original: Callable[..., Awaitable[Any]]) -> Any:
    """Parses a batch without its headers, whose decoding would lose the whole batch; we read them ourselves."""
    parsed = await original(tuple(dataclasses.replace(record, headers=()) for record in message))
    parsed.raw_message = message
    return parsed


async def _undecoded(message: KafkaMessage) -> KafkaMessage:
    """Hands the message itself to the handler: one bad body must not keep a batch from it."""
    return message


class Consumer:
    """One service's subscription to all its topics."""

    def __init__(
        self,
        service: Service[Any],
        settings: Settings,
        transactions: Transactions,
        applied: Callable[[], None],
        may_apply: Callable[[], bool] = lambda: True,
    ) -> None:
        self._transactions = transactions
        self._applied = applied
        self._may_apply = may_apply
        self._names = {settings.topic(topic.name): topic.name for topic in service.topics}
        self._rank = {name: number for number, name in enumerate(self._names)}
        self._in_flight = asyncio.Lock()
        self._reads_from: dict[Place, int] = {}  # where the next read of a partition begins, as far as we know
        self._handled: dict[Place, int] = {}  # everything before it that this member has read of a partition is handled
        self._failures = 0
        self._broken = False
        self.last_error: str | None = None
        self.progress = monotonic()
        self.broker = KafkaBroker(
            settings.kafka_bootstrap_servers.split(","), client_id=f"{service.name}-{settings.instance}",
            allow_auto_create_topics=False, logger=None, graceful_timeout=20, apply_types=False,
            middlewares=[partial(_Harden, failed=self._outcome)],
        )  # fmt: skip
        self._subscriber = self.broker.subscriber(
            *self._names,
            group_id=settings.topic(service.name),
            # The same name after a restart is the same member: no rebalance, no wait for the dead one's session.
            group_instance_id=f"{service.name}-{settings.instance}",
            batch=True, max_records=ITEMS_PER_TRANSACTION, batch_timeout_ms=20,
            auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR, no_reply=True,
            parser=_sanitised, decoder=_undecoded, listener=_Barrier(self._in_flight, self._revoked, self._assigned),
            # Partition i of every topic goes to the same instance, so that instances rarely touch the same SKU.
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=10_000, heartbeat_interval_ms=2_000, rebalance_timeout_ms=60_000, max_poll_interval_ms=300_000,
        )  # fmt: skip
        self._subscriber(self._handle)

    @property
    def kafka(self) -> AIOKafkaConsumer:
        """The underlying consumer, while started."""
        consumer = self._subscriber.consumer
        if consumer is None:
            raise RuntimeError("the consumer has not been started")
        return consumer

    @property
    def alive(self) -> bool:
        """Whether the consume loop still runs and can come to anything (a broker that answers says nothing about it)."""
        return not self._broken and all(not task.done() for task in self._subscriber.tasks)

    @property
    def assigned(self) -> int:
        """How many partitions this member owns."""
        return len(self._subscriber.consumer.assignment()) if self._subscriber.consumer else 0

    async def start(self) -> None:
        """Joins the group and begins to consume."""
        await self.broker.start()
        poll = self.kafka.getmany

        async def getmany(*args: Any, **kwargs: Any) -> Any:
            try:
                records = await poll(*args, **kwargs)
            except ConsumerStoppedError:
                raise
            except Exception as error:
                # aiokafka sits an outage out without a word. What it does raise lasts: its coordination has died, say, while
                # its heartbeats keep the partitions. FastStream would ask it again, and get the same answer, for ever.
                self._broken = True
                log.warning("the consumer is broken, it will be made anew", error=repr(error))
                raise
            self.progress = monotonic()
            if not records:
                await self._pass_markers()
            return records

        self.kafka.getmany = getmany

    async def stop(self) -> None:
        """Ends the batch in flight and leaves."""
        await self.broker.stop()

    async def _handle(self, message: KafkaMessage) -> None:
        async with self._in_flight:
            if not self._may_apply():
                raise NotReadyError("it is to be seen first whether this is the database that it was")
            await self._backpressure()
            records: Sequence[ConsumerRecord[Any, Any]] = message.raw_message
            ordered = sorted(records, key=lambda record: (self._rank[record.topic], record.partition, record.offset))
            sought: dict[Place, int] = {}
            for chunk in cut(read(record, self._names[record.topic]) for record in ordered):
                await self._apply([delivery for delivery in chunk if (delivery.topic, delivery.partition) not in sought], sought)
                self.progress = monotonic()
            # Inside the lock: a rebalance waits until the bookmark is set. The position is that of this whole batch.
            await message.ack()
            read_to = {(self._names[record.topic], record.partition): record.offset + 1 for record in ordered} | sought
            self._reads_from |= read_to
            self._handled |= read_to

    async def _apply(self, deliveries: Sequence[Delivery], sought: dict[Place, int]) -> None:
        """One transaction; where the database is behind the log, seeks back instead (`sought`: to where)."""
        log_starts: dict[Place, int] = {}
        while deliveries:
            try:
                with metrics.TRANSACTION_SECONDS.time():
                    items = await self._transactions.batch(deliveries, log_starts)
            except BehindError as behind:
                starts = await self._log_starts(list(behind.next))
                first = {(delivery.topic, delivery.partition): delivery.offset for delivery in reversed(deliveries)}
                for place, following in behind.next.items():
                    if first[place] <= starts[place]:
                        log.warning("records lost to retention", topic=place[0], partition=place[1], since=following, until=starts[place])
                        log_starts[place] = starts[place]
                        continue
                    if self._reads_from.get(place, first[place]) <= following:
                        # A read from there found nothing: the offsets of Kafka's transaction markers, or compacted away.
                        log.info("offsets without records", topic=place[0], partition=place[1], since=following, until=first[place])
                        log_starts[place] = first[place]
                        continue
                    log.warning("database behind the log, seeking back", topic=place[0], partition=place[1], to=following, was=first[place])
                    sought[place] = max(following, starts[place])
                    self.kafka.seek(self._at(place), sought[place])
                deliveries = [delivery for delivery in deliveries if (delivery.topic, delivery.partition) not in sought]
            else:
                metrics.RECORDS.inc(len(deliveries))
                metrics.ITEMS.inc(items)
                self._applied()
                return

    def _revoked(self) -> None:
        self._reads_from.clear()
        self._handled.clear()

    async def _assigned(self, assigned: set[TopicPartition]) -> None:
        """What cannot be seen now is seen by the consumer that is made anew: aiokafka tells its log that this has failed, and nobody else."""
        try:
            await self._catch_up(assigned)
            self._handled = {(self._names[at.topic], at.partition): await self.kafka.position(at) for at in assigned}
        except Exception:
            self._broken = True
            raise

    async def _pass_markers(self) -> None:
        """Moves the database past offsets that hold no record, where a log ends with the broker's markers of a Kafka transaction:
        else it would seem not to be read to its end. Called after an empty poll, when nothing that was read waits to be handled."""
        try:
            async with asyncio.timeout(_MARKERS_SECONDS):
                empty = {
                    place: (handled, position)
                    for place, handled in list(self._handled.items())
                    if (position := await self.kafka.position(self._at(place))) > handled
                }
                if empty:
                    await partitions.pass_over(self._transactions.pool, empty)
                    # Partitions may have gone to another member meanwhile.
                    self._handled |= {place: position for place, (_, position) in empty.items() if place in self._handled}
        except (*TRANSIENT, KafkaError) as error:  # after the next empty poll, then
            log.info("markers not passed", error=repr(error))

    async def _catch_up(self, assigned: set[TopicPartition]) -> None:
        """Seeks back where the bookmark is ahead of the database: nothing new may come that would show it."""
        stands = await partitions.stands(self._transactions.pool)
        starts = await self.kafka.beginning_offsets(list(assigned))
        for place in assigned:
            following = max(stands.get((self._names[place.topic], place.partition), 0), starts[place])
            if await self.kafka.position(place) > following:
                log.warning("database behind the bookmark, seeking back", topic=place.topic, partition=place.partition, to=following)
                self.kafka.seek(place, following)

    def _at(self, place: Place) -> TopicPartition:
        full = next(name for name, topic in self._names.items() if topic == place[0])
        return TopicPartition(full, place[1])

    async def _log_starts(self, places: Sequence[Place]) -> dict[Place, int]:
        starts = await self.kafka.beginning_offsets([self._at(place) for place in places])
        return {place: starts[self._at(place)] for place in places}

    async def _backpressure(self) -> None:
        depth = await self._transactions.pool.fetchval(
            # The numbers span more than the rows while one partition is refused and the others flow: then the rows are counted.
            "SELECT CASE WHEN span <= $1 THEN span ELSE (SELECT count(*) FROM runtime.outbox) END"
            " FROM (SELECT coalesce(max(seq) - min(seq) + 1, 0) AS span FROM runtime.outbox) AS numbers",
            OUTBOX_LIMIT,
        )
        metrics.OUTBOX_ROWS.set(depth)
        if depth > OUTBOX_LIMIT:
            raise BackpressureError(f"{depth} rows wait in the outbox")

    async def _outcome(self, error: BaseException | None) -> None:
        """Remembers success; after a failure pauses, longer each time, before the batch is read again."""
        if error is None:
            self._failures, self.last_error = 0, None
            return
        self._reads_from.clear()
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self.last_error = f"{type(error).__name__}: {error}"
        metrics.FAILED_BATCHES.inc()
        log.warning("batch failed, it will be read again", pause=pause, error=self.last_error, exc_info=self._failures == 1)
        await asyncio.sleep(pause)


def cut(deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    """Whole records in transactions of about ITEMS_PER_TRANSACTION items."""
    chunk: list[Delivery] = []
    items = 0
    for delivery in deliveries:
        size = len(delivery.messages) or 1
        if chunk and items + size > ITEMS_PER_TRANSACTION:
            yield chunk
            chunk, items = [], 0
        chunk.append(delivery)
        items += size
    if chunk:
        yield chunk
