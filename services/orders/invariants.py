"""What is true of every order that a transaction touched, looked at before it is saved.

A second opinion: nothing here uses the rules that it checks. Only what was touched is looked at, so the cost is that of the
changes. The same invariants over whole tables are in `audit.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from services.orders.domain import Line
from services.orders.state import LineKey, State
from shared.contracts.base import Message
from shared.contracts.orders import LineCancelled, LineChange, LineEvent, LineShipped, OrderCompleted
from shared.service import Broken, Check, Context

Five: TypeAlias = tuple[int, int, int, int, int]
"""(pending, allocated, backordered, shipped, cancelled)."""
_LINE_EVENTS = frozenset[type[Message]](LineEvent.__subclasses__())
"""Asked by type, since `isinstance` of a pydantic model costs as much as a line's whole check."""


def amounts(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Of every line that is new or changed."""
    touched = [state.lines[order][number] for order, number in state.changed]
    for order in state.placed:
        touched += state.lines[order].values()
    for line in touched:
        wanted, shipped = line.ordered - line.cancelled, line.shipped
        if not (0 <= shipped <= wanted <= line.ordered and 0 <= line.served <= wanted):
            yield Broken(
                f"order:{line.order}",
                f"line {line.line}: ordered {line.ordered}, cancelled {line.cancelled}, shipped {shipped}, served {line.served}",
            )


def told(state: State, told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Versions rise by one with every event of a line; the last one has the line's amounts; what was told as shipped and
    cancelled is what was."""
    last: dict[LineKey, LineChange] = {}
    shipped: defaultdict[LineKey, int] = defaultdict(int)
    cancelled: defaultdict[LineKey, int] = defaultdict(int)
    events: list[Any] = [message for message in told if type(message) in _LINE_EVENTS]
    for event in events:
        order, kind = event.order, type(event)
        units = shipped if kind is LineShipped else cancelled if kind is LineCancelled else None
        for change in event.lines:
            key = (order, change.line)
            before = last.get(key) or state.changed.get(key)
            if before is None or change.version != before.version + 1:
                yield Broken(f"order:{order}", f"line {change.line}: event {change.version} follows {before and before.version}")
            last[key] = change
            if units is not None:
                units[key] += change.quantity
    for key, was in state.changed.items():
        line, said = state.lines[key[0]][key[1]], last.get(key)
        version, five = (was.version, _five(was)) if said is None else (said.version, _told(said))
        if line.version != version or _five(line) != five:
            yield Broken(
                f"order:{key[0]}", f"line {key[1]}: version {version} with {five} was told, it has {line.version} with {_five(line)}"
            )
        moved = line.shipped - was.shipped, line.cancelled - was.cancelled
        if moved != (shipped.get(key, 0), cancelled.get(key, 0)):
            yield Broken(
                f"order:{key[0]}", f"line {key[1]}: {shipped[key]} units told as shipped, {cancelled[key]} as cancelled, moved: {moved}"
            )


def open_lines(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """A new order's counter is that of its lines; another's falls by the lines that closed."""
    closed = Counter(order for (order, number), was in state.changed.items() if _open(was) > 0 >= _open(state.lines[order][number]))
    for order in {*closed, *state.counted} - state.placed.keys():
        counted, expected = state.orders[order].open_lines, state.counted.get(order, state.orders[order]).open_lines - closed[order]
        if counted != expected or counted < 0:
            yield Broken(f"order:{order}", f"{counted} lines are counted as open, {expected} are")
    for order in state.placed:
        counted, expected = state.orders[order].open_lines, sum(_open(line) > 0 for line in state.lines[order].values())
        if counted != expected:
            yield Broken(f"order:{order}", f"{counted} lines are counted as open, {expected} are")


def completed(state: State, told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Of every order whose open lines were counted, and of every one that is told as completed."""
    said = Counter(message.key for message in told if type(message) is OrderCompleted)
    for order in {*state.counted, *said}:
        now, was = state.orders[order], state.counted.get(order)
        if now.completed != (now.open_lines == 0) or said[order] != (now.completed and was is not None and not was.completed):
            yield Broken(f"order:{order}", f"{now.open_lines} lines are open, completed: {now.completed}, told so {said[order]} times now")


CHECKS: dict[str, Check[State]] = {
    "a line's five amounts are not negative and add up to what was ordered": amounts,
    "what is told of a line is what becomes of it": told,
    "an order's counter of open lines is right": open_lines,
    "an order is completed exactly when nothing of it is open, and says so once": completed,
}

WHILE_READING_BACK = {invariant: look for invariant, look in CHECKS.items() if look not in {told, completed}}
"""Then lines become what was told of them before, one event at a time (`read_back`)."""


def _open(line: Line) -> int:
    return line.ordered - line.cancelled - line.shipped


def _five(line: Line) -> Five:
    shipped, cancelled, wanted = line.shipped, line.cancelled, line.ordered - line.cancelled
    allocated = max(0, min(line.served, wanted) - shipped)
    rest = wanted - shipped - allocated
    return (0, allocated, rest, shipped, cancelled) if line.answered else (rest, allocated, 0, shipped, cancelled)


def _told(change: LineChange) -> Five:
    it = change.amounts
    return it.pending, it.allocated, it.backordered, it.shipped, it.cancelled
