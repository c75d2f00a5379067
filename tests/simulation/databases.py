"""The services' real databases: made once per test process, with a pool for every process that may use one, emptied between worlds."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import asyncpg

from shared import migrate
from shared.settings import SERVICES, Settings
from tests.simulation.processes import Wire

Pool: TypeAlias = "asyncpg.Pool[Any]"

PROCESSES = ("worker-1", "worker-2", "worker-3", "leader-1", "leader-2")
"""Per service: members of its group, and instances that take themselves for its leader."""

_SESSION = {
    "synchronous_commit": "off",  # it is our processes that die here, not the server
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "deadlock_timeout": "1min",  # the scheduler finds deadlocks itself, and at once
}
_TABLES = """
    SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname IN ('public', 'runtime') AND tablename <> 'migration' ORDER BY 1
"""
_SEQUENCES = "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences WHERE schemaname IN ('public', 'runtime') ORDER BY 1"
_HOLDERS = "SELECT pg_blocking_pids($1)"
_VACUUM_EVERY = 100
"""Worlds between two clean-ups: emptied tables keep their dead rows."""


@dataclass(frozen=True)
class Database:
    """One service's database: a pool of a single connection for each process, and the world's own connection."""

    dsn: str
    pools: Mapping[str, Pool]
    eye: "asyncpg.Connection[Any]"
    empty_statement: str

    async def holders(self, pid: int) -> frozenset[int]:
        """The sessions that hold the lock for which this one waits, if it does."""
        return frozenset(await self.eye.fetchval(_HOLDERS, pid))


class Databases:
    """All of them."""

    def __init__(self, by_service: Mapping[str, Database]) -> None:
        self.by_service = by_service
        self._emptied = 0

    async def empty(self) -> None:
        """As they were made. Deletes, as truncating small tables takes ten times as long."""
        self._emptied += 1
        for database in self.by_service.values():
            await database.eye.execute(database.empty_statement)
            if self._emptied % _VACUUM_EVERY == 0:
                await database.eye.execute("VACUUM")


@asynccontextmanager
async def databases(url: str) -> AsyncIterator[Databases]:
    """Makes them on the server at this URL, and drops them at the end."""
    settings = Settings(database_url=url, namespace=f"simulation_{secrets.token_hex(4)}")
    try:
        async with AsyncExitStack() as stack:
            by_service = {}
            for service in SERVICES:
                await migrate.migrate(settings, service)
                by_service[service] = await _opened(settings.dsn(service), stack)
            yield Databases(by_service)
    finally:
        server = await asyncpg.connect(url)
        for service in SERVICES:
            await server.execute(f'DROP DATABASE IF EXISTS "{settings.database(service)}" WITH (FORCE)')
        await server.close()


async def _opened(dsn: str, stack: AsyncExitStack) -> Database:
    pools = {}
    for name in PROCESSES:
        pool = asyncpg.create_pool(
            dsn, min_size=1, max_size=1, max_queries=10**9, max_inactive_connection_lifetime=0, max_cached_statement_lifetime=0,
            connection_class=Wire, server_settings={**_SESSION, "application_name": name},
        )  # fmt: skip
        pools[name] = await stack.enter_async_context(pool)
    eye = await asyncpg.connect(dsn, server_settings=_SESSION, max_cached_statement_lifetime=0)
    stack.push_async_callback(partial(eye.close, timeout=5))
    tables = [row[0] for row in await eye.fetch(_TABLES)]
    for table in tables:  # whatever the server does by itself, it does to every world at the same time: nothing
        await eye.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    statements = [f"DELETE FROM {table}" for table in tables]
    statements += [f"ALTER SEQUENCE {row[0]} RESTART" for row in await eye.fetch(_SEQUENCES)]
    return Database(
        dsn, pools, eye, "; ".join(["SET session_replication_role = replica", *statements, "SET session_replication_role = origin"])
    )
