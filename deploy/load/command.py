"""`backorder overload` and `backorder soak`: what a system does when too much is ordered, and when much is ordered for long."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console

from deploy.chaos.violation import Violation
from deploy.load import run
from deploy.load.result import Run, Soak
from deploy.load.run import Plan
from deploy.local.home import Home

HERE = Path(".backorder/load")
SHOWN = 20
HomeOption = Annotated[Path, typer.Option("--home", help="The folder of the system that is loaded; what is in it is deleted.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with one JSON object for programs.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(overload)
    app.command()(soak)


def overload(
    *,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long orders come. What follows takes as long as it takes.")] = 5.0,
    times: Annotated[float, typer.Option(min=1.0, help="Of the sustainable rate, which is measured first.")] = 5.0,
    json: JsonOption = False,
    home: HomeOption = HERE,
) -> None:
    """Order several times what the system can do, and judge how it bears it.

    Two instances of each service, suppliers, dock and shipping; a third of the lines waits and is bought for. Memory has to be
    bounded, no member of a consumer group may time out, HTTP reads have to be answered in time, then the lag has to drain, everything
    has to come to its end, and the audit has to be clean. Exit code 1 if not.
    """
    console, say = _console(json)
    _end(console, asyncio.run(run.overload(Home(home), Plan(minutes, times), say)), json)


def soak(
    *,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long orders come.")] = 30.0,
    load: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of the sustainable rate, which is measured first.")] = 0.5,
    json: JsonOption = False,
    home: HomeOption = HERE,
) -> None:
    """Order at a rate that the system bears, for long, and look whether anything grows that should not.

    What `overload` asks; and memory, files, threads and connections have to be flat over time, tables, indexes and inbox flat per line
    ordered, dead rows few. Exit code 1 if not.
    """
    console, say = _console(json)
    done = asyncio.run(run.soak(Home(home), Plan(minutes, load), say))
    if not json:
        _show_soak(console, done)
    _end(console, done, json)


def _console(json: bool) -> tuple[Console, Callable[[str], None]]:
    console, began = Console(stderr=json, highlight=False, soft_wrap=True), monotonic()
    return console, lambda words: console.print(f"{monotonic() - began:6.1f}  {words}", markup=False)


def _end(console: Console, done: Run, json: bool) -> None:
    """Says what came of it. Raises Exit 1 when something was not as it must be."""
    if json:
        typer.echo(done.model_dump_json(indent=2))
    for name, figure in _figures(done).items():
        console.print(f"{name:>24}  {figure}", markup=False)
    if not done.violations:
        console.print("[green]It bears it.[/]")
        return
    console.print(f"{len(done.violations)} violations:")
    for violation in done.violations[:SHOWN]:
        console.print(f"  {Violation(violation['check'], violation['row'])}", markup=False)
    raise typer.Exit(1)


def _figures(done: Run) -> Mapping[str, str]:
    reads = (f"{kind} {_number(each.p50)} / {_number(each.p99)} / {_number(each.max)}" for kind, each in done.reads.items())
    peaks = (f"{name} {each.peak_mb:.0f}" for name, each in done.memory.items())
    lost = sum(group.changes + group.assignments for group in done.groups.values())
    return {
        "lines": f"{done.lines:,}; {done.ordered_lines_per_second:,.0f}/s ordered, {done.sustainable_lines_per_second:,.0f}/s sustainable",
        "lag": f"{done.peak_lag_records:,} records, {done.peak_mails_queued:,} mails at most; drained after {_number(done.end.drained_seconds)} s of"
        f" {done.limits.drained_seconds:,.0f} allowed, settled after {_number(done.end.settled_seconds)} s",
        "reads p50 / p99 / max ms": ", ".join(reads),
        "peak MB": ", ".join(peaks),
        "groups": f"{lost} changes or rebalances; {done.failed_batches} batches read again; {len(done.died)} processes died",
        "audit": f"{done.end.audited:,} things, {done.end.wrong} wrong",
    }


def _show_soak(console: Console, done: Soak) -> None:
    for what, trends in (("over time", done.series), ("per line", done.per_line)):
        for name, each in trends.items():
            verdict = "flat" if each.flat else "GROWS"
            console.print(f"{name} {each.level:,.2f}, {each.gained:+,.2f} of {each.allowed:,.2f} allowed: {verdict} {what}", markup=False)
    for service, dead in done.dead_rows.items():
        console.print(
            f"{service}: at most {dead.dead:,} rows of its history dead ({dead.share:.1%}), of {dead.allowed:,} allowed", markup=False
        )


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"
