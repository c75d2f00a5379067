"""The timer table: what a service has to do at a business time. A timer is known by its kind and key, and has one due time."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TypeAlias

from shared.service import Connection

Due: TypeAlias = tuple[str, str, datetime]
"""A timer's kind and key, and when it is due (UTC)."""


async def take(tx: Connection, timers: Collection[Due]) -> set[Due]:
    """Takes timers off the table; answers those that stood there. One that has been moved or is gone is not taken.

    Ask after locking what they are about.
    """
    if not timers:
        return set()
    kinds, keys, dues = zip(*timers, strict=True)
    rows = await tx.fetch(
        "DELETE FROM runtime.timer t USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (kind, key, due)"
        " WHERE t.kind = k.kind AND t.key = k.key AND t.due = k.due RETURNING t.kind, t.key, t.due",
        kinds, keys, dues,
    )  # fmt: skip
    return {(row["kind"], row["key"], row["due"]) for row in rows}


async def save(tx: Connection, timers: Mapping[tuple[str, str], datetime | None]) -> None:
    """Sets, moves or (None) forgets timers by kind and key."""
    wanted = sorted((kind, key, due) for (kind, key), due in timers.items() if due is not None)
    unwanted = sorted((kind, key) for (kind, key), due in timers.items() if due is None)
    if wanted:
        await tx.execute(
            "INSERT INTO runtime.timer (kind, key, due) SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])"
            " ON CONFLICT (kind, key) DO UPDATE SET due = excluded.due",
            *(list(column) for column in zip(*wanted, strict=True)),
        )
    if unwanted:
        await tx.execute(
            "DELETE FROM runtime.timer t USING unnest($1::text[], $2::text[]) AS k (kind, key) WHERE t.kind = k.kind AND t.key = k.key",
            *(list(column) for column in zip(*unwanted, strict=True)),
        )
