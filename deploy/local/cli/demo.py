"""`backorder demo`: the Northwind story, from an empty machine to the audit."""

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.local import live, northwind
from deploy.local.home import Home
from deploy.local.stage import fresh_system
from deploy.local.story import play
from deploy.local.summary import Tally

HERE = Path(".backorder/demo")
_AHEAD = timedelta(hours=1)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(demo)


def demo(
    speed: Annotated[float, typer.Option(min=0.1, help="Business days per second.")] = 2.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the system running: look around with `--home` on the other commands.")
    ] = False,
    home: Annotated[Path, typer.Option(help="The folder of the demo's own system; an earlier demo in it is deleted.")] = HERE,
) -> None:
    """Play the Northwind story in a fresh system: 40 orders, 107 lines, about a third of them backordered.

    A customer cancels, one supplier slips, one rejects, one delivers short, and one receipt comes three times. At the end the
    invariants are audited; exit code 1 when one is broken.
    """
    console = Console()
    story = northwind.story()
    tally = Tally()
    with ExitStack() as stack:
        with live.doing(console, "Starting Kafka, PostgreSQL and the four services"):
            settings = stack.enter_context(fresh_system(Home(home), story.start, "UTC", keep=keep))
        with live.watching(console, "Northwind", story.start, story.end, tally) as (hear, moved):
            run = asyncio.run(play(settings, story, tally, days_per_second=speed, ahead=_AHEAD, progress=moved, hear=hear))
        live.show_result(console, run)
        console.print(f"\nThe mails to customers are in {Home(home).mail}.", soft_wrap=True)
    if not run.audit.ok:
        raise typer.Exit(1)
