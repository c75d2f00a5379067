"""A running service: waits for what it needs, consumes, leads, answers HTTP, stops gracefully. `run(service)` is its main."""

import asyncio
import contextlib
import gc
import json
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import asyncpg
import structlog
import uvloop

from shared import batches, clock, db, inbox, log, metrics, migrate, quarantine, requests, topics
from shared.connection import mend
from shared.consumer import Consumer
from shared.invariants import Rounds
from shared.read_back import read_back
from shared.relay import Relay
from shared.server import Server
from shared.service import Local, NotReadyError, Service
from shared.settings import Settings
from shared.transaction import Transactions

STUCK_SECONDS = 60.0
"""A loop that has not gone round for so long is stuck: liveness fails and the platform restarts the process."""

logger = structlog.get_logger()


class FixedError(Exception):
    """The process is set up otherwise than its system: another clock, another number of partitions."""


class Runtime:
    """One process of a service."""

    def __init__(self, service: Service[Any], settings: Settings, pool: "asyncpg.Pool[Any]") -> None:
        batches.guard()
        self.service = service
        self.settings = settings
        self.pool = pool
        self.stopping = asyncio.Event()
        self.relay = Relay(settings, service.name, service.own)
        self.leading = False
        self._recognised = asyncio.Event()
        """Set while a session lasts before which the database was seen to know everything that the service has told."""
        self._clock: clock.Clock | None = None
        self._transactions: Transactions | None = None
        self._consumer: Consumer | None = None
        self._waits_for = "start"
        self._progress = monotonic()

    # what background loops and the HTTP edge use

    def now(self) -> datetime:
        """Business time (UTC)."""
        if self._clock is None:
            raise NotReadyError("the clock is not known yet")
        return self._clock()

    async def tell(self, messages: Sequence[Local]) -> None:
        """Applies what this process has to say, in one transaction."""
        if self._transactions is None:
            raise NotReadyError("the service has not started yet")
        await self._transactions.tell(messages)
        self.relay.wake()

    # health

    def silent_seconds(self) -> float:
        """How long ago the loops went round."""
        return monotonic() - (self._consumer.progress if self._consumer else self._progress)

    def live(self) -> bool:
        """Whether the loops go round; says nothing about Kafka or PostgreSQL, whose absence a restart would not mend."""
        consumer = self._consumer
        return self.silent_seconds() < STUCK_SECONDS and (consumer is None or consumer.alive)

    async def readiness(self, pool: "asyncpg.Pool[Any] | None" = None) -> tuple[bool, dict[str, Any]]:
        """Whether work flows, and what it waits for. `pool` = that of the loop that asks, if it is not the service's own."""
        pool = pool or self.pool
        details: dict[str, Any] = {"service": self.service.name, "instance": self.settings.instance, "leading": self.leading}
        if self._consumer is None:
            return False, {**details, "waits_for": self._waits_for}
        details["assigned_partitions"] = self._consumer.assigned
        if self._clock is not None:
            details["business_time"] = self._clock().isoformat()
        try:
            [row] = await pool.fetch(
                "SELECT (SELECT count(*) FROM runtime.outbox) AS outbox_rows, (SELECT min(due) FROM runtime.timer) AS next_timer,"
                " (SELECT min(time) FROM runtime.outbox) AS oldest_unpublished,"
                " (SELECT count(*) FROM runtime.dead_letter WHERE state = 'parked') AS parked,"
                " (SELECT count(*) FROM runtime.dead_letter WHERE state = 'refused') AS refused"
            )
            broken = await quarantine.broken(pool)
        except db.TRANSIENT as error:
            return False, {**details, "waits_for": f"database: {error}"}
        details |= {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        metrics.OUTBOX_ROWS.set(row["outbox_rows"])
        metrics.PUBLISHED.set(self.relay.sent)
        for state in ("parked", "refused"):
            metrics.DEAD_LETTERS.labels(state).set(row[state])
        metrics.QUARANTINED.set(len(broken.aggregates))
        for invariant in self.service.invariants():
            metrics.INVARIANTS_BROKEN.labels(invariant).set(broken.invariants[invariant])
        if broken.aggregates:
            details["quarantined"] = broken.aggregates
        if self.relay.blocked:
            details["refused_by_broker"] = {f"{topic}/{partition}": why for (topic, partition), why in self.relay.blocked.items()}
        if self._consumer.last_error:
            details["last_error"] = self._consumer.last_error
        return not self.relay.blocked and not self._consumer.last_error, details

    # life

    async def run(self) -> None:
        """Serves until `stopping`; whatever breaks is logged and begun anew. Raises FixedError: that no retry can mend."""
        pause = 0.2
        while not self.stopping.is_set():
            try:
                await self._serve()
            except* FixedError:
                raise
            except* Exception as group:
                error = group.exceptions[0]
                self._waits_for = f"{type(error).__name__}: {error}"
                logger.warning("not serving", error=self._waits_for, exc_info=not isinstance(error, NotReadyError | OSError))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause)
            self._went_round()
            pause = min(pause * 1.5, 3.0)

    async def _serve(self) -> None:
        """One life: everything is there, until stopped or until something breaks."""
        if missing := await migrate.pending(self.pool, self.service.migrations):
            raise NotReadyError(f"migrations to be applied: {', '.join(missing)}")
        await topics.check(self.settings)
        await self._check_fixed()
        self._recognised.clear()
        async with clock.started(self.settings) as now:
            transactions = Transactions(self.service, self.settings, self.pool, now)
            consumer = Consumer(self.service, self.settings, transactions, self.relay.wake, self._recognised.is_set)
            self._clock, self._transactions = now, transactions
            ended = asyncio.Event()
            leader = asyncio.create_task(self._lead(transactions, ended), name="leader")
            try:
                while not self._recognised.is_set():
                    if self.stopping.is_set():
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._recognised.wait(), 0.5)
                await consumer.start()
                self._consumer = consumer
                logger.info("serving")
                await self._watch(consumer, leader)
            finally:
                await consumer.stop()
                self._consumer = None
                ended.set()
                while not leader.done():  # a producer's last words may wait for a broker that is gone
                    leader.cancel()
                    await asyncio.wait([leader], timeout=5)

    async def _watch(self, consumer: Consumer, leader: "asyncio.Task[None]") -> None:
        """Returns when the service shall stop; raises when a loop has died."""
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 0.5)
            if not consumer.alive:
                raise RuntimeError("the consume loop has ended")
            if leader.done():
                leader.result()

    async def _check_fixed(self) -> None:
        wanted = {"clock": str(self.settings.clock), "partitions": str(self.settings.partitions)}
        for name, value in wanted.items():
            await self.pool.execute("INSERT INTO runtime.fixed VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value)
            found = await self.pool.fetchval("SELECT value FROM runtime.fixed WHERE name = $1", name)
            if found != value:
                raise FixedError(f"this system was set up with {name} {found!r}; it cannot go on with {value!r}")

    async def _lead(self, transactions: Transactions, ended: asyncio.Event) -> None:
        """While this instance holds the service's lock: relay, timers, operators' requests, pruning, invariants and background loops."""
        while not ended.is_set():  # what breaks on its way out swallows the cancellation
            try:
                await self._recognise()
                connection = await db.session(self.settings, self.service.name, "relay")
                try:
                    self._recognised.set()
                    while not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext('backorder.relay'))"):
                        await asyncio.sleep(0.5)
                    self.leading = True
                    metrics.LEADER.set(1)
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.relay.run(connection))
                        group.create_task(self._timers(transactions))
                        group.create_task(self._requests(transactions))
                        group.create_task(self._prune())
                        group.create_task(Rounds(self.service, self.pool, transactions.clock).run())
                        for loop in self.service.background:
                            group.create_task(loop(self))
                finally:
                    self.leading = False
                    metrics.LEADER.set(0)
                    if connection.is_closed():  # whatever is there when the server answers again
                        self._recognised.clear()
                    await connection.close(timeout=2)
            except* Exception as group:
                self._went_round()
                self._waits_for = f"{type(group.exceptions[0]).__name__}: {group.exceptions[0]}"
                logger.warning("not leading any more", error=repr(group.exceptions[0]), exc_info=True)
                await asyncio.sleep(1.0)

    async def _recognise(self) -> None:
        """A database that one comes back to may have been restored from a backup, and restoring ends every session: so before each
        one, numbers are made to rise across it, and what the service has told is read back where the database does not know it."""
        await self.pool.execute(
            "SELECT setval('runtime.journal_number', $1) FROM runtime.journal_number WHERE last_value < $1::bigint",
            int(clock.wall().timestamp() * 1e6),
        )
        self._waits_for = "what the service has told"
        await read_back(self.service, self.settings, self.pool, self.now, self._went_round)

    def _went_round(self) -> None:
        self._progress = monotonic()

    async def _timers(self, transactions: Transactions) -> None:
        while True:
            if await transactions.fire():
                self.relay.wake()
            else:
                await asyncio.sleep(0.1)

    async def _requests(self, transactions: Transactions) -> None:
        while True:
            if await requests.settle(transactions):
                self.relay.wake()
            else:
                await asyncio.sleep(0.25)

    async def _prune(self) -> None:
        while True:
            async with self.pool.acquire() as connection:
                await inbox.prune(connection)
            await asyncio.sleep(3600)


async def _main(service: Service[Any], settings: Settings) -> None:
    pool = await db.pool(settings, service.name)
    runtime = Runtime(service, settings, pool)
    loop = asyncio.get_running_loop()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, runtime.stopping.set)
    server = Server(runtime)
    answering = asyncio.create_task(asyncio.to_thread(server.run), name="http")
    answering.add_done_callback(lambda _: runtime.stopping.set())
    try:
        await runtime.run()
    finally:
        server.stop()
        await answering
        pool.terminate()


def run(declare: Callable[[Settings], Service[Any]]) -> None:
    """The main of a service: configured by the environment, until SIGTERM or SIGINT. Exits 1 with one line when it is set up wrongly."""
    settings = Settings()
    service = declare(settings)
    # What is loaded by now stays; what a batch allocates is freed without a cycle: let the collector look rarely.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    log.configure(settings.log_level, service=service.name, instance=settings.instance)
    mend()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(_main(service, settings))
    except* FixedError as group:
        sys.exit(json.dumps({"level": "error", "event": str(group.exceptions[0])}))
