"""The runtime with one guard taken away, or broken. Guards stand one behind another: where one masks what is taken away, it goes too."""

import re
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import asyncpg

from shared import dead_letters, inbox, outbox, partitions, timers, transaction
from shared.codec import Delivery
from shared.consumer import Consumer
from shared.contracts.inventory import ShortageChanged
from shared.relay import Relay
from shared.service import Connection, Context, Effect, Handler, Timer
from shared.settings import SERVICES
from shared.transaction import Transactions
from tests import relays
from tests.simulation.mutants.surgery import Surgery
from tests.simulation.processes import CURRENT


async def _nothing(*_: object, **__: object) -> None:
    return None


def no_inbox(surgery: Surgery) -> None:
    """Every record is taken for new."""

    async def keep_all(_tx: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return list(deliveries)

    surgery.put(inbox, "keep_new", keep_all)


def gap_before_next(surgery: Surgery) -> None:
    """A batch that begins beyond where the database stands is applied."""
    surgery.put(partitions, "check_not_behind", lambda *_: None)
    surgery.put(Consumer, "_catch_up", _nothing)


def outbox_apart(surgery: Surgery) -> None:
    """The outbox is written in a transaction of its own."""
    write = outbox.write

    async def write_apart(_tx: Connection, rows: Any) -> None:
        process = CURRENT.get()
        assert process is not None
        connection: Any = await asyncpg.connect(surgery.databases.by_service[process.name.partition(".")[0]].dsn)
        await write(connection, rows)
        await connection.close()

    surgery.put(outbox, "write", write_apart)


def deleted_before_acknowledged(surgery: Surgery) -> None:
    """The relay deletes what it is about to send."""

    async def round_(self: Relay, connection: Any, kafka: Any) -> int:
        rows = await connection.fetch("DELETE FROM runtime.outbox RETURNING *")
        places: dict[tuple[str, int], list[Any]] = {}
        for row in sorted(rows, key=lambda row: row["seq"]):
            places.setdefault((row["topic"], row["partition"]), []).append(row)
        for place, batch in places.items():
            await self._send(kafka, place, batch)
        return len(rows)

    surgery.put(Relay, "round", round_)


def past_a_failed_send(surgery: Surgery) -> None:
    """The relay goes on with the next row when the broker has refused one."""
    surgery.put(Relay, "_send", relays.past_a_failed_send)


def acknowledged_first(surgery: Surgery) -> None:
    """Kafka is told before the transaction commits."""
    handle = Consumer._handle

    async def acknowledge_first(self: Consumer, message: Any) -> None:
        await message.ack()
        await handle(self, message)

    surgery.put(Consumer, "_handle", acknowledge_first)
    gap_before_next(surgery)


class Unlocked:
    """A connection whose selects take no locks."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx

    def fetch(self, query: str, *args: Any) -> Awaitable[Any]:
        return self._tx.fetch(re.sub(r"FOR UPDATE( OF \w+)?", "", query), *args)  # type: ignore[no-any-return]

    def execute(self, query: str, *args: Any) -> Awaitable[Any]:
        return self._tx.execute(query, *args)  # type: ignore[no-any-return]


def unlocked(surgery: Surgery) -> None:
    """Services read what they are about to change without locking it."""
    for service in SERVICES:
        surgery.change(service, "load", lambda load: lambda tx, messages: load(Unlocked(tx), messages))


def unsorted_locks(surgery: Surgery) -> None:
    """Workers lock the rows of their partitions one by one, every second one from the last to the first."""
    lock = partitions.lock

    async def one_by_one(tx: Connection, places: Sequence[partitions.Place]) -> dict[partitions.Place, int]:
        process = CURRENT.get()
        assert process is not None
        order = reversed(places) if process.name.endswith("2") else places
        return {place: following for one in order for place, following in (await lock(tx, [one])).items()}

    surgery.put(partitions, "lock", one_by_one)


def timer_left(surgery: Surgery) -> None:
    """A timer that fires stays in its table, and fires again."""

    async def left(_tx: Connection, due: Collection[timers.Due]) -> set[timers.Due]:
        return set(due)

    surgery.put(timers, "take", left)


def fired_by_two_leaders(surgery: Surgery) -> None:
    """A leader fires the timers that it has read, also those that another one has taken meanwhile; and what timers are about is read
    without a lock: else the second one sees that nothing is left to do."""
    take = timers.take

    async def taken_all_the_same(tx: Connection, due: Collection[timers.Due]) -> set[timers.Due]:
        await take(tx, due)
        return set(due)

    def unlocked_for_timers(load: Any) -> Any:
        return lambda tx, messages: load(Unlocked(tx) if any(isinstance(message, Timer) for message in messages) else tx, messages)

    surgery.put(timers, "take", taken_all_the_same)
    for service in SERVICES:
        surgery.change(service, "load", unlocked_for_timers)


def dead_letter_dropped(surgery: Surgery) -> None:
    """What cannot be applied is logged, and that is all."""
    surgery.put(dead_letters, "write", _nothing)


def parked_key_overtaken(surgery: Surgery) -> None:
    """Later messages do not wait behind a parked one of their key."""

    async def none_parked(*_: object) -> dict[str, Any]:
        return {}

    surgery.put(dead_letters, "parked", none_parked)


def lower_version_applied(surgery: Surgery) -> None:
    """Purchasing takes any word of a shortage for the newest."""
    keep_new = inbox.keep_new

    async def keep_ours(tx: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        kept = {id(delivery): delivery for delivery in await keep_new(tx, deliveries)}
        return [kept.get(id(delivery), delivery) for delivery in deliveries if id(delivery) in kept or delivery.envelope.internal]

    def any_version(handler: Handler[Any]) -> Handler[Any]:
        def handle(state: Any, message: ShortageChanged, context: Context) -> Iterable[Effect]:
            return handler(state, message.model_copy(update={"version": state.skus[message.sku].shortage_version + 1}), context)

        return handle

    surgery.put(inbox, "keep_new", keep_ours)
    surgery.handle("purchasing", ShortageChanged, any_version)


def number_before_locks(surgery: Surgery) -> None:
    """The journal's number, the version of every level, is drawn before anything is locked."""
    drawn: ContextVar[int] = ContextVar("drawn")
    begun = Transactions._begun

    @asynccontextmanager
    async def drawn_first(self: Transactions) -> AsyncIterator[Any]:
        drawn.set(await self.pool.fetchval("SELECT nextval('runtime.journal_number')"))
        async with begun(self) as transaction_and_failures:
            yield transaction_and_failures

    surgery.put(Transactions, "_begun", drawn_first)
    surgery.put(transaction, "Context", lambda now, number, *rest: Context(now, drawn.get(number), *rest))
