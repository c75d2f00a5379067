"""Each guard is needed: taken away on purpose, the same fault on the same code breaks what all the other tests rely on.

The faults, with all guards in place, do no harm; that is the first case of each test.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from shared import inbox, journal, outbox, partitions, transaction
from shared.codec import Delivery, Record
from shared.consumer import Consumer
from shared.contracts.orders import ORDERS_DEMAND
from shared.relay import Relay
from shared.service import Connection
from shared.settings import Settings
from tests import relays
from tests.integration.runtime import toy
from tests.integration.runtime.broker import deliveries, publish
from tests.integration.runtime.observe import eventually, query, stories
from tests.integration.runtime.relaying import apply_all, relaying

with_and_without = pytest.mark.parametrize("removed", [False, True], ids=["in place", "taken away"])


def breaks(removed: bool) -> AbstractContextManager[object]:
    """What a check must do: hold with the guard, fail without."""
    return pytest.raises(AssertionError) if removed else nullcontext()


async def relay_all(settings: Settings) -> None:
    async with relaying(settings) as (relay, connection, kafka):
        while await connection.fetchval("SELECT count(*) FROM runtime.outbox"):
            relay._retry_at.clear()
            await relay.round(connection, kafka)


async def check(settings: Settings, units: dict[str, int]) -> None:
    """Every order was counted once, and every change that was told was heard once, in order."""
    await relay_all(settings)
    async with toy.transactions(settings, toy.LISTENER) as listener:
        for delivery in await deliveries(settings, ORDERS_DEMAND):
            await listener.batch([delivery], {})
    assert dict(await query(settings, toy.TOY, "SELECT name, units FROM account WHERE units <> 0")) == units
    assert await stories(settings, toy.LISTENER, "heard") == await stories(settings, toy.TOY, "told")


@with_and_without
async def test_inbox(settings: Settings, monkeypatch: pytest.MonkeyPatch, *, removed: bool) -> None:
    """A sender that sends twice, and a group whose offsets are reset."""
    if removed:

        async def keep_all(_tx: Connection, records: Sequence[Delivery]) -> list[Delivery]:
            return list(records)

        monkeypatch.setattr(inbox, "keep_new", keep_all)
    await toy.prepare(settings)
    await publish(settings, *((toy.order("A", 1), f"{n}") for n in (0, 1, 1, 2)))
    await apply_all(settings)
    await apply_all(settings)
    with breaks(removed):
        await check(settings, {"A": 3})


@with_and_without
async def test_outbox_in_the_transaction(settings: Settings, monkeypatch: pytest.MonkeyPatch, *, removed: bool) -> None:
    """A process that dies after it has written what it tells, before it has committed what it did."""
    if removed:

        async def write_apart(_tx: Connection, rows: Sequence[Record]) -> None:
            connection: Any = await asyncpg.connect(settings.dsn("toy"))
            await write(connection, rows)
            await connection.close()

        write = outbox.write
        monkeypatch.setattr(outbox, "write", write_apart)
    write_row, alive = journal.write, False

    async def dies_once(*arguments: Any, **more: Any) -> None:
        nonlocal alive
        if not alive:
            alive = True
            raise ConnectionError("killed")
        await write_row(*arguments, **more)

    monkeypatch.setattr(journal, "write", dies_once)
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 1), "0"), (toy.order("A", 1), "1"))
    with pytest.raises(ConnectionError):
        await apply_all(settings)
    await apply_all(settings)
    with breaks(removed):
        await check(settings, {"A": 2})


@with_and_without
async def test_order_of_the_relay(settings: Settings, monkeypatch: pytest.MonkeyPatch, *, removed: bool) -> None:
    """A broker that refuses one record and takes the next."""
    send, refusals = AIOKafkaProducer.send_batch, 1

    async def refuses_once(self: AIOKafkaProducer, *arguments: Any, **more: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise TopicAuthorizationFailedError("not now")
        return await send(self, *arguments, **more)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuses_once)
    if removed:
        monkeypatch.setattr(Relay, "_send", relays.past_a_failed_send)
    await toy.prepare(settings)
    await publish(settings, *((toy.order("A", 1), f"{n}") for n in range(3)))
    await apply_all(settings)
    with breaks(removed):
        await check(settings, {"A": 3})


@pytest.mark.parametrize("rows", [True, False], ids=["partition rows in place", "no partition rows"])
@pytest.mark.parametrize("early", [False, True], ids=["acknowledged after commit", "acknowledged before"])
async def test_acknowledgement_after_commit(settings: Settings, monkeypatch: pytest.MonkeyPatch, *, early: bool, rows: bool) -> None:
    """A process that dies in its transaction. A bookmark that ran ahead is noticed by the partition rows: one guard behind another."""
    handle = Consumer._handle

    async def acknowledge_first(self: Consumer, message: Any) -> None:
        await message.ack()
        await handle(self, message)

    async def nothing(*_: object) -> None:
        return

    if early:
        monkeypatch.setattr(Consumer, "_handle", acknowledge_first)
    if not rows:
        monkeypatch.setattr(Consumer, "_catch_up", nothing)
        monkeypatch.setattr(partitions, "check_not_behind", lambda *_: None)
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 1), "0"))
    with monkeypatch.context() as dying:
        died = []

        async def dies(self: transaction.Transactions, *_: object) -> int:
            died.append(self)
            raise ConnectionError("killed")

        dying.setattr(transaction.Transactions, "batch", dies)
        async with toy.running(settings) as runtime:
            await eventually(lambda: _any(died))
            runtime.stopping.set()
    await publish(settings, (toy.order("A", 10), "1"))
    async with toy.running(settings):
        await eventually(lambda: query(settings, toy.TOY, "SELECT 1 FROM account WHERE units >= 10"))
    with breaks(early and not rows):
        await check(settings, {"A": 11})


async def _any(found: list[Any]) -> bool:
    return bool(found)
