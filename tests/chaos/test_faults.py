"""Every fault of the table, on a running system with orders coming in: it really strikes, it heals, and the system is there again."""

import asyncio
import random
import smtplib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient

from deploy.chaos.disk import problem
from deploy.chaos.fault import MissedError
from deploy.chaos.faults import FAULTS
from deploy.chaos.proxy import HOST, PASS
from deploy.chaos.stage import BROKERS, Stage, staged
from deploy.local import postgres, processes, system
from deploy.local.audit import audit
from deploy.local.home import Home
from shared.settings import SERVICES
from tests.flows.conftest import FAST
from tests.flows.outside import Outside, outside

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PACE = 0.1
RECOVERED_SECONDS = 90.0


@dataclass
class World:
    """The stage, whoever stands outside, and the orders that were taken so far."""

    stage: Stage
    outside: Outside
    orders: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ordering = asyncio.create_task(self._order())

    async def _order(self) -> None:
        while True:
            order = self.outside.order(("S1", 1))
            await self.outside.publish(order)
            self.orders.append(order.order)
            await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One stage for all, with two instances of what can be struck; somebody orders all the while."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"):
            environment.delenv(name, raising=False)
        home = Home(tmp_path_factory.mktemp("stage"))
        room = 200 if problem() is None else None
        async with (
            staged(home, {"purchasing": 1, "notifier": 1}, extra_env=FAST, pace=PACE, disk_megabytes=room) as stage,
            outside(home) as doors,
        ):
            await doors.stock("S1", 50, a=10)
            world = World(stage, doors)
            yield world
            world.ordering.cancel()


# What shows that a fault struck, by its kind: asked over and over while it is at work.


@dataclass
class Watch:
    """What is seen of a stage while a fault is at work; `before` are the process numbers from before."""

    stage: Stage
    before: dict[str, int | None]
    leaders: dict[str, list[int]]

    def pid(self, part: str) -> int | None:
        return processes.pid_of(self.stage.home, part)

    async def a_service_is_gone(self) -> bool:
        return any(self.pid(name) != self.before[name] for name in self.stage.names())

    async def a_service_stands_still(self) -> bool:
        return any(psutil.Process(pid).status() == psutil.STATUS_STOPPED for name in self.stage.names() if (pid := self.pid(name)))

    async def a_loop_stands_still(self) -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
            for name in self.stage.names():
                with suppress(httpx.TransportError):
                    live = (await client.get(f"http://{HOST}:{self.stage.home.port(name)}/health/live")).json()
                    if live["silent_seconds"] > 1:
                        return True
        return False

    async def there_are_three(self) -> bool:
        return any(self.pid(f"{service}-3") for service in SERVICES)

    async def there_are_other_databases(self) -> bool:
        return bool(await self._ask("SELECT count(*) FROM pg_database WHERE datname LIKE 'backorder\\_m%'"))

    async def a_broker_is_gone(self) -> bool:
        return any(self.pid(name) != self.before[name] for name in BROKERS)

    async def two_brokers_are_gone(self) -> bool:
        return sum(self.pid(name) is None for name in BROKERS) == 2

    async def a_service_is_away(self) -> bool:
        return any(all(self.pid(name) is None for name in self.stage.names(service)) for service in SERVICES)

    async def others_lead(self) -> bool:
        found = await leaders(self.stage)
        return any(found[topic] != known for topic, known in self.leaders.items())

    async def postgres_is_gone(self) -> bool:
        return self.pid(postgres.NAME) != self.before[postgres.NAME]

    async def sessions_ended(self) -> bool:
        log = processes.log_file(self.stage.home, postgres.NAME).read_text()
        return "terminating connection due to administrator command" in log

    async def there_is_no_connection(self) -> bool:
        try:
            (await asyncpg.connect(self.stage.settings.database_url, timeout=3)).terminate()
        except asyncpg.TooManyConnectionsError:
            return True
        return False

    async def a_stranger_sits_there(self) -> bool:
        state = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = ''"
        return bool(await self._ask(state))

    async def there_is_no_room(self) -> bool:
        assert self.stage.small_disk
        return bool(psutil.disk_usage(str(self.stage.small_disk)).free == 0)

    async def a_link_is_broken(self) -> bool:
        return any(proxy.mode != PASS for proxy in self.stage.proxies.values())

    async def there_is_no_mail_server(self) -> bool:
        return self.pid(system.SMTP) is None

    async def mail_is_refused(self) -> bool:
        return await asyncio.to_thread(self._refused)

    async def a_clock_is_wrong(self) -> bool:
        times = [(await self.stage.readiness(name)).get("business_time") for name in self.stage.names()]
        now = datetime.now(UTC)
        return any(abs((datetime.fromisoformat(time) - now).total_seconds()) > 500 for time in times if time)

    def _refused(self) -> bool:
        try:
            with smtplib.SMTP(HOST, self.stage.home.port(system.SMTP), timeout=3) as client:
                client.sendmail("a@example.com", ["b@example.com"], "hello")
        except smtplib.SMTPDataError as refused:
            return refused.smtp_code == 451
        except OSError:
            return False
        return False

    async def _ask(self, sql: str) -> object:
        connection = await asyncpg.connect(self.stage.settings.database_url, timeout=3)
        try:
            return await connection.fetchval(sql)
        finally:
            connection.terminate()


