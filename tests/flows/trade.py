"""Suppliers, dock and shipping around a running system on the wall clock: they do at once what they would do in weeks, remember what
they have done, and so do nothing twice, whatever becomes of the system."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from deploy.local.feed import Feed
from deploy.local.publisher import Publisher
from deploy.local.simulator import Simulator
from deploy.local.suppliers import Rates, at_rates
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced
from shared.contracts.notifier import NOTICES_EVENTS, NoticeSent
from shared.contracts.orders import ORDERS_EVENTS, LineShipped, OrderCompleted
from shared.contracts.purchasing import PURCHASING_ORDERS, PurchaseOrderIssued
from tests.flows.outside import Outside, eventually

SOON = timedelta(days=90)


@dataclass
class Trade:
    """What the outside has heard since it began, and what it has ordered."""

    world: Outside
    skus: Sequence[str]
    random: random.Random
    heard: list[Message] = field(default_factory=list)
    placed: dict[str, OrderPlaced] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    mark: int = 0
    work: "asyncio.Task[None]" = field(init=False)

    async def order(self, count: int) -> None:
        """Places orders for what there is and for what there is not."""
        for _ in range(count):
            lines = [(sku, self.random.randint(1, 4)) for sku in self.random.sample(self.skus, self.random.randint(1, 3))]
            placed = self.world.order(*lines)
            self.placed[placed.order] = placed
            await self.world.publish(placed)

    async def cancel(self, count: int) -> None:
        """Cancels the latest orders."""
        for order in list(self.placed)[-count:]:
            self.cancelled.add(order)
            await self.world.publish(OrderCancelRequested(request=f"{order}-x", order=order, requested_at=datetime.now(UTC)))

    async def goes_on(self, **counts: int) -> None:
        """Returns when so many of these have been told since the last time: `issued`, `shipped`, `completed`, `noticed`."""
        kinds: dict[str, type] = {
            "issued": PurchaseOrderIssued,
            "shipped": LineShipped,
            "completed": OrderCompleted,
            "noticed": NoticeSent,
        }

        def new() -> Counter[type]:
            return Counter(type(message) for message in self.heard[self.mark :])

        async def told() -> bool:
            if self.work.done():
                self.work.result()
            return all(new()[kinds[name]] >= count for name, count in counts.items())

        try:
            await eventually(told, f"{counts} more", seconds=90)
        except AssertionError as error:
            raise AssertionError(f"{error}; there were {new()}") from None
        self.mark = len(self.heard)


@asynccontextmanager
async def trading(world: Outside, skus: Sequence[str], last_suppliers: Mapping[str, str], seed: int) -> AsyncIterator[Trade]:
    """Suppliers, dock and shipping at work: whoever begins anew says everything again, in the same words. `last_suppliers` of SKUs
    never reject; `seed` is that of the orders."""
    simulator = Simulator(at_rates(Rates(slip=0.2, reject=0.2, short=0.3, twice=0.3, seed=1), last_suppliers), world.settings.zone)
    trade = Trade(world, skus, random.Random(seed))
    topics = (PURCHASING_ORDERS, ORDERS_EVENTS, NOTICES_EVENTS)
    async with (
        Feed(world.settings, topics, lambda message, _: simulator.take(message), lambda message, _: trade.heard.append(message)) as feed,
        Publisher(world.settings) as publisher,
    ):
        trade.work = asyncio.create_task(_work(feed, publisher, simulator))
        try:
            yield trade
        finally:
            trade.work.cancel()
            await asyncio.gather(trade.work, return_exceptions=True)


async def _work(feed: Feed, publisher: Publisher, simulator: Simulator) -> None:
    while True:
        await feed.round(wait_ms=50)
        for publication in simulator.due(datetime.now(UTC) + SOON):
            await publisher.send(publication)
        await publisher.flush()
