"""Time is a message too: timers fire once, whoever leads, and business time is what the run's driver says it is."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.clock import wall
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.contracts.system import SYSTEM_CLOCK, ClockSet
from shared.relay import producer
from shared.runtime import Runtime
from shared.service import Applicable, Connection, NotReadyError
from shared.settings import ClockSource, Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import deliveries, publish
from tests.integration.runtime.gate import Gate
from tests.integration.runtime.observe import becomes, eventually, query, ready, units

REMINDED = "SELECT count(*) FROM account WHERE reminded"
LETTERS = "SELECT reason, detail FROM runtime.dead_letter"
TIMERS = "SELECT count(*) FROM runtime.timer"


async def set_timers(settings: Settings, count: int) -> None:
    """Timers of so many accounts, all due."""
    await toy.prepare(settings)
    await publish(settings, *((toy.order(f"A{n}", 1), f"{n}") for n in range(count)))
    async with toy.transactions(settings) as transactions:
        await transactions.batch(await deliveries(settings, COMMERCE_ORDERS), {})


async def test_timers_fire_once_while_two_leaders_race(settings: Settings) -> None:
    await set_timers(settings, 30)
    async with toy.transactions(settings) as one, toy.transactions(settings) as other:
        fired = await asyncio.gather(*(leader.fire(limit=10) for leader in (one, other, one, other)), one.fire(), other.fire())
        assert sum(fired) > 30, "they have raced for the same timers"
        while await one.fire():
            pass
    assert await query(settings, toy.TOY, REMINDED) == [(30,)]
    assert await query(settings, toy.TOY, LETTERS) == [], "the toy breaks when it is reminded twice"
    assert await query(settings, toy.TOY, TIMERS) == [(0,)]


async def test_a_timer_that_is_moved_while_it_is_about_to_fire_does_not_fire(settings: Settings) -> None:
    await set_timers(settings, 2)
    gate = Gate()

    async def load(tx: Connection, messages: Sequence[Applicable]) -> toy.State:
        await gate()
        return await toy.load(tx, messages)

    async with toy.transactions(settings, dataclasses.replace(toy.TOY, load=load)) as leader:
        firing = asyncio.create_task(leader.fire())
        await asyncio.wait_for(gate.reached.wait(), 20)
        await leader.pool.execute("UPDATE runtime.timer SET due = due + interval '1 day' WHERE key = 'A0'")
        gate.open.set()
        await firing
    assert await query(settings, toy.TOY, "SELECT name FROM account WHERE reminded") == [("A1",)]
    assert await query(settings, toy.TOY, "SELECT key FROM runtime.timer") == [("A0",)]


@asynccontextmanager
async def driver(settings: Settings) -> AsyncIterator["Driver"]:
    """The driver of a local run."""
    kafka = producer(settings)
    await kafka.start()
    try:
        yield Driver(settings, kafka)
    finally:
        await kafka.stop()


@dataclasses.dataclass
class Driver:
    settings: Settings
    kafka: object

    async def say(self, value: bytes | None) -> None:
        await self.kafka.send_and_wait(self.settings.topic(SYSTEM_CLOCK.name), value, key=b"clock")  # type: ignore[attr-defined]

    async def set(self, business: datetime, rate: float = 0.0) -> None:
        await self.say(ClockSet(business=business, wall=wall(), rate=rate).model_dump_json().encode())


async def test_in_a_driven_run_nothing_is_applied_before_its_time_is_known_nor_due_before_it_comes(settings: Settings) -> None:
    settings = settings.model_copy(update={"clock": ClockSource.TOPIC})
    await toy.prepare(settings)
    tomorrow = toy.DAY + timedelta(days=1)
    await publish(settings, (toy.order("A", 1), "1"), (toy.order("B", 1, placed_at=tomorrow), "2"))
    async with driver(settings) as clock, toy.running(settings) as runtime:
        await eventually(lambda: waits(runtime))
        assert await units(runtime) == {}
        await clock.set(toy.DAY)
        await becomes(lambda: units(runtime), {"A": 1, "B": 1})
        await becomes(lambda: query(settings, toy.TOY, "SELECT name FROM account WHERE reminded"), [("A",)])
        assert await query(settings, toy.TOY, "SELECT DISTINCT business FROM runtime.journal") == [(toy.DAY,)], "the clock is held"
        assert runtime.now() == toy.DAY

        await clock.set(tomorrow - timedelta(seconds=1))
        await becomes(lambda: now(runtime), tomorrow - timedelta(seconds=1))
        assert await query(settings, toy.TOY, REMINDED) == [(1,)]
        await clock.set(tomorrow)
        await becomes(lambda: query(settings, toy.TOY, REMINDED), [(2,)])
        assert await query(settings, toy.TOY, "SELECT max(business) FROM runtime.journal") == [(tomorrow,)]


async def test_business_time_runs_at_its_rate_and_nonsense_does_not_stop_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"clock": ClockSource.TOPIC})
    await toy.prepare(settings)
    tomorrow = toy.DAY + timedelta(days=1)
    async with driver(settings) as clock:
        await clock.set(toy.DAY)
        async with toy.running(settings) as runtime:
            await eventually(lambda: ready(runtime))
            await clock.say(b"half past nine")
            await clock.say(None)
            await clock.set(toy.DAY, rate=86_400.0 * 20)
            await publish(settings, (toy.order("B", 1, placed_at=tomorrow), "1"))
            await becomes(lambda: query(settings, toy.TOY, REMINDED), [(1,)])
            assert runtime.now() > tomorrow


async def test_what_was_said_last_may_be_no_setting(settings: Settings) -> None:
    """A service that starts then would else wait for the next one."""
    settings = settings.model_copy(update={"clock": ClockSource.TOPIC})
    await toy.prepare(settings)
    async with driver(settings) as clock:
        await clock.set(toy.DAY - timedelta(days=1))
        await clock.set(toy.DAY)
        await clock.say(b"half past nine")
        async with toy.running(settings) as runtime:
            await eventually(lambda: ready(runtime))
            assert runtime.now() == toy.DAY


async def test_a_clock_whose_consumer_breaks_is_read_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would stand for ever, and nothing would be due any more."""
    settings = settings.model_copy(update={"clock": ClockSource.TOPIC})
    await toy.prepare(settings)
    breaks = asyncio.Event()
    getone = AIOKafkaConsumer.getone

    async def broken_once(self: AIOKafkaConsumer, *partitions: TopicPartition) -> Any:
        record = await getone(self, *partitions)
        if breaks.is_set():
            breaks.clear()
            raise KafkaError("Unexpected error during data retrieval")
        return record

    monkeypatch.setattr(AIOKafkaConsumer, "getone", broken_once)
    async with driver(settings) as clock:
        await clock.set(toy.DAY)
        async with toy.running(settings) as runtime:
            await becomes(lambda: now(runtime), toy.DAY)
            breaks.set()
            await clock.set(toy.DAY + timedelta(days=1))
            await becomes(lambda: now(runtime), toy.DAY + timedelta(days=1))


async def waits(runtime: Runtime) -> bool:
    """Whether the service has begun and waits for the clock."""
    return (
        runtime._consumer is None
        and not (await runtime.readiness())[0]
        and await runtime.pool.fetchval("SELECT count(*) FROM runtime.fixed") == 2
    )


async def now(runtime: Runtime) -> datetime | None:
    with suppress(NotReadyError):
        return runtime.now()
    return None
