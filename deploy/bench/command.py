"""`backorder bench`: how fast the system is, beside what a good team writes in a day and beside what the machine can do."""

import asyncio
import sys
from enum import StrEnum
from importlib.resources import as_file, files
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.bench.result import LIMIT, NAIVE, OURS, SYSTEMS, Result, Workload
from deploy.bench.run import Plan, run
from deploy.bench.workloads import Name
from deploy.local import retail
from deploy.local.home import Home
from shared.contracts.commerce import OrderPlaced

HERE = Path(".backorder/bench")
WIDE = 200
"""Columns where the figures go into a file or another program: nothing is folded there."""


class System(StrEnum):
    """Who can be measured."""

    OURS = OURS
    NAIVE = NAIVE
    LIMIT = LIMIT


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(bench)


def bench(
    *,
    workload: Annotated[list[Name] | None, typer.Option(help="Only this workload; may be repeated.")] = None,
    lines: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a run of ours; the others have so many that they run as long.", show_default="60000, receipt_storm 100000"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the systems take turns; figures are medians.")] = 5,
    only: Annotated[System | None, typer.Option(help="Measure one system alone: without ratios.")] = None,
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Look for the best settings of the limit first.")] = True,
    file: Annotated[
        Path | None, typer.Option(help="Online Retail as CSV or CSV.GZ, instead of the excerpt.", exists=True, dir_okay=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object for programs.")] = False,
    home: Annotated[Path, typer.Option(help="The folder of the bench's own servers; what is in it is deleted.")] = HERE,
) -> None:
    """Measure throughput, latency and cost, with everything on this machine.

    In each round our system, a naive one and a bare pipeline, which stands for what the machine can do, do the same work one after
    the other on the same broker and database. What is measured and what the words mean stands in docs/performance.md.
    """
    console = Console(stderr=json, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    began = monotonic()
    plan = Plan(
        workloads=tuple(workload or Name),
        systems=SYSTEMS if only is None else (only.value,),
        lines=lines,
        rounds=rounds,
        tune=tune,
        sold=_sold(file),
    )
    done = asyncio.run(run(Home(home), plan, lambda words: console.print(f"{monotonic() - began:6.1f}  {words}", markup=False)))
    if json:
        typer.echo(done.model_dump_json(indent=2))
    else:
        _show(console, done)


def _sold(file: Path | None) -> list[OrderPlaced]:
    """The orders of an Online Retail file, at first the excerpt that is at hand."""
    if file is not None:
        return retail.sales(retail.invoices(retail.read(file))).orders
    with as_file(files("deploy.local") / "data" / "online-retail" / "excerpt.csv") as excerpt:
        return retail.sales(retail.invoices(retail.read(excerpt))).orders


def _show(console: Console, done: Result) -> None:
    table = Table(box=None, pad_edge=False)
    for name in (
        "workload",
        "lines/s",
        "naive",
        "limit",
        "× naive",
        "of limit",
        "p50 ms",
        "p99 ms",
        "mails/s",
        "WAL B/line",
        "Kafka B/line",
    ):
        table.add_column(name, justify="left" if name == "workload" else "right")
    for name, found in done.workloads.items():
        table.add_row(name, *_figures(found))
    console.print(table)
    for name, found in done.workloads.items():
        if not found.cpu_us_per_line:
            continue
        spent = ", ".join(f"{process} {cpu:.0f}" for process, cpu in found.cpu_us_per_line.items())
        console.print(f"{name}: µs of CPU per line: {spent}", markup=False)
    console.print("peak MB: " + ", ".join(f"{process} {peak:.0f}" for process, peak in done.memory_mb.items()), markup=False)


def _figures(found: Workload) -> list[str]:
    latency = found.latency_ms
    return [
        _number(found.lines_per_second),
        _number(found.naive_lines_per_second),
        _number(found.limit_lines_per_second),
        _number(found.ratio_naive, 1),
        _number(found.fraction_of_limit, 3),
        _number(latency.p50 if latency else None),
        _number(latency.p99 if latency else None),
        _number(found.mails_per_second),
        _number(found.wal_bytes_per_line),
        _number(found.kafka_bytes_per_line),
    ]


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
