"""What befalls the database server and the sessions on it."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from deploy.chaos.fault import Fault
from deploy.chaos.stage import Stage

_SESSIONS = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name ~ '^[a-z]+-[0-9]' ORDER BY pid"
"""Those of our services, who say their instance's name."""


@asynccontextmanager
async def administrator(stage: Stage) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A session of somebody who may do anything."""
    connection = await asyncpg.connect(stage.settings.database_url, timeout=5)
    try:
        yield connection
    finally:
        connection.terminate()


async def sessions_terminated(stage: Stage, chance: random.Random) -> str:
    """pg_terminate_backend of about half of the services' sessions."""
    async with administrator(stage) as connection:
        sessions = await connection.fetch(_SESSIONS)
        struck = sorted(chance.sample(sessions, k=(len(sessions) + 1) // 2))
        await connection.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", [row["pid"] for row in struck])
    return f"{len(struck)} of {len(sessions)} sessions"


FAULTS = {
    "sessions_terminated": Fault(sessions_terminated, seconds=0.2),
}
