"""The inbox: the only thing that ever drops a record, because its id has been applied before."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from shared.clock import wall
from shared.codec import Delivery, Flaw
from shared.service import Connection
from shared.topics import RETENTION_DAYS

_KEEP = timedelta(days=RETENTION_DAYS + 1)


async def keep_new(tx: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The records whose ids have not been applied, in their order, and marks them as applied.

    An id of an outside source that comes again with other content is kept as flawed (`id_reused`), not swallowed.
    A record without a readable id passes: its place in the log identifies it among the dead letters.
    """
    ours: dict[uuid.UUID, Delivery] = {}
    others: dict[tuple[str, str], list[Delivery]] = {}
    fresh: set[int] = set()
    for delivery in deliveries:
        internal = delivery.envelope.internal
        if internal is not None:
            ours.setdefault(internal, delivery)
        elif delivery.envelope.id and delivery.envelope.source:
            others.setdefault(_key(delivery), []).append(delivery)
        else:
            fresh.add(id(delivery))
    if ours:
        rows = await tx.fetch("INSERT INTO runtime.inbox SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING id", sorted(ours))
        fresh.update(id(ours[row["id"]]) for row in rows)
    reused: dict[int, Delivery] = {}
    if others:
        known = await _claim(tx, {key: group[0].content_hash() for key, group in others.items()})
        for key, group in others.items():
            mine, stored = known[key]
            if mine:
                fresh.add(id(group[0]))
            for delivery in group[1 if mine else 0 :]:
                if delivery.content_hash() != stored:
                    reused[id(delivery)] = _reused(delivery)
    return [reused.get(id(delivery), delivery) for delivery in deliveries if id(delivery) in fresh or id(delivery) in reused]


def _key(delivery: Delivery) -> tuple[str, str]:
    """What an outsider's record is known by: source and id. What was refused as a whole has not used up its id, so that a
    corrected message may come under the same: it is known by its content as well."""
    source, id_ = delivery.envelope.source, delivery.envelope.id
    refused = delivery.flaws and not delivery.messages
    return source, f"{id_} {delivery.content_hash().hex()}" if refused else id_


async def _claim(tx: Connection, hashes: dict[tuple[str, str], bytes]) -> dict[tuple[str, str], tuple[bool, bytes]]:
    """Per (source, id): whether it is new, and the hash of what was applied under it."""
    keys = sorted(hashes)
    sources, ids = [source for source, _ in keys], [id_ for _, id_ in keys]
    rows = await tx.fetch(
        "INSERT INTO runtime.inbox_external (source, id, hash) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])"
        " ON CONFLICT DO NOTHING RETURNING source, id",
        sources, ids, [hashes[key] for key in keys],
    )  # fmt: skip
    claimed = {(row["source"], row["id"]): (True, hashes[row["source"], row["id"]]) for row in rows}
    if len(claimed) < len(keys):
        rows = await tx.fetch(
            "SELECT i.source, i.id, i.hash FROM runtime.inbox_external i"
            " JOIN unnest($1::text[], $2::text[]) AS k (source, id) USING (source, id)",
            sources, ids,
        )  # fmt: skip
        for row in rows:
            claimed.setdefault((row["source"], row["id"]), (False, row["hash"]))
    return claimed


def _reused(delivery: Delivery) -> Delivery:
    flaw = Flaw(
        "id_reused",
        f"id {delivery.envelope.id!r} of source {delivery.envelope.source!r} was used before for other content; "
        "a repeat must be identical, anything else needs an id of its own",
    )
    return delivery._replace(messages=(), flaws=((0, flaw),))


def _oldest_uuid7(at: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of a time."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


async def prune(tx: Connection) -> int:
    """Forgets ids that the topics cannot deliver any more (wall time); answers how many."""
    horizon = wall() - _KEEP
    internal = await tx.execute("DELETE FROM runtime.inbox WHERE id < $1", _oldest_uuid7(horizon))
    external = await tx.execute("DELETE FROM runtime.inbox_external WHERE seen_at < $1", horizon)
    return sum(int(status.rpartition(" ")[2]) for status in (internal, external))
