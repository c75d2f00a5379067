"""A service outlives what befalls it: its loops, its connections, its database's patience, its own full outbox."""

import asyncio
import dataclasses
import socket
from collections.abc import Sequence
from contextlib import suppress

import httpx
import pytest
from aiokafka.errors import KafkaError

from shared import consumer, db
from shared.clock import wall
from shared.door import Door
from shared.relay import Relay
from shared.runtime import FixedError, Runtime
from shared.server import Server
from shared.service import Applicable, Connection, Context, NotReadyError
from shared.settings import ClockSource, Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import publish
from tests.integration.runtime.gate import Gate
from tests.integration.runtime.observe import becomes, drained, eventually, ready, stopped_by, units


@pytest.mark.parametrize("where", ["load", "save"])
async def test_a_cancellation_that_leaks_neither_ends_the_loop_nor_loses_the_batch(settings: Settings, where: str) -> None:
    """Awaiting a task that somebody else cancelled is enough for it: FastStream's loop would end for good, in silence."""
    await toy.prepare(settings)
    leaks = 2

    async def leak() -> None:
        nonlocal leaks
        if leaks:
            leaks -= 1
            stray = asyncio.ensure_future(asyncio.sleep(60))
            stray.cancel()
            await stray

    async def load(tx: Connection, messages: Sequence[Applicable]) -> toy.State:
        state = await toy.load(tx, messages)
        if where == "load":
            await leak()
        return state

    async def save(tx: Connection, state: toy.State, context: Context) -> None:
        await toy.save(tx, state, context)
        if where == "save":
            await leak()

    await publish(settings, *((toy.order(f"A{n}", 1), f"{n}") for n in range(5)))
    async with toy.running(settings, dataclasses.replace(toy.TOY, load=load, save=save)) as runtime:
        await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(5)})
        await publish(settings, (toy.order("B", 1), "after"))
        await becomes(lambda: units(runtime), {**{f"A{n}": 1 for n in range(5)}, "B": 1})
        assert runtime.live()


async def test_one_of_several_brokers_that_answers_is_enough_to_start(settings: Settings) -> None:
    await toy.prepare(settings)
    several = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:1,{settings.kafka_bootstrap_servers}"})
    async with toy.running(several) as runtime:
        await publish(settings, (toy.order("A", 1), "a"))
        await becomes(lambda: units(runtime), {"A": 1})


async def test_a_dead_loop_behind_a_healthy_process_is_noticed_and_begun_anew(settings: Settings) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        assert runtime.live()
        assert runtime._consumer
        for task in runtime._consumer._subscriber.tasks:
            task.cancel()
        await asyncio.gather(*runtime._consumer._subscriber.tasks, return_exceptions=True)
        assert not runtime.live()
        await publish(settings, (toy.order("A", 1), "1"))
        await becomes(lambda: units(runtime), {"A": 1})
        assert runtime.live()


