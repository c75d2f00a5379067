"""Where everything is measured: one broker and one database server for all, and for each run names of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local import kafka, postgres, processes
from deploy.local.errors import UserError
from deploy.local.home import Home
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
PARTITIONS = Settings().partitions
"""Of every topic, whosever it is."""
LOOK_SECONDS = 0.1
"""Between two looks at whether all is done: one costs ours some 10 ms of CPU."""
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """The home of the servers, and their addresses."""

    home: Home
    kafka: str
    database_url: str

    @property
    def servers(self) -> dict[str, int]:
        """The processes of broker and database that run here."""
        found = {name: processes.pid_of(self.home, name) for name in (*kafka.names(self.home), postgres.NAME)}
        return {name: pid for name, pid in found.items() if pid is not None}

    @property
    def logs(self) -> Path | None:
        """The broker's folder, if it runs here."""
        return kafka.data(self.home, kafka.NAME) if kafka.NAME in self.servers else None


@asynccontextmanager
async def loader(place: Place, topic: str, file: Path, lines_per_second: float = 0.0) -> AsyncIterator[asyncio.subprocess.Process]:
    """A loader of the file that waits for `go`; the topic's name is the one on the broker."""
    arguments = ("--kafka", place.kafka, "--topic", topic, "--lines-per-second", str(lines_per_second))
    async with spawned("deploy.bench.loader", str(file), *arguments) as process:
        yield process


@asynccontextmanager
async def spawned(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A module that runs and has said `ready`; it ends with the body. `env` is added to ours. Raises UserError when it ends before."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=pipe, stdout=pipe, env={**os.environ, **(env or {})}, cwd=ROOT
    )
    try:
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise UserError(f"{module} {' '.join(arguments)} did not begin; what it says stands above")
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def go(loading: asyncio.subprocess.Process) -> None:
    """Lets a loader begin; returns when the broker has everything. Raises UserError when it fails."""
    await loading.communicate(b"\n")
    if loading.returncode:
        raise UserError("the orders could not be published; what the loader says stands above")


async def stamped_by_the_broker(settings: Settings, topics: Iterable[str]) -> None:
    """Makes the broker's time the time of every record of these topics: one clock for all that is compared."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        stamp = {"message.timestamp.type": "LogAppendTime"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic), configs=stamp) for topic in topics])
    finally:
        await admin.close()


async def clear(place: Place, namespace: str) -> None:
    """Deletes the topics and databases of a run."""
    admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka)
    await admin.start()
    try:
        if mine := [topic for topic in await admin.list_topics() if topic.startswith(f"{namespace}.")]:
            await admin.delete_topics(mine)
    finally:
        await admin.close()
    connection = await asyncpg.connect(place.database_url)
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"backorder_{namespace}_"):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()
