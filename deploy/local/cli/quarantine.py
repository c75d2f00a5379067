"""Commands about what was found broken: look at it, have it repaired."""

import getpass
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from deploy.local import views
from deploy.local.cli import wishes
from deploy.local.cli.output import answer, moment, say, show
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.databases import connected
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared import quarantine
from shared.contracts.base import JsonObject
from shared.settings import Settings

AggregateArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` names it: inventory/sku:S-1.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        help="What was found broken: its messages wait, all others flow, until an operator has it repaired.", no_args_is_help=True
    )
    group.command("list")(list_broken)
    group.command("show")(show_broken)
    group.command("repair")(repair)
    app.add_typer(group, name="quarantine")


def list_broken(
    service: wishes.ServiceOption = None,
    released: Annotated[bool, typer.Option("--all", help="Also what has been repaired.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """List what is quarantined, with the invariant that it breaks, its numbers, and how many messages wait for its repair."""
    settings = settings_of(Home(home))
    found = wait_for(views.quarantine(settings, wishes.chosen(service), released=released))
    if json:
        answer(found)
        return
    rows = [
        (
            each["id"],
            moment(each["since"], settings.zone),
            each["waiting"],
            moment(each["released_at"], settings.zone),
            f"{each['invariant']}: {each['detail']}",
        )
        for each in found
    ]
    show(("id", "since", "waiting", "released", "what is broken"), rows)


def show_broken(aggregate: AggregateArgument, home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Show all that was ever found broken of an order, SKU or purchase order, by which message, what waits, and every repair."""
    settings = settings_of(Home(home))
    found = wait_for(views.quarantined(settings, *_parsed(aggregate)))
    if json:
        answer(found)
        return
    for finding in found["findings"]:
        released = f", released {moment(finding['released_at'], settings.zone)}" if finding["released_at"] else ""
        say(
            f"Since {moment(finding['since'], settings.zone)}{released}: {finding['invariant']}\n  {finding['detail']}\n  {_suspected(finding)}"
        )
    if found["waiting"]:
        say("\nWaiting for its repair")
        _table(found["waiting"], "dead_letter", "aggregate", "type", "message_id")
    if found["repairs"]:
        say("\nRepairs")
        repairs = [{**each, "at": moment(each["requested_at"], settings.zone)} for each in found["repairs"]]
        _table(repairs, "at", "actor", "reason", "dry_run", "repaired", "result")


def repair(
    aggregate: AggregateArgument,
    why: Annotated[str, typer.Option("--why", help="What happened, and how you know; kept with the decision.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    actor: wishes.ActorOption = "",
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Put an order, SKU or purchase order right from what can still be told of it, and apply what waited. Exit code 1 if it cannot be."""
    settings, (service, name) = settings_of(Home(home)), _parsed(aggregate)
    done = wait_for(_ask(settings, service, name, actor or getpass.getuser(), why, dry_run=dry_run))
    if json:
        answer({"id": aggregate, **{key: done[key] for key in ("actor", "reason", "dry_run", "repaired", "result")}})
    else:
        say(f"{aggregate}{' (dry run)' if dry_run else ''}: {done['result']}")
    if not done["repaired"]:
        raise typer.Exit(1)


async def _ask(settings: Settings, service: str, aggregate: str, actor: str, reason: str, *, dry_run: bool) -> Any:
    """Records the wish, and answers its row when the service has settled it."""
    if not reason.strip():
        raise UserError("say why (--why): it is kept with the decision")
    async with connected(settings, service) as connection:
        request = await quarantine.request_repair(connection, aggregate, actor, reason, dry_run=dry_run)
        return await wishes.settled(connection, service, "runtime.repair", request)


def _table(rows: Iterable[JsonObject], *columns: str) -> None:
    show(columns, [tuple(row[name] for name in columns) for row in rows])


def _suspected(finding: JsonObject) -> str:
    """Which message is to blame, as far as it can be told."""
    if finding["right_until"] is None:
        return "when it broke is not known: nobody had looked at it before"
    if finding["message"] is None:
        return f"right until transaction {finding['right_until']}; no message is known that touched it since: perhaps changed from outside"
    number = "" if finding["number"] is None else f" in transaction {finding['number']}"
    return f"right until transaction {finding['right_until']}; the first message that touched it since: {finding['message']}{number}"


def _parsed(aggregate: str) -> tuple[str, str]:
    service, _, name = aggregate.partition("/")
    kind, _, key = name.partition(":")
    if not kind or not key:
        raise UserError(f"{aggregate!r} names nothing that is guarded: expected service/kind:key, as in inventory/sku:S-1")
    return wishes.known(service), name
