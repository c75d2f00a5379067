"""Reading the services' databases, as an operator's tools do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from deploy.local.errors import UserError
from shared.settings import Settings

Connection: TypeAlias = "asyncpg.Connection[Any]"


@asynccontextmanager
async def connected(settings: Settings, service: str) -> AsyncIterator[Connection]:
    """A connection to a service's database. Raises UserError when the server or the database is not there."""
    try:
        connection = await asyncpg.connect(settings.dsn(service), timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
        raise UserError("the database server does not answer: start the system with `backorder up`") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise UserError(f"there is no database {settings.database(service)}: start the system with `backorder up`") from error
    try:
        yield connection
    except asyncpg.UndefinedTableError as error:
        raise UserError(f"{settings.database(service)} is not up to date: bring it there with `backorder migrate`") from error
    finally:
        await connection.close()


@asynccontextmanager
async def snapshot(settings: Settings, service: str) -> AsyncIterator[Connection]:
    """Like `connected`, and everything read is of one moment."""
    async with connected(settings, service) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection
