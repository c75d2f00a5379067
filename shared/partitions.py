"""Where the database stands in the log. These rows never drop a record; they show when the database is *behind* the log."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from shared.codec import Delivery
from shared.service import Connection

Place = tuple[str, int]
"""A topic (its name without namespace) and a partition."""


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of one partition in a batch, first and last."""

    first: int
    last: int


class BehindError(Exception):
    """The batch begins beyond where the database stands (it was restored, or offsets were moved): seek back to `next`."""

    def __init__(self, next_by_place: Mapping[Place, int]) -> None:
        super().__init__(f"the database is behind the log; it continues at {dict(next_by_place)}")
        self.next = dict(next_by_place)


def spans(deliveries: Iterable[Delivery]) -> dict[Place, Span]:
    """The span of each partition in a batch."""
    found: dict[Place, Span] = {}
    for delivery in deliveries:
        place = (delivery.topic, delivery.partition)
        known = found.get(place)
        found[place] = Span(
            min(known.first, delivery.offset) if known else delivery.offset, max(known.last, delivery.offset) if known else delivery.offset
        )
    return found


async def stands(pool: "asyncpg.Pool[Any] | asyncpg.Connection[Any]") -> dict[Place, int]:
    """Where the database stands in every partition that it knows."""
    return {
        (row["topic"], row["partition"]): row["next"] for row in await pool.fetch("SELECT topic, partition, next FROM runtime.partition")
    }


_LOCK = """
    WITH k AS (SELECT * FROM unnest($1::text[], $2::int[]) AS k (topic, partition))
    SELECT topic, partition, next FROM runtime.partition AS p JOIN k USING (topic, partition)
    WHERE (SELECT count(*) FROM runtime.partition JOIN k USING (topic, partition)) = cardinality($1::text[])
    ORDER BY topic, partition FOR UPDATE OF p
"""
# Where some are missing none may have been locked: with one in hand, adding another that comes before it is out of order.
_ADD_AND_LOCK = """
    INSERT INTO runtime.partition AS p SELECT t, n, 0 FROM unnest($1::text[], $2::int[]) AS k (t, n) ORDER BY t, n
    ON CONFLICT (topic, partition) DO UPDATE SET next = p.next RETURNING topic, partition, next
"""


async def lock(tx: Connection, places: Sequence[Place]) -> dict[Place, int]:
    """Locks the rows of these partitions in order, so that two owners of a partition take turns; answers `next` of each."""
    columns = [topic for topic, _ in places], [number for _, number in places]
    rows = await tx.fetch(_LOCK, *columns) or await tx.fetch(_ADD_AND_LOCK, *columns)
    return {(row["topic"], row["partition"]): row["next"] for row in rows}


def check_not_behind(batch: Mapping[Place, Span], stands: Mapping[Place, int], log_starts: Mapping[Place, int]) -> None:
    """Raises BehindError unless every span touches what the database has; `log_starts` excuses what retention has removed."""
    behind = {place: stands[place] for place, span in batch.items() if span.first > max(stands[place], log_starts.get(place, 0))}
    if behind:
        raise BehindError(behind)


def moved(batch: Mapping[Place, Span], stands: Mapping[Place, int], brought_news: set[Place]) -> dict[Place, int]:
    """The new `next` of the partitions whose row must move. A span wholly below `next` moves it only if it brought something
    new: then the topic was made anew."""
    return {
        place: span.last + 1
        for place, span in batch.items()
        if span.last + 1 > stands[place] or (span.last + 1 < stands[place] and place in brought_news)
    }


async def save(tx: "Connection | asyncpg.Connection[Any]", nexts: Mapping[Place, int]) -> None:
    """Writes `next` of the given partitions."""
    await tx.execute(
        "UPDATE runtime.partition p SET next = k.next FROM unnest($1::text[], $2::int[], $3::bigint[]) AS k (topic, partition, next)"
        " WHERE p.topic = k.topic AND p.partition = k.partition",
        [topic for topic, _ in nexts], [number for _, number in nexts], list(nexts.values()),
    )  # fmt: skip


async def pass_over(pool: "asyncpg.Pool[Any]", empty: Mapping[Place, tuple[int, int]]) -> None:
    """Moves `next` to the end of a span of offsets (first, end) in which there is no record, where it stands within that span; where it
    stands before, the database is behind, and has to be found so."""
    await pool.execute(
        'UPDATE runtime.partition p SET next = k."end" FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[])'
        ' AS k (topic, partition, first, "end")'
        ' WHERE p.topic = k.topic AND p.partition = k.partition AND p.next >= k.first AND p.next < k."end"',
        [topic for topic, _ in empty], [number for _, number in empty],
        [first for first, _ in empty.values()], [end for _, end in empty.values()],
    )  # fmt: skip
