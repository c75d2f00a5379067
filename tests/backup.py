"""Copies of single databases, as an operator takes and restores them on a running server."""

import asyncpg


async def copy_database(url: str, source: str, target: str) -> None:
    """Makes `target` what `source` is now; sessions of the former `target` end. Nobody may be connected to `source`."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')
    finally:
        await connection.close()
