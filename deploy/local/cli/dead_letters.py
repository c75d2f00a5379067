"""Commands about what could not be applied: look at it, have it applied after all, or drop it."""

import getpass
from typing import Annotated, Literal

import typer

from deploy.local import views
from deploy.local.cli import wishes
from deploy.local.cli.output import answer, moment, say, show
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.databases import connected
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared import dead_letters
from shared.settings import Settings

LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` names it: orders/12.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        help="What could not be applied, and why. Parked messages hold back later ones of the same order or SKU.", no_args_is_help=True
    )
    group.command("list")(list_letters)
    group.command("show")(show_letter)
    group.command("replay")(replay)
    group.command("discard")(discard)
    app.add_typer(group, name="dead-letters")


def list_letters(
    service: wishes.ServiceOption = None,
    closed: Annotated[bool, typer.Option("--all", help="Also what was replayed, discarded or superseded.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """List what could not be applied, with the reason."""
    settings = settings_of(Home(home))
    found = wait_for(views.dead_letters(settings, wishes.chosen(service), closed=closed))
    if json:
        answer(found)
        return
    rows = [
        (
            letter["id"],
            letter["state"],
            moment(letter["at"], settings.zone),
            letter["type"].removeprefix("backorder."),
            letter["message_id"],
            f"{letter['reason']}: {letter['detail']}",
        )
        for letter in found
    ]
    show(("id", "state", "at", "type", "message", "why"), rows)


def show_letter(letter: LetterArgument, home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Show a dead letter whole, with headers and body."""
    settings = settings_of(Home(home))
    found = wait_for(views.dead_letter(settings, *_parsed(letter)))
    if json:
        answer(found)
        return
    for name, value in found.items():
        say(f"{name}: {value}")


def replay(letter: LetterArgument, actor: wishes.ActorOption = "", home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Have a dead letter applied now, and whatever is parked behind it."""
    _decide(settings_of(Home(home)), letter, "replay", actor, json=json)


def discard(letter: LetterArgument, actor: wishes.ActorOption = "", home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Drop a dead letter; what is parked behind it is applied."""
    _decide(settings_of(Home(home)), letter, "discard", actor, json=json)


def _decide(settings: Settings, letter: str, action: Literal["replay", "discard"], actor: str, *, json: bool) -> None:
    service, number = _parsed(letter)
    result = wait_for(_ask(settings, service, number, action, actor or getpass.getuser()))
    if json:
        answer({"id": letter, "action": action, "result": result})
    else:
        say(f"{letter}: {result}")
    if result.startswith("failed"):
        raise typer.Exit(1)


async def _ask(settings: Settings, service: str, number: int, action: Literal["replay", "discard"], actor: str) -> str:
    """Records the wish and waits until the service has settled it; answers its words."""
    await views.dead_letter(settings, service, number)
    async with connected(settings, service) as connection:
        request = await dead_letters.request(connection, number, action, actor)
        return str((await wishes.settled(connection, service, "runtime.dead_letter_request", request))["result"])


def _parsed(letter: str) -> tuple[str, int]:
    service, _, number = letter.partition("/")
    if not number.isdecimal():
        raise UserError(f"{letter!r} is no dead letter: expected service/number, as in orders/12")
    return wishes.known(service), int(number)
