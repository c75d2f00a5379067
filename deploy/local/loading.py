"""A catalogue and its suppliers' offers from two CSV files, as the public messages that they stand for."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deploy.local.errors import UserError
from deploy.local.publisher import Publication
from shared.contracts.base import Message
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import SkuDefined, StockCounted
from shared.explained import field_errors

SOURCE = "/clients/cli/load"
OPENING = datetime(1970, 1, 1, tzinfo=UTC)
"""When the opening stock was counted: always the same time, so that a file loaded again says the same again."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a file: its line (from 1), the column or field, and what was expected."""

    file: str
    line: int
    field: str
    error: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.error}"


@dataclass(frozen=True, slots=True)
class _File:
    """A kind of file: its columns, which of them are whole numbers, what identifies a row, and the messages of a row."""

    columns: tuple[str, ...]
    whole: frozenset[str]
    key: tuple[str, ...]
    messages: Callable[[Mapping[str, Any]], list[tuple[str, Message]]]


def _sku(row: Mapping[str, Any]) -> list[tuple[str, Message]]:
    defined = SkuDefined(sku=row["sku"], description=row["description"], backorder=row["backorder"])
    counted = StockCounted(count="opening", sku=row["sku"], on_hand=row["on_hand"], counted_at=OPENING)
    return [(f"sku/{defined.sku}/{_digest(defined)}", defined), (f"opening/{counted.sku}", counted)]


def _offer(row: Mapping[str, Any]) -> list[tuple[str, Message]]:
    offer = OfferChanged.model_validate(row)
    return [(f"offer/{offer.supplier}/{offer.sku}/{_digest(offer)}", offer)]


def _digest(message: Message) -> str:
    return hashlib.blake2b(message.model_dump_json().encode(), digest_size=8).hexdigest()


FILES: dict[str, _File] = {
    "skus.csv": _File(("sku", "description", "on_hand", "backorder"), frozenset({"on_hand"}), ("sku",), _sku),
    "offers.csv": _File(
        ("supplier", "sku", "price", "currency", "pack", "minimum", "lead_days"),
        frozenset({"pack", "minimum", "lead_days"}),
        ("supplier", "sku"),
        _offer,
    ),
}


def read(folder: Path, now: datetime) -> tuple[list[Publication], list[Problem]]:
    """Every row of `skus.csv` and `offers.csv` as messages said at `now`, and everything that is wrong.

    Ids follow from the content: the same row again has no effect. Raises UserError when neither file is there.
    """
    paths = [folder / name for name in FILES if (folder / name).is_file()]
    if not paths:
        raise UserError(f"{folder} has neither {' nor '.join(FILES)}")
    publications: list[Publication] = []
    problems: list[Problem] = []
    for path in paths:
        for found in _read(path, FILES[path.name]):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                publications.append(Publication(now, found[1], found[0], SOURCE))
    return publications, problems


def _read(path: Path, kind: _File) -> Iterator[tuple[str, Message] | Problem]:
    seen: dict[tuple[str, ...], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [name for name in kind.columns if name not in (rows.fieldnames or ())]
            yield from (Problem(path.name, 1, name, f"there is no such column; expected {', '.join(kind.columns)}") for name in missing)
            for row in () if missing else rows:
                yield from _row(path.name, rows.line_num, row, kind, seen)
    except (UnicodeDecodeError, csv.Error) as error:
        yield Problem(path.name, 1, "(whole file)", f"expected CSV in UTF-8: {error}")


def _row(
    file: str, line: int, row: dict[str, Any], kind: _File, seen: dict[tuple[str, ...], int]
) -> Iterator[tuple[str, Message] | Problem]:
    """The messages of a row, or all that is wrong with it."""
    if None in row or None in row.values():
        yield Problem(file, line, "(whole line)", f"expected {len(kind.columns)} values: {', '.join(kind.columns)}")
        return
    values = {name: row[name].strip() for name in kind.columns}
    first = seen.setdefault(tuple(values[name] for name in kind.key), line)
    if first != line:
        yield Problem(file, line, " and ".join(kind.key), f"stands in line {first} already; expected once")
        return
    numbers = {name: int(values[name]) for name in kind.whole if values[name].isdecimal()}
    words = kind.whole - numbers.keys()
    yield from (Problem(file, line, name, f"expected a whole number (found {values[name]!r})") for name in sorted(words))
    try:
        # A column that is no number is reported above; 1 keeps the contract from reporting it again.
        messages = kind.messages(values | dict.fromkeys(words, 1) | numbers)
    except ValidationError as error:
        yield from (Problem(file, line, wrong.field, wrong.error) for wrong in field_errors(error))
    else:
        yield from () if words else messages
