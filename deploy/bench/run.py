"""A whole run: every workload in rounds, in each of which the systems take turns on the same broker and database."""

import platform
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import psutil

from deploy.bench import ours, result, rivals, trial
from deploy.bench.loader import write
from deploy.bench.place import Place
from deploy.bench.result import LIMIT, NAIVE, OURS, SYSTEMS, Machine, Result, Round, Sample
from deploy.bench.workloads import Case, Name, case, identified
from deploy.local import infrastructure, kafka, system
from deploy.local.home import Home
from shared.contracts.commerce import OrderPlaced

STEADY_SHARE, STEADY_SECONDS = 0.5, 20.0
LINES: dict[Name, int] = dict.fromkeys(Name, 60_000) | {Name.RECEIPT_STORM: 100_000}
"""Of a run of ours, unless told otherwise."""
NAIVE_LINES, LIMIT_LINES, LIMIT_TIMES = 1_200, 60_000, 3
"""The naive system gets no more lines than that; where ours gets few, the limit gets up to three times as many: each runs for some
seconds."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. `lines` of a run of ours (None: as `LINES` says); `sold` = the orders that `online_retail` repeats; `tune` = look for the best settings of the limit first."""

    workloads: tuple[Name, ...] = tuple(Name)
    systems: tuple[str, ...] = SYSTEMS
    lines: int | None = None
    rounds: int = 5
    tune: bool = True
    sold: Sequence[OrderPlaced] = field(default=(), repr=False)

    def in_order(self) -> tuple[Name, ...]:
        """The workloads of a round: `steady` is a share of what `uniform` reached just before, so it needs it."""
        asked = set(self.workloads) | ({Name.UNIFORM} if Name.STEADY in self.workloads else set())
        return tuple(name for name in Name if name in asked)


async def run(home: Home, plan: Plan, say: Say) -> Result:
    """Measures everything that is asked for; what an earlier run left in the home is deleted, and the servers are stopped at the end.
    Raises UserError when that cannot be done here."""
    rivals.check(plan.systems)
    with servers(home) as place, TemporaryDirectory() as folder:
        bench = Bench(place, plan, Path(folder) / "orders", say)
        rounds: dict[Name, list[Round]] = defaultdict(list)
        for number in range(plan.rounds):
            for name in plan.in_order():
                say(f"round {number + 1} of {plan.rounds}, {name}")
                rounds[name].append(await bench.round(name))
        return Result(
            machine=await _machine(place),
            rounds=plan.rounds,
            workloads={name: result.workload(found, bench.tuning(LIMIT, name)) for name, found in rounds.items()},
            memory_mb=result.peaks(round_ for found in rounds.values() for round_ in found),
        )


class Bench:
    """Runs one workload after the other. Remembers what `uniform` reached last, and with which tuning each workload went best, by
    system."""

    def __init__(self, place: Place, plan: Plan, file: Path, say: Say) -> None:
        self._place, self._plan, self._file, self._say = place, plan, file, say
        self._uniform: dict[str, float] = {}
        self._best: dict[tuple[str, Name], rivals.Tuning] = {}

    async def round(self, name: Name) -> Round:
        """Each system once, one after the other."""
        found: dict[str, Sample] = {}
        for who in self._plan.systems:
            found[who] = await self._run(who, name)
            self._say(f"  {who}: {found[who].lines_per_second:,.0f} lines/s")
        return found

    def tuning(self, system: str, name: Name) -> rivals.Tuning:
        """What a rival is set to for a workload: for `steady` as for `uniform`."""
        return self._best.get((system, Name.UNIFORM if name is Name.STEADY else name), rivals.TUNINGS[system][0])

    async def _run(self, system: str, name: Name) -> Sample:
        rate = self._uniform[system] * STEADY_SHARE if name is Name.STEADY else 0.0
        lines = round(rate * STEADY_SECONDS) if rate else self._lines(system, name)
        played = case(name, lines, self._plan.sold)
        write(self._file, identified(played.orders))
        if system != OURS:
            await self._tune(system, name, played)
            sample = await self._rival(system, name, played, rate, self.tuning(system, name))
        else:
            async with ours.started(self._place, _namespace(), played) as who:
                sample = await self._play(who, name, played, rate)
                if name is Name.UNIFORM:
                    sample.mails_per_second = await who.mails_per_second()
        if name is Name.UNIFORM:
            self._uniform[system] = sample.lines_per_second
        return sample

    def _lines(self, system: str, name: Name) -> int:
        lines = self._plan.lines or LINES[name]
        return {OURS: lines, NAIVE: min(lines, NAIVE_LINES), LIMIT: max(lines, min(LIMIT_TIMES * lines, LIMIT_LINES))}[system]

    async def _tune(self, system: str, name: Name, played: Case) -> None:
        """Finds the best of a rival's settings for this workload, once."""
        choices = rivals.TUNINGS[system]
        if not self._plan.tune or len(choices) == 1 or name is Name.STEADY or (system, name) in self._best:
            return
        rates = [(await self._rival(system, name, played, 0.0, tuning)).lines_per_second for tuning in choices]
        rate, best = max(zip(rates, range(len(choices)), strict=True))
        self._best[system, name] = choices[best]
        self._say(f"{name}: {system} is at its best, {rate:,.0f} lines/s, with {choices[best]}; at its worst {min(rates):,.0f}")

    async def _rival(self, system: str, name: Name, played: Case, rate: float, tuning: rivals.Tuning) -> Sample:
        async with rivals.started(self._place, _namespace(), played, system, tuning) as who:
            return await self._play(who, name, played, rate)

    async def _play(self, who: trial.Contender, name: Name, played: Case, rate: float) -> Sample:
        if name is Name.RECEIPT_STORM:
            return await trial.restock(who, played, self._file)
        return await trial.orders(who, played, self._file, rate)


def _namespace() -> str:
    """Every run of every system has a name of its own."""
    return f"bench_{secrets.token_hex(3)}"


@contextmanager
def servers(home: Home) -> Iterator[Place]:
    """A broker and a database server for a run: new ones in this home, or those that the environment names."""
    system.reset(home)
    addresses = infrastructure.start(home)
    try:
        yield Place(home, addresses.kafka, addresses.database_url)
    finally:
        system.down(home)


async def _machine(place: Place) -> Machine:
    connection = await asyncpg.connect(place.database_url)
    try:
        shown = {name: await connection.fetchval(f"SHOW {name}") for name in ("server_version", "fsync", "synchronous_commit")}
    finally:
        await connection.close()
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cpus=psutil.cpu_count() or 0,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        versions={"backorder": version("backorder"), "python": platform.python_version(), "kafka": kafka.VERSION},
        postgresql=shown,
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
