"""What tests await and look at: conditions, accounts, stories, dead letters, readiness."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import asyncpg

from shared import dead_letters
from shared.runtime import Runtime
from shared.service import Service
from shared.settings import Settings


async def becomes(question: Callable[[], Awaitable[Any]], expected: object) -> None:
    """Returns when the answer is the expected one; fails, showing the last answer, when it is not in time."""
    answer: object = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while (answer := await question()) != expected:
                await asyncio.sleep(0.02)
    assert answer == expected, f"{answer!r} is not {expected!r}"


async def eventually(condition: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the condition holds; fails when it does not in time."""

    async def fails() -> bool:
        return not await condition()

    await becomes(fails, expected=False)


async def query(settings: Settings, service: Service[Any], sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Asks a service's database, the service running or not."""
    connection = await asyncpg.connect(settings.dsn(service.name))
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def units(runtime: Runtime) -> dict[str, int]:
    """Units per order, of those that were ordered."""
    return {row["name"]: row["units"] for row in await runtime.pool.fetch("SELECT name, units FROM account WHERE units <> 0")}


async def letters(runtime: Runtime, state: str) -> list[tuple[str, str]]:
    """(message id, reason) of the dead letters in this state, oldest first."""
    rows = await runtime.pool.fetch("SELECT message_id, reason FROM runtime.dead_letter WHERE state = $1 ORDER BY id", state)
    return [tuple(row) for row in rows]


async def letter(runtime: Runtime, message_id: str) -> int:
    """The number of the oldest dead letter of a message."""
    return int(await runtime.pool.fetchval("SELECT min(id) FROM runtime.dead_letter WHERE message_id = $1", message_id))


async def drained(runtime: Runtime) -> bool:
    """Whether everything has been published."""
    return not await runtime.pool.fetchval("SELECT count(*) FROM runtime.outbox")


async def ready(runtime: Runtime) -> bool:
    """What the readiness endpoint says."""
    return (await runtime.readiness())[0]


async def stopped_by(runtime: Runtime, error: str) -> bool:
    """Whether the service is not ready, and gives this error as the reason."""
    answer, details = await runtime.readiness()
    return not answer and error in details.get("last_error", "")


async def stories(settings: Settings, service: Service[Any], column: str) -> dict[str, list[str]]:
    """What a service told, or heard, per account, in order."""
    rows = await query(settings, service, "SELECT name, told, heard FROM account WHERE told <> '[]' OR heard <> '[]'")
    return {name: json.loads(told if column == "told" else heard) for name, told, heard in rows}


async def ask(runtime: Runtime, action: Literal["replay", "discard"], number: int) -> str:
    """An operator's wish about a dead letter; answers what came of it."""
    request = await dead_letters.request(runtime.pool, number, action, "operator")
    done = "SELECT result FROM runtime.dead_letter_request WHERE id = $1 AND done_at IS NOT NULL"
    await eventually(lambda: runtime.pool.fetchval(done, request))
    return str(await runtime.pool.fetchval(done, request))
