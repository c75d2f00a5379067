"""The command that checks the invariants."""

from dataclasses import asdict
from typing import Annotated

import typer

from deploy.local import from_log
from deploy.local.audit import Audit, audit
from deploy.local.cli.output import answer, say, show
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared.settings import Settings

SHOWN = 10
"""So many offending rows of a check are shown to people; programs get all of them."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("audit")(check)


def check(
    wait: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait until everything has settled; it is a violation if it has not.")
    ] = None,
    from_the_log: Annotated[
        bool, typer.Option("--from-log", help="Also apply the topics once more by the journals, to empty databases, and compare.")
    ] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Check the system's invariants in its databases; exit code 1 and the offending rows when one is broken.

    Each service's own numbers are checked at any moment; that the services agree can be checked only when nothing is under
    way. What a parked message is about is left out, and the parked message is named instead.
    """
    outcome = wait_for(_audit(settings_of(Home(home)), wait, replay=from_the_log))
    if json:
        answer(asdict(outcome))
    else:
        _print(outcome)
    if not outcome.ok:
        raise typer.Exit(1)


async def _audit(settings: Settings, wait: float | None, *, replay: bool) -> Audit:
    outcome = await audit(settings, wait)
    return outcome.including(await from_log.checks(settings)) if replay else outcome


def _print(outcome: Audit) -> None:
    for service, counts in outcome.counts.items():
        say(f"{service}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    say()
    show(
        ("", "check", "checked", "violations"),
        [("✗" if found.violations else "✓", name, found.checked, len(found.violations) or None) for name, found in outcome.checks.items()],
    )
    for name, found in outcome.checks.items():
        for violation in found.violations[:SHOWN]:
            row = ", ".join(f"{column} = {value}" for column, value in violation["row"].items())
            say(f"\n{name}\n  {violation['service']}: {row}\n  expected: {violation['expected']}")
        if len(found.violations) > SHOWN:
            say(f"  … and {len(found.violations) - SHOWN} more (--json shows all)")
    if not outcome.settled:
        say("\nMessages are under way: what the services tell one another was compared only in part. `--wait 60` awaits them.")
    say("\nAll is as it must be." if outcome.ok else "\nSomething is not as it must be.")
