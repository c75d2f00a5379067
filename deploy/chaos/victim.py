"""Runs a module as Python would, and does to its process what it is told: `python -m deploy.chaos.victim services.orders.app`.

The process can die by SIGKILL at a named point (`before_commit:3`: the third time it gets there), stand still with its event
loop, or read a wall clock that was stepped. `BACKORDER_DIE_AT` tells it so at its start; while it runs, an order is written into
the file that it makes in `BACKORDER_VICTIMS` under its process number, and SIGUSR1 has it read. All of it is patched in from
outside: the code that runs knows nothing of it.
"""

import asyncio
import os
import runpy
import signal
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import uuid_utils
from pydantic import BaseModel

from shared import clock, codec

MODULE = "deploy.chaos.victim"
DIE_AT = "BACKORDER_DIE_AT"
ORDERS = "BACKORDER_VICTIMS"

BEFORE_COMMIT, COMMIT_SENT, AFTER_COMMIT, PUBLISHED = "before_commit", "commit_sent", "after_commit", "published"
POINTS = (BEFORE_COMMIT, COMMIT_SENT, AFTER_COMMIT, PUBLISHED)
"""A transaction is complete but for its COMMIT; COMMIT is on the wire and its answer not read; it is answered and Kafka's
bookmark not set; the relay's rows are acknowledged by the broker and not deleted. In a process that migrates, the first is
inside a file's transaction, and the third is between two files."""

_COMMIT = "COMMIT;"
_RELAY_DELETES = "DELETE FROM runtime.outbox"
_ON_THE_WIRE_SECONDS = 0.05


class Order(BaseModel):
    """What a victim is told; what is not named stays as it is. `die_at` is empty to live on."""

    die_at: str | None = None
    block_seconds: float | None = None
    clock_ahead_seconds: float | None = None


class Victim:
    """What this process has been told."""

    def __init__(self) -> None:
        self._point = ""
        self._times = 0
        self.ahead = timedelta(0)

    def obey(self, order: Order) -> None:
        """Takes an order; a block is served at once."""
        if order.die_at is not None:
            self._point, _, times = order.die_at.partition(":")
            self._times = int(times or 1)
        if order.clock_ahead_seconds is not None:
            self.ahead = timedelta(seconds=order.clock_ahead_seconds)
        if order.block_seconds is not None:
            time.sleep(order.block_seconds)

    def dies_at(self, point: str) -> bool:
        """Whether this is the time and the place."""
        self._times -= point == self._point
        return point == self._point and self._times == 0

    def pass_by(self, point: str) -> None:
        """Dies, or goes on."""
        if self.dies_at(point):
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def patch_database(victim: Victim) -> None:
    """Lets the victim die around the statements that mark its points."""
    execute = asyncpg.Connection.execute

    async def watched(self: Any, query: str, *args: Any, **options: Any) -> str:
        if query == _COMMIT:
            victim.pass_by(BEFORE_COMMIT)
            if victim.dies_at(COMMIT_SENT):
                await _sent(execute(self, query, **options))
                _die()
        elif _RELAY_DELETES in query:
            victim.pass_by(PUBLISHED)
        answer = await execute(self, query, *args, **options)
        if query == _COMMIT:
            victim.pass_by(AFTER_COMMIT)
        return answer

    asyncpg.Connection.execute = watched  # type: ignore[method-assign]


async def _sent(statement: Any) -> None:
    """Lets a statement go out (loops write at the end of a round), and the server do it, while nobody reads the answer."""
    task = asyncio.ensure_future(statement)
    for _ in range(3):
        await asyncio.sleep(0)
    if not task.done():
        time.sleep(_ON_THE_WIRE_SECONDS)  # noqa: ASYNC251  (the loop must not go on and read)


def patch_clock(victim: Victim) -> None:
    """Shifts what the code reads from the wall clock: the time, and the ids that rise with it."""

    def wall() -> datetime:
        return datetime.now(UTC) + victim.ahead

    def new_id() -> uuid.UUID:
        return uuid.UUID(bytes=uuid_utils.uuid7(nanoseconds=int(wall().timestamp() * 1e9)).bytes)

    clock.wall, codec.new_id = wall, new_id


def listen(victim: Victim, folder: Path) -> None:
    """Takes orders from now on: the file is there as soon as the signal is safe."""
    file = folder / f"{os.getpid()}.json"
    signal.signal(signal.SIGUSR1, lambda *_: victim.obey(Order.model_validate_json(file.read_bytes())))
    file.write_text("{}")


def main(arguments: list[str], run: Callable[[str], Any]) -> None:
    """Runs the module that the arguments name first, with the others as its own."""
    victim = Victim()
    victim.obey(Order(die_at=os.environ.get(DIE_AT)))
    patch_database(victim)
    patch_clock(victim)
    if folder := os.environ.get(ORDERS):
        listen(victim, Path(folder))
    sys.argv = arguments
    run(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:], lambda module: runpy.run_module(module, run_name="__main__", alter_sys=True))
