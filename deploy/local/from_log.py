"""Does the state follow from the log? The topics are applied once more by the journal, to empty databases, and both are compared.

A service's journal and tables are read as of one moment, so the system may be at work meanwhile (design.md section 8, number 9).
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from importlib import import_module
from itertools import takewhile, zip_longest
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from deploy.local.agreement import Row
from deploy.local.audit import Check
from deploy.local.databases import Connection, connected, snapshot
from deploy.local.errors import UserError
from deploy.local.settled import asking, declared
from shared import db, items, journal, migrate
from shared.clock import wall
from shared.codec import read
from shared.contracts.base import JsonObject, Message
from shared.items import Item
from shared.journal import Own, Run
from shared.partitions import Place
from shared.read_back import if_ours
from shared.service import Service
from shared.settings import SERVICES, Settings
from shared.transaction import Transactions

ROWS = 1_000
"""Compared, and records read ahead of a partition, at a time."""
SECONDS_WITHOUT_RECORDS = 30
TIMERS = {"runtime.timer": "SELECT kind, key, due FROM runtime.timer ORDER BY kind, key"}
KEYS = 2
"""So many of a table's first columns say which row it is."""


class NotWholeError(UserError):
    """The topics do not hold any more what was applied."""


async def checks(settings: Settings) -> dict[str, Check]:
    """One check per service: that its tables are what its journal makes of the topics. `checked` are the rows compared.

    Raises NotWholeError when the topics have lost what the journal needs, UserError when the system cannot be read.
    """
    return {
        f"{name}: replaying the topics by the journal gives the same state": await check(
            settings, declared(name, settings), import_module(f"services.{name}.audit").STATE
        )
        for name in SERVICES
    }


async def check(settings: Settings, service: Service[Any], state: Mapping[str, str]) -> Check:
    """The check of one service; `state` names its tables, with a query for the rows of each in an order of their own.

    A violation is the first row of a table that differs, or the transaction that cannot be applied again.
    """
    async with snapshot(settings, service.name) as live:
        if not await live.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('backorder.from_log'))"):
            raise UserError(f"the log of {service.name} is being replayed already")
        await live.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # between two looks into the journal much is applied
        async with _empty_database(settings, service) as scratch:
            try:
                await _replay(settings, service, live, scratch)
            except _BrokenError as broken:
                return Check(0, [{"service": service.name, "row": broken.row, "expected": "applied as it was before"}])
            async with snapshot(scratch, service.name) as replayed:
                return await _compared(service.name, live, replayed, {**state, **TIMERS})


@asynccontextmanager
async def _empty_database(settings: Settings, service: Service[Any]) -> AsyncIterator[Settings]:
    """Settings under which the service has an empty database, on the same server, which goes at the end."""
    # No system can have this name: a namespace has no hyphen.
    scratch = settings.model_copy(update={"namespace": f"{settings.namespace}-replay"})
    name = scratch.database(service.name)

    async def drop() -> None:
        async with connected(settings, service.name) as server:
            await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    await drop()  # a killed replay left it
    try:
        await migrate.migrate(scratch, service.name, service.migrations)
        async with connected(scratch, service.name) as connection:
            await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        yield scratch
    finally:
        await drop()


class _BrokenError(Exception):
    """A transaction of the journal could not be applied again."""

    def __init__(self, number: int, error: Exception) -> None:
        super().__init__(f"transaction {number}: {error!r}")
        self.row: JsonObject = {"table": "runtime.journal", "number": number, "error": f"{type(error).__name__}: {error}"}


async def _replay(settings: Settings, service: Service[Any], live: Connection, scratch: Settings) -> None:
    """Applies what the journal says, transaction by transaction, in the order of their numbers."""
    pool = await db.pool(scratch, service.name)
    try:
        async with asking(settings) as kafka:
            log = await _Log.of(settings, service, kafka, live)
            as_ever = Transactions(service, scratch, pool, wall)
            reading_back = Transactions(service.read_back or service, scratch, pool, wall)
            async for entry in journal.read(live):
                transactions = reading_back if entry.read_back else as_ever
                try:
                    await transactions.reapply(entry, [item for part in entry.applied for item in await log.items(part)])
                except (UserError, KafkaError, *db.TRANSIENT):
                    raise
                except Exception as error:
                    raise _BrokenError(entry.number, error) from error
    finally:
        await pool.close()


