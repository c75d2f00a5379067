"""One batch, one transaction: inbox, locked state, handlers, outbox, journal. The heart of exactly-once effects.

Whatever happens, a record's effects and the mark that it has been applied are committed together or not at all.
A message that breaks its handler is found by bisection under savepoints and parked; everything else goes on.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import structlog

from shared import dead_letters, inbox, invariants, items, journal, outbox, partitions, quarantine, timers
from shared.clock import Clock
from shared.codec import Delivery, Flaw, Origin, new_id
from shared.db import TRANSIENT
from shared.dead_letters import Letter
from shared.invariants import InvariantBrokenError
from shared.items import Item
from shared.service import Connection, Context, Corrected, Effect, Local, Refuse, Repair, Schedule, Send, Service, Timer, Unschedule
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
    corrections: list[str] = field(default_factory=list)

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
                case Corrected(detail):
                    self.corrections.append(detail)
                case _:
                    self.sends.append(Send(effect, context.cause, context.actor))


@dataclass(frozen=True, slots=True)
class _Turn:
    """Items of a transaction by what becomes of them. `letters` are of those that wait; parked levels of `superseded` are over."""

    applied: Sequence[Item]
    waiting: list[Item] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    superseded: set[str] = field(default_factory=set)

    def wait(self, item: Item, aggregate: str, reason: str, detail: str, waits_for: str | None = None) -> None:
        """Keeps an item back, parked."""
        self.waiting.append(item)
        self.letters.append(item.letter(reason, detail, aggregate, parked=True, waits_for=waits_for))


class Outcome(NamedTuple):
    """How many items were applied, which wait, and what a repair put right."""

    applied: int
    waiting: Sequence[Letter]
    corrections: Sequence[str]


@dataclass(frozen=True)
class Transactions:
    """Applies batches, timers and local messages of one service, each in a transaction of its own."""

    service: Service[Any]
    settings: Settings
    pool: "asyncpg.Pool[Any]"
    clock: Clock
    read_back: bool = False
    """Whether `service` is the service as it is after a restore: the journal says so."""
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
                outcome = await self.attempt(tx, given, replaying=False)
        except TRANSIENT:
            raise
        except Exception as error:
            if len(given) > 1:
                middle = len(given) // 2
                await self._apply(tx, given[:middle], failures)
                await self._apply(tx, given[middle:], failures)
                return
            if isinstance(error, InvariantBrokenError) and await invariants.quarantine_broken(
                tx, self.service, error.aggregate, self.clock
            ):
                await self._park(tx, given[0], *_waits_for(error.aggregate))  # it was broken before this message came
                return
            failures.append(given[0])
            if len(failures) >= FAILURES_IN_A_ROW:
                raise TooManyFailuresError(f"{len(failures)} messages in a row broke their handlers, the last by {error!r}") from error
            log.exception("parked", type=given[0].type, message_id=given[0].envelope.id)
            await self._park(tx, given[0], *why(error))
        else:
            if outcome.applied:  # waiting behind what is parked is no sign of health
                failures.clear()

    async def _park(self, tx: Connection, item: Item, reason: str, detail: str, waits_for: str | None = None) -> None:
        aggregate, now = self.service.routes[type(item.message)].aggregate(item.message), self.clock()
        await dead_letters.write(tx, [item.letter(reason, detail, aggregate, parked=True, waits_for=waits_for)], now)
        if taken := await timers.take(tx, _timers([item])):  # a timer is either due or parked
            number = await tx.fetchval("SELECT nextval('runtime.journal_number')")
            await journal.write(tx, number, now, [], list(taken))

    async def attempt(self, tx: Connection, given: Sequence[Item], *, replaying: bool) -> Outcome:
        """Load, apply, decide, save, publish, journal: all of it, or an exception. What is `replaying` waits behind nothing parked."""
        now = self.clock()
        state = await self.service.load(tx, [item.message for item in given])
        if due := _timers(given):
            taken = await timers.take(tx, due)
            if not replaying:  # else they were taken when they were parked
                given = [item for item in given if item.due is None or item.due in taken]
        [(number, any_held)] = await tx.fetch(
            "SELECT nextval('runtime.journal_number'), EXISTS (SELECT 1 FROM runtime.dead_letter WHERE state = 'parked')"
            " OR EXISTS (SELECT 1 FROM runtime.quarantine WHERE released_at IS NULL)"
        )
        turn = await self._turn(tx, state, given, replaying=replaying) if any_held else _Turn(given)
        effects = await self._work(tx, state, turn.applied, number, now)
        await outbox.write(tx, list(outbox.records(effects.sends, self.settings, now)))
        await timers.save(tx, effects.timers)
        await dead_letters.write(tx, [*turn.letters, *effects.letters], now)
        if turn.superseded:
            await dead_letters.supersede(tx, sorted(turn.superseded), now)
        await journal.write(tx, number, now, turn.applied, _timers(turn.waiting), read_back=self.read_back)
        return Outcome(len(turn.applied), turn.letters, effects.corrections)

    async def _turn(self, tx: Connection, state: Any, given: Sequence[Item], *, replaying: bool) -> "_Turn":
        """Who is applied now, and who waits: for the repair of what is quarantined, or behind what is parked. A newer level takes
        the place of parked ones of the same thing."""
        routes = self.service.routes
        held = {} if replaying else await dead_letters.parked(tx, [routes[type(item.message)].aggregate(item.message) for item in given])
        ill = await quarantine.aggregates(tx)
        if not held and not ill:
            return _Turn(given)
        turn = _Turn(applied := [])
        for item in given:
            route = routes[type(item.message)]
            aggregate = route.aggregate(item.message)
            waits = held.get(aggregate)
            broken = ill & {aggregate, *route.touches(state, item.message)}
            if broken and not isinstance(item.message, Repair):
                turn.wait(item, aggregate, *_waits_for(min(broken)))
            elif waits is not None and (item.kind[1] is None or waits != {item.kind}):
                turn.wait(item, aggregate, "behind_parked", f"waits for parked messages of {aggregate}")
            else:
                if waits is not None:
                    turn.superseded.add(aggregate)
                    del held[aggregate]
                applied.append(item)
                continue
            held[aggregate] = held.get(aggregate, frozenset()) | {item.kind}
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
        invariants.check(service, state, [send.message for send in effects.sends], context)
        await service.save(tx, state, context)
        return effects


def why(error: Exception) -> tuple[str, str]:
    """Reason and detail of a message that is parked because it broke something."""
    if isinstance(error, InvariantBrokenError):
        return "invariant_broken", str(error)
    return "handler_failed", f"{type(error).__name__}: {error}"


def _waits_for(aggregate: str) -> tuple[str, str, str]:
    """Reason, detail and aggregate of a message that is parked because something that it touches is quarantined."""
    return "quarantined", f"waits for the repair of {aggregate}", aggregate


def _flawed(delivery: Delivery) -> Iterable[Letter]:
    for index, flaw in delivery.flaws:
        yield _refused(delivery, index, flaw)


def _refused(delivery: Delivery, index: int, flaw: Flaw) -> Letter:
    origin = Origin(delivery.topic, delivery.partition, delivery.offset, index)
    body = flaw.body if flaw.body is not None else delivery.body
    return Letter("refused", flaw.reason, flaw.detail, None, None, origin, delivery.envelope, body)


def _timers(applied: Iterable[Item]) -> list[Due]:
    return [item.due for item in applied if item.due is not None]
