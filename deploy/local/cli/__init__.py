"""The command line `backorder`: each module named here adds its commands."""

import logging
import sys
from typing import Final

import typer

from deploy.bench import command as bench
from deploy.chaos import command as chaos
from deploy.load import command as load
from deploy.local.cli import auditing, dead_letters, demo, publishing, quarantine, replay, rewinding, running, simulate, watching
from deploy.local.errors import UserError

_MODULES: Final = (demo, replay, running, simulate, publishing, watching, dead_letters, quarantine, auditing, rewinding, chaos, bench, load)

app = typer.Typer(
    name="backorder",
    help="Backorders end to end, on one machine: the real Kafka, PostgreSQL and the four services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in _MODULES:
    module.register(app)


def main() -> None:
    """Run the command line; what a person can put right is one line on stderr and exit code 2."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it cannot reach, the commands say in one line
    try:
        app()
    except UserError as error:
        print(f"backorder: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