class _Log:
    """What a service applied, read again: forward record by record, and back where a dead letter was replayed."""

    def __init__(self, service: Service[Any], kafka: AIOKafkaConsumer, places: Mapping[Place, TopicPartition]) -> None:
        self._service = service
        self._kafka = kafka
        self._places = places
        self._own = {kind.__name__: kind for kind in service.routes if not issubclass(kind, Message)}
        self._ahead: defaultdict[Place, deque[ConsumerRecord]] = defaultdict(deque)
        """Records from the last one that was asked for on."""

    @classmethod
    async def of(cls, settings: Settings, service: Service[Any], kafka: AIOKafkaConsumer, live: Connection) -> "_Log":
        """The log of a journal. Raises NotWholeError when a topic begins after what the journal needs first, or ends before the last."""
        needed = {(topic, partition): (first, last) for topic, partition, first, last in await live.fetch(_NEEDED)}
        places = {place: TopicPartition(settings.topic(place[0]), place[1]) for place in needed}
        starts, ends = await kafka.beginning_offsets(list(places.values())), await kafka.end_offsets(list(places.values()))
        for (topic, partition), (first, last) in needed.items():
            at = places[topic, partition]
            if starts[at] > first:
                raise NotWholeError(f"the topics are not whole: {topic}/{partition} begins at {starts[at]}, the journal needs {first}")
            if ends[at] <= last:
                raise NotWholeError(f"the topics are not whole: {topic}/{partition} ends at {ends[at]}, the journal needs {last}")
        kafka.assign(list(places.values()))
        for place, at in places.items():
            kafka.seek(at, needed[place][0])
        return cls(service, kafka, places)

    async def items(self, part: Run | Own) -> list[Item]:
        """The items of a part of a transaction. Raises NotWholeError when the log holds something else."""
        if isinstance(part, Own):
            message = self._own[part.type].model_validate(part.data)
            assert not isinstance(message, Message)
            return [items.of_the_service(self._service.name, message, part.id, datetime.fromisoformat(part.time))]
        first, last = (part.first, part.first_index), (part.last, part.last_index)
        records = await self._records((part.topic, part.partition), part.first, part.last)
        found = items.of_records(self._service, (if_ours(read(record, part.topic), self._service) for record in records))
        run = [item for item in found if first <= (item.origin.offset, item.origin.index) <= last]
        ends = [(item.origin.offset, item.origin.index) for item in (*run[:1], *run[-1:])]
        if ends != [first, last]:
            raise NotWholeError(
                f"the topics are not whole: {part.topic}/{part.partition} does not hold {first} to {last} as it was applied"
            )
        return run

    async def _records(self, place: Place, first: int, last: int) -> list[ConsumerRecord]:
        at, ahead = self._places[place], self._ahead[place]
        while ahead and ahead[0].offset < first:
            ahead.popleft()
        if (not ahead and await self._kafka.position(at) != first) or (ahead and ahead[0].offset > first):
            ahead.clear()
            self._kafka.seek(at, first)
        while not ahead or ahead[-1].offset < last:
            more = (await self._kafka.getmany(at, timeout_ms=SECONDS_WITHOUT_RECORDS * 1_000, max_records=ROWS)).get(at)
            if not more:
                raise UserError(f"the broker has not delivered {place[0]}/{place[1]} from {first} on in {SECONDS_WITHOUT_RECORDS} s")
            ahead.extend(more)
        return list(takewhile(lambda record: record.offset <= last, ahead))


_NEEDED = """
    SELECT run ->> 0, (run ->> 1)::int, min((run ->> 2)::bigint), max((run ->> 4)::bigint)
    FROM runtime.journal CROSS JOIN jsonb_array_elements(applied) AS run WHERE jsonb_typeof(run) = 'array' GROUP BY 1, 2 ORDER BY 1, 2
"""


async def _compared(service: str, live: Connection, replayed: Connection, state: Mapping[str, str]) -> Check:
    checked, violations = 0, []
    for table, sql in state.items():
        rows, difference = await _difference(live, replayed, sql)
        checked += rows
        if difference is not None:
            violations.append({"service": service, **_shown(table, *difference)})
    return Check(checked, violations)


async def _difference(live: Connection, replayed: Connection, sql: str) -> tuple[int, tuple[Row | None, Row | None] | None]:
    """How many rows were compared, and the first that differs: as it is, and as it follows from the log (None: there is no more)."""
    rows = 0
    ours, theirs = await live.cursor(sql), await replayed.cursor(sql)
    while True:
        left, right = await asyncio.gather(ours.fetch(ROWS), theirs.fetch(ROWS))
        if left != right:
            return next((rows + place, pair) for place, pair in enumerate(zip_longest(left, right), 1) if pair[0] != pair[1])
        if not left:
            return rows, None
        rows += len(left)


def _shown(table: str, live: Row | None, replayed: Row | None) -> JsonObject:
    """A difference as a violation: which row, and the columns that differ."""
    columns = list((live or replayed or {}).keys())
    differing = [name for name in columns if live is None or replayed is None or live[name] != replayed[name]]
    row = {"row": "missing"} if live is None else {name: live[name] for name in columns if name in {*columns[:KEYS], *differing}}
    follows = "no such row" if replayed is None else ", ".join(f"{name} = {replayed[name]}" for name in differing)
    return {"row": {"table": table, **row}, "expected": f"as it follows from the log: {follows}"}
