"""Online Retail as orders and cancellations: what a row of the file means (the rules stand in `deploy/local/data/README.md`)."""

import csv
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from deploy.local.errors import UserError
from shared.contracts.base import MAX_LINES, Currency
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced

ZONE = "Europe/London"
CURRENCY = Currency("GBP")
RETURN_AFTER = timedelta(days=7)
"""A cancellation that comes later is a return of goods, and no message of ours."""
_LONDON = ZoneInfo(ZONE)
_GOODS = re.compile(r"\d{5}[A-Z]{0,2}")
_COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")


class Row(NamedTuple):
    """One row of the file. `invoice` begins with C when it is a cancellation; `number` is its position in the invoice;
    `customer` may be empty; `at` is London time as text."""

    invoice: str
    number: int
    sku: str
    description: str
    quantity: int
    at: str
    price: Decimal
    customer: str


@dataclass(frozen=True, slots=True)
class Sales:
    """A slice of the file, in the order of time."""

    orders: list[OrderPlaced] = field(default_factory=list)
    cancellations: list[OrderCancelRequested] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> int:
        """Lines of all orders."""
        return sum(len(order.lines) for order in self.orders)


@dataclass(slots=True)
class _Sold:
    """A line that may be cancelled; `left` = units not matched to a cancellation yet."""

    order: str
    line: int
    at: datetime
    left: int


def read(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file, compressed or not, its header first. Raises UserError when it cannot be read."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="") as file
        ):
            yield from csv.reader(file)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def invoices(rows: Iterable[list[str]]) -> dict[str, list[Row]]:
    """The rows by invoice, over the whole file, wherever they stand. Raises UserError naming the row that cannot be understood."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    rows = iter(rows)
    header = next(rows, [])
    if missing := [column for column in _COLUMNS if column not in header]:
        raise UserError(f"this is no Online Retail file: the columns {', '.join(missing)} are missing")
    pick = itemgetter(*(header.index(column) for column in _COLUMNS))
    for position, row in enumerate(rows, start=2):
        try:
            invoice, code, description, quantity, at, price, customer = pick(row)
            lines = found[invoice]
            lines.append(
                Row(
                    invoice, len(lines) + 1, code.strip().upper(), description.strip(), int(quantity), at, Decimal(price),
                    customer.strip().removesuffix(".0"),
                )
            )  # fmt: skip
        except (ValueError, IndexError, InvalidOperation) as error:
            raise UserError(f"row {position} cannot be understood: {','.join(row)}") from error
    return found


def sales(by_invoice: dict[str, list[Row]], limit: int | None = None) -> Sales:
    """The orders and cancellations of the file. `limit` keeps whole invoices from the beginning, as many as have together at
    most so many lines (but at least one); what comes after the last of them is not looked at."""
    found = Sales()
    sold: defaultdict[tuple[str, str], list[_Sold]] = defaultdict(list)
    taken = 0
    for rows in sorted(by_invoice.values(), key=lambda rows: rows[0].at):
        if rows[0].invoice.startswith("C"):
            for row in rows:
                _cancel(found, sold, row)
            continue
        lines, skipped = _lines(rows)
        if limit is not None and taken and taken + len(lines) > limit:
            break
        taken += len(lines)
        found.skipped.update(skipped)
        for order in _orders(rows[0], lines):
            found.orders.append(order)
            for line in order.lines:
                sold[rows[0].customer, line.sku].append(_Sold(order.order, line.line, order.placed_at, line.quantity))
        for row in lines:
            found.descriptions.setdefault(row.sku, row.description)
    return found


def when(text: str) -> datetime:
    """London time as UTC. Raises UserError for anything but `2010-12-01 08:26[:00]`."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=_LONDON).astimezone(UTC)
    except ValueError as error:
        raise UserError(f"{text!r} is no time such as 2010-12-01 08:26:00") from error


def _lines(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The rows of a sale that are lines of an order, and why the others are not."""
    reasons = [(row, _not_a_line(row)) for row in rows]
    return [row for row, reason in reasons if not reason], Counter(reason for _, reason in reasons if reason)


def _not_a_line(row: Row) -> str:
    if not _GOODS.fullmatch(row.sku):
        return "not_goods"
    if row.quantity <= 0:
        return "write_off"
    return "zero_price" if row.price <= 0 else ""


def _orders(first: Row, lines: Sequence[Row]) -> Iterator[OrderPlaced]:
    """The invoice as an order; one with more lines than an order may have becomes several: `<invoice>`, `<invoice>-2`, …"""
    who = first.customer or first.invoice
    customer = Customer(id=who, name=f"Customer {who}", email=f"{who}@example.com", time_zone=ZONE)
    placed_at = when(first.at)
    parts = [lines[start : start + MAX_LINES] for start in range(0, len(lines), MAX_LINES)]
    for number, part in enumerate(parts, start=1):
        yield OrderPlaced(
            order=first.invoice if number == 1 else f"{first.invoice}-{number}",
            placed_at=placed_at,
            customer=customer,
            currency=CURRENCY,
            lines=tuple(OrderedLine(line=row.number, sku=row.sku, quantity=row.quantity, unit_price=round(row.price, 4)) for row in part),
        )


def _cancel(found: Sales, sold: dict[tuple[str, str], list[_Sold]], row: Row) -> None:
    """Matches a cancelled row to the latest earlier line of the customer and SKU that still has so many units."""
    quantity, at = -row.quantity, when(row.at)
    if not _GOODS.fullmatch(row.sku):
        found.skipped["not_goods"] += 1
        return
    if not row.customer:
        found.skipped["no_customer"] += 1
        return
    lines = sold.get((row.customer, row.sku), [])
    line = next((line for line in reversed(lines) if line.left >= quantity > 0 and line.at <= at), None)
    if line is None:
        found.skipped["unmatched"] += 1
        return
    line.left -= quantity
    if at - line.at > RETURN_AFTER:
        found.skipped["returned_later"] += 1
        return
    found.cancellations.append(
        OrderCancelRequested(
            request=f"{row.invoice}-{row.number}",
            order=line.order,
            line=line.line,
            quantity=quantity,
            reason="cancelled by invoice",
            requested_at=at,
        )
    )
