"""Processes on a leash: each runs until its next call to the database or the broker, and only as far as the scheduler lets it.

A process pauses, loses its connection or dies at a call that is counted, before or after the call is made, never at a tick of
the event loop; so the same seed gives the same run, whatever the machine does.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias, TypeVar

import asyncpg
from aiokafka.errors import KafkaConnectionError

T = TypeVar("T")

CURRENT: "ContextVar[Process | None]" = ContextVar("process", default=None)
"""Who makes the call. Nobody: the world itself, which is never held up."""

Holders: TypeAlias = Callable[[int], Awaitable[frozenset[int]]]
"""Who holds the lock that the database session with this pid waits for; nobody, if it waits for none."""

LOCK_SECONDS = 0.003
"""After so long without an answer the database is asked whether the call waits for a lock."""


class Killed(BaseException):
    """The process is no more: nothing of it runs any further."""


class Blow(StrEnum):
    """What befalls a process at the end of its leash."""

    KILLED = "killed"
    CUT_OFF = "cut off"


@dataclass(frozen=True, slots=True)
class Leash:
    """How far a process may go: up to its `calls`-th call from here (None: to its end), or the first call named `at`. There it
    pauses, or is struck: before the call, or `after` it, so that only its answer is lost."""

    calls: int | None = None
    at: str = ""
    blow: Blow | None = None
    after: bool = False

    def __str__(self) -> str:
        if self.calls is None and not self.at:
            return "to its end"
        where = f"call {self.calls}" if self.calls else self.at
        return f"{self.blow or 'paused'} {'after' if self.after else 'before'} {where}"


FREE = Leash()


class Process:
    """One thing at a time that runs in the simulated world; `state` is idle, running, paused, halted or blocked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "idle"
        self.pid = 0
        """Its database session."""
        self.waits_for: frozenset[int] = frozenset()
        """The sessions that hold the lock for which it is blocked."""
        self.waited_for = False
        """Whether another process is blocked: then this one halts after each call, as it may have let go of the lock with it."""
        self.last_call = ""
        self.error: BaseException | None = None
        """What the work that ended last raised."""
        self._task: asyncio.Task[Any] | None = None
        self._leash = FREE
        self._calls = 0
        self._gone = ""
        self._paused: asyncio.Future[str] | None = None
        self._resume: asyncio.Future[None] | None = None
        self.ids = 0

    @property
    def idle(self) -> bool:
        """Whether it has nothing under way."""
        return self.state == "idle"

    async def begin(self, work: Coroutine[Any, Any, Any], leash: Leash, holders: Holders | None) -> None:
        """Starts the work and lets it go as far as the leash reaches; `holders` if it may meet others on its way."""
        assert self.idle, f"{self.name} is {self.state}"
        self._leash, self._calls, self._gone, self.error = leash, 0, "", None
        token = CURRENT.set(self)
        self._task = asyncio.ensure_future(work)
        CURRENT.reset(token)
        await self.settle(holders)

    async def go_on(self, leash: Leash, holders: Holders | None) -> None:
        """Lets a paused process go on."""
        assert self.state == "paused"
        self._leash, self._calls = leash, 0
        await self.resume(holders)

    async def resume(self, holders: Holders | None) -> None:
        """Lets it go on as far as its leash still reaches."""
        assert self._resume is not None
        self._resume.set_result(None)
        await self.settle(holders)

    async def settle(self, holders: Holders | None) -> None:
        """Waits until it has ended, has paused or halted, or waits for a lock."""
        assert self._task is not None
        self.state = "running"
        while True:
            if self._paused is None:
                self._paused = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait(
                {self._task, self._paused}, timeout=LOCK_SECONDS if holders else None, return_when=asyncio.FIRST_COMPLETED
            )
            if self._task in done:
                self.state, self.error, self._task = "idle", self._task.exception(), None
                return
            if done:
                self.state, self._paused = self._paused.result(), None
                return
            if holders is not None and (waits_for := await holders(self.pid)):
                # Whoever lets go of the lock is in the midst of its own step then: this one goes no further than to its next call.
                self.state, self.waits_for, self.waited_for, self._leash, self._calls = "blocked", waits_for, False, Leash(calls=1), 0
                return

    async def kill(self) -> None:
        """Ends what it has under way, if anything."""
        if self._task is not None:
            self._leash, self.waited_for = FREE, False
            self._task.cancel()
            with contextlib.suppress(BaseException):
                await self._task
            self.state, self._task = "idle", None

    def outcome(self) -> str:
        """What became of it, for the timeline."""
        if self.state != "idle":
            return f"{self.state} at {self.last_call!r}"
        return "done" if self.error is None else f"{type(self.error).__name__} at {self.last_call!r}"

    async def call(self, name: str, do: Callable[[], Awaitable[T]], wire: "Wire | None" = None) -> T:
        """Makes a call, as far as the leash allows."""
        if self._gone:
            self._die_again(name)
            return None  # type: ignore[return-value]  # nobody looks at what a rollback answers
        if wire is not None:
            self.pid = wire.get_server_pid()
        self.last_call = name
        self._calls += 1
        try:
            while self._leash.calls == self._calls or (self._leash.at and name.startswith(self._leash.at)):
                if self._leash.blow is not None:
                    return await self._struck(self._leash.blow, name, do, wire)
                await self._stop("paused")
                self._calls += 1
            return await do()
        finally:
            if self.waited_for:
                await self._stop("halted")

    async def _stop(self, state: str) -> None:
        if self._paused is None:
            self._paused = asyncio.get_running_loop().create_future()
        self._resume = asyncio.get_running_loop().create_future()
        self._paused.set_result(state)
        await self._resume

    async def _struck(self, blow: Blow, name: str, do: Callable[[], Awaitable[T]], wire: "Wire | None") -> T:
        leash, self._leash = self._leash, FREE
        if leash.after:
            await do()
        if wire is not None:
            self._gone = blow
            await wire.lost()
        if blow is Blow.KILLED:
            self._gone = blow
            raise Killed(name)
        raise (
            asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation") if wire else KafkaConnectionError(name)
        )

    def _die_again(self, name: str) -> None:
        """What a dead process would do on its way out is done by the server already: it rolls back."""
        if name.startswith("ROLLBACK"):
            return
        raise Killed(name) if self._gone == Blow.KILLED else asyncpg.ConnectionDoesNotExistError("connection is closed")


