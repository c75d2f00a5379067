"""`backorder chaos`: breaks everything that can break, under load, and says whether anything was lost or done twice."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.chaos.faults import FAULTS, unavailable
from deploy.chaos.pinned import PINNED
from deploy.chaos.result import Result, told
from deploy.chaos.run import Plan, Run, run
from deploy.local.errors import UserError
from deploy.local.home import Home

HERE = Path(".backorder/chaos")
FAULTS_A_MINUTE = 8
SHORT_SEED, SHORT_MINUTES, SHORT_PACE = 1, 1.0, 0.2
SHORT_SECONDS = 200.0
"""A pinned seed is run in the short form only while so little time has gone."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(chaos)


def chaos(
    *,
    seed: Annotated[int | None, typer.Option(help="Of faults and load; the same seed strikes the same way again.")] = None,
    faults: Annotated[int | None, typer.Option(min=0, help="How many faults; else some 8 a minute.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long faults strike. What follows takes as long as it takes.")] = 5.0,
    kinds: Annotated[str, typer.Option(help="Only these kinds, separated by commas; `list` names all.")] = "",
    pace: Annotated[float, typer.Option(min=0.01, help="Multiplies how long each fault lasts.")] = 1.0,
    runs: Annotated[int, typer.Option(min=1, help="So many runs, with seeds that follow one another.")] = 1,
    results: Annotated[
        Path | None, typer.Option(help="A JSON-lines file to which each result is added; runs that stand in it are not done again.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Every kind once, quickly, then pinned seeds: for every change.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object a run for programs.")] = False,
    home: Annotated[Path, typer.Option(help="The folder of the system that is broken; what is in it is deleted.")] = HERE,
) -> None:
    """Break a whole system under load, and judge what is left.

    Three brokers, PostgreSQL and two instances of each service run a hostile shop's and hostile suppliers' business while a
    nemesis kills, pauses, cuts and fills up, alone and in combinations. Then nothing strikes any more, and everything has to
    settle by itself. Nothing that was accepted may be missing, nothing done twice, nothing refused without reason; the same input
    in calm must come to the same end; the journal's replay of the topics must give the same state. Exit code 1 if not.
    """
    if kinds == "list":
        typer.echo("\n".join(FAULTS))
        return
    console = Console(stderr=json, highlight=False, soft_wrap=True)
    chosen = _kinds(kinds)
    for kind, problem in unavailable().items():
        console.print(f"Without {kind}, which cannot be had here: {problem}", markup=False)
        chosen = tuple(each for each in chosen if each != kind)
    plans = _short_plans(chosen) if short else _plans(seed, faults, minutes, chosen, pace, runs)
    failed = False
    for plan in plans:
        if results is not None and _stands_in(results, plan):
            continue
        done = run(Home(home), plan, _saying(console))
        failed |= not done.result.ok
        if results is not None:
            with results.open("a") as file:
                file.write(done.result.model_dump_json() + "\n")
        if json:
            typer.echo(done.result.model_dump_json())
        _report(console, done, Home(home))
        if failed and short:
            break  # whoever reads the end of its output, reads of the failure
    if results is not None:
        _table(console, results)
    if failed:
        raise typer.Exit(1)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(word.strip() for word in text.split(",") if word.strip())
    if unknown := set(kinds) - set(FAULTS):
        raise UserError(f"--kinds {', '.join(sorted(unknown))}: there is no such fault; there are {', '.join(FAULTS)}")
    return kinds or tuple(FAULTS)


def _plans(seed: int | None, faults: int | None, minutes: float, kinds: tuple[str, ...], pace: float, runs: int) -> Iterator[Plan]:
    first = secrets.randbelow(10**6) if seed is None else seed
    count = round(FAULTS_A_MINUTE * minutes) if faults is None else faults
    yield from (Plan(first + number, count, minutes, kinds, pace) for number in range(runs))


def _short_plans(kinds: tuple[str, ...]) -> Iterator[Plan]:
    """Every kind once; then what failed once, as time allows."""
    began = monotonic()
    yield Plan(SHORT_SEED, len(kinds), SHORT_MINUTES, kinds, SHORT_PACE)
    for pin in PINNED:
        if monotonic() - began < SHORT_SECONDS:
            yield Plan(pin.seed, pin.faults, pin.minutes, pin.kinds or kinds)


def _saying(console: Console) -> Callable[[str], None]:
    began = monotonic()

    def say(words: str) -> None:
        console.print(f"{monotonic() - began:6.1f}  {words}", markup=False)

    return say


def _stands_in(results: Path, plan: Plan) -> bool:
    return any((result.seed, result.minutes) == (plan.seed, plan.minutes) for result in read(results))


def read(results: Path) -> list[Result]:
    """The results in a file; none when there is no file yet."""
    if not results.exists():
        return []
    return [Result.model_validate_json(line) for line in results.read_text().splitlines()]


def _report(console: Console, done: Run, home: Home) -> None:
    result = done.result
    figures = {
        "faults": f"{result.faults_total} ({', '.join(f'{count} {kind}' for kind, count in result.faults.items())})",
        "accepted": f"{result.accepted:,} messages, {result.applied:,} of them applied, {result.duplicates_dropped:,} duplicates dropped",
        "lines": f"{result.details.lines:,}, {result.details.raced} raced a parcel, {result.details.scarce} of SKUs that may not wait ended otherwise",
        "recovery": f"p50 {_seconds(result.recovery_seconds.p50)}, p99 {_seconds(result.recovery_seconds.p99)},"
        f" max {_seconds(result.recovery_seconds.max)} over {result.details.recoveries}",
        "settling": _seconds(result.details.settling_seconds),
        "mails": f"{result.details.mails:,}, {result.details.mails_repeated} of them repeated across a fault",
        "same state from the log": {True: "yes", False: "no", None: "not asked"}[result.state_hash_equal],
    }
    for name, figure in figures.items():
        console.print(f"{name:>24}  {figure}", markup=False)
    if result.ok:
        console.print("[green]Nothing was lost, nothing was done twice.[/]")
        return
    for line in told(done.violations, done.timeline, done.log, done.plan.command):
        console.print(line, markup=False)
    console.print(f"What the processes said: {_kept(home, done.plan.seed)}", markup=False)


def _kept(home: Home, seed: int) -> Path:
    """The logs of a run, where the next one does not delete them."""
    kept = home.path.with_name(f"{home.path.name}-failed-{seed}")
    return Path(shutil.copytree(home.logs, kept, dirs_exist_ok=True))


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def _table(console: Console, results: Path) -> None:
    """All the results of the file, a run a row, and the sum."""
    table = Table(box=None, pad_edge=False)
    for name in (
        "seed",
        "minutes",
        "faults",
        "accepted",
        "applied",
        "dropped",
        "lines",
        "p50",
        "p99",
        "max",
        "settling",
        "state",
        "violations",
    ):
        table.add_column(name, justify="right")
    found = read(results)
    for result in found:
        recovered = result.recovery_seconds
        figures: tuple[object, ...] = (
            result.seed, f"{result.minutes:g}", result.faults_total, result.accepted, result.applied, result.duplicates_dropped,
            result.details.lines, *(_seconds(each) for each in (recovered.p50, recovered.p99, recovered.max, result.details.settling_seconds)),
            {True: "same", False: "DIFFERS", None: "not asked"}[result.state_hash_equal], len(result.violations),
        )  # fmt: skip
        table.add_row(*map(str, figures))
    console.print(table)
    total = sum(result.faults_total for result in found)
    console.print(f"{len(found)} runs, {total:,} faults, {sum(not result.ok for result in found)} runs with violations")
