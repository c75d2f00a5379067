"""One batch, one transaction: inbox, locked state, handlers, outbox, journal. The heart of exactly-once effects.

Whatever happens, a record's effects and the mark that it has been applied are committed together or not at all.
A message that breaks its handler is found by bisection under savepoints and parked; everything else goes on.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from shared import dead_letters, inbox, items, journal, outbox, partitions, timers
from shared.clock import Clock
from shared.codec import Delivery, Envelope, Flaw, Origin, decode, new_id
from shared.contracts.base import Message
from shared.db import TRANSIENT
from shared.dead_letters import Letter
from shared.items import Item
from shared.service import Connection, Context, Effect, Local, Refuse, Schedule, Send, Service, Timer, Unschedule
from shared.settings import Settings
from shared.timers import Due

FAILURES_IN_A_ROW = 100
"""So many messages broken one after another are a fault of ours, not of theirs: nothing is parked, the consumer stops and retries."""

log = structlog.get_logger()


class TooManyFailuresError(Exception):
    """Handlers fail for everything: a bad deployment must not drain a topic into the dead letters."""


@dataclass(slots=True)
class _Effects:
    """What the handlers of one application answered, gathered."""

    sends: list[Send] = field(default_factory=list)
    timers: dict[tuple[str, str], datetime | None] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)

    def add(self, effects: Iterable[Effect], context: Context, item: Item | None) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.sends.append(effect)
                case Schedule(timer, due):
                    self.timers[type(timer).__name__, timer.key] = due
                case Unschedule(timer):
                    self.timers[type(timer).__name__, timer.key] = None
                case Refuse(reason, detail):
                    if item is None:
                        raise TypeError("only a handler refuses: decide() has no message to refuse")
                    self.letters.append(item.letter(reason, detail, None, parked=False))
                case _:
                    self.sends.append(Send(effect, context.cause, context.actor))


@dataclass(frozen=True, slots=True)
class _Turn:
    """Items of a transaction by what becomes of them. `letters` are of those that wait; parked levels of `superseded` are over."""

    applied: Sequence[Item]
    waiting: list[Item] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    superseded: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Transactions:
    """Applies batches, timers, local messages and operators' requests of one service, each in a transaction of its own."""

    service: Service[Any]
    settings: Settings
    pool: "asyncpg.Pool[Any]"
    clock: Clock
    _failures: list[Item] = field(default_factory=list, init=False)
    """What was parked since a handler last succeeded, over all committed transactions of this process."""

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[tuple[Connection, list[Item]]]:
        """A transaction and the failures in a row so far, which count only if it commits."""
        failures = list(self._failures)
        async with self.pool.acquire() as tx, tx.transaction():
            yield tx, failures
        self._failures[:] = failures

    async def batch(self, deliveries: Sequence[Delivery], log_starts: Mapping[partitions.Place, int]) -> int:
        """Applies records that are in order; answers how many items were new. Raises BehindError (seek back and come again)."""
        spans = partitions.spans(deliveries)
        async with self._begun() as (tx, failures):
            stands = await partitions.lock(tx, sorted(spans))
            partitions.check_not_behind(spans, stands, log_starts)
            fresh = await inbox.keep_new(tx, deliveries)
            now = self.clock()
            new = list(items.of_records(self.service, fresh))
            await dead_letters.write(tx, [letter for delivery in fresh for letter in _flawed(delivery)], now, unread=True)
            await self._apply(tx, new, failures)
            news = {(delivery.topic, delivery.partition) for delivery in fresh if delivery.messages}
            moved = partitions.moved(spans, stands, news)
            if moved:
                await partitions.save(tx, moved)
        return len(new)

    async def fire(self, limit: int = 500) -> int:
        """Applies the timers that are due; answers how many."""
        now = self.clock()
        due = await self.pool.fetch("SELECT kind, key, due FROM runtime.timer WHERE due <= $1 ORDER BY due, kind, key LIMIT $2", now, limit)
        if due:
            kinds = {message.__name__: message for message in self.service.routes if issubclass(message, Timer)}
            async with self._begun() as (tx, failures):
                await self._apply(tx, [self._own(kinds[row["kind"]](key=row["key"]), row["due"]) for row in due], failures)
        return len(due)

    async def tell(self, messages: Sequence[Local]) -> None:
        """Applies what the service's own process has to say."""
        async with self._begun() as (tx, failures):
            await self._apply(tx, [self._own(message, self.clock()) for message in messages], failures)

    async def settle_requests(self) -> int:
        """Replays or discards dead letters as operators have asked; answers how many requests were settled."""
        rows = await self.pool.fetch(
            "SELECT id, letter, action FROM runtime.dead_letter_request WHERE done_at IS NULL ORDER BY id LIMIT 20"
        )
        for row in rows:
            async with self.pool.acquire() as tx, tx.transaction():
                result = await self._settle(tx, row["letter"], row["action"])
                await tx.execute("UPDATE runtime.dead_letter_request SET done_at = now(), result = $2 WHERE id = $1", row["id"], result)
        return len(rows)

    async def reapply(self, entry: journal.Entry, applied: Sequence[Item]) -> None:
        """Applies once more what the journal says of a transaction, to a database that stands where that one found it: with the
        same code, number and time the same state follows. Nothing but the service's state and its timers is written."""
        async with self.pool.acquire() as tx, tx.transaction():
            state = await self.service.load(tx, [item.message for item in applied])
            await timers.take(tx, [*entry.parked, *_timers(applied)])
            effects = await self._work(tx, state, applied, entry.number, entry.business)
            await timers.save(tx, effects.timers)

    def _own(self, message: Timer | Local, time: datetime) -> Item:
        return items.of_the_service(self.service.name, message, str(new_id()), time)

    async def _apply(self, tx: Connection, given: Sequence[Item], failures: list[Item]) -> None:
        """Applies items in order; halves what breaks until the culprit stands alone, and parks it."""
        if not given:
            return
        try:
            async with tx.transaction():
                applied = await self._attempt(tx, given, replaying=False)
        except TRANSIENT:
            raise
        except Exception as error:
            if len(given) > 1:
                middle = len(given) // 2
                await self._apply(tx, given[:middle], failures)
                await self._apply(tx, given[middle:], failures)
                return
            failures.append(given[0])
            if len(failures) >= FAILURES_IN_A_ROW:
                raise TooManyFailuresError(f"{len(failures)} messages in a row broke their handlers, the last by {error!r}") from error
            await self._park(tx, given[0], error)
        else:
            if applied:  # waiting behind what is parked is no sign of health
                failures.clear()

    async def _park(self, tx: Connection, item: Item, error: Exception) -> None:
        aggregate = self.service.routes[type(item.message)].aggregate(item.message)
        log.error("parked", type=item.type, aggregate=aggregate, message_id=item.envelope.id, exc_info=error)
        now = self.clock()
        letter = item.letter("handler_failed", f"{type(error).__name__}: {error}", aggregate, parked=True)
        await dead_letters.write(tx, [letter], now)
        if taken := await timers.take(tx, _timers([item])):  # a timer is either due or parked
            number = await tx.fetchval("SELECT nextval('runtime.journal_number')")
            await journal.write(tx, number, now, [], list(taken))

    async def _attempt(self, tx: Connection, given: Sequence[Item], *, replaying: bool) -> int:
        """Load, apply, decide, save, publish, journal: all of it, or an exception. Answers how many items were applied."""
        now = self.clock()
        state = await self.service.load(tx, [item.message for item in given])
        if due := _timers(given):
            taken = await timers.take(tx, due)
            if not replaying:  # else they were taken when they were parked
                given = [item for item in given if item.due is None or item.due in taken]
        [(number, any_parked)] = await tx.fetch(
            "SELECT nextval('runtime.journal_number'), EXISTS (SELECT 1 FROM runtime.dead_letter WHERE state = 'parked')"
        )
        turn = await self._turn(tx, given) if any_parked and not replaying else _Turn(given)
        effects = await self._work(tx, state, turn.applied, number, now)
        await outbox.write(tx, list(outbox.records(effects.sends, self.settings, now)))
        await timers.save(tx, effects.timers)
        await dead_letters.write(tx, [*turn.letters, *effects.letters], now)
        if turn.superseded:
            await dead_letters.supersede(tx, sorted(turn.superseded), now)
        await journal.write(tx, number, now, turn.applied, _timers(turn.waiting))
        return len(turn.applied)

    async def _turn(self, tx: Connection, given: Sequence[Item]) -> "_Turn":
        """Who is applied now, and who waits behind what is parked. A newer level takes the place of parked ones of the same thing."""
        routes = self.service.routes
        held = await dead_letters.parked(tx, [routes[type(item.message)].aggregate(item.message) for item in given])
        if not held:
            return _Turn(given)
        turn = _Turn(applied := [])
        for item in given:
            aggregate = routes[type(item.message)].aggregate(item.message)
            waits = held.get(aggregate)
            if waits is not None and (item.kind[1] is None or waits != {item.kind}):
                turn.waiting.append(item)
                turn.letters.append(item.letter("behind_parked", f"waits for parked messages of {aggregate}", aggregate, parked=True))
                held[aggregate] = waits | {item.kind}
                continue
            if waits is not None:
                turn.superseded.add(aggregate)
                del held[aggregate]
            applied.append(item)
        return turn

    async def _work(self, tx: Connection, state: Any, applied: Sequence[Item], number: int, now: datetime) -> _Effects:
        """What the service itself does of a transaction: each item's handler, what is decided once, and what is saved."""
        service, effects = self.service, _Effects()
        for item in applied:
            context = Context(now, number, item.cause, item.envelope.actor, item.envelope.time, item.envelope.appended)
            effects.add(service.routes[type(item.message)].handler(state, item.message, context), context, item)
        await service.prepare(tx, state)
        context = Context(now, number, "", "", now, now)
        effects.add(service.decide(state, context), context, None)
        await service.save(tx, state, context)
        return effects

    async def _settle(self, tx: Connection, letter: int, action: str) -> str:
        """One operator's request: apply (or drop) the letter and everything parked behind it, in one transaction."""
        await self._lock_aggregate(tx, letter)
        [row] = await tx.fetch("SELECT * FROM runtime.dead_letter WHERE id = $1 FOR UPDATE", letter)
        if row["state"] not in {"parked", "refused"}:
            return f"nothing to do: the letter is {row['state']}"
        now = self.clock()
        behind = [row]
        if row["state"] == "parked":
            behind = await tx.fetch(
                "SELECT * FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = $1 ORDER BY id FOR UPDATE", row["aggregate"]
            )
        if action == "discard":
            await dead_letters.close(tx, [letter], "discarded", now)
            behind = [other for other in behind if other["id"] != letter]
        try:
            letters = [self._letter_item(other) for other in behind]
            async with tx.transaction():
                if letters:
                    await self._attempt(tx, letters, replaying=True)
                await dead_letters.close(tx, [other["id"] for other in behind], "replayed", now)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001  (whatever still breaks stays parked, and the operator is told)
            return f"failed, still {row['state']}: {type(error).__name__}: {error}"
        return f"applied {len(letters)} message(s)" if letters else "discarded"

    async def _lock_aggregate(self, tx: Connection, letter: int) -> None:
        """Locks what a parked letter is about, before its letters are read: as in a batch, so that nothing is parked meanwhile."""
        for row in await tx.fetch("SELECT * FROM runtime.dead_letter WHERE id = $1 AND state = 'parked'", letter):
            try:
                async with tx.transaction():
                    state = await self.service.load(tx, [self._letter_item(row).message])
                    # Saved as it was loaded: what `load` put there only to have something to lock is not left behind.
                    now = self.clock()
                    await self.service.save(tx, state, Context(now, 0, "", "", now, now))
            except TRANSIENT:
                raise
            except Exception:
                # Whatever broke it still does: a replay will say so, a discard goes on.
                log.warning("cannot lock what is parked", letter=letter, exc_info=True)

    def _letter_item(self, row: Mapping[str, Any]) -> Item:
        """A kept message, read again (perhaps by newer code). Raises ValueError if it still cannot be read."""
        envelope = Envelope(row["type"], row["source"], row["message_id"], row["time"], row["appended"], row["actor"], ())
        origin = Origin(row["topic"], row["partition"], row["offset"], row["index"])
        own = {kind.__name__: kind for kind in self.service.routes if not issubclass(kind, Message)}
        if row["type"] in own:
            return Item(own[row["type"]].model_validate_json(row["body"]), origin, envelope)
        messages, flaws = decode(row["type"], row["topic"], row["body"] or b"")
        if flaws or not messages:
            raise ValueError(flaws[0][1].detail if flaws else "there is nothing to apply in it")
        if type(messages[0][1]) not in self.service.routes:
            raise ValueError(f"{row['type']} is nothing that this service takes")
        return Item(messages[0][1], origin, envelope)


def _flawed(delivery: Delivery) -> Iterable[Letter]:
    for index, flaw in delivery.flaws:
        yield _refused(delivery, index, flaw)


def _refused(delivery: Delivery, index: int, flaw: Flaw) -> Letter:
    origin = Origin(delivery.topic, delivery.partition, delivery.offset, index)
    body = flaw.body if flaw.body is not None else delivery.body
    return Letter("refused", flaw.reason, flaw.detail, None, None, origin, delivery.envelope, body)


def _timers(applied: Iterable[Item]) -> list[Due]:
    return [item.due for item in applied if item.due is not None]
