"""What is always true, looked at while a service works: in every transaction before it is saved, and, slice by slice, in its tables.

The first keeps our own bugs from doing harm; the second finds what somebody changed by hand, what an earlier version did, or a disk.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog

from shared import metrics, quarantine
from shared.clock import Clock
from shared.contracts.base import Message
from shared.quarantine import Finding, Suspect
from shared.service import Broken, Connection, Context, Repair, Service, Watched

if TYPE_CHECKING:
    import asyncpg

DUTY = 0.01
"""The share of its time that the loop looks at tables: at most so much of a core, here and in the database."""
CHECK_SECONDS = 0.02
MOST_KEYS = 5_000
"""In a slice, which is fitted so that one check of it takes about so long."""
MOST_QUARANTINED = 100
"""So many broken aggregates are a fault of ours: no more are quarantined, or a wrong check would stop everything."""

log = structlog.get_logger()


class InvariantBrokenError(Exception):
    """What a transaction is about to save breaks an invariant."""

    def __init__(self, invariant: str, broken: Broken) -> None:
        super().__init__(f"{invariant}: {broken.aggregate}: {broken.detail}")
        self.aggregate = broken.aggregate


def check(service: Service[Any], state: Any, told: Sequence[Message], context: Context) -> None:
    """Looks at a transaction's working set and at what it is about to tell. Raises InvariantBrokenError."""
    for invariant, look in service.checks.items():
        for broken in look(state, told, context):
            raise InvariantBrokenError(invariant, broken)
        metrics.INVARIANTS_CHECKED.labels(invariant).inc()


async def inspect(tx: Connection, service: Service[Any], aggregate: str) -> list[Finding]:
    """What is broken of an aggregate, as the transaction sees its tables."""
    kind, _, key = aggregate.partition(":")
    return [
        Finding(invariant, _sentence(row))
        for watched in service.watched
        if watched.kind == kind
        for invariant, sql in watched.checks.items()
        for row in await tx.fetch(_of_some(watched, sql, "{} = $1"), key)
    ]


async def quarantine_broken(tx: Connection, service: Service[Any], aggregate: str, clock: Clock) -> bool:
    """Quarantines an aggregate if its tables are broken, looked at under its lock: it may have been repaired meanwhile. Answers whether
    it is quarantined now."""
    await service.load(tx, [Repair(aggregate=aggregate, actor="", reason="")])
    ill = await quarantine.aggregates(tx)
    if aggregate in ill:
        return True
    findings = await inspect(tx, service, aggregate)
    if not findings:
        return False
    few = len(ill) < MOST_QUARANTINED
    log.error("quarantined" if few else "broken, but too many are quarantined", aggregate=aggregate, findings=[*map(str, findings)])
    if few:
        await quarantine.put(tx, aggregate, findings, await _suspect(tx, service, aggregate), clock())
    return few


async def _suspect(tx: Connection, service: Service[Any], aggregate: str) -> Suspect:
    """When it may have happened, and by which message: the first that touched the aggregate after it was last seen to be right."""
    kind, _, key = aggregate.partition(":")
    right_until = await tx.fetchval("SELECT before FROM runtime.round WHERE kind = $1", kind)
    [history] = [watched.history for watched in service.watched if watched.kind == kind]
    rows = await tx.fetch(f"{history} LIMIT 1", key, right_until) if history and right_until is not None else []
    return Suspect(right_until, *(rows[0] if rows else ()))


class Rounds:
    """Goes through all aggregates of a service again and again, a slice of keys and a check at a time."""

    def __init__(self, service: Service[Any], pool: "asyncpg.Pool[Any]", clock: Clock) -> None:
        self._service, self._pool, self._clock = service, pool, clock
        self._keys = {watched.kind: 50 for watched in service.watched}

    async def run(self) -> None:
        """Until cancelled; what is found broken is quarantined."""
        while self._service.watched:
            for watched in self._service.watched:
                started = perf_counter()
                try:
                    await self.step(watched)
                except Exception:
                    log.exception("cannot look at what is always true", kind=watched.kind)  # a wrong or slow check must stop nothing else
                    self._keys[watched.kind] = max(1, self._keys[watched.kind] // 2)
                    await asyncio.sleep(max(1, (perf_counter() - started) / DUTY))

    async def step(self, watched: Watched) -> None:
        """The next slice of the round; its end is kept for whoever goes on, here or in another process."""
        key, began, number = await self._place(watched)
        last = await self._last(watched, key)
        where, arguments = ("{} > $1", [key]) if last is None else ("{0} > $1 AND {0} <= $2", [key, last])
        column = next(iter(watched.tables.values()))
        slowest = 0.0
        for invariant, sql in watched.checks.items():
            started = perf_counter()
            rows = await self._pool.fetch(_of_some(watched, sql, where), *arguments)
            metrics.INVARIANTS_CHECKED.labels(invariant).inc()
            found = {f"{watched.kind}:{row[column]}" for row in rows}
            for aggregate in sorted(found - await quarantine.aggregates(self._pool)):
                async with self._pool.acquire() as tx, tx.transaction():
                    await quarantine_broken(tx, self._service, aggregate, self._clock)
            took = perf_counter() - started
            slowest = max(slowest, took)
            await asyncio.sleep(took / DUTY)
        keys = self._keys[watched.kind]
        self._keys[watched.kind] = max(1, min(MOST_KEYS, 2 * keys, int(keys * CHECK_SECONDS / slowest)))
        await self._pool.execute(
            "INSERT INTO runtime.round (kind, key, began, before) VALUES ($1, $2, $3, $4) ON CONFLICT (kind) DO UPDATE"
            " SET key = excluded.key, began = excluded.began, before = coalesce(excluded.before, round.before)",
            watched.kind, *(("", number, began) if last is None else (last, began, None)),
        )  # fmt: skip

    async def _place(self, watched: Watched) -> tuple[str, int, int]:
        """How far the round has come, the journal's number when it began, and the number now."""
        [row] = await self._pool.fetch(
            "SELECT coalesce(max(key), '') AS key, coalesce(max(began), last_value) AS began, last_value AS number"
            " FROM runtime.journal_number LEFT JOIN runtime.round ON kind = $1 GROUP BY last_value",
            watched.kind,
        )
        return row["key"], row["began"], row["number"]

    async def _last(self, watched: Watched, key: str) -> str | None:
        """The last key of the slice after this one; None: it holds all that is left."""
        if not watched.sliced:
            return None
        table, column = next(iter(watched.tables.items()))
        last: str | None = await self._pool.fetchval(
            f"SELECT {column} FROM {table} WHERE {column} > $1 ORDER BY {column} OFFSET $2 LIMIT 1",  # noqa: S608  (a service's own tables)
            key, self._keys[watched.kind] - 1,
        )  # fmt: skip
        return last


def _of_some(watched: Watched, sql: str, where: str) -> str:
    """A check of whole tables, of some keys only: slices of the tables stand under the tables' names."""
    named = set(re.findall(r"\w+", sql))
    slices = [
        f"{table} AS (SELECT * FROM {table} WHERE {where.format(column)})"  # noqa: S608  (a service's own tables)
        for table, column in watched.tables.items()
        if table in named
    ]
    return f"WITH {', '.join(slices)} {sql}"


def _sentence(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in row.items())
