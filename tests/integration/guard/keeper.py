"""A service on a database of its own, told things by hand: the real transactions, checks and repairs without broker or process."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from shared import invariants, quarantine, requests
from shared.codec import Delivery, Envelope, new_id
from shared.contracts.base import Message
from shared.service import Service
from shared.settings import Settings
from shared.transaction import Transactions

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@dataclass
class Keeper:
    """The service's transactions, at business time `now`."""

    service: Service[Any]
    settings: Settings
    pool: "asyncpg.Pool[Any]"
    now: datetime = NOON
    heard: int = 0
    transactions: Transactions = field(init=False)

    def __post_init__(self) -> None:
        self.transactions = Transactions(self.service, self.settings, self.pool, lambda: self.now)

    async def hears(self, *messages: Message) -> None:
        """Takes messages from the log, in one batch."""
        deliveries = []
        for message in sorted(messages, key=lambda message: self.service.topics.index(message.TOPIC)):
            envelope = Envelope(message.TYPE, "/services/test", str(new_id()), self.now, self.now, "", ())
            deliveries.append(Delivery(message.TOPIC.name, 0, self.heard, envelope, b"", ((0, message),), ()))
            self.heard += 1
        await self.transactions.batch(deliveries, {(delivery.topic, 0): self.heard for delivery in deliveries})

    async def passes(self, time: timedelta) -> None:
        """Lets business time pass and the timers fire that are due."""
        self.now += time
        while await self.transactions.fire():
            pass

    async def looks(self) -> list[str]:
        """Goes through all tables once; answers what is quarantined then."""
        rounds = invariants.Rounds(self.service, self.pool, lambda: self.now)
        for watched in self.service.watched:
            await rounds.step(watched)
        return sorted(await quarantine.aggregates(self.pool))

    async def repairs(self, aggregate: str, *, dry_run: bool = False) -> tuple[bool, str]:
        """An operator's wish, granted, with the replays that follow from it."""
        number = await quarantine.request_repair(self.pool, aggregate, "ann", "somebody counted", dry_run=dry_run)
        while await requests.settle(self.transactions):
            pass
        row = await self.pool.fetchrow("SELECT repaired, result FROM runtime.repair WHERE id = $1", number)
        return tuple(row)  # type: ignore[arg-type]

    async def parked(self) -> list[tuple[str, str, str | None]]:
        """(aggregate, reason, waits for), oldest first."""
        rows = await self.pool.fetch("SELECT aggregate, reason, waits_for FROM runtime.dead_letter WHERE state = 'parked' ORDER BY id")
        return [tuple(row) for row in rows]

    async def broken(self) -> dict[str, int]:
        """The audit's checks that find something."""
        checks = [watched.checks for watched in self.service.watched]
        found = {name: len(await self.pool.fetch(sql)) for each in checks for name, sql in each.items()}
        return {name: count for name, count in found.items() if count}

    async def published(self, kind: type[Message]) -> int:
        """Records of this type that wait to be published."""
        return int(await self.pool.fetchval("SELECT count(*) FROM runtime.outbox WHERE type = $1", kind.TYPE))
