"""One Kafka and one PostgreSQL for a whole test run, started by the first test that needs them.

The workers of pytest-xdist are processes of one run: whoever comes first starts the servers, under a lock, and the
controlling process stops them. So unit tests alone start at once, and several runs in one checkout do not meet.
With BACKORDER_TEST_CONTAINERS=1 the controlling process starts them at once, in containers.
"""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

import psutil

from deploy.local import infrastructure
from deploy.local.home import Home
from tests import containers

_FOLDER = Path(__file__).parents[1] / ".backorder" / "tests"
RUN = "BACKORDER_TEST_RUN"
"""The name of a run, which its workers inherit."""
_containers = ExitStack()


def begin() -> None:
    """Name this run for its workers, and clear away what runs before it left: logs, data, servers of a killed run.

    Raises ContainersError when containers are asked for and cannot be had.
    """
    for folder in _FOLDER.glob("*-*"):
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            infrastructure.delete(Home(folder))
    os.environ[RUN] = f"{os.getpid()}-{secrets.token_hex(4)}"
    if containers.wanted(os.environ):
        servers = _containers.enter_context(containers.servers())
        os.environ[infrastructure.KAFKA], os.environ[infrastructure.DATABASE] = servers.kafka, servers.database_url


def addresses() -> infrastructure.Addresses:
    """Where this run's servers answer, or those that the environment names; started at the first question."""
    return infrastructure.start(_home())


def end() -> None:
    """Stop this run's servers; logs stay until the next run."""
    _containers.close()
    home = _home()
    if home.exists():
        infrastructure.stop(home)


def _home() -> Home:
    return Home(_FOLDER / os.environ[RUN])
