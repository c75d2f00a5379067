"""What must be done to its end, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def surely(work: Coroutine[Any, Any, T]) -> T:
    """Does the work to its end though the caller is cancelled meanwhile; the cancellation goes on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


@asynccontextmanager
async def healing(heal: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Heals when the body has ended, however it ended."""

    async def work() -> None:
        await heal()

    try:
        yield
    finally:
        await surely(work())
