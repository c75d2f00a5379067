"""One running system per test process for all flows: four services as processes, real topics, databases and mail."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import infrastructure, system
from deploy.local.home import Home
from tests.flows.outside import Outside, outside

FAST = {
    # Windows of seconds instead of hours: the rules are the same.
    "BACKORDER_CONSOLIDATION_HOURS": "0.0003",
    "BACKORDER_DIGEST_MINUTES": "0.01",
    "BACKORDER_PARTITIONS": "4",
}


@pytest.fixture(scope="session")
def home(servers: infrastructure.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A system of this test process' own."""
    home = Home(Path(tmp_path_factory.mktemp("flows")))
    system.up(home, namespace=f"f{secrets.token_hex(3)}", extra_env=FAST)
    yield home
    system.down(home)


@pytest.fixture
async def world(home: Home) -> AsyncIterator[Outside]:
    """Whoever stands outside of it."""
    async with outside(home) as doors:
        yield doors
