"""The systems that ours is measured against: programs of the checkout's tests, a process for each of their services.

How they are started, and what they say, stands in `tests/bench/rival.py`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from time import monotonic
from typing import Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.bench.place import LOOK_SECONDS, PARTITIONS, PATIENCE_SECONDS, ROOT, Place, clear, spawned
from deploy.bench.result import LIMIT, NAIVE
from deploy.bench.workloads import Case, demand
from deploy.local import infrastructure
from deploy.local.errors import UserError
from shared.contracts.suppliers import ReceivedLine

MODULES = {NAIVE: "tests.bench.naive", LIMIT: "tests.bench.limit"}

Tuning: TypeAlias = Mapping[str, str]
"""What a rival's environment tells it."""
TUNINGS: Mapping[str, Sequence[Tuning]] = {
    NAIVE: ({},),
    LIMIT: tuple(
        {"LIMIT_GRAIN": grain, "LIMIT_LINGER_MS": str(linger), "LIMIT_RECORDS": str(records)}
        for grain in ("batch", "order")
        for linger in (20, 0)
        for records in (2_000, 500)
    ),
}
"""Per rival, what it may be set to; the first is where nobody looked for the best."""


def check(systems: Sequence[str]) -> None:
    """Raises UserError when a rival cannot be started: it is in a checkout only, and needs what `make setup` installs."""
    files = [ROOT.joinpath(*MODULES[system].split(".")).with_suffix(".py") for system in systems if system in MODULES]
    if not all(file.exists() for file in files) or (files and not (find_spec("msgspec") and find_spec("sqlalchemy"))):
        raise UserError("what `bench` compares with is in a checkout only, after `make setup`; without it there is `bench --only ours`")


@asynccontextmanager
async def started(place: Place, namespace: str, case: Case, system: str, tuning: Tuning) -> AsyncIterator["Rival"]:
    """A rival that knows the case's SKUs and their stock; gone with its data afterwards."""
    database = f"backorder_{namespace}_{system}"
    env = {
        infrastructure.KAFKA: place.kafka,
        infrastructure.DATABASE: urlunsplit(urlsplit(place.database_url)._replace(path=f"/{database}")),
        "BENCH_NAMESPACE": namespace,
        "BENCH_PARTITIONS": str(PARTITIONS),
        **tuning,
    }
    try:
        await _create(place, database)
        services, groups = await _prepared(MODULES[system], case, env)
        async with AsyncExitStack() as stack:
            running = {service: await stack.enter_async_context(spawned(MODULES[system], service, env=env)) for service in services}
            pids = {service: process.pid for service, process in running.items()}
            yield await stack.enter_async_context(Rival(place, namespace, case, pids, groups))
    finally:
        await clear(place, namespace)


class Rival:
    """A running one. `reads` = consumer group → its topics (names on the broker)."""

    def __init__(self, place: Place, namespace: str, case: Case, pids: dict[str, int], reads: Mapping[str, Sequence[str]]) -> None:
        self.place, self.namespace = place, namespace
        self._case, self._pids = case, pids
        self._reads = {
            group: [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)] for group, topics in reads.items()
        }
        self._admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka)
        self._kafka = AIOKafkaConsumer(bootstrap_servers=place.kafka, enable_auto_commit=False)
        self._coordinators: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await self._admin.start()
        await self._kafka.start()
        self._coordinators = {group: await self._admin.find_coordinator(group) for group in self._reads}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kafka.stop()
        await self._admin.close()

    def pids(self) -> dict[str, int]:
        """The services' processes."""
        return self._pids

    async def done(self) -> None:
        """Returns when every service has acknowledged all that it reads: each does so after it has published what follows."""
        until = monotonic() + PATIENCE_SECONDS
        while not await self._all_acknowledged():
            if monotonic() > until:
                raise UserError(f"a system to compare with was not done after {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def buy(self) -> Sequence[tuple[str, Sequence[ReceivedLine]]]:
        """Rivals buy at once, one line per SKU, whatever the order's name."""
        units = sorted(demand(self._case.orders).items())
        return [("everything", [ReceivedLine(line=line, sku=sku, good=wanted) for line, (sku, wanted) in enumerate(units, start=1)])]

    async def _all_acknowledged(self) -> bool:
        """Looks at what is acknowledged first, then at what is there: whatever follows from what was acknowledged is in the topics."""
        stands = {group: await self._admin.list_consumer_group_offsets(group, self._coordinators[group]) for group in self._reads}
        ends = await self._kafka.end_offsets([place for places in self._reads.values() for place in places])
        return all(
            place in stands[group] and stands[group][place].offset >= ends[place]
            for group, places in self._reads.items()
            for place in places
            if ends[place]
        )


async def _create(place: Place, database: str) -> None:
    connection = await asyncpg.connect(place.database_url)
    try:
        await connection.execute(f'CREATE DATABASE "{database}"')
    finally:
        await connection.close()


async def _prepared(module: str, case: Case, env: Mapping[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    """Has a rival make its tables and topics; answers its services, and what each consumer group reads. Raises UserError when it cannot."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, "prepare", stdin=pipe, stdout=pipe, env={**os.environ, **env}, cwd=ROOT
    )
    answer, _ = await process.communicate(orjson.dumps(dict(case.stock)))
    if process.returncode:
        raise UserError(f"{module} could not prepare itself; what it says stands above")
    told = orjson.loads(answer)
    return told["services"], told["groups"]
