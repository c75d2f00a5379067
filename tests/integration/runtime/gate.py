"""A place in a transaction where a test can hold it."""

import asyncio

from shared.service import Connection, Context
from tests.integration.runtime import toy


class Gate:
    """Holds whoever passes first, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open, self.passed = asyncio.Event(), asyncio.Event(), 0

    async def __call__(self) -> None:
        self.passed += 1
        self.reached.set()
        await asyncio.wait_for(self.open.wait(), 20)

    async def save(self, tx: Connection, state: toy.State, context: Context) -> None:
        """The toy's save, behind this gate."""
        await self()
        await toy.save(tx, state, context)
