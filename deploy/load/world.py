"""A system with its world: a fresh one on this machine, with suppliers, dock and shipping, on a business clock that they move."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic

from deploy.bench.place import spawned
from deploy.load import demand
from deploy.load.seen import Lag
from deploy.local import driver, infrastructure, system
from deploy.local.coverage import Observer
from deploy.local.databases import connected
from deploy.local.driver import Driver, StalledError
from deploy.local.errors import UserError
from deploy.local.feed import Feed
from deploy.local.home import Home
from deploy.local.simulator import Simulator
from deploy.local.suppliers import LastSuppliers, at_rates
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.purchasing import PURCHASING_ORDERS
from shared.settings import SERVICES, ClockSource, Settings

INSTANCES = 2
"""Of each service: a group of one has nobody to lose."""
TICK_SECONDS = 0.5
"""Between two looks of the driver: one costs some 10 ms of CPU."""
PATIENCE_SECONDS = 1_800.0


class _EnoughError(Exception):
    """The driver shall stop where it is."""


@dataclass
class World:
    """A running system, and who plays the world outside."""

    home: Home
    settings: Settings
    observer: Observer
    driver: Driver
    next_order: int = 0
    """The number of the order that comes next."""

    @asynccontextmanager
    async def at_pace(self, days_per_second: float) -> AsyncIterator[None]:
        """Meanwhile business days go by at this pace, or slower where the system does not keep up."""
        enough = False

        def look(_: datetime) -> None:
            # Between two steps of the driver: in the midst of one, something might be taken out and never said.
            if enough:
                raise _EnoughError

        async def pace() -> None:
            with suppress(_EnoughError):
                while True:  # it is over whenever nothing is on order
                    await self.driver.play((), days_per_second, look)
                    await asyncio.sleep(TICK_SECONDS)

        async with asyncio.TaskGroup() as group:
            group.create_task(pace())
            yield
            enough = True

    async def to_the_end(self) -> float | None:
        """Lets business days go by as fast as can be, until everything ordered is bought, received, shipped and told; answers after how
        many seconds, None if the system stands still or does not come to an end."""
        began = monotonic()
        with suppress(StalledError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.driver.play(())
                return monotonic() - began
        return None

    @asynccontextmanager
    async def ordering(self, lines: int, lines_per_second: float = 0.0) -> AsyncIterator[asyncio.subprocess.Process]:
        """A shop that will order so many lines when it is told to, at this rate (0 = as fast as the broker takes them). Raises UserError
        at the end when it could not."""
        arguments = ("--first", str(self.next_order), "--lines", str(lines), "--lines-per-second", str(lines_per_second))
        async with spawned("deploy.load.producer", "--home", str(self.home.path), *arguments) as shop:
            yield shop
            if await shop.wait():
                raise UserError("the orders could not be published; what the shop says stands above")

    async def burst(self, lines: int) -> float:
        """Has so many lines ordered at once; answers how many a second went all the way, mails included. Raises UserError when they do
        not come to their end."""
        async with self.ordering(lines) as shop:
            began = monotonic()
            told, _ = await shop.communicate(b"\n")
        self.next_order = int(told.split()[-1])
        if await self.to_the_end() is None:
            raise UserError(f"{lines:,} lines did not come to their end: see the logs in {self.home.logs}")
        return lines / (monotonic() - began)

    async def lag(self) -> Lag:
        """What is under way."""
        standings, ends = await self.observer.standings(), await self.observer.ends()
        records = sum(
            max(0, end - standing.next.get(place, 0))
            for standing in standings
            for place, end in ends.items()
            if place[0] in standing.topics
        )
        async with connected(self.settings, "notifier") as database:
            return Lag(records, await database.fetchval("SELECT count(*) FROM mail WHERE status = 'queued'"))


@asynccontextmanager
async def playing(home: Home) -> AsyncIterator[World]:
    """A fresh system in this home, that knows the assortment; what was in the home is deleted first, and stopped at the end, however the
    body ends. Raises UserError when the environment names servers: theirs would be measured with whatever else they do."""
    if named := {infrastructure.KAFKA, infrastructure.DATABASE} & os.environ.keys():
        raise UserError(f"load is for servers of their own: unset {' and '.join(sorted(named))}")
    await asyncio.to_thread(system.reset, home)
    try:
        await asyncio.to_thread(
            system.up, home, clock=ClockSource.TOPIC.value, instances=dict.fromkeys(SERVICES, INSTANCES), prepared=partial(_prepared, home)
        )
        settings = system.settings(home)
        said = list(demand.definitions())
        last = LastSuppliers()
        for publication in said:
            last.take(publication.message)
        simulator = Simulator(at_rates(demand.RATES, last), settings.zone)
        async with (
            Observer(settings) as observer,
            Feed(settings, (PURCHASING_ORDERS, ORDERS_EVENTS), lambda message, _: simulator.take(message)) as feed,
            Driver(settings, observer, feed, simulator, demand.BEGIN, patience=PATIENCE_SECONDS, tick=TICK_SECONDS) as outside,
        ):
            await outside.define(said)
            yield World(home, settings, observer, outside)
    finally:
        await asyncio.to_thread(system.down, home)


async def _prepared(home: Home, settings: Settings) -> None:
    """Before any service starts."""
    await driver.begin(settings, demand.BEGIN)
    # At the priority of all others: where every process is busy all the time, it would never have its turn.
    await asyncio.to_thread(system.start_smtp, home, "--nice", "0")