async def called(name: str, do: Callable[[], Awaitable[T]]) -> T:
    """A call to something else than the database: the broker, the mail server."""
    process = CURRENT.get()
    return await (do() if process is None else process.call(name, do))


def _named(query: str) -> str:
    """A statement's beginning. Savepoints have numbers that go on from world to world."""
    return " ".join(query.partition("__asyncpg_savepoint")[0].split())[:60]


class Wire(asyncpg.Connection):
    """A connection whose every statement is a call of the process that makes it."""

    async def _called(self, query: str, do: Callable[[], Awaitable[T]]) -> T:
        process = CURRENT.get()
        return await (do() if process is None else process.call(_named(query), do, self))

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._called(query, partial(super().execute, query, *args, **options))

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        return await self._called(command, partial(super().executemany, command, args, **options))

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._called(query, partial(super().fetch, query, *args, **options))

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._called(query, partial(super().fetchrow, query, *args, **options))

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._called(query, partial(super().fetchval, query, *args, **options))

    async def copy_records_to_table(self, table_name: str, **options: Any) -> Any:
        return await self._called(f"COPY {table_name}", partial(super().copy_records_to_table, table_name, **options))

    async def lost(self) -> None:
        """What the server does when it loses the client."""
        if self.is_in_transaction():
            await super().execute("ROLLBACK")

    def get_reset_query(self) -> str:
        return ""
