"""One batch, one transaction: inbox, locked state, handlers, outbox, journal. The heart of exactly-once effects.

Whatever happens, a record's effects and the mark that it has been applied are committed together or not at all.
A message that breaks its handler is found by bisection under savepoints and parked; everything else goes on.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from shared import dead_letters, inbox, outbox, partitions
from shared.clock import Clock
from shared.codec import OUR_SOURCE, Delivery, Envelope, Flaw, Origin, decode, encode, new_id
from shared.contracts.base import ListedMessage, Message
from shared.db import TRANSIENT
from shared.dead_letters import Kind, Letter
from shared.service import Applicable, Connection, Context, Effect, Invalid, Local, Refuse, Schedule, Send, Service, Timer, Unschedule
from shared.settings import Settings

FAILURES_IN_A_ROW = 100
"""So many messages broken one after another are a fault of ours, not of theirs: nothing is parked, the consumer stops and retries."""

log = structlog.get_logger()


class TooManyFailuresError(Exception):
    """Handlers fail for everything: a bad deployment must not drain a topic into the dead letters."""


@dataclass(frozen=True, slots=True)
class Item:
    """One message to apply, and where it came from."""

    message: Applicable
    origin: Origin
    envelope: Envelope

    @property
    def cause(self) -> str:
        """How effects name this item."""
        return f"{self.envelope.id}#{self.origin.index}" if isinstance(self.message, ListedMessage) else self.envelope.id

    @property
    def type(self) -> str:
        """The contract's type name, or the class of a timer or local message."""
        return self.message.TYPE if isinstance(self.message, Message) else type(self.message).__name__

    @property
    def kind(self) -> Kind:
        """The type, and what this is the level of."""
        return self.type, self.message.level if isinstance(self.message, Message) else None

    def letter(self, reason: str, detail: str, aggregate: str | None, *, parked: bool) -> Letter:
        """This item as a dead letter."""
        body = encode(self.message) if isinstance(self.message, Message) else self.message.model_dump_json().encode()
        envelope = self.envelope._replace(type=self.type)
        return Letter("parked" if parked else "refused", reason, detail, aggregate, self.kind[1], self.origin, envelope, body)


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
            items = [item for delivery in fresh for item in self._items(delivery)]
            await dead_letters.write(tx, [letter for delivery in fresh for letter in _flawed(delivery)], now, unread=True)
            await self._apply(tx, items, failures)
            news = {(delivery.topic, delivery.partition) for delivery in fresh if delivery.messages}
            moved = partitions.moved(spans, stands, news)
            if moved:
                await partitions.save(tx, moved)
        return len(items)

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

    def _own(self, message: Timer | Local, time: datetime) -> Item:
        name = type(message).__name__
        envelope = Envelope(name, f"{OUR_SOURCE}{self.service.name}", str(new_id()), time, self.clock(), "", ())
        return Item(message, Origin("", 0, 0), envelope)

    def _items(self, delivery: Delivery) -> Iterable[Item]:
        """The messages of a record that this service takes, and its answer to what is wrong with it."""
        for index, message in delivery.messages:
            if type(message) in self.service.routes:
                yield Item(message, Origin(delivery.topic, delivery.partition, delivery.offset, index), delivery.envelope)
        for index, flaw in delivery.flaws:
            answer = self.service.invalid(Invalid(delivery.envelope.type, flaw.data or {}, flaw.errors)) if flaw.data is not None else None
            if answer is not None:
                yield Item(answer, Origin(delivery.topic, delivery.partition, delivery.offset, index), delivery.envelope)

    async def _apply(self, tx: Connection, items: Sequence[Item], failures: list[Item]) -> None:
        """Applies items in order; halves what breaks until the culprit stands alone, and parks it."""
        if not items:
            return
        try:
            async with tx.transaction():
                applied = await self._attempt(tx, items, replaying=False)
        except TRANSIENT:
            raise
        except Exception as error:
            if len(items) > 1:
                middle = len(items) // 2
                await self._apply(tx, items[:middle], failures)
                await self._apply(tx, items[middle:], failures)
                return
            failures.append(items[0])
            if len(failures) >= FAILURES_IN_A_ROW:
                raise TooManyFailuresError(f"{len(failures)} messages in a row broke their handlers, the last by {error!r}") from error
            await self._park(tx, items[0], error)
        else:
            if applied:  # waiting behind what is parked is no sign of health
                failures.clear()

    async def _park(self, tx: Connection, item: Item, error: Exception) -> None:
        aggregate = self.service.routes[type(item.message)].aggregate(item.message)
        log.error("parked", type=item.type, aggregate=aggregate, message_id=item.envelope.id, exc_info=error)
        await _still_due(tx, [item])  # a timer is either due or parked
        letter = item.letter("handler_failed", f"{type(error).__name__}: {error}", aggregate, parked=True)
        await dead_letters.write(tx, [letter], self.clock())

    async def _attempt(self, tx: Connection, items: Sequence[Item], *, replaying: bool) -> int:
        """Load, apply, decide, save, publish, journal: all of it, or an exception. Answers how many items were applied."""
        routes, service = self.service.routes, self.service
        now = self.clock()
        state = await service.load(tx, [item.message for item in items])
        if not replaying:
            items = await _still_due(tx, items)
        [(number, any_parked)] = await tx.fetch(
            "SELECT nextval('runtime.journal_number'), EXISTS (SELECT 1 FROM runtime.dead_letter WHERE state = 'parked')"
        )
        held: dict[str, frozenset[Kind]] = {}
        if any_parked and not replaying:
            held = await dead_letters.parked(tx, [routes[type(item.message)].aggregate(item.message) for item in items])
        effects = _Effects()
        applied: list[Item] = []
        superseded: set[str] = set()
        for item in items:
            route = routes[type(item.message)]
            if held and (waits := held.get(aggregate := route.aggregate(item.message))) is not None:
                if item.kind[1] is None or waits != {item.kind}:
                    effects.letters.append(
                        item.letter("behind_parked", f"waits for parked messages of {aggregate}", aggregate, parked=True)
                    )
                    held[aggregate] = waits | {item.kind}
                    continue
                superseded.add(aggregate)
                del held[aggregate]
            context = Context(now, number, item.cause, item.envelope.actor, item.envelope.time, item.envelope.appended)
            effects.add(route.handler(state, item.message, context), context, item)
            applied.append(item)
        await service.prepare(tx, state)
        context = Context(now, number, "", "", now, now)
        effects.add(service.decide(state, context), context, None)
        await service.save(tx, state, context)
        await outbox.write(tx, list(outbox.records(effects.sends, self.settings, now)))
        await _set_timers(tx, effects.timers)
        await dead_letters.write(tx, effects.letters, now)
        if superseded:
            await dead_letters.supersede(tx, sorted(superseded), now)
        await _journal(tx, number, now, applied)
        return len(applied)

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
            items = [self._letter_item(other) for other in behind]
            async with tx.transaction():
                if items:
                    await self._attempt(tx, items, replaying=True)
                await dead_letters.close(tx, [other["id"] for other in behind], "replayed", now)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001  (whatever still breaks stays parked, and the operator is told)
            return f"failed, still {row['state']}: {type(error).__name__}: {error}"
        return f"applied {len(items)} message(s)" if items else "discarded"

    async def _lock_aggregate(self, tx: Connection, letter: int) -> None:
        """Locks what a parked letter is about, before its letters are read: as in a batch, so that nothing is parked meanwhile."""
        for row in await tx.fetch("SELECT * FROM runtime.dead_letter WHERE id = $1 AND state = 'parked'", letter):
            try:
                async with tx.transaction():
                    await self.service.load(tx, [self._letter_item(row).message])
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


