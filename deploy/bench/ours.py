"""Our system as it is measured: all four services, on a business clock that is held."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from time import monotonic

from deploy.bench.place import LOOK_SECONDS, PATIENCE_SECONDS, Place, clear, stamped_by_the_broker
from deploy.bench.workloads import BEGIN, Case, definitions
from deploy.local import driver, processes, system
from deploy.local.coverage import Observer, idle
from deploy.local.databases import connected
from deploy.local.errors import UserError
from deploy.local.feed import Feed
from deploy.local.publisher import Persistent, Publisher
from shared.contracts.base import Message
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.purchasing import PURCHASING_ORDERS, PurchaseOrderIssued
from shared.contracts.suppliers import SUPPLIERS_MESSAGES, ReceivedLine
from shared.settings import SERVICES, Settings

CONSOLIDATION = timedelta(minutes=6)
"""Shorter than a digest: purchase orders are issued before any mail is written."""


@asynccontextmanager
async def started(place: Place, namespace: str, case: Case) -> AsyncIterator["Ours"]:
    """A fresh system that knows the case's SKUs, their stock and offers; gone with its data afterwards."""
    try:
        await asyncio.to_thread(
            system.up, place.home, namespace=namespace, clock="topic", prepared=_prepared,
            extra_env={"BACKORDER_CONSOLIDATION_HOURS": str(CONSOLIDATION / timedelta(hours=1))},
        )  # fmt: skip
        settings = system.settings(place.home)
        async with Observer(settings) as observer:
            ours = Ours(place, settings, observer)
            async with Publisher(settings) as publisher:
                for definition in definitions(case.stock):
                    await publisher.send(definition)
            await ours.done()
            yield ours
    finally:
        await asyncio.to_thread(processes.stop_all, place.home, [*_INSTANCES.values(), system.SMTP])
        await clear(place, namespace)


class Ours:
    """A running system."""

    def __init__(self, place: Place, settings: Settings, observer: Observer) -> None:
        self.place, self.namespace = place, settings.namespace
        self._settings, self._observer = settings, observer

    def pids(self) -> dict[str, int]:
        """The services' processes."""
        found = {service: processes.pid_of(self.place.home, instance) for service, instance in _INSTANCES.items()}
        return {service: pid for service, pid in found.items() if pid is not None}

    async def done(self) -> None:
        """Returns when every service has applied all that it reads and published all that followed, and no mail waits to be sent.
        Raises UserError when that takes too long."""
        until = monotonic() + PATIENCE_SECONDS
        while not idle(await self._observer.standings(), await self._observer.ends()):
            if monotonic() > until:
                raise UserError(f"the system was not done after {PATIENCE_SECONDS:.0f} s: see the logs in {self.place.home.logs}")
            await asyncio.sleep(LOOK_SECONDS)

    async def buy(self) -> Sequence[tuple[str, Sequence[ReceivedLine]]]:
        """Closes the window in which purchase orders wait for more lines."""
        await self._step(2 * CONSOLIDATION)
        issued: list[PurchaseOrderIssued] = []

        def hear(message: Message, _: datetime) -> None:
            if isinstance(message, PurchaseOrderIssued):
                issued.append(message)

        async with Feed(self._settings, [PURCHASING_ORDERS], hear) as feed:
            await feed.catch_up()
        return [
            (order.purchase_order, [ReceivedLine(line=line.line, sku=line.sku, good=line.quantity) for line in order.lines])
            for order in issued
        ]

    async def mails_per_second(self) -> float:
        """Has the mails written that wait for their digest, and counts them while they are written and sent."""
        began = monotonic()
        await self._step(2 * timedelta(minutes=self._settings.digest_minutes))
        seconds = monotonic() - began
        async with connected(self._settings, "notifier") as database:
            return float(await database.fetchval("SELECT count(*) FROM mail WHERE status = 'sent'")) / seconds

    async def _step(self, later: timedelta) -> None:
        """Moves the clock to so long after the beginning, and waits until everything due has been done."""
        async with Persistent(self._settings) as kafka:
            await driver.set_clock(kafka, BEGIN + later)
        until = monotonic() + PATIENCE_SECONDS
        while any(standing.timer and standing.timer <= BEGIN + later for standing in await self._observer.standings()):
            if monotonic() > until:
                raise UserError(f"timers were not done after {PATIENCE_SECONDS:.0f} s: see the logs in {self.place.home.logs}")
            await asyncio.sleep(LOOK_SECONDS)
        await self.done()


_INSTANCES = {service: f"{service}-1" for service in SERVICES}


async def _prepared(settings: Settings) -> None:
    """Before any service starts."""
    await stamped_by_the_broker(settings, [ORDERS_EVENTS.name, SUPPLIERS_MESSAGES.name])
    await driver.begin(settings, BEGIN)
