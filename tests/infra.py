"""One Kafka and one PostgreSQL for a whole test run, started by the first test that needs them.

The workers of pytest-xdist are processes of one run: whoever comes first starts the servers, under a lock, and the
controlling process stops them. So unit tests alone start at once, and several runs in one checkout do not meet.
"""

import os
import secrets
from pathlib import Path

import psutil

from deploy.local import infrastructure
from deploy.local.home import Home

_FOLDER = Path(__file__).parents[1] / ".backorder" / "tests"
_RUN = "BACKORDER_TEST_RUN"


def begin() -> None:
    """Name this run for its workers, and clear away what runs before it left: logs, data, servers of a killed run."""
    for folder in _FOLDER.glob("*-*"):
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            infrastructure.delete(Home(folder))
    os.environ[_RUN] = f"{os.getpid()}-{secrets.token_hex(4)}"


def addresses() -> infrastructure.Addresses:
    """Where this run's servers answer, or those that the environment names; started at the first question."""
    return infrastructure.start(_home())


def end() -> None:
    """Stop this run's servers; logs stay until the next run."""
    home = _home()
    if home.exists():
        infrastructure.stop(home)


def _home() -> Home:
    return Home(_FOLDER / os.environ[_RUN])
