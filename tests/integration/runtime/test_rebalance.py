"""Whoever owns a partition, and however many believe they do: each effect happens once, in order."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.contracts.commerce import COMMERCE_ORDERS
from shared.runtime import Runtime
from shared.service import Service
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import deliveries, publish
from tests.integration.runtime.gate import Gate
from tests.integration.runtime.observe import becomes, drained, eventually, query, stories, units


@asynccontextmanager
async def second(settings: Settings, service: Service[toy.State] = toy.TOY) -> AsyncIterator[Runtime]:
    """A second instance, which says goodbye when it ends (a static member would be waited for until its session has ended)."""
    async with toy.running(settings.model_copy(update={"instance": "2"}), service) as runtime:
        yield runtime
        assert runtime._consumer
        runtime._consumer.kafka._coordinator._group_instance_id = None


def owned(*runtimes: Runtime) -> list[int]:
    return [runtime._consumer.assigned if runtime._consumer else 0 for runtime in runtimes]


async def test_instances_join_and_leave_while_batches_are_in_flight(settings: Settings) -> None:
    await toy.prepare(settings)
    names = [f"A{n}" for n in range(20)]
    gate = Gate()
    rounds = 0

    async def order_of_each() -> None:
        nonlocal rounds
        rounds += 1
        await publish(settings, *((toy.order(name, 1), f"{name}-{rounds}") for name in names))

    await order_of_each()
    async with toy.running(settings, toy.LISTENER), toy.running(settings, dataclasses.replace(toy.TOY, save=gate.save)) as one:
        await asyncio.wait_for(gate.reached.wait(), 20)
        async with second(settings) as two:
            await order_of_each()
            await eventually(lambda: barred(one))
            assert owned(two) == [0], "a partition changes hands only after the batch in flight"
            gate.open.set()
            await becomes(lambda: owned_by(one, two), [4, 4])
            await order_of_each()
            await becomes(lambda: units(one), dict.fromkeys(names, rounds))
            await order_of_each()
        await order_of_each()
        await becomes(lambda: units(one), dict.fromkeys(names, rounds))
        await becomes(lambda: owned_by(one), [8])
        await eventually(lambda: drained(one))
        told = await stories(settings, toy.TOY, "told")
        for story in told.values():
            assert [entry.partition(": ")[2] for entry in story] == [str(n) for n in range(1, rounds + 1)]
        await becomes(lambda: stories(settings, toy.LISTENER, "heard"), told)


async def barred(runtime: Runtime) -> bool:
    """Whether a rebalance waits for this instance's batch."""
    assert runtime._consumer
    return bool(runtime._consumer._in_flight._waiters)


async def owned_by(*runtimes: Runtime) -> list[int]:
    return owned(*runtimes)


async def test_a_restart_within_the_session_is_no_rebalance(settings: Settings) -> None:
    await toy.prepare(settings)
    elsewhere = settings.model_copy(update={"instance": "2"})
    async with toy.running(settings) as one:
        await becomes(lambda: owned_by(one), [8])
        async with toy.running(elsewhere) as two:
            await becomes(lambda: owned_by(one, two), [4, 4])
            assert one._consumer
            generation = one._consumer.kafka._coordinator.generation
        async with second(settings) as two:
            await becomes(lambda: owned_by(one, two), [4, 4])
            assert one._consumer.kafka._coordinator.generation == generation


async def test_two_owners_of_a_partition_apply_its_records_once(settings: Settings) -> None:
    """The former owner was stopped or cut off in the middle of a batch, and goes on when another one has begun."""
    await toy.prepare(settings)
    await publish(settings, *((toy.order("A", 10**n), f"{n}") for n in range(6)))
    records = await deliveries(settings, COMMERCE_ORDERS)
    gate = Gate()
    async with toy.transactions(settings, dataclasses.replace(toy.TOY, save=gate.save)) as zombie, toy.transactions(settings) as new:
        late = asyncio.create_task(zombie.batch(records[:3], {}))
        await asyncio.wait_for(gate.reached.wait(), 20)
        going_on = asyncio.create_task(new.batch(records, {}))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await eventually(lambda: new.pool.fetchval(waiting))
        gate.open.set()
        assert (await late, await going_on) == (3, 3)
        assert await zombie.batch(records[:5], {}) == 0
        assert await query(settings, toy.TOY, "SELECT name, units FROM account") == [("A", 111_111)]
        assert await query(settings, toy.TOY, "SELECT next FROM runtime.partition") == [(6,)]
