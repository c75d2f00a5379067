"""`backorder replay`: a file of the Online Retail data set, played as fast as the system can."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.local import assortment, live, retail
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.stage import fresh_system
from deploy.local.story import play
from deploy.local.summary import Tally
from deploy.local.suppliers import Rates

HERE = Path(".backorder/replay")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(replay)


def replay(
    file: Annotated[Path, typer.Argument(help="Online Retail (UCI) as CSV, also compressed (.csv.gz).", exists=True, dir_okay=False)],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many lines from the beginning, in whole invoices.")] = None,
    speed: Annotated[str, typer.Option(help="Business days per second, or `max`: as fast as the system can.")] = "max",
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object for programs.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the system running: look around with `--home` on the other commands.")
    ] = False,
    home: Annotated[Path, typer.Option(help="The folder of the replay's own system; an earlier replay in it is deleted.")] = HERE,
    stock: Annotated[str, typer.Option(help="Tenths of the SKUs that begin with no stock, half of the demand, all of it.")] = "2,3,5",
    packs: Annotated[str, typer.Option(help="Pack sizes that suppliers offer, chosen by hash per SKU.")] = "1,6,12",
    lead_days: Annotated[str, typer.Option(help="Shortest and longest lead time, chosen by hash per supplier.")] = "3-12",
    suppliers: Annotated[int, typer.Option(min=2, help="How many suppliers there are; each SKU has two of them.")] = 12,
    slip: Annotated[float, typer.Option(min=0, max=1, help="Share of purchase orders that come 2 to 5 days late.")] = 0.1,
    reject: Annotated[float, typer.Option(min=0, max=1, help="Share of lines that a SKU's first supplier rejects.")] = 0.05,
    short: Annotated[float, typer.Option(min=0, max=1, help="Share of lines delivered in part, the rest 3 days later.")] = 0.1,
    twice: Annotated[float, typer.Option(min=0, max=1, help="Share of receipts sent again, and sent again under a new message id.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Varies what is chosen by hash.")] = 0,
) -> None:
    """Replay orders and cancellations of the Online Retail data set in a fresh system, with simulated suppliers and warehouse.

    Invoices become orders, `C` invoices cancellations of the latest line of the same customer and SKU (within 7 days). Each
    purchase order is acknowledged; the last supplier of a SKU never rejects and all is delivered in the end, so that everything
    settles. Then the invariants are audited; exit code 1 when one is broken.
    """
    console = Console(stderr=json)
    terms = assortment.Terms(
        stock=_stock(stock), packs=_packs(packs), lead_days=_lead_days(lead_days), suppliers=suppliers,
        rates=Rates(slip=slip, reject=reject, short=short, twice=twice, seed=seed),
    )  # fmt: skip
    days_per_second = _speed(speed)
    with live.doing(console, f"Reading {file}"):
        sales = retail.sales(retail.invoices(retail.read(file)), limit)
    if not sales.orders:
        raise UserError(f"{file} has no order lines")
    story = assortment.story(sales, terms)
    tally = Tally()
    with ExitStack() as stack:
        with live.doing(console, "Starting Kafka, PostgreSQL and the four services"):
            settings = stack.enter_context(fresh_system(Home(home), story.start, retail.ZONE, keep=keep))
        with live.progress(console, story.start, story.end, sales.lines, tally) as moved:
            run = asyncio.run(play(settings, story, tally, days_per_second=days_per_second, progress=moved))
        if json:
            typer.echo(run.summary.model_dump_json())
        else:
            live.show_result(console, run)
    if not run.audit.ok:
        raise typer.Exit(1)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UserError(f"--speed {text}: expected `max` or a number of days per second, such as 2")
    return speed


def _stock(text: str) -> tuple[int, int, int]:
    numbers = _numbers(text, ",")
    if len(numbers) != 3 or sum(numbers) != 10:
        raise UserError(f"--stock {text}: expected three numbers that add up to ten, such as 2,3,5")
    return numbers[0], numbers[1], numbers[2]


def _packs(text: str) -> tuple[int, ...]:
    packs = _numbers(text, ",")
    if not packs or min(packs) < 1:
        raise UserError(f"--packs {text}: expected pack sizes such as 1,6,12")
    return packs


def _lead_days(text: str) -> tuple[int, int]:
    days = _numbers(text, "-")
    if len(days) != 2 or not 1 <= days[0] <= days[1] <= 365:
        raise UserError(f"--lead-days {text}: expected the shortest and the longest, such as 3-12")
    return days[0], days[1]


def _numbers(text: str, separator: str) -> tuple[int, ...]:
    """The numbers in the text; none when it holds anything else."""
    words = text.split(separator)
    return tuple(int(word) for word in words) if all(word.isdigit() for word in words) else ()
