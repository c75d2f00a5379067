"""The journal: one row per transaction that says exactly what it applied, in order, under which number and business time.

With it the topics can be applied again, and give the same state. It is also what one reads to learn what a service knew when
it decided.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.items import Item
from shared.service import Connection
from shared.timers import Due

if TYPE_CHECKING:
    import asyncpg


class Run(NamedTuple):
    """Neighbours in the log: every item of a partition from the one in the record at offset `first` to the one in the record at
    `last`, both included."""

    topic: str
    partition: int
    first: int
    first_index: int
    last: int
    last_index: int


class Own(NamedTuple):
    """What a service told itself: class, data, and the identity and time (ISO 8601) by which effects know it."""

    type: str
    data: dict[str, Any]
    id: str
    time: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row. `parked` are the timers that left their table without being applied; `read_back`: by the service as it is after a
    restore (`shared.read_back`)."""

    number: int
    business: datetime
    applied: tuple[Run | Own, ...]
    parked: tuple[Due, ...]
    read_back: bool = False


def applied(items: Iterable[Item]) -> list[Run | Own]:
    """Items as the journal has them: a run ends where the next item is not the next in the log."""
    runs: list[list[Item]] = []
    following = -1
    for item in items:
        if item.position == following:
            runs[-1][1] = item
        else:
            runs.append([item, item])
        following = item.position + 1
    return [_entry(first, last) for first, last in runs]


def _entry(first: Item, last: Item) -> Run | Own:
    origin, end = first.origin, last.origin
    if origin.topic:
        return Run(origin.topic, origin.partition, origin.offset, origin.index, end.offset, end.index)
    return Own(first.type, first.message.model_dump(mode="json"), first.envelope.id, first.envelope.time.isoformat())


async def write(
    tx: Connection, number: int, now: datetime, items: Iterable[Item], parked: Sequence[Due] = (), *, read_back: bool = False
) -> None:
    """The row of the transaction `number`: it applied these items, and parked these timers."""
    entries = [entry if isinstance(entry, Run) else entry._asdict() for entry in applied(items)]
    await tx.execute(
        "INSERT INTO runtime.journal (number, business, applied, parked, read_back) VALUES ($1, $2, $3, $4, $5)",
        number, now, json.dumps(entries), json.dumps([(kind, key, due.isoformat()) for kind, key, due in parked]), read_back,
    )  # fmt: skip


async def read(tx: "Connection | asyncpg.Connection[Any]") -> AsyncIterator[Entry]:
    """All rows in the order of their numbers, in which transactions that touched the same things followed one another."""
    async for row in tx.cursor("SELECT number, business, applied, parked, read_back FROM runtime.journal ORDER BY number", prefetch=500):
        yield Entry(
            row["number"],
            row["business"],
            tuple(Run(*entry) if isinstance(entry, list) else Own(**entry) for entry in json.loads(row["applied"])),
            tuple((kind, key, datetime.fromisoformat(due)) for kind, key, due in json.loads(row["parked"])),
            row["read_back"],
        )
