"""A database of this test's own, with the tables of inventory."""

import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from services.inventory.app import service
from shared import migrate
from shared.settings import Settings

SERVICE = service(Settings())


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[Any]"]:
    """Connections to a scratch database that goes when the test ends."""
    name = f"inventory_{secrets.token_hex(6)}"
    server = await asyncpg.connect(database_url)
    try:
        await server.execute(f'CREATE DATABASE "{name}"')
        url = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
        async with asyncpg.create_pool(url, min_size=0, max_size=4) as connections:
            for path in migrate.files(SERVICE.migrations):
                await connections.execute(path.read_text(encoding="utf-8"))
            yield connections
    finally:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await server.close()
