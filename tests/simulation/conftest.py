"""One laboratory for all simulations of a test process."""

from collections.abc import Iterator

import pytest

from deploy.local import infrastructure
from tests.simulation.laboratory import Laboratory, laboratory


@pytest.fixture(scope="session")
def lab(servers: infrastructure.Addresses) -> Iterator[Laboratory]:
    with laboratory(servers.database_url) as opened:
        yield opened
