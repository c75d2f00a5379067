"""The command that has services read the log again."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from deploy.local.cli.output import answer, moment, say, show
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.rewind import rewind
from deploy.local.sync import wait_for
from shared.settings import SERVICES


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("rewind")(back)


def back(
    to: Annotated[str, typer.Option("--to", metavar="TIME", help="As in 2026-03-02T09:00+01:00; without an offset it is UTC.")],
    service: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only said what would be read again.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Have stopped services read everything again that the log has taken since a time.

    A restored database knows by itself where it stands and what it has to read again; this is for one whose offsets are not those
    of the log: its topics were mirrored or made anew. What was applied or told before has no second effect.
    """
    settings = settings_of(Home(home))
    at = _moment(to)
    moves = wait_for(rewind(settings, _known(service or SERVICES), at, really=yes))
    if json:
        answer({"to": at, "moved": yes, "moves": [asdict(move) for move in moves]})
        return
    rows = [(move.service, move.topic, move.partition, move.stood, move.to, move.records) for move in moves]
    show(("service", "topic", "partition", "stands at", "goes back to", "records"), rows)
    records = sum(move.records for move in moves)
    when = moment(at, settings.zone)
    if yes:
        say(f"\n{records:,} records since {when} will be read again when the services start.")
    else:
        say(f"\n{records:,} records since {when} would be read again; nothing was moved. Stop the services and say --yes.")


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no time: write it as in 2026-03-02T09:00+01:00") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _known(services: list[str] | tuple[str, ...]) -> list[str]:
    if unknown := set(services) - set(SERVICES):
        raise UserError(f"there is no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    return list(dict.fromkeys(services))