async def test_a_consumer_whose_coordination_has_died_is_made_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a connection that is being reset is enough for it. Its heartbeats go on: nobody else would get its partitions."""
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        assert runtime._consumer
        coordinator = runtime._consumer.kafka._coordinator

        async def joined() -> bool:
            return coordinator._heartbeat_task is not None

        async def reset() -> None:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

        await eventually(joined)
        monkeypatch.setattr(coordinator, "ensure_coordinator_known", reset)
        coordinator.coordinator_dead()
        await asyncio.wait([coordinator._coordination_task], timeout=20)
        await publish(settings, (toy.order("A", 1), "1"))
        await becomes(lambda: units(runtime), {"A": 1})
        await eventually(lambda: ready(runtime))


async def test_after_an_error_that_no_producer_outlives_the_http_edge_has_a_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        door = Door(settings, runtime.pool, wall)
        opening = asyncio.create_task(door.keep_open())

        async def accepted() -> bool:
            with suppress(NotReadyError):
                await door.append(toy.order("A", 1), "/clients/shop/test", "1", "shop:test")
                return True
            return False

        async def ended(*_args: object, **_given: object) -> None:
            raise KafkaError("Unexpected error during batch delivery")

        async def renewed() -> bool:
            return door.producer not in {None, first}

        await eventually(accepted)
        first = door.producer
        monkeypatch.setattr(first, "send_and_wait", ended)
        with pytest.raises(KafkaError):
            await accepted()
        await eventually(renewed)
        assert await accepted()
        await becomes(lambda: units(runtime), {"A": 1})
        opening.cancel()
        await asyncio.wait([opening])


async def test_http_answers_while_a_batch_keeps_the_loop_busy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setattr(runtime, "settings", settings.model_copy(update={"http_port": port}))
        server = Server(runtime)
        answering = asyncio.create_task(asyncio.to_thread(server.run))

        def ask(path: str) -> int:
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=5).status_code
            return 0

        async def answers() -> bool:
            return await asyncio.to_thread(ask, "/health/ready") == 200

        await eventually(answers)
        # In here this loop comes to nothing else, as in a large batch.
        assert [ask(path) for path in ("/health/live", "/health/ready", "/asyncapi")] == [200] * 3
        server.stop()
        await asyncio.wait_for(answering, 10)


async def test_a_loop_that_does_not_go_round_is_not_live(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await toy.prepare(settings)
    gate = Gate()
    await publish(settings, (toy.order("A", 1), "1"))
    async with toy.running(settings, dataclasses.replace(toy.TOY, save=gate.save)) as runtime:
        await asyncio.wait_for(gate.reached.wait(), 20)
        assert runtime.live()
        monkeypatch.setattr("shared.runtime.STUCK_SECONDS", 0.0)
        assert not runtime.live()
        gate.open.set()


async def test_a_database_session_that_is_ended_in_the_middle_is_only_a_delay(settings: Settings) -> None:
    await toy.prepare(settings)
    gate = Gate()
    await publish(settings, *((toy.order(f"A{n}", 1), f"{n}") for n in range(5)))
    async with toy.running(settings, dataclasses.replace(toy.TOY, save=gate.save)) as runtime:
        await asyncio.wait_for(gate.reached.wait(), 20)
        [pid] = [
            row["pid"]
            for row in await runtime.pool.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
            )
        ]
        await runtime.pool.execute("SELECT pg_terminate_backend($1)", pid)
        gate.open.set()
        await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(5)})
        assert gate.passed >= 2
        await eventually(lambda: drained(runtime))


async def test_a_graceful_stop_finishes_the_batch_in_flight(settings: Settings) -> None:
    await toy.prepare(settings)
    gate = Gate()
    await publish(settings, (toy.order("A", 1), "1"))
    async with toy.running(settings, dataclasses.replace(toy.TOY, save=gate.save)) as runtime:
        await asyncio.wait_for(gate.reached.wait(), 20)
        runtime.stopping.set()
        assert runtime._consumer
        await eventually(lambda: _stopping(runtime))
        gate.open.set()
    pool = await db.pool(settings, "toy")
    assert await pool.fetchval("SELECT units FROM account") == 1
    await pool.close()
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        assert runtime._consumer
        committed = [await runtime._consumer.kafka.committed(place) for place in runtime._consumer.kafka.assignment()]
        assert 1 in committed, "the batch that was finished was acknowledged as well"


async def _stopping(runtime: Runtime) -> bool:
    """Whether the subscriber has been told to stop and waits for its batch."""
    return runtime._consumer is not None and not runtime._consumer._subscriber.running


async def test_a_full_outbox_pauses_what_comes_in_until_the_broker_takes_what_goes_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.prepare(settings)
    monkeypatch.setattr(consumer, "OUTBOX_LIMIT", 3)
    sending = asyncio.Event()
    send = Relay._send

    async def held(self: Relay, *arguments: object) -> list[int]:
        await sending.wait()
        return await send(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Relay, "_send", held)
    async with toy.running(settings) as runtime:
        # One batch each until the outbox is full: what is read in one batch is applied in one transaction.
        for number in range(4):
            await publish(settings, (toy.order(f"A{number}", 1), f"{number}"))
            await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(number + 1)})
        for number in range(4, 8):
            await publish(settings, (toy.order(f"A{number}", 1), f"{number}"))
        await eventually(lambda: stopped_by(runtime, "BackpressureError"))
        assert len(await units(runtime)) == 4
        sending.set()
        await becomes(lambda: units(runtime), {f"A{n}": 1 for n in range(8)})
        await eventually(lambda: ready(runtime))


async def test_a_process_with_another_clock_than_its_system_does_not_start(settings: Settings) -> None:
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        other = Runtime(toy.TOY, settings.model_copy(update={"clock": ClockSource.TOPIC, "instance": "2"}), runtime.pool)
        with pytest.RaisesGroup(FixedError):
            await asyncio.wait_for(other.run(), 20)


async def test_a_process_that_counts_other_partitions_than_its_system_does_not_start(settings: Settings) -> None:
    """Even where the topics agree with it: the database remembers by how many its keys were spread."""
    await toy.prepare(settings)
    async with toy.running(settings) as runtime:
        await eventually(lambda: ready(runtime))
        await runtime.pool.execute("UPDATE runtime.fixed SET value = '12' WHERE name = 'partitions'")
        other = Runtime(toy.TOY, settings.model_copy(update={"instance": "2"}), runtime.pool)
        with pytest.RaisesGroup(FixedError):
            await asyncio.wait_for(other.run(), 20)


async def test_a_service_that_starts_before_what_it_needs_waits_for_it(settings: Settings) -> None:
    async with toy.running(settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})) as early:
        await eventually(lambda: _waits_for(early, "database"))
        async with toy.running(settings) as runtime:
            await toy.prepare(settings)
            await eventually(lambda: ready(runtime))
            assert runtime.live()
        await eventually(lambda: _waits_for(early, "KafkaConnectionError"))
        assert early.live(), "a restart would not mend it"


async def _waits_for(runtime: Runtime, what: str) -> bool:
    answer, details = await runtime.readiness()
    return not answer and what in details["waits_for"]
