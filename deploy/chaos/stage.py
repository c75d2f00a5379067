"""A whole system that can be broken: three brokers, PostgreSQL, a proxy before each, every service with its instances, a mailbox."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx

from deploy.chaos import disk, victim
from deploy.chaos.healing import surely
from deploy.chaos.proxy import HOST, Proxy
from deploy.local import driver, infrastructure, kafka, postgres, processes, system
from deploy.local.errors import UserError
from deploy.local.home import Home, write_private
from shared.settings import SERVICES, ClockSource, Settings

P = ParamSpec("P")
T = TypeVar("T")

BROKERS = tuple(f"{kafka.NAME}-{number}" for number in range(1, kafka.CLUSTER + 1))
_GRACE_SECONDS = 30.0


@dataclass
class Stage:
    """A running system, and what breaks and mends its parts.

    Parts have names: instances (`orders-1`), brokers (`kafka-2`), `postgres`, `smtp`. Links have the names of their proxies: one
    per broker (`kafka-2`), one per service to PostgreSQL (`postgres-orders`), one to the mailbox (`smtp`). `settings` are for
    clients of the run's own: they go past the proxies.
    """

    home: Home
    settings: Settings
    proxies: Mapping[str, Proxy]
    instances: Mapping[str, int]
    pace: float = 1.0
    """Durations of faults are multiplied by this."""
    small_disk: Path | None = None
    """Where the services' tables are, if the stage was set with one."""
    _turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def names(self, service: str | None = None) -> list[str]:
        """The instances of a service, or all."""
        return [f"{name}-{number}" for name in ([service] if service else SERVICES) for number in range(1, self.instances[name] + 1)]

    @asynccontextmanager
    async def held(self, *parts: str) -> AsyncIterator[None]:
        """Has these parts or links to itself: faults that want the same take turns."""
        async with AsyncExitStack() as stack:
            for part in sorted(parts):
                await stack.enter_async_context(self._turns[part])
            yield

    async def lasts(self, chance: random.Random, least: float, most: float) -> None:
        """The time that a fault lasts, in seconds at pace 1."""
        await asyncio.sleep(chance.uniform(least, most) * self.pace)

    async def kill(self, part: str) -> None:
        """Ends a part as a power cut would."""
        await _do(processes.kill, self.home, part)

    async def stop(self, part: str, first: signal.Signals = signal.SIGTERM) -> bool:
        """Asks a part to end, and ends it when it does not; whether it ended by itself."""
        return await _do(processes.stop, self.home, part, timeout=_GRACE_SECONDS, first=first)

    async def launch(self, part: str, *options: str) -> None:
        """Starts a part unless it runs, the mailbox with options. Brokers and services are not awaited: what they need may be away."""
        if part in BROKERS:
            await _do(kafka.launch, self.home, part)
        elif part == postgres.NAME:
            await _do(postgres.start, self.home)
        elif part == system.SMTP:
            await _do(system.start_smtp, self.home, *options)
        else:
            await _do(system.launch_service, self.home, part)

    def signal(self, part: str, number: signal.Signals) -> None:
        """Sends a signal to a part, if it runs."""
        if (pid := processes.pid_of(self.home, part)) is not None:
            os.kill(pid, number)

    def runs(self, part: str) -> bool:
        """Whether its process is there."""
        return processes.pid_of(self.home, part) is not None

    def tell(self, instance: str, order: victim.Order) -> bool:
        """Tells a service instance what to do to itself; False when it does not run (or only just)."""
        pid = processes.pid_of(self.home, instance)
        file = _orders(self.home) / f"{pid}.json"
        if pid is None or not file.exists():
            return False
        write_private(file, order.model_dump_json())
        os.kill(pid, signal.SIGUSR1)
        return True

    async def readiness(self, instance: str) -> dict[str, Any]:
        """What a service instance says of itself; nothing when it does not answer."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
                answer = await client.get(f"http://{HOST}:{self.home.port(instance)}/health/ready")
                return dict(answer.json())
        return {}

    async def ready(self, instance: str, within: float) -> bool:
        """Whether a service instance is ready, now or so many seconds later."""

        async def says_so() -> bool:
            return bool((await self.readiness(instance)).get("ready"))

        return await self.becomes(says_so, within)

    async def becomes(self, true: Callable[[], Awaitable[bool]], within: float) -> bool:
        """Whether a condition is true, now or so many seconds later."""
        until = monotonic() + within
        while not await true():
            if monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return True

    async def unready(self) -> list[str]:
        """The parts that do not run or say that they are not ready."""
        info = await _do(system.status, self.home)
        return [process.name for process in info.processes if not process.ready]

    async def recovered(self, within: float) -> float:
        """Waits until every part is ready; answers after how many seconds. Raises TimeoutError, naming those that are not."""
        begin = monotonic()
        while unready := await self.unready():
            if monotonic() - begin > within:
                raise TimeoutError(f"not ready after {within:.0f} s: {', '.join(unready)}")
            await asyncio.sleep(0.1)
        return monotonic() - begin


@asynccontextmanager
async def staged(
    home: Home,
    instances: Mapping[str, int] | None = None,
    *,
    extra_env: Mapping[str, str] | None = None,
    begin: datetime | None = None,
    pace: float = 1.0,
    disk_megabytes: int | None = None,
) -> AsyncIterator[Stage]:
    """A fresh system in this home, ready, every service with two instances unless told otherwise. What an earlier run left in the
    home is deleted first; the system is stopped at the end, however the body ends, and its data stay.

    With `begin` the business clock is that of the topic `system.clock`, held at this time; otherwise it is the wall clock.
    With `disk_megabytes` the services' tables are on a disk of this size in memory, and gone at the end. Raises UserError where
    that cannot be had (`disk.problem`), and when the environment names servers: faults are for servers of their own.
    """
    if named := {infrastructure.KAFKA, infrastructure.DATABASE} & os.environ.keys():
        raise UserError(f"faults are for servers of their own: unset {' and '.join(sorted(named))}")
    counts = {name: (instances or {}).get(name, 2) for name in SERVICES}
    clock = ClockSource.WALL if begin is None else ClockSource.TOPIC
    home.create()
    small_disk = _small_disk(home)
    await _do(system.down, home)
    await _do(disk.unmount, small_disk)
    await _do(system.reset, home)
    proxies: dict[str, Proxy] = {}
    try:
        for name in BROKERS:
            home.port(kafka.proxy_port(name))
        addresses = await _do(infrastructure.start, home, kafka.CLUSTER)
        proxies |= _proxies(home)
        for proxy in proxies.values():
            await proxy.open()
        _orders(home).mkdir()
        if disk_megabytes is not None:
            await _do(_mount, home, disk_megabytes)
        await _do(
            system.up, home, clock=clock.value, instances=counts, extra_env=extra_env,
            service_env={name: _environment(home, addresses.database_url, name) for name in SERVICES}, runner=victim.MODULE,
            prepared=partial(_prepared, begin=begin, small_disk=small_disk if disk_megabytes else None),
        )  # fmt: skip
        yield Stage(home, system.settings(home), proxies, counts, pace, small_disk if disk_megabytes else None)
    finally:
        await _do(system.down, home)
        await _do(disk.unmount, small_disk)
        for proxy in proxies.values():
            await proxy.close()


def database_link(service: str) -> str:
    """The name of the link between a service and PostgreSQL."""
    return f"{postgres.NAME}-{service}"


def _proxies(home: Home) -> dict[str, Proxy]:
    """A proxy for every link, before servers whose ports are known."""
    brokers = {name: Proxy(home.port(kafka.proxy_port(name)), home.port(kafka.listener_port(name))) for name in BROKERS}
    database = home.port(postgres.NAME)
    databases = {name: Proxy(home.port(f"{name}-proxy"), database) for name in map(database_link, SERVICES)}
    return {**brokers, **databases, system.SMTP: Proxy(home.port("smtp-proxy"), home.port(system.SMTP))}


def _environment(home: Home, database_url: str, service: str) -> dict[str, str]:
    """What a service is told, so that it stays behind its proxies and lets itself be broken."""
    parts = urlsplit(database_url)
    account = parts.netloc.rpartition("@")[0]
    return {
        infrastructure.KAFKA: ",".join(f"{HOST}:{home.port(kafka.proxy_port(name))}" for name in BROKERS),
        infrastructure.DATABASE: urlunsplit(parts._replace(netloc=f"{account}@{HOST}:{home.port(f'{database_link(service)}-proxy')}")),
        "BACKORDER_SMTP_URL": f"smtp://{HOST}:{home.port('smtp-proxy')}",
        victim.ORDERS: str(_orders(home)),
    }


async def _prepared(settings: Settings, begin: datetime | None, small_disk: Path | None) -> None:
    """Before any service starts: sets the clock, moves the databases."""
    if begin is not None:
        await driver.begin(settings, begin)
    if small_disk is not None:
        connection = await asyncpg.connect(settings.database_url)
        try:
            await connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
            for service in SERVICES:
                await connection.execute(f'ALTER DATABASE "{settings.database(service)}" SET TABLESPACE small')
        finally:
            await connection.close()


def _small_disk(home: Home) -> Path:
    return postgres.place_of(home).data.with_name("small-disk")


def _mount(home: Home, megabytes: int) -> None:
    """A small disk for the account that runs PostgreSQL."""
    place = postgres.place_of(home)
    try:
        disk.mount(_small_disk(home), megabytes)
        if place.user is not None and place.group is not None:
            os.chown(_small_disk(home), place.user, place.group)
    except OSError as error:
        raise UserError(str(error)) from error


def _orders(home: Home) -> Path:
    return home.path / "victims"


async def _do(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A blocking step, done to its end: what it started is known, and can be stopped."""
    return await surely(asyncio.to_thread(function, *args, **kwargs))
