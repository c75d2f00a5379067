"""A keeper of each service, with an empty database that goes when the test ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest
import structlog

from deploy.local.settled import declared
from shared import db, invariants, migrate
from shared.settings import Settings
from tests.integration.guard.keeper import Keeper

Make = Callable[[str], Awaitable[Keeper]]


@pytest.fixture
async def keeper(database_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes the keeper of a service."""
    monkeypatch.setattr(invariants, "DUTY", 1e9)
    settings = Settings(database_url=database_url, namespace=namespace)
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Keeper:
            service = declared(name, settings)
            await migrate.migrate(settings, name)
            stack.push_async_callback(_drop, database_url, settings.database(name))
            pool = await db.pool(settings, name)
            stack.push_async_callback(pool.close)
            return Keeper(service, settings, pool)

        with structlog.testing.capture_logs():  # a traceback of a parked message takes long to draw
            yield make


async def _drop(url: str, name: str) -> None:
    server = await asyncpg.connect(url)
    await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()
