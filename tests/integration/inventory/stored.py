"""Inventory on its real tables: one transaction at a time, as the runtime runs it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.inventory import store
from services.inventory.app import service
from services.inventory.domain import State
from shared.service import Context, Effect, Send, Service
from shared.settings import Settings
from tests.unit.inventory.house import NOON, in_order

SERVICE = service(Settings())


@dataclass
class StoredHouse:
    """The same as the unit tests' House, but its rows are PostgreSQL's."""

    pool: "asyncpg.Pool[Any]"
    number: int = 0
    statements: int = 0

    async def apply(self, *messages: Any, now: datetime = NOON, service: Service[State] = SERVICE) -> list[Any]:
        """One transaction; answers what it sent."""
        self.number += 1
        self.statements = 0
        ordered = in_order(messages)
        effects: list[Effect] = []
        async with self.pool.acquire() as tx, tx.transaction():
            tx.add_query_logger(self._count)
            state = await store.load(tx, ordered)
            for index, message in enumerate(ordered):
                context = Context(now, self.number, f"m{self.number}#{index}", "", now, now)
                effects += service.routes[type(message)].handler(state, message, context)
            await service.prepare(tx, state)
            context = Context(now, self.number, "", "", now, now)
            effects += service.decide(state, context)
            await store.save(tx, state, context)
            tx.remove_query_logger(self._count)
        return [effect.message for effect in effects if isinstance(effect, Send)]

    def _count(self, _: Any) -> None:
        self.statements += 1
