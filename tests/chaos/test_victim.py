"""A service dies at every named point, really there, and comes back as if nothing had been; orders are obeyed while it runs."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.chaos import victim
from deploy.local import infrastructure
from shared import migrate, topics
from shared.contracts.orders import ORDERS_EVENTS, OrderAccepted
from shared.settings import Settings
from tests.contract.examples import ORDER
from tests.integration.runtime.broker import deliveries, publish
from tests.integration.runtime.observe import becomes, eventually

SERVICE = "orders"


@pytest.fixture
async def system(settings: Settings) -> Settings:
    """Topics, the database of orders, and one order in the log."""
    await topics.create(settings)
    await migrate.migrate(settings, SERVICE)
    await publish(settings, (ORDER, "A-1"))
    return settings


@asynccontextmanager
async def running(settings: Settings, *arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A module run by the victim; killed at the end if it still lives."""
    told = {
        infrastructure.KAFKA: settings.kafka_bootstrap_servers,
        infrastructure.DATABASE: settings.database_url,
        "BACKORDER_NAMESPACE": settings.namespace,
        "BACKORDER_PARTITIONS": str(settings.partitions),
        **env,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", victim.MODULE, *arguments, env={**os.environ, **told}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ask(settings: Settings, sql: str) -> Any:
    connection = await asyncpg.connect(settings.dsn(SERVICE))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def bookmarks(settings: Settings) -> int:
    """How many records Kafka believes to be done."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.topic(SERVICE))
        return sum(max(found.offset, 0) for place, found in offsets.items() if place.topic == settings.topic(ORDER.TOPIC.name))
    finally:
        await admin.close()


async def accepted(settings: Settings) -> list[str]:
    """The ids under which the order's acceptance was published, repeats included."""
    found = await deliveries(settings, ORDERS_EVENTS)
    return [delivery.envelope.id for delivery in found for _, message in delivery.messages if isinstance(message, OrderAccepted)]


@dataclass(frozen=True)
class Trace:
    """What a death leaves: whether the order was applied, Kafka's bookmark set, its acceptance published and still in the outbox."""

    applied: bool
    bookmark: int
    published: int
    waits: bool


TRACES = {
    victim.BEFORE_COMMIT: Trace(applied=False, bookmark=0, published=0, waits=False),
    victim.COMMIT_SENT: Trace(applied=True, bookmark=0, published=0, waits=True),
    victim.AFTER_COMMIT: Trace(applied=True, bookmark=0, published=0, waits=True),
}


async def trace(settings: Settings) -> Trace:
    return Trace(
        applied=await ask(settings, "SELECT EXISTS (SELECT FROM orders)"),
        bookmark=await bookmarks(settings),
        published=len(await accepted(settings)),
        waits=await ask(settings, "SELECT EXISTS (SELECT FROM runtime.outbox)"),
    )


async def comes_back(settings: Settings) -> None:
    """Started again, it ends what it was at, and once."""
    async with running(settings, "services.orders.app"):

        async def done() -> bool:
            return await ask(settings, "SELECT EXISTS (SELECT FROM orders) AND NOT EXISTS (SELECT FROM runtime.outbox)") and bool(
                await bookmarks(settings)
            )

        await eventually(done)
    assert await ask(settings, "SELECT count(*) FROM orders WHERE status = 'accepted'") == 1
    assert await ask(settings, "SELECT count(*) FROM timeline WHERE type LIKE '%OrderAccepted%'") == 1
    assert len(set(await accepted(settings))) == 1


@pytest.mark.parametrize("point", TRACES)
async def test_it_dies_around_the_commit_and_comes_back(system: Settings, point: str) -> None:
    async with running(system, "services.orders.app", **{victim.DIE_AT: point}) as process:
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    await becomes(lambda: trace(system), TRACES[point])
    await comes_back(system)


async def test_it_dies_between_publish_and_delete_and_comes_back(system: Settings) -> None:
    async with running(system, "services.orders.app", **{victim.DIE_AT: victim.PUBLISHED}) as process:
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    left = await trace(system)
    assert (left.applied, left.published, left.waits) == (True, 1, True)
    await comes_back(system)
    assert len(await accepted(system)) == 2, "published again, under the same id"


@pytest.mark.parametrize(
    ("point", "left"),
    [(f"{victim.BEFORE_COMMIT}:1", 0), (f"{victim.BEFORE_COMMIT}:2", 1), (f"{victim.COMMIT_SENT}:1", 1), (f"{victim.AFTER_COMMIT}:1", 1)],
)
async def test_a_migration_that_dies_half_way_is_ended_by_the_next(settings: Settings, tmp_path: Path, point: str, left: int) -> None:
    command = ("deploy.local.cli", "migrate", SERVICE, "--home", str(tmp_path / "none"))
    async with running(settings, *command, **{victim.DIE_AT: point}) as process:
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    await becomes(lambda: ask(settings, "SELECT count(*) FROM public.migration"), left)
    files = migrate.files(migrate.folder(SERVICE))
    assert len(await migrate.migrate(settings, SERVICE)) == len(files) - left
    assert await migrate.migrate(settings, SERVICE) == []


async def test_it_obeys_while_it_runs(system: Settings, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()
    own = {"BACKORDER_HTTP_PORT": str(port), victim.ORDERS: str(tmp_path)}
    async with running(system, "services.orders.app", **own) as process, httpx.AsyncClient(trust_env=False, timeout=30) as http:

        def tell(**order: Any) -> None:
            (tmp_path / f"{process.pid}.json").write_text(victim.Order(**order).model_dump_json())
            process.send_signal(signal.SIGUSR1)

        async def readiness() -> dict[str, Any]:
            try:
                return dict((await http.get(f"http://127.0.0.1:{port}/health/ready")).json())
            except httpx.TransportError:
                return {}

        async def ready() -> bool:
            return bool((await readiness()).get("ready"))

        async def ahead() -> float:
            return (datetime.fromisoformat((await readiness())["business_time"]) - datetime.now(UTC)).total_seconds()

        async def clock_goes(seconds: float) -> bool:
            return abs(await ahead() - seconds) < 10

        async def silent(seconds: float) -> bool:
            return bool((await http.get(f"http://127.0.0.1:{port}/health/live")).json()["silent_seconds"] > seconds)

        await eventually(ready)
        for seconds in (0.0, 600.0, -600.0):
            tell(clock_ahead_seconds=seconds)
            await eventually(partial(clock_goes, seconds))

        tell(block_seconds=3.0)
        await eventually(partial(silent, 2.0))

        tell(die_at=f"{victim.BEFORE_COMMIT}:1")
        tell(die_at="")
        await publish(system, (ORDER.model_copy(update={"order": "A-2"}), "A-2"))
        await eventually(lambda: ask(system, "SELECT count(*) = 2 FROM orders"))
        tell(die_at=f"{victim.BEFORE_COMMIT}:1")
        await publish(system, (ORDER.model_copy(update={"order": "A-3"}), "A-3"))
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
