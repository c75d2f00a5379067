"""How commands answer: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1_000
"""Columns of a table that goes into a file or another program: nothing is folded there."""


def answer(content: Any) -> None:
    """Prints JSON; money as text, so that no digit is lost."""
    typer.echo(orjson.dumps(content, default=str, option=orjson.OPT_INDENT_2).decode())


def say(words: str = "") -> None:
    """Prints a line as it is; the text of mails and messages is never taken for markup."""
    typer.echo(words)


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table; numbers to the right, nothing for None."""
    table = Table(box=None, pad_edge=False)
    rows = [tuple(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def moment(at: datetime | None, zone: ZoneInfo) -> str:
    """A time as people of the zone read it."""
    return "" if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M}"
