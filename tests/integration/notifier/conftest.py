"""A notifier on its own database, told things by hand: the real transactions without broker, and a clock in the test's hand."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
import structlog

from services.notifier.app import service
from services.notifier.audit import CHECKS
from shared import db, migrate
from shared.codec import Delivery, Envelope, new_id
from shared.contracts.base import Message
from shared.settings import Settings
from shared.transaction import Transactions
from tests.unit.notifier.world import NOON

SERVICE = service(Settings())


@dataclass
class Notifier:
    """The service's transactions, at business time `now`."""

    settings: Settings
    pool: "asyncpg.Pool[Any]"
    now: datetime = NOON
    heard: Counter[str] = field(default_factory=Counter)
    transactions: Transactions = field(init=False)

    def __post_init__(self) -> None:
        self.transactions = Transactions(SERVICE, self.settings, self.pool, lambda: self.now)

    async def hears(self, *messages: Message) -> None:
        """Takes messages from the log, in one batch."""
        deliveries = []
        for message in messages:
            envelope = Envelope(message.TYPE, "/services/orders", str(new_id()), self.now, self.now, "", ())
            topic = message.TOPIC.name
            deliveries.append(Delivery(topic, 0, self.heard[topic], envelope, b"", ((0, message),), ()))
            self.heard[topic] += 1
        await self.transactions.batch(deliveries, {})

    async def passes(self, time: timedelta) -> None:
        """Lets business time pass and the timers fire that are due."""
        self.now += time
        while await self.transactions.fire():
            pass

    async def parked(self) -> list[str]:
        """Why messages were parked."""
        return [row["detail"] for row in await self.pool.fetch("SELECT detail FROM runtime.dead_letter")]

    async def violations(self) -> dict[str, int]:
        """The audit's checks that find something."""
        found = {name: len(await self.pool.fetch(check)) for name, check in CHECKS.items()}
        return {name: count for name, count in found.items() if count}

    async def published(self) -> list[tuple[str, str]]:
        """Type and cause of what waits to be published."""
        rows = await self.pool.fetch("SELECT type, causation FROM runtime.outbox ORDER BY seq")
        return [(row["type"], row["causation"]) for row in rows]


@pytest.fixture
async def notifier(database_url: str, namespace: str) -> AsyncIterator[Notifier]:
    """A notifier with an empty database, which goes when the test ends."""
    settings = Settings(database_url=database_url, namespace=namespace)
    await migrate.migrate(settings, SERVICE.name, SERVICE.migrations)
    pool = await db.pool(settings, SERVICE.name)
    with structlog.testing.capture_logs():  # a traceback of a parked message takes long to draw
        yield Notifier(settings, pool)
    await pool.close()
    server = await asyncpg.connect(database_url)
    await server.execute(f'DROP DATABASE "{settings.database(SERVICE.name)}"')
    await server.close()
