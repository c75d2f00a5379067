"""What is true of everything that a transaction touched, looked at before it is saved.

A second opinion: nothing here uses the rules that it checks. Only rows that changed are looked at, so the cost is that of the
changes. The same invariants over whole tables are in `audit.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from services.purchasing.domain import Line, LineKey, Status
from services.purchasing.state import State
from shared.contracts.base import Message
from shared.contracts.purchasing import PurchaseOrderIssued, StockReceived, SupplyChanged
from shared.service import Broken, Check, Context


def adds_up(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Of every changed line; one that the supplier has only loses units, never orders more."""
    for line in state.lines.changed():
        if min(line.ordered, line.received, line.declined, line.closed_short, _open(line)) < 0:
            yield _broken(line, f"{_numbers(line)} leave {_open(line)} outstanding")
        was, order = state.lines.loaded.get(line.key), state.orders.loaded.get(line.purchase_order)
        if was is None or order is None or order.status is Status.PLANNED:
            continue
        lost = line.received - was.received, line.declined - was.declined, line.closed_short - was.closed_short
        if line.ordered != was.ordered or min(lost) < 0:
            yield _broken(line, f"{_numbers(was)} was issued and becomes {_numbers(line)}")


def committed(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """A SKU's sum changes as its lines do."""
    moved: Counter[str] = Counter()
    for line in state.lines.changed():
        moved[line.sku] += _committed(line)
    for key in {*(line.key for line in state.lines.changed()), *state.lines.dropped()}:
        if (was := state.lines.loaded.get(key)) is not None:
            moved[was.sku] -= _committed(was)
    for sku in {*(sku for sku in moved if moved[sku]), *(sku.sku for sku in state.skus.changed())}:
        now, before = state.skus[sku], state.skus.loaded[sku]
        if now.committed - before.committed != moved[sku]:
            yield Broken(f"sku:{sku}", f"committed units change by {now.committed - before.committed}, those of its lines by {moved[sku]}")


def covered(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """A need that nobody covers is an open exception of so many units, and there is none without a need."""
    for sku in state.touched:
        stock, shortfall = state.skus[sku], state.shortfalls.get(sku)
        need = max(0, stock.waiting + stock.received_total - stock.committed)
        if need != (shortfall.quantity if shortfall else 0):
            yield Broken(f"sku:{sku}", f"{need} units are needed and not bought, {shortfall and shortfall.quantity} are an operator's")


def received(state: State, told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """What a line counts as received is what receipts booked on it, and what inventory is told to book."""
    booked: Counter[LineKey] = Counter()
    for receipt in state.receipts.changed():
        for booking in receipt.lines:
            booked[receipt.purchase_order, booking.line] += booking.good
    announced: Counter[LineKey] = Counter()
    for message in told:
        if type(message) is StockReceived:
            announced[message.purchase_order, message.line] += message.good
    for key in {*booked, *announced, *(line.key for line in state.lines.changed())}:
        now, was = state.lines.get(key), state.lines.loaded.get(key)
        change = (now.received if now else 0) - (was.received if was else 0)
        if not change == booked[key] == announced[key]:
            yield Broken(
                f"purchase_order:{key[0]}",
                f"line {key[1]}: {change} units count as received, receipts have {booked[key]}, inventory is told {announced[key]}",
            )


def bought_once(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """No two lines for one attempt at one version of a shortage, nor for one SKU on one purchase order."""
    lines = state.lines.changed()
    if not lines:
        return
    for one, need in (("attempt", _attempt), ("line of an order", _place)):
        taken = Counter(map(need, state.lines.all()))
        for line in lines:
            if taken[need(line)] > 1:
                yield _broken(line, f"{taken[need(line)]} lines for one {one}: {need(line)}")


def outlooks(state: State, told: Sequence[Message], context: Context) -> Iterator[Broken]:
    """Inventory hears of every line whose committed or open units or day changed, or that it is to be told again, once, as it is."""
    heard: defaultdict[LineKey, list[Any]] = defaultdict(list)
    for message in told:
        if type(message) is SupplyChanged:
            heard[message.purchase_order, message.line].append((message.committed, message.open, message.expected_on, message.version))
    for key in {*heard, *state.again, *(line.key for line in state.lines.changed()), *state.lines.dropped()}:
        now, was = _outlook(state.lines.get(key)), _outlook(state.lines.loaded.get(key))
        if heard[key] != ([(*now, context.number)] if now != was or key in state.again else []):
            yield Broken(f"purchase_order:{key[0]}", f"line {key[1]}: its outlook was {was}, is {now}, and told was {heard[key]}")


def issued(state: State, told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """A planned order is issued once, with all of its lines, each with the units that it orders."""
    messages = [message for message in told if type(message) is PurchaseOrderIssued]
    said = Counter(message.purchase_order for message in messages)
    for order in state.orders.changed():
        before = state.orders.loaded.get(order.purchase_order)
        goes_out = order.status is Status.ISSUED and (before is None or before.status is Status.PLANNED)
        if said.pop(order.purchase_order, 0) != goes_out:
            yield Broken(f"purchase_order:{order.purchase_order}", f"it is {order.status} now, and was told as issued otherwise")
    for purchase_order in said:
        yield Broken(f"purchase_order:{purchase_order}", "it was told as issued, and nothing happened to it")
    for message in messages:
        lines = {line.line: (line.sku, line.ordered) for line in state.lines.all() if line.purchase_order == message.purchase_order}
        sent = {line.line: (line.sku, line.quantity) for line in message.lines}
        if lines != sent:
            yield Broken(f"purchase_order:{message.purchase_order}", f"its lines are {lines}, issued were {sent}")


CHECKS: dict[str, Check[State]] = {
    "ordered = outstanding + received + declined + closed short, none negative": adds_up,
    "a SKU's committed units are the sum over its lines": committed,
    "every need is bought, or an operator's": covered,
    "a line's received units are those of its receipts": received,
    "nothing is bought twice for one need": bought_once,
    "inventory hears of every line as it is": outlooks,
    "an order is issued once, with all its lines": issued,
}

WHILE_READING_BACK = {invariant: look for invariant, look in CHECKS.items() if look not in {outlooks, issued}}
"""Then what changes is told only afterwards, and orders that suppliers have are not sent again (`read_back`)."""


def _broken(line: Line, detail: str) -> Broken:
    return Broken(f"purchase_order:{line.purchase_order}", f"line {line.line}: {detail}")


def _committed(line: Line) -> int:
    return line.ordered - line.declined - line.closed_short


def _open(line: Line) -> int:
    return line.ordered - line.declined - line.closed_short - line.received


def _outlook(line: Line | None) -> tuple[int, int, date | None]:
    if line is None:
        return 0, 0, None
    return _committed(line), _open(line), line.expected_on if _open(line) else None


def _attempt(line: Line) -> tuple[Any, ...]:
    return line.sku, line.shortage_version, line.attempt


def _place(line: Line) -> tuple[Any, ...]:
    return line.purchase_order, line.sku


def _numbers(line: Line) -> str:
    return f"ordered {line.ordered}, received {line.received}, declined {line.declined}, closed short {line.closed_short}"
