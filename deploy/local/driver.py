"""Plays a story into a fresh system and moves its business clock (design section 4, "Time is a message too").

The clock is at most one business day ahead of what every service has applied: a slow machine makes the run longer, never the
suppliers later. When nothing is under way it jumps to the next thing that is due. It is always set with rate 0 and stepped, so that a driver that dies leaves a clock that stands still.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from aiokafka.errors import KafkaError

from deploy.local.coverage import Observer, Offsets, Snapshot, Standing, covered, idle, snapshot
from deploy.local.errors import UserError
from deploy.local.feed import Feed
from deploy.local.publisher import Persistent, Publication, Publisher
from deploy.local.simulator import Simulator
from shared.contracts.commerce import OrderPlaced
from shared.contracts.system import SYSTEM_CLOCK, ClockSet
from shared.db import TRANSIENT
from shared.settings import Settings

AHEAD = timedelta(days=1)
"""How far the clock may be ahead of the oldest unapplied thing."""
QUIET = timedelta(days=45)
"""So long nothing was said, and only timers are left that say nothing: the story is over."""
FOREVER = datetime(9000, 1, 1, tzinfo=UTC)
"""Later than anything."""
TICK_SECONDS, PACED_TICK_SECONDS = 0.08, 0.03
"""Between two looks at the system. A look costs some 10 ms of CPU, which counts when the system shall be as fast as it can."""
SLICE_LINES = 2000
"""Order lines published in one tick: the clock stays close to what was published, and services still get whole transactions."""
STALLED_SECONDS = 90.0


class StalledError(UserError):
    """The system has not moved for a long time."""


async def set_clock(kafka: Persistent, business: datetime) -> None:
    """Holds the system's clock at this business time."""
    setting = ClockSet(business=business, wall=datetime.now(UTC), rate=0)
    await kafka.append(SYSTEM_CLOCK.name, setting.model_dump_json().encode(), partition=0)


async def begin(settings: Settings, business: datetime) -> None:
    """Sets a fresh system's clock for the first time: its services wait for that."""
    async with Persistent(settings) as kafka:
        await set_clock(kafka, business)


class Hold:
    """How far the clock may go: `ahead` of `applied`, the business time before which nothing is unapplied. While nothing is under way,
    until something is published, that is the time of the next timer, however far away."""

    def __init__(self, start: datetime, ahead: timedelta = AHEAD) -> None:
        self.applied = start
        self.ahead = ahead
        self.limit = start + ahead
        self._waiting: deque[Snapshot] = deque()

    def look(self, clock: datetime, standings: Sequence[Standing], ends: Offsets) -> None:
        """Takes a new look: drops the snapshots that everybody has passed, and keeps a new one. (Standings first, then ends.)"""
        for _ in range(covered(self._waiting, standings)):
            self.applied = max(self.applied, self._waiting.popleft().business)
        self._waiting.append(snapshot(clock, standings, ends))
        self.limit = self.applied + self.ahead
        if idle(standings, ends):
            timers = [standing.timer for standing in standings if standing.timer is not None]
            self.limit = max(self.limit, min(timers) + self.ahead) if timers else FOREVER


def take_due(queue: deque[Publication], simulator: Simulator, limit: datetime, ahead: timedelta) -> tuple[list[Publication], datetime]:
    """Takes out what is due next, of the story and of the simulator, a slice of it when it is much; answers it and the time that the
    clock may reach with it: what is published is unapplied from then on."""
    due: list[Publication] = []
    lines = 0
    while True:
        moments = (queue[0].time if queue else None, simulator.next_due)
        following = min((moment for moment in moments if moment is not None), default=None)
        if following is None or following > limit:
            return due, limit
        # All of one moment together: the clock shall not stand between them.
        ready = list(simulator.due(following))
        while queue and queue[0].time <= following:
            ready.append(queue.popleft())
        due.extend(ready)
        lines += sum(len(getattr(publication.message, "lines", ())) or 1 for publication in ready)
        limit = min(limit, following + ahead)
        if lines >= SLICE_LINES:
            return due, following


class Outlet(Protocol):
    """By which the world outside speaks to the system."""

    async def send(self, said: Publication) -> None:
        """Hands a message over; those of one key stay in order."""
        ...

    async def flush(self) -> None:
        """Returns when everything handed over has been accepted."""
        ...


