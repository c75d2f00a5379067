"""A story to play into a fresh system, and the run of it: driven clock, simulated suppliers and warehouse, tally, audit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from deploy.local.audit import Audit, audit
from deploy.local.coverage import Observer
from deploy.local.driver import AHEAD, Driver
from deploy.local.feed import Feed
from deploy.local.publisher import Publication
from deploy.local.simulator import Simulator
from deploy.local.summary import AuditResult, Summary, Tally
from deploy.local.suppliers import Behaviour
from shared.contracts.base import Message
from shared.contracts.notifier import NOTICES_EVENTS
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.purchasing import PURCHASING_ORDERS
from shared.contracts.suppliers import SUPPLIERS_MESSAGES
from shared.settings import Settings

SETTLE_SECONDS = 900.0
"""How long (wall time) the last mails may take after the last business event."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a story."""

    summary: Summary
    audit: Audit


@dataclass(frozen=True, slots=True)
class Story:
    """`definitions` (SKUs, stock, offers) hold when the story begins at `start`; `events` follow in the order of time. `skipped`
    counts what the input held and the story leaves out, by reason."""

    start: datetime
    definitions: Sequence[Publication]
    events: Sequence[Publication]
    behaviour: Behaviour
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def end(self) -> datetime:
        """When the last event happens; what follows from it comes later."""
        return self.events[-1].time if self.events else self.start


async def play(
    settings: Settings,
    story: Story,
    tally: Tally,
    *,
    days_per_second: float | None = None,
    ahead: timedelta = AHEAD,
    progress: Callable[[datetime], None] = lambda _: None,
    hear: Callable[[Message], None] = lambda _: None,
) -> Run:
    """Plays the story into a fresh system whose clock stands at its start, until everything has settled; then audits it.

    `progress` hears the business time, some 25 times a second; `hear` every public message. No speed = as fast as the
    system can. `ahead` = how far the clock may be ahead of what is unapplied, at most a day: less makes a crisper story.
    """
    simulator = Simulator(story.behaviour, settings.zone)
    topics = (PURCHASING_ORDERS, ORDERS_EVENTS, SUPPLIERS_MESSAGES, NOTICES_EVENTS)
    async with (
        Observer(settings) as observer,
        Feed(settings, topics, lambda message, _: simulator.take(message), tally.take, lambda message, _: hear(message)) as feed,
        Driver(settings, observer, feed, simulator, story.start, ahead=ahead) as driver,
    ):
        await driver.define(story.definitions)
        await driver.play(story.events, days_per_second, progress)
        since = driver.first_order_at or datetime.now(UTC)
        seconds = (datetime.now(UTC) - since).total_seconds()
        found = await audit(settings, wait=SETTLE_SECONDS)
        await feed.catch_up()
    return Run(tally.summary(story.skipped, since, seconds, AuditResult(ok=found.ok, violations=found.violations())), found)
