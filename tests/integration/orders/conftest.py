"""A scratch database of the service orders."""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from services.orders.app import service
from services.orders.state import State
from shared import migrate
from shared.service import Applicable, Service
from shared.settings import Settings
from tests.unit.orders.desk import Desk

SERVICE = service(Settings())

Pool = asyncpg.Pool


@pytest.fixture
async def database(database_url: str) -> AsyncIterator["Pool[Any]"]:
    """A new database with the service's tables, dropped at the end."""
    name = f"orders_{secrets.token_hex(6)}"
    server = await asyncpg.connect(database_url)
    await server.execute(f'CREATE DATABASE "{name}"')
    try:
        async with asyncpg.create_pool(urlunsplit(urlsplit(database_url)._replace(path=f"/{name}")), min_size=1, max_size=3) as pool:
            for migration in migrate.files(SERVICE.migrations):
                await pool.execute(migration.read_text(encoding="utf-8"))
            yield pool
    finally:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await server.close()


class StoredDesk(Desk):
    """A desk whose memory is the database: each transaction loads what it needs and saves what it changed."""

    def __init__(self, pool: "Pool[Any]") -> None:
        super().__init__()
        self.pool = pool

    async def store(self, *messages: Applicable, applied: Sequence[Applicable] | None = None, service: Service[State] = SERVICE) -> None:
        """Loads for the messages, applies them (or only some), and saves."""
        async with self.pool.acquire() as tx, tx.transaction():
            state = await SERVICE.load(tx, messages)
            self.apply(state, messages if applied is None else applied, service)
            await SERVICE.save(tx, state, self.context)


@pytest.fixture
def desk(database: "Pool[Any]") -> StoredDesk:
    return StoredDesk(database)
