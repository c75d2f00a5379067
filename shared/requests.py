"""What operators ask for: dead letters replayed or discarded, aggregates repaired. Applied in transactions like any other."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import structlog

from shared import dead_letters, invariants, items, quarantine
from shared.codec import Envelope, Origin, decode, new_id
from shared.contracts.base import Message
from shared.db import TRANSIENT
from shared.items import Item
from shared.service import Connection, Context, IrreparableError, Repair
from shared.transaction import Transactions, why

Row: TypeAlias = Mapping[str, Any]

log = structlog.get_logger()


async def settle(transactions: Transactions) -> int:
    """Settles what was asked for, each request in a transaction of its own; answers how many."""
    pool = transactions.pool
    repairs = await pool.fetch("SELECT id FROM runtime.repair WHERE done_at IS NULL ORDER BY id LIMIT 20")
    for row in repairs:
        async with pool.acquire() as tx, tx.transaction():
            request = await tx.fetchrow("SELECT * FROM runtime.repair WHERE id = $1 AND done_at IS NULL FOR UPDATE", row["id"])
            if request is not None:
                repaired, result = await _repair(transactions, tx, request)
                await tx.execute(
                    "UPDATE runtime.repair SET done_at = now(), repaired = $2, result = $3 WHERE id = $1", row["id"], repaired, result
                )
    letters = await pool.fetch("SELECT id, letter, action FROM runtime.dead_letter_request WHERE done_at IS NULL ORDER BY id LIMIT 20")
    for row in letters:
        async with pool.acquire() as tx, tx.transaction():
            result = await _decide(transactions, tx, row["letter"], row["action"])
            await tx.execute("UPDATE runtime.dead_letter_request SET done_at = now(), result = $2 WHERE id = $1", row["id"], result)
    return len(letters) + len(repairs)


# dead letters


async def _decide(transactions: Transactions, tx: Connection, letter: int, action: str) -> str:
    """Applies (or drops) a letter, and everything parked behind it, in one transaction. What still has to wait is parked anew."""
    await _lock_aggregate(transactions, tx, letter)
    [row] = await tx.fetch("SELECT * FROM runtime.dead_letter WHERE id = $1 FOR UPDATE", letter)
    if row["state"] not in {"parked", "refused"}:
        return f"nothing to do: the letter is {row['state']}"
    behind = [row]
    if row["state"] == "parked":
        behind = await tx.fetch(
            "SELECT * FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = $1 ORDER BY id FOR UPDATE", row["aggregate"]
        )
    if action == "discard":
        await dead_letters.close(tx, [letter], "discarded", transactions.clock())
        behind = [other for other in behind if other["id"] != letter]
    if not behind:
        return "discarded"
    try:
        async with tx.transaction():
            given = [_item(transactions, other) for other in behind]
            applied, waiting, _ = await transactions.attempt(tx, given, replaying=True)
            await dead_letters.close(tx, [other["id"] for other in behind], "replayed", transactions.clock())
    except TRANSIENT:
        raise
    except Exception as error:  # noqa: BLE001  (whatever still breaks stays parked, and the operator is told)
        if row["waits_for"]:  # not any more
            await tx.execute("UPDATE runtime.dead_letter SET waits_for = NULL, reason = $2, detail = $3 WHERE id = $1", letter, *why(error))
        return f"failed, still {row['state']}: {type(error).__name__}: {error}"
    if not applied and action == "replay":
        return f"failed, parked again: {waiting[0].detail}"
    return f"applied {applied} message(s)" + (f", {len(waiting)} parked again: {waiting[0].detail}" if waiting else "")


async def _lock_aggregate(transactions: Transactions, tx: Connection, letter: int) -> None:
    """Locks what a parked letter is about, before its letters are read: as in a batch, so that nothing is parked meanwhile."""
    service = transactions.service
    for row in await tx.fetch("SELECT * FROM runtime.dead_letter WHERE id = $1 AND state = 'parked'", letter):
        try:
            async with tx.transaction():
                state = await service.load(tx, [_item(transactions, row).message])
                # Saved as it was loaded: what `load` put there only to have something to lock is not left behind.
                now = transactions.clock()
                await service.save(tx, state, Context(now, 0, "", "", now, now))
        except TRANSIENT:
            raise
        except Exception:
            # Whatever broke it still does: a replay will say so, a discard goes on.
            log.warning("cannot lock what is parked", letter=letter, exc_info=True)


def _item(transactions: Transactions, row: Row) -> Item:
    """A kept message, read again (perhaps by newer code). Raises ValueError if it still cannot be read."""
    routes = transactions.service.routes
    envelope = Envelope(row["type"], row["source"], row["message_id"], row["time"], row["appended"], row["actor"], ())
    origin = Origin(row["topic"], row["partition"], row["offset"], row["index"])
    own = {kind.__name__: kind for kind in routes if not issubclass(kind, Message)}
    if row["type"] in own:
        return Item(own[row["type"]].model_validate_json(row["body"]), origin, envelope)
    messages, flaws = decode(row["type"], row["topic"], row["body"] or b"")
    if flaws or not messages:
        raise ValueError(flaws[0][1].detail if flaws else "there is nothing to apply in it")
    if type(messages[0][1]) not in routes:
        raise ValueError(f"{row['type']} is nothing that this service takes")
    return Item(messages[0][1], origin, envelope)


# repairs


async def _repair(transactions: Transactions, tx: Connection, request: Row) -> tuple[bool, str]:
    """Repairs an aggregate; answers whether it is right now, and what was done. After a dry run, or if it cannot be repaired,
    everything is as it was."""
    savepoint = tx.transaction()
    await savepoint.start()
    try:
        result = await _put_right(transactions, tx, request)
    except TRANSIENT:
        raise
    except Exception as error:
        await savepoint.rollback()
        if isinstance(error, IrreparableError):
            return False, f"cannot be repaired: {error}"
        log.exception("a repair failed", aggregate=request["aggregate"])
        return False, f"failed: {type(error).__name__}: {error}"
    await (savepoint.rollback() if request["dry_run"] else savepoint.commit())
    return True, result


async def _put_right(transactions: Transactions, tx: Connection, request: Row) -> str:
    """Has the service correct its numbers, looks at them again, and asks for a replay of what waited for it."""
    service, aggregate, now = transactions.service, request["aggregate"], transactions.clock()
    if aggregate.partition(":")[0] not in {watched.kind for watched in service.watched}:
        raise IrreparableError(f"{service.name} has no {aggregate!r}")
    message = Repair(aggregate=aggregate, actor=request["actor"], reason=request["reason"])
    await service.load(tx, [message])  # locks it
    if aggregate not in await quarantine.aggregates(tx) and not await invariants.inspect(tx, service, aggregate):
        raise IrreparableError("nothing is wrong with it")
    item = items.of_the_service(service.name, message, str(new_id()), now)
    corrections = list((await transactions.attempt(tx, [item], replaying=True)).corrections)
    if left := await invariants.inspect(tx, service, aggregate):
        raise IrreparableError("; ".join([*corrections, *map(str, left)]))
    waiting = await quarantine.release(tx, aggregate, request["actor"], now)
    replayed = [f"what waited for it is replayed, from {waiting} dead letter(s) on"] if waiting else []
    return "; ".join([*(corrections or ["its numbers are right"]), *replayed])
