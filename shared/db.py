"""Connections to a service's database, and which errors pass by themselves."""

from typing import Any

import asyncpg

from shared.settings import Settings

TRANSIENT: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.TransactionRollbackError,  # deadlock, serialization failure
    asyncpg.OperatorInterventionError,  # server shuts down, session ended, statement cancelled
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.LockNotAvailableError,
    OSError,
    TimeoutError,
)
"""After these the whole transaction is tried again; an unknown outcome of COMMIT is resolved by the inbox."""

_SESSION = {
    # A process that is stopped or cut off must not keep its locks: the server ends its session.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # Set-based statements are short; the planner's JIT costs more than it gives.
    "jit": "off",
    # What goes through whole tables in the background takes its time, not other cores.
    "max_parallel_workers_per_gather": "0",
}


async def _as_it_is(_connection: "asyncpg.Connection[Any]") -> None:
    """Nothing of ours outlives its transaction in a pooled session, so there is nothing to reset: that would cost four statements each time."""


async def pool(settings: Settings, service: str, size: int = 6) -> "asyncpg.Pool[Any]":
    """A pool that connects when first used, so that a service can start before its database."""
    return await asyncpg.create_pool(
        settings.dsn(service), min_size=0, max_size=size, timeout=10, command_timeout=60, reset=_as_it_is,
        server_settings={**_SESSION, "application_name": f"{service}-{settings.instance}"},
    )  # fmt: skip


async def session(settings: Settings, service: str, name: str) -> "asyncpg.Connection[Any]":
    """A connection of its own for a session-level lock; the server ends it when its owner is silent for 10 s."""
    return await asyncpg.connect(
        settings.dsn(service), timeout=10, command_timeout=30,
        server_settings={**_SESSION, "idle_session_timeout": "10s", "application_name": f"{service}-{settings.instance}-{name}"},
    )  # fmt: skip
