"""What could not be applied, kept with its reason. The table is the truth; there are no dead-letter topics.

`refused` rows hold nobody up. `parked` rows hold back the later messages of their aggregate, so that order is kept, until an
operator replays or discards them, or a newer level makes an older one pointless (`superseded`).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shared.codec import Envelope, Origin
from shared.service import Connection

LETTER_COLUMNS = (
    "state", "reason", "detail", "aggregate", "level", "topic", "partition", "offset", "index", "type", "source", "message_id", "actor",
    "time", "appended", "body", "headers", "at", "waits_for",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter to write. `body` is the item alone, in the form of a record of its type (None: the record had no value);
    `waits_for` the quarantined aggregate that holds it back."""

    state: Literal["refused", "parked"]
    reason: str
    detail: str
    aggregate: str | None
    level: str | None
    origin: Origin
    envelope: Envelope
    body: bytes | None
    waits_for: str | None = None

    def row(self, at: datetime) -> tuple[Any, ...]:
        """The values of LETTER_COLUMNS."""
        origin, envelope = self.origin, self.envelope
        return (
            self.state, self.reason, self.detail[:4000].replace("\x00", "?"), self.aggregate, self.level,
            origin.topic, origin.partition, origin.offset, origin.index,
            envelope.type, envelope.source, envelope.id, envelope.actor, envelope.time, envelope.appended,
            self.body, json.dumps(envelope.headers), at, self.waits_for,
        )  # fmt: skip


async def write(tx: Connection, letters: Sequence[Letter], at: datetime, *, unread: bool = False) -> None:
    """Keeps the letters. `unread` ones come from records that the inbox may not remember (no id or source, an id used before):
    those are known by their place in the log, and kept once however often they are delivered."""
    if not letters:
        return
    columns = ", ".join(f'"{name}"' for name in LETTER_COLUMNS)
    placeholders = ", ".join(f"${number}" for number in range(1, len(LETTER_COLUMNS) + 1))
    await tx.executemany(
        f"INSERT INTO runtime.dead_letter ({columns}) SELECT {placeholders} WHERE NOT $20::bool OR NOT EXISTS"  # noqa: S608  (names from LETTER_COLUMNS)
        ' (SELECT 1 FROM runtime.dead_letter WHERE topic = $6 AND partition = $7 AND "offset" = $8 AND index = $9'
        " AND body IS NOT DISTINCT FROM $16)",
        [(*letter.row(at), unread) for letter in letters],
    )


Kind = tuple[str, str | None]
"""A message's type, and what it is the level of (None: no level)."""


async def parked(tx: Connection, aggregates: Sequence[str]) -> dict[str, frozenset[Kind]]:
    """Which of these aggregates have parked messages, and of which kinds. Ask after locking the aggregates."""
    rows = await tx.fetch(
        "SELECT DISTINCT aggregate, type, level FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = ANY($1::text[])",
        list(set(aggregates)),
    )
    kinds: defaultdict[str, set[Kind]] = defaultdict(set)
    for row in rows:
        kinds[row["aggregate"]].add((row["type"], row["level"]))
    return {aggregate: frozenset(found) for aggregate, found in kinds.items()}


async def supersede(tx: Connection, aggregates: Sequence[str], at: datetime) -> None:
    """Closes the parked levels of aggregates to which a newer level of the same thing has been applied."""
    await tx.execute(
        "UPDATE runtime.dead_letter SET state = 'superseded', closed_at = $2 WHERE state = 'parked' AND aggregate = ANY($1::text[])",
        list(aggregates), at,
    )  # fmt: skip


async def close(tx: Connection, ids: Sequence[int], state: Literal["replayed", "discarded"], at: datetime) -> None:
    """Closes letters by an operator's decision."""
    await tx.execute("UPDATE runtime.dead_letter SET state = $2, closed_at = $3 WHERE id = ANY($1::bigint[])", list(ids), state, at)


async def request(connection: Any, letter: int, action: Literal["replay", "discard"], actor: str) -> int:
    """Asks the running service to replay or discard a letter (and then to apply what is parked behind it); answers the request's id."""
    return int(
        await connection.fetchval(
            "INSERT INTO runtime.dead_letter_request (letter, action, actor) VALUES ($1, $2, $3) RETURNING id", letter, action, actor
        )
    )
