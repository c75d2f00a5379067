"""A service whose database is restored from a backup knows again what it has told before it goes on, and tells nothing twice."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

import asyncpg
import pytest

from deploy.local.from_log import check
from shared import db
from shared.clock import wall
from shared.codec import cloud_event_headers, encode
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested, OrderPlaced
from shared.contracts.orders import ORDERS_DEMAND, DemandSet
from shared.read_back import read_back
from shared.runtime import Runtime
from shared.service import Context, Effect, Refuse, Route, Schedule, Service
from shared.settings import Settings
from tests.backup import copy_database
from tests.integration.runtime import toy
from tests.integration.runtime.broker import Raw, append, deliveries, messages, publish
from tests.integration.runtime.observe import becomes, drained, eventually, letters, query, ready
from tests.integration.runtime.relaying import relaying


def placed(state: toy.State, message: OrderPlaced, context: Context) -> Iterable[Effect]:
    """Has the order printed, when its timer is due."""
    yield Schedule(toy.Reminder(key=message.order), context.now)


def due(state: toy.State, message: toy.Reminder, context: Context) -> Iterable[Effect]:
    """Prints it, unless it has been printed: that is what must not happen twice."""
    if not state[message.key].told:
        yield toy._tell(state, message.key, context)


def printed(state: toy.State, message: DemandSet, context: Context) -> Iterable[Effect]:
    """It has been printed by a database that this one does not know of."""
    state[message.key].told.append(f"{message.version}: {message.wanted}")
    return ()


def not_read_back(state: toy.State, message: DemandSet, context: Context) -> Iterable[Effect]:
    """What was printed is no news but to a database that was restored."""
    raise AssertionError(message)


def stop(state: toy.State, message: OrderCancelRequested, context: Context) -> Iterable[Effect]:
    """Stops what was printed; anything else is refused."""
    return () if state[message.order].told else (Refuse("unknown", "nothing of this order was printed"),)


FORGETFUL = dataclasses.replace(
    toy.TOY,
    topics=(COMMERCE_ORDERS,),
    routes={
        OrderPlaced: Route(placed, toy._account),
        OrderCancelRequested: Route(stop, toy._account),
        toy.Reminder: Route(due, toy._account),
        DemandSet: Route(not_read_back, toy._account),
    },
)
RESTORED = dataclasses.replace(
    FORGETFUL, topics=(ORDERS_DEMAND, COMMERCE_ORDERS), routes={**FORGETFUL.routes, DemandSet: Route(printed, toy._account)}
)
PRINTER = dataclasses.replace(FORGETFUL, read_back=RESTORED)


async def prints(settings: Settings) -> Counter[str]:
    """How often each order was printed, repeats of one record counted once."""
    found = {
        (each.envelope.id, index): message.key for each in await deliveries(settings, ORDERS_DEMAND) for index, message in each.messages
    }
    return Counter(found.values())


async def place(settings: Settings, *names: str) -> None:
    await publish(settings, *((toy.order(name, 1), name) for name in names))


async def back_up(settings: Settings) -> None:
    await copy_database(settings.database_url, settings.database("toy"), settings.database("backup"))


async def restore(settings: Settings) -> None:
    await copy_database(settings.database_url, settings.database("backup"), settings.database("toy"))


async def lives(settings: Settings, service: Service[toy.State], *names: str) -> None:
    """One life, in which these orders come and everything so far is printed."""
    await place(settings, *names)
    async with toy.running(settings, service) as runtime:
        await eventually(lambda: ready(runtime))
        await eventually(lambda: idle(runtime))


async def idle(runtime: Runtime) -> bool:
    """Whether everything that came was applied, everything due was done, and everything told is in the log."""
    known = await runtime.pool.fetchval("SELECT coalesce(sum(next), 0) FROM runtime.partition WHERE topic = $1", COMMERCE_ORDERS.name)
    busy = await runtime.pool.fetchval("SELECT (SELECT count(*) FROM runtime.timer) + (SELECT count(*) FROM runtime.outbox)")
    return bool(known == len(await deliveries(runtime.settings, COMMERCE_ORDERS)) and not busy)


@pytest.mark.parametrize("service", [PRINTER, FORGETFUL], ids=["reads back", "does not"])
async def test_what_was_told_after_the_backup_is_not_told_again(settings: Settings, service: Service[toy.State]) -> None:
    await toy.prepare(settings)
    await lives(settings, service, "A", "B")
    await back_up(settings)
    await lives(settings, service, "C", "D")
    await restore(settings)
    await lives(settings, service, "E")
    again = 1 if service is PRINTER else 2
    assert await prints(settings) == {"A": 1, "B": 1, "C": again, "D": again, "E": 1}
    replayed = await check(settings, service, toy.STATE)
    assert replayed.checked
    assert replayed.violations == []


async def test_a_timer_that_is_due_in_the_backup_waits_for_what_was_told(settings: Settings) -> None:
    await toy.prepare(settings)
    await place(settings, "A", "B")
    async with toy.transactions(settings, PRINTER) as transactions:
        await transactions.batch(await deliveries(settings, COMMERCE_ORDERS), {})
    await back_up(settings)
    await lives(settings, PRINTER)
    assert await prints(settings) == {"A": 1, "B": 1}
    await restore(settings)
    assert await query(settings, PRINTER, "SELECT count(*) FROM runtime.timer") == [(2,)]
    await lives(settings, PRINTER)
    assert await prints(settings) == {"A": 1, "B": 1}


async def test_what_came_after_the_backup_finds_what_was_told_before_it(settings: Settings) -> None:
    """A cancellation of what was printed is refused where the print is not known."""
    await toy.prepare(settings)
    await back_up(settings)
    await lives(settings, PRINTER, "A")
    await publish(settings, (toy.cancel("A", "stop"), "stop"))
    await lives(settings, PRINTER)
    await restore(settings)
    async with toy.running(settings, PRINTER) as runtime:
        await eventually(lambda: ready(runtime))
        await eventually(lambda: idle(runtime))
        assert await letters(runtime, "refused") == []
    assert await prints(settings) == {"A": 1}


async def test_the_database_knows_how_far_its_own_topic_is_published(settings: Settings) -> None:
    await toy.prepare(settings)
    await lives(settings, PRINTER, *(f"A{n}" for n in range(20)))
    assert sum((await prints(settings)).values()) == 20
    stands = dict(await query(settings, PRINTER, "SELECT partition, next FROM runtime.partition WHERE topic = $1", ORDERS_DEMAND.name))
    records = await deliveries(settings, ORDERS_DEMAND)
    assert stands == Counter(each.partition for each in records)
    assert not await reads_back(settings)


async def reads_back(settings: Settings) -> bool:
    pool = await db.pool(settings, "toy")
    try:
        return await read_back(PRINTER, settings, pool, wall)
    finally:
        await pool.close()


async def test_a_relay_that_was_killed_before_it_could_note_what_it_published_is_no_restore(settings: Settings) -> None:
    await toy.prepare(settings)
    await place(settings, "A", "B")
    async with toy.transactions(settings, PRINTER) as transactions:
        await transactions.batch(await deliveries(settings, COMMERCE_ORDERS), {})
        await transactions.fire()
    async with relaying(settings) as (relay, connection, kafka):
        rows = await connection.fetch("SELECT * FROM runtime.outbox ORDER BY seq")
        for row in rows:
            await relay._send(kafka, (row["topic"], row["partition"]), [row])
    assert len(await deliveries(settings, ORDERS_DEMAND)) == len(rows) == 2
    assert not await reads_back(settings)
    await lives(settings, PRINTER)
    assert await prints(settings) == {"A": 1, "B": 1}


async def test_what_somebody_else_wrote_there_proves_nothing_and_is_not_believed(settings: Settings) -> None:
    await toy.prepare(settings)
    await lives(settings, PRINTER, "A")
    [told] = await messages(settings, ORDERS_DEMAND)
    forged = told.model_copy(update={"sku": "B", "order": "B"})
    headers = cloud_event_headers(forged.TYPE, "/clients/mallory", "1", toy.DAY)
    await append(settings, Raw("B", encode(forged), headers, ORDERS_DEMAND.name))
    assert not await reads_back(settings)
    await back_up(settings)
    await lives(settings, PRINTER, "C")
    await restore(settings)
    await lives(settings, PRINTER, "B")
    assert await query(settings, PRINTER, "SELECT name FROM account WHERE told <> '[]' ORDER BY name") == [("A",), ("B",), ("C",)]
    assert (await prints(settings))["C"] == 1
    assert len([message for message in await messages(settings, ORDERS_DEMAND) if message.key == "B"]) == 2, "the forged one, and ours"


async def test_instances_that_start_side_by_side_read_back_together(settings: Settings) -> None:
    await toy.prepare(settings)
    await lives(settings, PRINTER, "A")
    await back_up(settings)
    names = [f"B{n}" for n in range(30)]
    await lives(settings, PRINTER, *names)
    await restore(settings)
    other = settings.model_copy(update={"instance": "2"})
    async with toy.running(settings, PRINTER) as one, toy.running(other, PRINTER) as two:
        await eventually(lambda: ready(one))
        await eventually(lambda: ready(two))
        await place(settings, "C")
        await eventually(lambda: idle(one))
    assert await prints(settings) == dict.fromkeys(["A", "C", *names], 1)


async def test_a_database_that_is_restored_under_a_running_service_is_recognised(settings: Settings) -> None:
    await toy.prepare(settings)
    await lives(settings, PRINTER, "A")
    await back_up(settings)
    async with toy.running(settings, PRINTER) as runtime:
        await place(settings, "B", "C")
        await becomes(lambda: prints(settings), {"A": 1, "B": 1, "C": 1})
        await eventually(lambda: idle(runtime))
        [(number,)] = await query(settings, PRINTER, "SELECT max(number) FROM runtime.journal")
        # Whoever comes back meets the server refusing, as while a backup is copied into its place.
        await refuse_sessions(settings, "toy")
        await eventually(lambda: gone(runtime))
        await restore(settings)
        await place(settings, "D")
        await becomes(lambda: prints(settings), {"A": 1, "B": 1, "C": 1, "D": 1})
        await eventually(lambda: ready(runtime))
        await eventually(lambda: drained(runtime))
        assert await runtime.pool.fetchval("SELECT min(number) FROM runtime.journal WHERE number > $1", number), "numbers rise across it"
    assert await prints(settings) == {"A": 1, "B": 1, "C": 1, "D": 1}


async def refuse_sessions(settings: Settings, service: str) -> None:
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f'ALTER DATABASE "{settings.database(service)}" ALLOW_CONNECTIONS false')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", settings.database(service))
    finally:
        await connection.close()


async def gone(runtime: Runtime) -> bool:
    """Whether the service has noticed that its session is over."""
    return not runtime._recognised.is_set()
