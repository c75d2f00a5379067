"""What befalls the database server, the sessions on it and its disk."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import asyncpg

from deploy.chaos import disk
from deploy.chaos.fault import Fault, MissedError
from deploy.chaos.healing import healing
from deploy.chaos.stage import Stage
from deploy.local import postgres
from shared.settings import SERVICES

_SESSIONS = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name ~ '^[a-z]+-[0-9]' ORDER BY pid"
"""Those of our services, who say their instance's name."""


@asynccontextmanager
async def administrator(stage: Stage, service: str | None = None) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A session of somebody who may do anything, in a service's database or beside them all."""
    url = stage.settings.dsn(service) if service else stage.settings.database_url
    connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        connection.terminate()


async def postgres_stopped(stage: Stage, chance: random.Random) -> str:
    """Ended at once, as after a power cut, and started again a little later."""
    async with stage.held(postgres.NAME), healing(lambda: stage.launch(postgres.NAME)):
        await stage.stop(postgres.NAME, first=signal.SIGQUIT)
        await stage.lasts(chance, 0, 10)
    return postgres.NAME


async def sessions_terminated(stage: Stage, chance: random.Random) -> str:
    """pg_terminate_backend of about half of the services' sessions."""
    async with administrator(stage) as connection:
        sessions = await connection.fetch(_SESSIONS)
        struck = sorted(chance.sample(sessions, k=(len(sessions) + 1) // 2))
        await _terminate(connection, struck)
    return f"{len(struck)} of {len(sessions)} sessions"


async def connections_exhausted(stage: Stage, chance: random.Random) -> str:
    """Strangers take every connection that is free, and those of a service, whose sessions end once, as soon as they come free."""
    service = chance.choice(SERVICES)
    strangers: list[asyncpg.Connection[Any]] = []

    async def release() -> None:
        for stranger in strangers:
            stranger.terminate()

    async with stage.held("connections"), administrator(stage) as connection, healing(release):
        await _take_all(stage, strangers)
        sessions = await connection.fetch(_SESSIONS)
        await _terminate(connection, [row for row in sessions if row["application_name"].startswith(f"{service}-")])
        until = monotonic() + chance.uniform(3, 15) * stage.pace
        while monotonic() < until:
            await _take_all(stage, strangers)
            await asyncio.sleep(0.2)
    return f"{len(strangers)} strangers, {service} without"


async def transaction_left_open(stage: Stage, chance: random.Random) -> str:
    """Somebody's transaction stays open in a service's database: it holds a snapshot, and locks a partition's row."""
    service = chance.choice(SERVICES)
    async with administrator(stage, service) as connection, connection.transaction(isolation="repeatable_read"):
        rows = await connection.fetch("SELECT topic, partition FROM runtime.partition ORDER BY topic, partition")
        place = tuple(chance.choice(rows)) if rows else None
        if place is not None:
            await connection.fetch("SELECT FROM runtime.partition WHERE topic = $1 AND partition = $2 FOR UPDATE", *place)
        await stage.lasts(chance, 5, 30)
    return f"{service}: {place}"


async def disk_full(stage: Stage, chance: random.Random) -> str:
    """The disk with the services' tables has no room left."""
    if stage.small_disk is None:
        raise MissedError("the stage was set without a small disk")
    small = stage.small_disk

    async def make_room() -> None:
        disk.make_room(small)

    async with stage.held("disk"), healing(make_room):
        filled = await asyncio.to_thread(disk.fill, small)
        await stage.lasts(chance, 3, 12)
    return f"{filled // 1_000_000} MB of ballast"


async def _terminate(connection: "asyncpg.Connection[Any]", sessions: list[asyncpg.Record]) -> None:
    await connection.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", [row["pid"] for row in sessions])


async def _take_all(stage: Stage, strangers: "list[asyncpg.Connection[Any]]") -> None:
    """Opens connections until the server has none left."""
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            strangers.append(await asyncpg.connect(stage.settings.database_url, timeout=5))


FAULTS = {
    "postgres_stopped": Fault(postgres_stopped, seconds=6),
    "sessions_terminated": Fault(sessions_terminated, seconds=0.2),
    "connections_exhausted": Fault(connections_exhausted, seconds=13),
    "transaction_left_open": Fault(transaction_left_open, seconds=18),
    "disk_full": Fault(disk_full, seconds=8),
}