async def _still_due(tx: Connection, items: Sequence[Item]) -> Sequence[Item]:
    """Takes the timers among the items off the table, now that their aggregates are locked; those moved or gone are left out."""
    timers = {(item.type, item.message.key): item for item in items if isinstance(item.message, Timer) and not item.origin.topic}
    if not timers:
        return items
    taken = await tx.fetch(
        "DELETE FROM runtime.timer t USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (kind, key, due)"
        " WHERE t.kind = k.kind AND t.key = k.key AND t.due = k.due RETURNING t.kind, t.key",
        [kind for kind, _ in timers], [key for _, key in timers], [item.envelope.time for item in timers.values()],
    )  # fmt: skip
    due = {(row["kind"], row["key"]) for row in taken}
    return [item for item in items if not isinstance(item.message, Timer) or (item.type, item.message.key) in due]


async def _set_timers(tx: Connection, timers: Mapping[tuple[str, str], datetime | None]) -> None:
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


async def _journal(tx: Connection, number: int, now: datetime, items: Sequence[Item]) -> None:
    """The transaction's row: what a replay of the topics would have to apply together, under this number and time."""
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    local = []
    for item in items:
        origin = item.origin
        if origin.topic:
            ranges.setdefault((origin.topic, origin.partition), []).append((origin.offset, origin.index))
        else:
            local.append([item.type, item.message.model_dump(mode="json"), item.envelope.time.isoformat()])
    offsets = [[topic, partition, *min(places), *max(places)] for (topic, partition), places in ranges.items()]
    await tx.execute(
        "INSERT INTO runtime.journal (number, business, offsets, local) VALUES ($1, $2, $3, $4)",
        number, now, json.dumps(offsets), json.dumps(local),
    )  # fmt: skip
