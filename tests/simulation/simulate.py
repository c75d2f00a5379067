"""One seed from beginning to end, and what came of it."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from services.notifier.handlers import DigestDue
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.inventory import DemandServed, ShortageChanged
from shared.contracts.orders import DemandSet, LineBackordered, LineShipped, OrderAccepted
from shared.contracts.purchasing import StockReceived, SupplyChanged
from shared.contracts.suppliers import GoodsReceived, OfferChanged, PurchaseOrderAcknowledged
from shared.service import Service, Timer
from tests.simulation import checks, steps
from tests.simulation.cluster import Bug
from tests.simulation.databases import Databases
from tests.simulation.story import SUPPLIERS
from tests.simulation.violation import ViolatedError
from tests.simulation.world import DECLARED, World

STEPS = (30, 80, 200)
"""Random steps of a world, before everything settles: in short ones orders are disturbed, in long ones deliveries too."""
LOOKS = 0.05
"""So often everything is checked while the world settles: each time nothing is under way, with this chance."""


@dataclass(frozen=True)
class Run:
    """`digest` is of everything that was said and held: equal digests, equal runs. `disturbed` is where the faults began in the timeline."""

    seed: int
    world: World
    digest: str
    violated: ViolatedError | None

    def report(self) -> str:
        """For whoever has to find out why: the seed, the time line, and the messages that the offending row is about."""
        story = [f"seed {self.seed}: {self.violated or 'nothing is wrong'}", *self.world.timeline]
        if self.violated is not None:
            story += ["what was said about it:", *_about(self.world, [rows[0] for rows in self.violated.found.values()])]
        return "\n".join(story)


async def simulate(
    seed: int,
    databases: Databases,
    services: tuple[Service[Any], ...] = DECLARED,
    mixture: Callable[[World], steps.Mixture] = steps.mixture,
    *,
    watched: bool = False,
) -> Run:
    """Runs a seed, with this mixture of trouble; `watched` checks each service after each of its steps, so that the timeline ends with the offending one."""
    await databases.empty()
    world = World(seed, databases, services, _bug(seed))
    violated = None
    with world.alone():
        try:
            if watched:
                world.watch = checks.at_any_time
            await world.prepare()
            await steps.disturb(world, mixture(world), world.random.choice(STEPS))
            world.note("the faults are over")
            await world.settle(lambda: _look(world))
            await checks.in_the_end(world)
        except ViolatedError as found:
            violated = found
        digest = await _digest(world)
        await world.end()
    return Run(seed, world, digest, violated)


async def _look(world: World) -> None:
    if world.random.random() < LOOKS:
        await checks.when_settled(world)


async def _digest(world: World) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in world.timeline:
        digest.update(line.encode())
    for place in world.log.places:
        for record in world.log.read(place, 0):
            digest.update(repr((place, record.offset, record.timestamp, record.key, record.value, record.headers)).encode())
    for title, rows in (await checks.read_facts(world)).items():
        digest.update(repr((title, sorted(repr(dict(row)) for row in rows))).encode())
    return digest.hexdigest()


def _about(world: World, rows: Iterable[Any]) -> list[str]:
    """The records that name what the rows name: order, SKU or purchase order."""
    told = [part for row in rows for part in (row if isinstance(row, tuple) else (row,)) if isinstance(part, dict)]
    names = {str(row[name]) for row in told for name in ("order_id", "purchase_order", "sku") if row.get(name)}
    return [
        f"  {topic}/{delivery.partition}[{delivery.offset}] {delivery.envelope.id}#{index}: {type(message).__name__} {message.model_dump_json(exclude_defaults=True)}"
        for topic in dict.fromkeys(place[0] for place in world.log.places)
        for delivery in world.log.deliveries(topic)
        for index, message in delivery.messages
        if names & {str(value) for value in message.model_dump().values()}
    ]


Named = tuple[str, type[Message | Timer], Callable[[Random], str]]


def _an_order(random: Random) -> str:
    return f"O{random.randint(1, 4)}"


def _a_sku(random: Random) -> str:
    return f"S{random.randint(1, 3)}"


def _a_supplier(random: Random) -> str:
    return random.choice(SUPPLIERS)


def _a_purchase_order(random: Random) -> str:
    return f"{random.choice(SUPPLIERS)}-1"


_BREAKABLE: tuple[Named, ...] = (
    ("orders", OrderPlaced, _an_order), ("orders", OrderCancelRequested, _an_order), ("orders", ShipmentConfirmed, _an_order),
    ("orders", DemandServed, _an_order), ("inventory", DemandSet, _a_sku), ("inventory", StockReceived, _a_sku),
    ("inventory", SupplyChanged, _a_sku), ("purchasing", ShortageChanged, _a_sku), ("purchasing", OfferChanged, _a_sku),
    ("purchasing", GoodsReceived, _a_purchase_order), ("purchasing", PurchaseOrderAcknowledged, _a_purchase_order),
    ("purchasing", WindowClosed, _a_supplier), ("purchasing", SupplyOverdue, lambda random: f"{_a_purchase_order(random)}/1"),
    ("notifier", OrderAccepted, _an_order), ("notifier", LineBackordered, _an_order), ("notifier", LineShipped, _an_order),
    ("notifier", DigestDue, _an_order),
)  # fmt: skip


def _bug(seed: int) -> Bug | None:
    """What is broken in this world, if anything."""
    random = Random(f"bug {seed}")
    if random.random() < 0.6:
        return None
    service, type_, key = random.choice(_BREAKABLE)
    return Bug(service, type_, key(random))