class Driver:
    """Publishes what is due and moves the clock with it. `business` is the business time now. `outlet` is open already; without one
    the driver has a publisher of its own. It goes on as long as something moves within `patience` (wall seconds). `tick` = wall
    seconds between two looks while it is paced."""

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        feed: Feed,
        simulator: Simulator,
        start: datetime,
        *,
        ahead: timedelta = AHEAD,
        outlet: Outlet | None = None,
        patience: float = STALLED_SECONDS,
        tick: float = PACED_TICK_SECONDS,
    ) -> None:
        self.business = start
        self.first_order_at: datetime | None = None
        self._observer, self._feed, self._simulator = observer, feed, simulator
        self._hold = Hold(start, ahead)
        self._open = AsyncExitStack()
        self._outlet: Outlet = outlet or Publisher(settings)
        self._clock = Persistent(settings)
        self._patience = patience
        self._paced_tick = tick
        self._standings: list[Standing] = []
        self._ends: Offsets = {}
        self._grew_at = start
        self._moved = monotonic()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._clock)
        if isinstance(self._outlet, Publisher):
            await self._open.enter_async_context(self._outlet)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._open.__aexit__(kind, error, trace)

    async def define(self, definitions: Iterable[Publication]) -> None:
        """Publishes what must be known before the story begins (SKUs, stock, offers), and waits until it is."""
        for definition in definitions:
            await self._send(definition)
        await self._outlet.flush()
        await self._look()
        ends = self._ends
        while not all(standing.passed(ends) for standing in self._standings):
            await asyncio.sleep(TICK_SECONDS)
            await self._look()

    async def play(
        self,
        story: Iterable[Publication],
        days_per_second: float | None = None,
        progress: Callable[[datetime], None] = lambda _: None,
        curtain: asyncio.Event | None = None,
    ) -> None:
        """Plays the story (in the order of time), then goes on until everything has settled. No speed = as fast as the system can.

        `progress` hears the business time after each tick. When the `curtain` falls the rest of the story is left out, and what
        follows from the part that was played comes as fast as the system can. Raises StalledError when the system does not move any more.
        """
        queue = deque(story)
        began, start = monotonic(), self.business
        tick = TICK_SECONDS if days_per_second is None else self._paced_tick
        while True:
            await self._look()
            now = monotonic()
            if curtain is not None and curtain.is_set():
                queue.clear()
                days_per_second, tick = None, TICK_SECONDS
            limit = self._hold.limit
            if days_per_second is not None:
                limit = min(limit, start + timedelta(days=days_per_second * (now - began)))
            await self._advance(queue, limit)
            progress(self.business)
            if not queue and self._over():
                return
            await asyncio.sleep(max(0.0, tick - (monotonic() - now)))

    async def _advance(self, queue: deque[Publication], limit: datetime) -> None:
        """Moves the clock towards the limit and publishes what becomes due on the way: a slice of it, when it is much."""
        due, reached = take_due(queue, self._simulator, limit, self._hold.ahead)
        if self.business < reached < FOREVER:
            self.business = reached
            self._moved = monotonic()
            await set_clock(self._clock, reached)
        for publication in due:
            await self._send(publication)
        await self._outlet.flush()

    async def _send(self, publication: Publication) -> None:
        if self.first_order_at is None and isinstance(publication.message, OrderPlaced):
            self.first_order_at = datetime.now(UTC)
        await self._outlet.send(publication)

    async def _look(self) -> None:
        """Asks how far the system has come; waits while broker or database are away."""
        while True:
            try:
                clock = self.business
                while await self._feed.round():
                    pass
                standings = await self._observer.standings()
                standings.append(Standing("simulator", self._feed.topics, dict(self._feed.next), timer=self._simulator.next_due))
                ends = await self._observer.ends()
            except (*TRANSIENT, KafkaError):
                self._check_stalled()
                await asyncio.sleep(0.5)
                continue
            before = self._hold.applied
            self._hold.look(clock, standings, ends)
            if ends != self._ends:
                self._grew_at = clock
            if ends != self._ends or self._hold.applied > before:
                self._moved = monotonic()
            self._standings, self._ends = standings, ends
            self._check_stalled()
            return

    def _over(self) -> bool:
        """Whether nothing is left that could still happen."""
        if not idle(self._standings, self._ends) or self._simulator.next_due is not None:
            return False
        return all(standing.timer is None for standing in self._standings) or self.business - self._grew_at > QUIET

    def _check_stalled(self) -> None:
        if monotonic() - self._moved > self._patience:
            late = ", ".join(standing.name for standing in self._standings if not standing.passed(self._ends)) or "nobody in particular"
            raise StalledError(
                f"the system has not moved for {self._patience:.0f} s at business time {self.business}; behind the log: {late}"
            )
