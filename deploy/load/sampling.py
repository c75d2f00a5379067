"""Looks at a system under load now and then: its processes, its consumer groups, its tables."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import asyncpg
import httpx
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.bench.measure import MEGABYTE, family, memory_bytes
from deploy.load.result import Footprint
from deploy.load.seen import Database, Membership, Sample, Seen, Table
from deploy.load.world import World
from deploy.local import postgres, processes
from deploy.local.databases import connected
from deploy.local.home import Home
from shared.settings import SERVICES, Settings

ASSIGNMENTS, FAILED_BATCHES = "backorder_assignments_total", "backorder_failed_batches_total"


def pids(home: Home) -> dict[str, int]:
    """Every process of the system that runs here, by name."""
    found = {name: processes.pid_of(home, name) for name in processes.running(home)}
    return {name: pid for name, pid in found.items() if pid is not None}


async def watch(world: World, began: float, seen: Seen, every: float) -> None:
    """Looks at processes, groups and lag so often (seconds), until cancelled."""
    alive = {name: psutil.Process(pid) for name, pid in pids(world.home).items()}
    settings = world.settings
    groups = [settings.topic(service) for service in SERVICES]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        while True:
            looked = monotonic()
            found = await asyncio.to_thread(footprints, alive)
            seen.died |= alive.keys() - found.keys()
            seen.footprints.append((looked - began, found))
            with suppress(KafkaError):
                for group, membership in (await memberships(admin, groups)).items():
                    told = seen.memberships.setdefault(group, [])
                    if not told or told[-1] != membership:
                        told.append(membership)
            seen.lags.append(await world.lag())
            await asyncio.sleep(max(0.0, looked + every - monotonic()))
    finally:
        await admin.close()


def footprints(alive: Mapping[str, psutil.Process]) -> dict[str, Footprint]:
    """What each of them has now; who has died is missing."""
    found = {}
    for name, process in alive.items():
        with suppress(psutil.NoSuchProcess):
            found[name] = _footprint(name, process)
    return found


def _footprint(name: str, process: psutil.Process) -> Footprint:
    # Only PostgreSQL has children, and to look for them costs a look at every process of the machine.
    members = family(process) if name == postgres.NAME else [process]
    fds = threads = 0
    for member in members:
        with suppress(psutil.NoSuchProcess):
            fds += member.num_fds()
            threads += member.num_threads()
    return Footprint(memory_mb=round(memory_bytes(members) / MEGABYTE, 1), fds=fds, threads=threads)


async def memberships(admin: AIOKafkaAdminClient, groups: Sequence[str]) -> dict[str, Membership]:
    """Each group as the broker has it now. Raises KafkaError."""
    found: dict[str, Membership] = {}
    for name in groups:  # one by one: the client cannot ask for several
        [response] = await admin.describe_consumer_groups([name])
        [(_, group, state, _, _, members, *_)] = response.groups
        found[group] = (state, tuple(sorted(member[0] for member in members)))
    return found


_TABLES = """
    SELECT schemaname || '.' || relname AS name, pg_table_size(relid) AS table_bytes, pg_indexes_size(relid) AS index_bytes,
        n_live_tup AS live, n_dead_tup AS dead, n_tup_ins AS inserted
    FROM pg_stat_user_tables"""
_ROWS = """
    SELECT (SELECT count(*) FROM runtime.outbox) AS outbox, (SELECT count(*) FROM runtime.timer) AS timers,
        (SELECT count(*) FROM runtime.dead_letter) AS dead_letters,
        {mails}
        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()) AS connections"""

_MAILS = {"notifier": "(SELECT count(*) FROM mail WHERE status = 'queued') AS mails_to_send,"}


async def sample(home: Home, settings: Settings, at: float) -> Sample:
    """A look at processes and tables."""
    lines, databases = 0, {}
    for service in SERVICES:
        async with connected(settings, service) as connection:
            tables = await connection.fetch(_TABLES)
            rows = dict(await connection.fetchrow(_ROWS.format(mails=_MAILS.get(service, ""))) or {})
        connections = rows.pop("connections")
        databases[service] = Database({row["name"]: _table(row) for row in tables}, rows, connections)
        if service == "orders":
            lines = next(row["inserted"] for row in tables if row["name"] == "public.line")
    alive = {name: psutil.Process(pid) for name, pid in pids(home).items()}
    return Sample(at, lines, await asyncio.to_thread(footprints, alive), databases)


def _table(row: asyncpg.Record) -> Table:
    return Table(row["table_bytes"], row["index_bytes"], row["live"], row["dead"])


async def keep_sampling(world: World, began: float, seen: Seen, every: float) -> None:
    """Samples so often (seconds), until cancelled."""
    while True:
        seen.samples.append(await sample(world.home, world.settings, monotonic() - began))
        await asyncio.sleep(max(0.0, began + len(seen.samples) * every - monotonic()))


@dataclass(frozen=True, slots=True)
class Counters:
    """What the metrics of all instances of a service have counted, together."""

    assignments: int
    failed_batches: int


async def counters(home: Home) -> dict[str, Counters]:
    """The counters of each service, as `/metrics` has them."""
    found: dict[str, Counters] = {}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for service in SERVICES:
            names = [name for name in processes.running(home) if name.startswith(f"{service}-")]
            texts = [(await client.get(f"http://127.0.0.1:{home.port(name)}/metrics/")).text for name in names]
            values = [dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")) for text in texts]
            assignments, failed = (sum(int(float(each[metric])) for each in values) for metric in (ASSIGNMENTS, FAILED_BATCHES))
            found[service] = Counters(assignments, failed)
    return found