Sign = Callable[[Watch], Awaitable[bool]]

SIGNS: dict[str, Sign] = {
    "service_killed": Watch.a_service_is_gone,
    "service_killed_at": Watch.a_service_is_gone,
    "service_restarted": Watch.a_service_is_gone,
    "rolling_restart": Watch.a_service_is_gone,
    "service_paused": Watch.a_service_stands_still,
    "loop_blocked": Watch.a_loop_stands_still,
    "instances_changed": Watch.there_are_three,
    "migration_killed": Watch.there_are_other_databases,
    "broker_killed": Watch.a_broker_is_gone,
    "coordinator_killed": Watch.a_broker_is_gone,
    "controller_killed": Watch.a_broker_is_gone,
    "two_brokers_down": Watch.two_brokers_are_gone,
    "group_deleted": Watch.a_service_is_away,
    "offsets_reset": Watch.a_service_is_away,
    "partitions_reelected": Watch.others_lead,
    "postgres_stopped": Watch.postgres_is_gone,
    "sessions_terminated": Watch.sessions_ended,
    "connections_exhausted": Watch.there_is_no_connection,
    "transaction_left_open": Watch.a_stranger_sits_there,
    "disk_full": Watch.there_is_no_room,
    **{name: Watch.a_link_is_broken for name in FAULTS if name.startswith("link_")},
    "smtp_down": Watch.there_is_no_mail_server,
    "smtp_refusing": Watch.mail_is_refused,
    "smtp_slow": Watch.a_link_is_broken,
    "clock_stepped": Watch.a_clock_is_wrong,
}
AFTERWARDS = {"service_killed", "partitions_reelected", "sessions_terminated"}
"""They can be over before anybody looks; what shows them stays."""


async def leaders(stage: Stage) -> dict[str, list[int]]:
    """Who leads each partition, by topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        topics = await admin.describe_topics()
        return {
            topic["topic"]: [part["leader"] for part in sorted(topic["partitions"], key=lambda part: part["partition"])] for topic in topics
        }
    finally:
        await admin.close()


async def watch(stage: Stage) -> Watch:
    parts: Iterable[str] = (*stage.names(), *BROKERS, postgres.NAME, system.SMTP)
    return Watch(stage, {part: processes.pid_of(stage.home, part) for part in parts}, await leaders(stage))


async def seen(watch: Watch, sign: Sign, work: "asyncio.Task[str]") -> bool:
    """Whether the sign is seen while the fault is at work."""
    while not work.done():
        with suppress(OSError, asyncpg.PostgresError, psutil.NoSuchProcess):
            if await sign(watch):
                return True
        await asyncio.sleep(0.02)
    return False


async def taken(world: World) -> None:
    """Orders are taken in again: one that is placed now comes through."""
    order = world.outside.order(("S1", 1))
    await world.outside.publish(order)
    await world.outside.line(order.order, ordered=1, pending=0)


async def test_every_fault_has_a_sign() -> None:
    assert SIGNS.keys() == FAULTS.keys()


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_fault_strikes_and_heals(world: World, kind: str) -> None:
    if kind == "disk_full" and world.stage.small_disk is None:
        pytest.skip(str(problem()))
    watching = await watch(world.stage)
    work = asyncio.create_task(FAULTS[kind](world.stage, random.Random(kind)))
    struck = await seen(watching, SIGNS[kind], work)
    hit = await work
    assert "not reached" not in hit
    assert struck or (kind in AFTERWARDS and await SIGNS[kind](watching)), hit
    print(f"{kind}: {hit}, recovered after {await world.stage.recovered(RECOVERED_SECONDS):.1f} s")
    await taken(world)


@pytest.mark.parametrize(
    "kind", ["service_killed", "service_paused", "two_brokers_down", "postgres_stopped", "disk_full", "link_half_open", "smtp_refusing"]
)
async def test_a_fault_that_is_cancelled_heals_too(world: World, kind: str) -> None:
    if kind == "disk_full" and world.stage.small_disk is None:
        pytest.skip(str(problem()))
    watching = await watch(world.stage)
    world.stage.pace = 10.0
    try:
        work = asyncio.create_task(FAULTS[kind](world.stage, random.Random(kind)))
        assert await seen(watching, SIGNS[kind], work)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    finally:
        world.stage.pace = PACE
    await world.stage.recovered(RECOVERED_SECONDS)
    assert not await SIGNS[kind](await watch(world.stage)), "nothing of it is left"
    await taken(world)


async def test_a_fault_that_finds_nobody_to_ask_says_that_it_missed(world: World) -> None:
    async with world.stage.held(postgres.NAME):
        await world.stage.kill(postgres.NAME)
        with pytest.raises(MissedError):
            await FAULTS["sessions_terminated"](world.stage, random.Random(1))
        await world.stage.launch(postgres.NAME)
    await world.stage.recovered(RECOVERED_SECONDS)


async def test_nothing_of_all_this_did_any_harm(world: World) -> None:
    world.ordering.cancel()
    outcome = await audit(world.stage.settings, wait=RECOVERED_SECONDS)
    assert outcome.ok, outcome.violations()
    rows = await world.outside.rows("orders", "SELECT order_id FROM orders WHERE status = 'accepted'")
    assert set(world.orders) <= {row["order_id"] for row in rows}
