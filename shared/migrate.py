"""Forward-only migrations: the runtime's files, then the service's, each applied once in a transaction."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from shared.settings import Settings

RUNTIME = Path(__file__).parent / "migrations"


class MigrationError(Exception):
    """A migration that was applied has been changed since."""


def folder(service: str) -> Path:
    """Where a service's own migrations are."""
    return Path(__file__).parent.parent / "services" / service / "migrations"


def files(own: Path) -> list[Path]:
    """All migrations of a service's database, in order: the runtime's, then its own."""
    return [*sorted(RUNTIME.glob("*.sql")), *sorted(own.glob("*.sql"))]


async def _ensure_database(settings: Settings, service: str) -> None:
    server = await asyncpg.connect(urlunsplit(urlsplit(settings.database_url)._replace(path="/postgres")))
    try:
        await server.execute(f'CREATE DATABASE "{settings.database(service)}"')
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # it is there, or another process makes it at this moment
    finally:
        await server.close()


async def migrate(settings: Settings, service: str, own: Path | None = None) -> list[str]:
    """Creates the service's database if it is missing, applies what is new, and answers its names.

    Raises MigrationError when an applied file has been edited: mend it by a new file instead.
    """
    await _ensure_database(settings, service)
    connection = await asyncpg.connect(settings.dsn(service))
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext('backorder.migrate'))")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS public.migration"
            " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {row["name"]: row["sha256"] for row in await connection.fetch("SELECT name, sha256 FROM public.migration")}
        new = []
        for path in files(own or folder(service)):
            text = path.read_text(encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()
            if applied.get(path.name, digest) != digest:
                raise MigrationError(
                    f"{path.name} was applied to {settings.database(service)} and has been edited since; add a new file instead"
                )
            if path.name in applied:
                continue
            async with connection.transaction():
                await connection.execute(text)
                await connection.execute("INSERT INTO public.migration (name, sha256) VALUES ($1, $2)", path.name, digest)
            new.append(path.name)
        return new
    finally:
        await connection.close()


async def pending(pool: "asyncpg.Pool[asyncpg.Record]", own: Path) -> list[str]:
    """Names of the migrations that this code needs and the database has not."""
    if await pool.fetchval("SELECT to_regclass('public.migration')") is None:
        return [path.name for path in files(own)]
    applied = {row["name"] for row in await pool.fetch("SELECT name FROM public.migration")}
    return [path.name for path in files(own) if path.name not in applied]
