"""One run from beginning to end: a system, a burst that shows what it can do, the load, the end of everything, the audit."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from deploy.bench.place import spawned
from deploy.chaos.violation import Violation
from deploy.load import sampling, verdict
from deploy.load.result import Answers, Limits, Reading, Run, Settled, Soak, latencies
from deploy.load.seen import Seen
from deploy.load.world import World, playing
from deploy.local.audit import audit
from deploy.local.home import Home
from shared.settings import SERVICES

LEAST_BUSINESS_DAYS, DAYS_PER_SECOND = 15, 0.05
"""A run spans so many business days at least: what waits is bought, comes and leaves. A long one has a day in twenty seconds."""
BURST_LINES, BURST_LINES_PER_SECOND = 15_000, 150
"""Lines of the burst that shows the sustainable rate: so many for each second of the run, and no more than so many."""
LOOK_SECONDS, PROGRESS_SECONDS, SAMPLES = 2.0, 10.0, 60
EXCESS_FACTOR, GRACE_SECONDS = 2.0, 30.0
AUDIT_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: so many minutes at so many times the sustainable rate."""

    minutes: float
    times: float

    @property
    def seconds(self) -> float:
        """How long orders come."""
        return 60 * self.minutes

    @property
    def days_per_second(self) -> float:
        """Business days in a second."""
        return max(DAYS_PER_SECOND, LEAST_BUSINESS_DAYS / self.seconds)

    @property
    def burst_lines(self) -> int:
        """Lines of the burst that shows the sustainable rate."""
        return min(BURST_LINES, round(BURST_LINES_PER_SECOND * self.seconds))

    @property
    def limits(self) -> Limits:
        """What the figures are held against."""
        return Limits(drained_seconds=GRACE_SECONDS + EXCESS_FACTOR * max(0.0, self.times - 1) * self.seconds)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was seen from the first order to the end of everything."""

    sustainable: float
    ordered: float
    lines: int
    seen: Seen
    answers: dict[str, Answers]
    assignments: dict[str, int]
    failed_batches: int
    end: Settled


async def overload(home: Home, plan: Plan, say: Say) -> Run:
    """Orders at a multiple of what the system can do. What is in the home is deleted first."""
    found = await _loaded(home, plan, say)
    figures = _figures(plan, found)
    return Run(**figures, violations=_rows(_violations(figures)))


async def soak(home: Home, plan: Plan, say: Say) -> Soak:
    """Orders at a rate that the system bears for ever, and looks whether it does. What is in the home is deleted first."""
    found = await _loaded(home, plan, say)
    figures, samples = _figures(plan, found), found.seen.samples
    series, per_line, dead = verdict.series(samples), verdict.per_line(samples), verdict.dead_rows(samples)
    violations = [
        *_violations(figures),
        *verdict.flatness(series, "flat over time"),
        *verdict.flatness(per_line, "flat per line"),
        *verdict.tidy(dead),
    ]
    return Soak(**figures, series=series, per_line=per_line, dead_rows=dead, violations=_rows(violations))


def _figures(plan: Plan, found: _Found) -> dict[str, Any]:
    return {
        "minutes": plan.minutes,
        "times": plan.times,
        "sustainable_lines_per_second": round(found.sustainable, 1),
        "ordered_lines_per_second": round(found.ordered, 1),
        "lines": found.lines,
        "peak_lag_records": max(lag.records for lag in found.seen.lags),
        "peak_mails_queued": max(lag.mails for lag in found.seen.lags),
        "reads": latencies(found.answers),
        "memory": verdict.memory(found.seen.footprints, plan.limits),
        "groups": verdict.groups(found.seen.memberships, found.assignments),
        "failed_batches": found.failed_batches,
        "died": sorted(found.seen.died),
        "end": found.end,
        "limits": plan.limits,
    }


def _violations(figures: Mapping[str, Any]) -> list[Violation]:
    return [
        *verdict.bounded(figures["memory"]),
        *verdict.steady(figures["groups"]),
        *verdict.answered(figures["reads"], figures["limits"]),
        *verdict.alive(figures["died"]),
        *verdict.ended(figures["end"], figures["limits"]),
    ]


def _rows(violations: Iterable[Violation]) -> list[dict[str, Any]]:
    return [asdict(violation) for violation in violations]


async def _loaded(home: Home, plan: Plan, say: Say) -> _Found:
    say("Starting Kafka, PostgreSQL, two instances of each service and a mailbox")
    async with playing(home) as world:
        say(f"A burst of {plan.burst_lines:,} lines, from order to shipment")
        sustainable = await world.burst(plan.burst_lines)
        rate = plan.times * sustainable
        say(f"{sustainable:,.0f} lines/s are sustainable; now {rate:,.0f} lines/s for {plan.minutes:g} minutes")
        before = await sampling.counters(home)
        seen, began = Seen(), monotonic()
        watching = (
            sampling.watch(world, began, seen, LOOK_SECONDS),
            sampling.keep_sampling(world, began, seen, plan.seconds / SAMPLES),
            _progress(seen, say),
        )
        lines = round(rate * plan.seconds)
        async with spawned("deploy.load.reader", "--home", str(home.path)) as reader:
            async with world.at_pace(plan.days_per_second), _meanwhile(*watching):
                ordered = await _order(world, reader, lines, rate)
                say(f"{lines:,} lines are ordered, {ordered:,.0f} a second; the lag has to drain")
                drained = await _drained(world, plan.limits.drained_seconds)
            told, _ = await reader.communicate(b"")
        after = await sampling.counters(home)
        say("The lag has drained" if drained is not None else "The lag has not drained")
        since = monotonic()
        rest = await world.to_the_end()
        say("All is bought, received, shipped and told; auditing" if rest is not None else "It does not come to its end; auditing")
        audited = await audit(world.settings, wait=AUDIT_SECONDS)
        wrong = len(audited.violations()) + (not audited.settled)
        end = Settled(
            drained_seconds=drained,
            settled_seconds=None if rest is None or drained is None else round(drained + monotonic() - since, 1),
            audited=sum(check.checked for check in audited.checks.values()),
            wrong=wrong,
        )
    return _Found(
        sustainable, ordered, lines, seen, Reading.model_validate_json(told).root,
        {world.settings.topic(service): after[service].assignments - before[service].assignments for service in SERVICES},
        sum(after[service].failed_batches - before[service].failed_batches for service in SERVICES), end,
    )  # fmt: skip


async def _order(world: World, reader: asyncio.subprocess.Process, lines: int, lines_per_second: float) -> float:
    """Has the shop order, and tells the reader up to which number; answers how many lines a second the broker took."""
    async with world.ordering(lines, lines_per_second) as shop:
        assert shop.stdin is not None
        assert shop.stdout is not None
        assert reader.stdin is not None
        began = monotonic()
        shop.stdin.write(b"\n")
        while told := await shop.stdout.readline():
            world.next_order = int(told)
            reader.stdin.write(told)
        seconds = monotonic() - began
    return lines / seconds


async def _drained(world: World, within: float) -> float | None:
    """Waits until every service has applied what stands in the log now; answers after how many seconds, None if it takes longer."""
    began, ends = monotonic(), await world.observer.ends()
    while not all(standing.passed(ends) for standing in await world.observer.standings()):
        if monotonic() - began > within:
            return None
        await asyncio.sleep(LOOK_SECONDS / 4)
    return round(monotonic() - began, 1)


@asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Meanwhile this is done, until the body ends; what fails ends the body."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()


async def _progress(seen: Seen, say: Say) -> None:
    """A line now and then for whoever watches."""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        if seen.footprints and seen.lags:
            say(f"  {seen.lags[-1].records:,} records unread, {seen.lags[-1].mails:,} mails to send")
