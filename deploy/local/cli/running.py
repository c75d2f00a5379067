"""Commands that start, show and stop a local system."""

import os
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from deploy.local import infrastructure, system
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared import auth, migrate, topics
from shared.settings import SERVICES, ClockSource, Settings

HomeOption = Annotated[
    Path,
    typer.Option("--home", help="The folder of the local system: its data, logs and ports.", envvar="BACKORDER_HOME"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with JSON for programs.")]
HERE = Path(".backorder")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, down, status, reset, migrate_databases, key):
        app.command(_NAMES.get(command.__name__))(command)
    of_topics = typer.Typer(help="The topics of a system.", no_args_is_help=True)
    of_topics.command("create")(create_topics)
    app.add_typer(of_topics, name="topics")


def up(
    home: HomeOption = HERE,
    namespace: Annotated[str, typer.Option(help="Prefix of topics, groups and databases on a shared broker or server.")] = "",
    clock: Annotated[ClockSource, typer.Option(help="Where business time comes from: `topic` when a driver moves it.")] = ClockSource.WALL,
    instance: Annotated[list[str] | None, typer.Option(help="Processes of one service, as in `orders=2`; may be repeated.")] = None,
    brokers: Annotated[
        int | None, typer.Option(help="Of our own Kafka: 1, or 3 to survive the loss of one. Chosen at the first start.", show_default="1")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Start the system and wait until every service is ready.

    Kafka and PostgreSQL run from packages and keep their data in the home. Set KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL
    to use servers that run elsewhere. Started twice, it leaves alone what runs already.
    """
    show(system.up(Home(home), namespace, clock.value, _counts(instance or []), brokers=brokers), json)


def down(home: HomeOption = HERE) -> None:
    """Stop the system; its data stay for the next `up`."""
    system.down(Home(home))


def status(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Show what runs, where it answers and whether it is ready; exit code 1 when something is not."""
    info = system.status(Home(home))
    show(info, json)
    if not info.ready:
        raise typer.Exit(1)


def reset(
    home: HomeOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop the system and delete its folder with all orders, stock, mail and logs."""
    if not yes:
        typer.confirm(f"Delete {home.absolute()} with everything in it?", abort=True)
    system.reset(Home(home))


def create_topics(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Create the topics that are missing, and check that the others have the shape that the services count on."""
    settings = settings_of(Home(home))
    wait_for(topics.create(settings))
    wait_for(topics.check(settings))
    _say({"kafka": settings.kafka_bootstrap_servers, "partitions": settings.partitions}, "The topics are as they should be.", json)


def migrate_databases(
    service: Annotated[list[str] | None, typer.Argument(help="Services; all of them when none is named.")] = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Create databases that are missing and bring their tables to this version."""
    settings = settings_of(Home(home))
    names = service or list(SERVICES)
    if unknown := set(names) - set(SERVICES):
        raise UserError(f"there is no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    for name in names:
        wait_for(migrate.migrate(settings, name))
    _say({"migrated": names}, f"Up to date: {', '.join(names)}.", json)


def key(
    role: Annotated[auth.Role, typer.Argument(help="What its bearer may do.")],
    name: Annotated[str, typer.Argument(help="Who bears it: stands in every message that it lets in.")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Print an API key for the HTTP edges, signed with the system's secret."""
    signed = auth.key_for(settings_of(Home(home)).api_secret, role, name)
    _say({"role": role, "name": name, "key": signed}, signed, json)


_NAMES = {"migrate_databases": "migrate"}


def show(info: system.SystemInfo, json: bool) -> None:
    """Print a system's state."""
    if json:
        typer.echo(info.model_dump_json(indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("process", "pid", "address", "state"):
        table.add_column(column)
    for process in info.processes:
        pid = str(process.pid) if process.pid else "-"
        table.add_row(process.name, pid, process.address, "[green]ready[/]" if process.ready else "[red]not ready[/]")
    console = Console()
    console.print(table)
    console.print(f"\nLogs are in {info.home / 'logs'}, mail to customers in {info.mail}.", soft_wrap=True)


def settings_of(home: Home) -> Settings:
    """Those of the system here; outside of a local system, as in a container, the environment alone says them."""
    named = {infrastructure.KAFKA, infrastructure.DATABASE, "BACKORDER_API_SECRET"} & os.environ.keys()
    return Settings() if named and not home.exists() else system.settings(home)


def _counts(instances: list[str]) -> dict[str, int]:
    counts = {}
    for word in instances:
        service, _, count = word.partition("=")
        if service not in SERVICES or not count.isdigit() or int(count) < 1:
            raise UserError(f"--instance {word}: expected a service and a number, as in orders=2; there are {', '.join(SERVICES)}")
        counts[service] = int(count)
    return counts


def _say(facts: dict[str, object], words: str, json: bool) -> None:
    typer.echo(orjson.dumps(facts).decode() if json else words)
