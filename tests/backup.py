"""Backups as an operator takes and restores them: of single databases on a running server, and of a whole server."""

import os
import shutil
import subprocess
from pathlib import Path

import asyncpg

from deploy.local import postgres, processes
from deploy.local.home import Home


async def copy_database(url: str, source: str, target: str) -> None:
    """Makes `target` what `source` is now; sessions of the former `target` end. Nobody may be connected to `source`."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')
    finally:
        await connection.close()


def base_backup(home: Home) -> Path:
    """A base backup of the home's running PostgreSQL, by its own tool; answers the folder."""
    place = postgres.place_of(home)
    folder = place.data.with_name("backup")
    shutil.rmtree(folder, ignore_errors=True)
    _owned(folder, place)
    subprocess.run(
        [place.binaries / "pg_basebackup", "-D", folder, "-h", "127.0.0.1", "-p", str(home.port(postgres.NAME)), "-U", "postgres",
         "--checkpoint=fast", "--wal-method=stream"],
        cwd=folder, user=place.user, group=place.group, extra_groups=None if place.user is None else [], check=True,
        env={**os.environ, "PGPASSWORD": home.state().password},
    )  # fmt: skip
    return folder


def restore_base_backup(home: Home, backup: Path) -> None:
    """Puts the backup in the place of the home's data, as after the loss of a disk, and starts the server on it."""
    place = postgres.place_of(home)
    processes.kill(home, postgres.NAME)
    shutil.rmtree(place.data)
    subprocess.run(["cp", "-a", backup, place.data], check=True)
    postgres.start(home)


def _owned(folder: Path, place: postgres.Place) -> None:
    folder.mkdir(mode=0o700)
    if place.user is not None and place.group is not None:
        os.chown(folder, place.user, place.group)
