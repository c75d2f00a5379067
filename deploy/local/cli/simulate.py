"""`backorder simulate`: suppliers, dock and shipping for a running system."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deploy.local import system
from deploy.local.feed import Feed
from deploy.local.home import Home
from deploy.local.publisher import Publisher
from deploy.local.simulator import Simulator
from deploy.local.suppliers import LastSuppliers, Rates, at_rates
from shared import clock
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.purchasing import PURCHASING_ORDERS
from shared.contracts.suppliers import SUPPLIERS_OFFERS
from shared.settings import Settings

_WAIT_MS = 200


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(simulate)


def simulate(
    *,
    slip: Annotated[float, typer.Option(min=0, max=1, help="Share of purchase orders that come 2 to 5 days late.")] = 0.1,
    reject: Annotated[float, typer.Option(min=0, max=1, help="Share of lines rejected, but for a SKU's last supplier.")] = 0.05,
    short: Annotated[float, typer.Option(min=0, max=1, help="Share of lines delivered in part, the rest 3 days later.")] = 0.1,
    twice: Annotated[float, typer.Option(min=0, max=1, help="Share of receipts sent again, and sent again under a new message id.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Varies who is hit.")] = 0,
    home: Annotated[Path, typer.Option(help="The folder of the local system.", envvar="BACKORDER_HOME")] = Path(".backorder"),
) -> None:
    """Play suppliers, receiving dock and shipping for a running system, until stopped with Ctrl-C.

    They answer purchase orders within a working day, deliver on the promised day and ship a day after allocation, by the
    system's clock. Started again, they read everything again and say everything again, without any effect.
    """
    settings = system.settings(Home(home))
    asyncio.run(_simulate(settings, Rates(slip=slip, reject=reject, short=short, twice=twice, seed=seed)))


async def _simulate(settings: Settings, rates: Rates) -> None:
    last = LastSuppliers()
    simulator = Simulator(at_rates(rates, last), settings.zone)
    async with (
        clock.started(settings) as now,
        Feed(settings, (SUPPLIERS_OFFERS,), lambda message, _: last.take(message)) as offers,
        Feed(settings, (PURCHASING_ORDERS, ORDERS_EVENTS), lambda message, _: simulator.take(message)) as news,
        Publisher(settings) as publisher,
    ):
        await offers.catch_up()
        await news.catch_up()
        typer.echo("Suppliers, dock and shipping are at work; Ctrl-C stops them.")
        while True:
            for publication in simulator.due(now()):
                await publisher.send(publication)
                typer.echo(f"{publication.time:%Y-%m-%d %H:%M}  {type(publication.message).__name__} {publication.id}")
            await publisher.flush()
            await offers.round()
            await news.round(_WAIT_MS)
