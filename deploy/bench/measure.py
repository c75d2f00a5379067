"""What processes, broker and database spend while something runs."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

SAMPLE_SECONDS = 0.2
MEGABYTE = 1_000_000


@dataclass(slots=True)
class Spent:
    """Filled in when the measurement ends: CPU seconds and peak memory (MB) of each process, bytes written to the database's
    log and to the topics (None: they are not on this machine)."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    wal_bytes: int = 0
    kafka_bytes: int | None = None


@asynccontextmanager
async def metered(pids: Mapping[str, int], database_url: str, logs: Path | None, prefix: str) -> AsyncIterator[Spent]:
    """Measures while the body runs. `pids` = named processes, each with its children; `logs` = the broker's folder, `prefix` = how
    the names of the topics that count begin."""
    spent = Spent()
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    connection = await asyncpg.connect(database_url)
    try:
        # Pages are written whole once after each checkpoint: every run begins with one.
        await connection.execute("CHECKPOINT")
        wal = await connection.fetchval("SELECT pg_current_wal_lsn()")
        written = None if logs is None else _size(logs, prefix)
        cpu = {name: _cpu_seconds(process) for name, process in processes.items()}
        watching = asyncio.create_task(_watch(processes, spent.memory_mb))
        try:
            yield spent
        finally:
            watching.cancel()
        spent.cpu_seconds = {name: _cpu_seconds(process) - cpu[name] for name, process in processes.items()}
        spent.wal_bytes = int(await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", wal))
        spent.kafka_bytes = None if logs is None or written is None else _size(logs, prefix) - written
    finally:
        await connection.close()


async def _watch(processes: Mapping[str, psutil.Process], peaks: dict[str, float]) -> None:
    while True:
        for name, process in processes.items():
            peaks[name] = max(peaks.get(name, 0.0), memory_bytes(family(process)) / MEGABYTE)
        await asyncio.sleep(SAMPLE_SECONDS)


def _size(logs: Path, prefix: str) -> int:
    return sum(file.stat().st_size for file in logs.glob(f"{prefix}*/*.log"))


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and its children."""
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children, those that have ended included."""
    seconds = 0.0
    for member in family(process):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            seconds += times.user + times.system
            if member == process:
                seconds += times.children_user + times.children_system
    return seconds


def memory_bytes(members: Iterable[psutil.Process]) -> int:
    """Of some processes: what each has alone, and once the most that one of them shares (PostgreSQL's buffers)."""
    alone = shared = 0
    for member in members:
        with suppress(psutil.NoSuchProcess):
            memory = member.memory_info()
            common = getattr(memory, "shared", 0)  # not known on every system: then it is counted with each
            alone += memory.rss - common
            shared = max(shared, common)
    return alone + shared
