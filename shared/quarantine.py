"""What was found broken, and is left alone until an operator's repair releases it. Messages about it wait, all others flow."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.service import Connection

if TYPE_CHECKING:
    import asyncpg


class Finding(NamedTuple):
    """An invariant that an aggregate breaks, and its numbers."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


class Suspect(NamedTuple):
    """When it may have happened: it was right until the journal's `right_until`; since then transaction `number` was the first that
    touched it, with this message. None: not known, or nothing."""

    right_until: int | None = None
    number: int | None = None
    message: str | None = None


async def aggregates(tx: "Connection | asyncpg.Pool[Any]") -> frozenset[str]:
    """All that are quarantined now. Ask after locking what is touched."""
    return frozenset(row["aggregate"] for row in await tx.fetch("SELECT aggregate FROM runtime.quarantine WHERE released_at IS NULL"))


class Broken(NamedTuple):
    """What is broken now: quarantined aggregates, each with an invariant; and how often each invariant is, by aggregates that are
    quarantined and messages that are parked because of it."""

    aggregates: dict[str, str]
    invariants: Counter[str]


async def broken(pool: "asyncpg.Pool[Any]") -> Broken:
    """Looks at both tables."""
    rows = await pool.fetch(
        "SELECT aggregate, invariant FROM runtime.quarantine WHERE released_at IS NULL UNION ALL"
        " SELECT NULL, split_part(detail, ': ', 1) FROM runtime.dead_letter WHERE state = 'parked' AND reason = 'invariant_broken'"
    )
    return Broken(
        {row["aggregate"]: row["invariant"] for row in rows if row["aggregate"] is not None}, Counter(row["invariant"] for row in rows)
    )


async def put(tx: Connection, aggregate: str, findings: Iterable[Finding], suspect: Suspect, now: datetime) -> None:
    """Quarantines an aggregate, which is locked."""
    await tx.executemany(
        "INSERT INTO runtime.quarantine (aggregate, invariant, detail, since, right_until, number, message) VALUES ($1, $2, $3, $4, $5, $6, $7)"
        " ON CONFLICT DO NOTHING",
        [(aggregate, *finding, now, *suspect) for finding in findings],
    )


async def release(tx: Connection, aggregate: str, actor: str, now: datetime) -> int:
    """Ends an aggregate's quarantine, and asks in the actor's name for a replay of what waits for it; answers of how many keys."""
    await tx.execute("UPDATE runtime.quarantine SET released_at = $2 WHERE aggregate = $1 AND released_at IS NULL", aggregate, now)
    first = (
        "SELECT DISTINCT ON (aggregate) id, waits_for FROM runtime.dead_letter WHERE state = 'parked' ORDER BY aggregate, id"  # of each key
    )
    return len(
        await tx.fetch(
            "INSERT INTO runtime.dead_letter_request (letter, action, actor)"  # noqa: S608
            f" SELECT id, 'replay', $2 FROM ({first}) AS first WHERE waits_for = $1 ORDER BY id RETURNING id",
            aggregate, actor,
        )
    )  # fmt: skip


async def request_repair(connection: Any, aggregate: str, actor: str, reason: str, *, dry_run: bool) -> int:
    """Asks the running service to repair an aggregate, or (`dry_run`) only to say what it would do; answers the request's id."""
    return int(
        await connection.fetchval(
            "INSERT INTO runtime.repair (aggregate, dry_run, actor, reason) VALUES ($1, $2, $3, $4) RETURNING id",
            aggregate, dry_run, actor, reason,
        )
    )  # fmt: skip
