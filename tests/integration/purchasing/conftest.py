"""A database of purchasing's own for each test."""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from services.purchasing.app import service
from shared import migrate
from shared.settings import Settings

SERVICE = service(Settings())


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Connections to a database with the runtime's and purchasing's tables, dropped at the end."""
    name = f"test_purchasing_{secrets.token_hex(4)}"
    server = await asyncpg.connect(database_url)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        async with asyncpg.create_pool(urlunsplit(urlsplit(database_url)._replace(path=f"/{name}")), min_size=0, max_size=6) as pool:
            for path in (*sorted(migrate.RUNTIME.glob("*.sql")), *sorted(SERVICE.migrations.glob("*.sql"))):
                await pool.execute(path.read_text(encoding="utf-8"))
            yield pool
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()
