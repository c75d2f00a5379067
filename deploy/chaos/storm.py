"""The two phases of a run (as TigerBeetle does): faults strike a system under load, checks that may never fail run all along; then
nothing strikes any more, and the system has to settle by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from aiokafka.errors import KafkaError

from deploy.chaos import demand
from deploy.chaos.doors import Doors
from deploy.chaos.hostile import HostileSimulator, hostile_shop
from deploy.chaos.nemesis import Nemesis
from deploy.chaos.schedule import Strike
from deploy.chaos.vandal import Vandal
from deploy.chaos.violation import Violation
from deploy.chaos.witness import Witness
from deploy.local.assortment import suppliers_of
from deploy.local.audit import audit
from deploy.local.coverage import Observer
from deploy.local.driver import Driver, StalledError
from deploy.local.errors import UserError
from deploy.local.feed import Feed
from deploy.local.summary import Tally
from shared.contracts.inventory import INVENTORY_STOCK
from shared.contracts.notifier import NOTICES_EVENTS
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.purchasing import PURCHASING_ORDERS
from shared.contracts.suppliers import SUPPLIERS_MESSAGES
from shared.db import TRANSIENT
from shared.settings import Settings

DAYS_PER_SECOND = 0.25
"""Business days of load a second, as long as the system keeps up."""
SETTLE_SECONDS = 240.0
"""So long, without faults, the system may take to come to an end of everything: purchase, receive, ship, tell."""
AUDIT_PAUSE_SECONDS, AUDIT_SECONDS = 4.0, 60.0
PATIENCE_SECONDS = 200.0
ONLY_IN_THE_END = "nothing is parked"
"""The check of the audit that need not hold at every moment."""
TOPICS = (PURCHASING_ORDERS, ORDERS_EVENTS, SUPPLIERS_MESSAGES, NOTICES_EVENTS, INVENTORY_STOCK)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the run needs of the stage: the way to the servers and services that no fault touches, and whether all processes are ready."""

    settings: Settings
    addresses: Callable[[str], Sequence[str]]
    ready: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Storm:
    """What happened while the system was under load. `settling` = seconds of the second phase; None: it never settled."""

    doors: Doors
    vandal: Vandal
    witness: Witness
    nemesis: Nemesis
    audits: int
    settling: float | None
    violations: list[Violation]


async def storm(
    around: Surroundings, seed: int, minutes: float, strikes: Sequence[Strike], nemesis: Nemesis, say: Callable[[str], None]
) -> Storm:
    """Both phases. The first lasts so many minutes, or until every fault has struck and healed if that takes longer."""
    settings = around.settings
    story = demand.story(seed, days=int(2 + 60 * DAYS_PER_SECOND * 1.5 * minutes))
    said = hostile_shop(seed, [*story.definitions, *story.events])
    definitions, events = [each for each in said if each.time <= story.start], [each for each in said if each.time > story.start]
    last = {sku: suppliers_of(sku, demand.terms(seed))[1] for sku in demand.skus()}
    simulator, tally, witness = HostileSimulator(story.behaviour, settings.zone, seed, last), Tally(), Witness()
    doors, vandal, watch = Doors(settings, around.addresses, seed), Vandal(settings, seed), Watch(settings)
    calm = asyncio.Event()
    async with (
        doors,
        Observer(settings) as observer,
        Feed(settings, TOPICS, lambda message, _: simulator.take(message), tally.take, witness.take) as feed,
        Driver(settings, observer, feed, simulator, story.start, outlet=doors, patience=PATIENCE_SECONDS) as driver,
    ):
        await driver.define(definitions)
        say(f"{len(definitions)} definitions are known; the shop opens")
        async with _at_work(watch.keep_auditing(), vandal.rage(calm), _progress(driver, doors, tally, say)):
            playing = asyncio.create_task(driver.play(events, DAYS_PER_SECOND, curtain=calm), name="driver")
            striking = asyncio.create_task(_strike(nemesis, strikes, minutes), name="nemesis")
            await asyncio.wait({playing, striking}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():  # it never ends before the curtain falls
                striking.cancel()
            calm.set()
            say("No more faults and no more orders: the system has to settle by itself")
            since = monotonic()
            violations = await _settled(playing)
            settling = None if violations else monotonic() - since
        with suppress(KafkaError):
            await feed.catch_up()
    return Storm(doors, vandal, witness, nemesis, watch.audits, settling, [*violations, *watch.violations])


async def caught_up(around: Surroundings) -> None:
    """Returns when everything that stands in the log now has been applied, and every process is ready."""
    ends = None
    while True:
        with suppress(KafkaError, *TRANSIENT):
            async with Observer(around.settings) as observer:
                ends = ends or await observer.ends()
                while not all(standing.passed(ends) for standing in await observer.standings()) or not await around.ready():
                    await asyncio.sleep(0.1)
                return
        await asyncio.sleep(0.5)


async def _strike(nemesis: Nemesis, strikes: Sequence[Strike], minutes: float) -> None:
    began = monotonic()
    await nemesis.strike_all(strikes)
    await asyncio.sleep(60 * minutes - (monotonic() - began))


async def _settled(playing: "asyncio.Task[None]") -> list[Violation]:
    """Awaits the end of the story."""
    check = f"without faults everything settles within {SETTLE_SECONDS:.0f} s"
    try:
        await asyncio.wait_for(playing, SETTLE_SECONDS)
    except TimeoutError:
        return [Violation(check, {"error": "there is still something to come"})]
    except StalledError as error:
        return [Violation(check, {"error": str(error)})]
    return []


@asynccontextmanager
async def _at_work(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Meanwhile this is done, until it ends or until it is no longer needed. Raises what made it fail."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome


class Watch:
    """Audits all along. Only what has a version, or is one service's own, can be compared while messages are under way."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.audits = 0
        self.violations: list[Violation] = []

    async def keep_auditing(self) -> None:
        """Until cancelled; a system that cannot be asked at the moment is asked again."""
        while True:
            with suppress(UserError, KafkaError, *TRANSIENT):
                async with asyncio.timeout(AUDIT_SECONDS):
                    found = await audit(self._settings)
                self.audits += 1
                self.violations += [
                    Violation.of_audit(violation, "under way: ")
                    for violation in found.violations()
                    if violation["check"] != ONLY_IN_THE_END
                ]
            await asyncio.sleep(AUDIT_PAUSE_SECONDS)


async def _progress(driver: Driver, doors: Doors, tally: Tally, say: Callable[[str], None]) -> None:
    """A line now and then for whoever watches."""
    while True:
        await asyncio.sleep(10)
        states = ", ".join(f"{count} {state}" for state, count in tally.states().items() if count)
        say(f"  {day(driver.business)}: {len(doors.accepted)} accepted; lines: {states}")


def day(moment: datetime) -> str:
    """A business day as people read it."""
    return f"{moment:%a %d %b %H:%M}"
