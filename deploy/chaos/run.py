"""One run from beginning to end: stage, storm, verdict, the journal's replay, the calm run."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial

from deploy.chaos import demand, verdict
from deploy.chaos.calm import calm, meant
from deploy.chaos.evidence import Entry, Evidence, gather
from deploy.chaos.faults import FAULTS
from deploy.chaos.nemesis import Nemesis, Struck, counted
from deploy.chaos.result import Details, Result, recovery
from deploy.chaos.schedule import schedule
from deploy.chaos.stage import Stage, staged
from deploy.chaos.storm import Storm, Surroundings, caught_up, storm
from deploy.chaos.violation import Violation
from deploy.local import from_log
from deploy.local.audit import audit
from deploy.local.home import Home
from shared.contracts.notifier import NoticeSent
from shared.contracts.orders import OrderAccepted
from shared.contracts.purchasing import PurchaseOrderIssued

DISK_MEGABYTES = 400
"""Room for the services' tables, as long as it is not taken."""
AUDIT_SECONDS = 120.0
"""So long the last messages may take after the last business event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. `pace` multiplies how long faults last."""

    seed: int
    faults: int
    minutes: float
    kinds: tuple[str, ...]
    pace: float = 1.0

    @property
    def command(self) -> str:
        """How to have the same run again."""
        kinds = f" --kinds {','.join(self.kinds)}" if set(self.kinds) != set(FAULTS) else ""
        pace = f" --pace {self.pace:g}" if self.pace != 1.0 else ""
        return f"backorder chaos --seed {self.seed} --faults {self.faults} --minutes {self.minutes:g}{pace}{kinds}"


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it, and what a report of a failure needs."""

    plan: Plan
    result: Result
    violations: list[Violation]
    timeline: list[Struck]
    log: list[Entry]


@dataclass
class _Aftermath:
    """What was found when the storm was over."""

    storm: Storm
    evidence: Evidence
    violations: list[Violation] = field(default_factory=list)
    same_state: bool | None = None


def families() -> dict[str, str]:
    """What each kind of fault works on: the module that it stands in."""
    return {kind: fault.strike.__module__.rpartition(".")[2] for kind, fault in FAULTS.items()}


def run(home: Home, plan: Plan, say: Callable[[str], None]) -> Run:
    """The whole of it, in a home whose former content is deleted."""
    after = asyncio.run(_stormy(home, plan, say))
    say("The same input once more, in calm")
    accepted = after.storm.doors.accepted
    outcomes, wrong = calm(Home(home.path / "calm"), meant(accepted), plan.seed, say)
    lines = after.evidence.lines
    scarce = frozenset(sku for sku in demand.skus() if not demand.may_wait(sku))
    comparison = verdict.compared(lines, outcomes, verdict.cancelled_lines(accepted, lines), scarce)
    violations = [*after.violations, *wrong, *comparison.violations]
    return Run(plan, _result(plan, after, comparison, violations), violations, after.storm.nemesis.timeline, list(after.evidence.log))


async def _stormy(home: Home, plan: Plan, say: Callable[[str], None]) -> _Aftermath:
    say("Starting three brokers, PostgreSQL and two instances of each service, a proxy before each")
    kinds = {kind: family for kind, family in families().items() if kind in plan.kinds}
    strikes = schedule(plan.seed, plan.faults, plan.minutes, kinds)
    environment = {"BACKORDER_TIME_ZONE": demand.ZONE}
    disk = DISK_MEGABYTES if "disk_full" in plan.kinds else None
    async with staged(home, extra_env=environment, begin=demand.START, pace=plan.pace, disk_megabytes=disk) as stage:
        around = _around(stage)
        nemesis = Nemesis(lambda kind, chance: FAULTS[kind](stage, chance), partial(caught_up, around), say)
        found = await storm(around, plan.seed, plan.minutes, strikes, nemesis, say)
        say("Looking at what is left")
        audited = await audit(stage.settings, wait=AUDIT_SECONDS)
        evidence = await gather(stage.settings, home.mail)
        after = _Aftermath(found, evidence)
        after.violations += judged(found, evidence)
        if audited.settled:
            say("Applying the topics by the journal to empty databases")
            replayed = await from_log.checks(stage.settings)
            after.same_state = not any(check.violations for check in replayed.values())
            audited = audited.including(replayed)
        after.violations += map(Violation.of_audit, audited.violations())
    return after


def _around(stage: Stage) -> Surroundings:
    def addresses(service: str) -> list[str]:
        return [f"http://127.0.0.1:{stage.home.port(name)}" for name in stage.names(service)]

    async def ready() -> bool:
        return not await stage.unready()

    return Surroundings(stage.settings, addresses, ready)


def judged(found: Storm, evidence: Evidence) -> Iterable[Violation]:
    """Everything but the audits and the comparisons."""
    accepted, log = found.doors.accepted, evidence.log
    told = found.witness.told(OrderAccepted, PurchaseOrderIssued, NoticeSent)
    yield from found.violations
    yield from found.nemesis.violations
    yield from found.doors.violations
    yield from found.witness.violations
    yield from verdict.accepted_is_in_the_log(accepted, log)
    yield from verdict.accepted_is_applied(accepted, evidence.inbox, evidence.refusals)
    yield from verdict.refusals_are_right(evidence.refusals, accepted, found.vandal.thrown, log)
    yield from verdict.everything_was_told(evidence, told, found.witness.versions)
    yield from verdict.mails_came_once(evidence.mails, found.nemesis.windows(), len(evidence.told["NoticeSent"]))


def _result(plan: Plan, after: _Aftermath, comparison: verdict.Comparison, violations: list[Violation]) -> Result:
    found, evidence = after.storm, after.evidence
    timeline = found.nemesis.timeline
    accepted = set(map(verdict.addressed, found.doors.accepted))
    recovered = [struck.recovered for struck in timeline if struck.recovered is not None]
    return Result(
        seed=plan.seed,
        minutes=plan.minutes,
        faults=dict(counted(timeline)),
        faults_total=sum(counted(timeline).values()),
        accepted=len(accepted),
        applied=len(accepted & verdict.applied(evidence.inbox, evidence.refusals)),
        duplicates_dropped=verdict.duplicates(evidence.log),
        recovery_seconds=recovery(recovered),
        state_hash_equal=after.same_state,
        violations=[asdict(violation) for violation in violations],
        details=Details(
            settling_seconds=found.settling,
            recoveries=len(recovered),
            missed=sum(struck.missed for struck in timeline),
            lines=len(evidence.lines),
            raced=comparison.raced,
            scarce=comparison.scarce,
            refused=dict(sorted(Counter(refusal.reason for refusal in evidence.refusals).items())),
            poison=len(found.vandal.thrown),
            replayed=found.vandal.replayed.total(),
            http=dict(sorted(found.doors.answers.items())),
            mails=len(evidence.mails),
            mails_repeated=verdict.repeated_mails(evidence.mails),
            audits=found.audits,
            events_told=found.witness.heard,
        ),
    )
