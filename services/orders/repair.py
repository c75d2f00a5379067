"""What a broken order is put right from: its own story. What was told of it says what was ordered, shipped and cancelled of every
line, and how it stands. Afterwards every line is claimed anew, so that inventory and orders agree again.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.orders.domain import Line, Order
from services.orders.state import Recorded, State
from shared.contracts.orders import OrderCompleted
from shared.service import Context, Corrected, IrreparableError, Repair


def repair(state: State, message: Repair, context: Context) -> Iterator[Corrected]:
    """Lines and counter as they were told. Raises IrreparableError when the story is broken itself, or lost."""
    order_id = message.key
    order, story, stored = state.orders.get(order_id), state.recorded[order_id], state.lines.get(order_id, {})
    if order is None:
        if story or stored:
            raise IrreparableError(
                "the order itself is not there as accepted, and nothing else keeps the customer and the place in the queue"
            )
        state.stubs.add(order_id)
        yield Corrected("a row that never became an order was removed")
        return
    lines = {number: _line(stored.get(number), order_id, told, story) for number, told in _accepted(story).items()}
    for number in sorted(stored.keys() | lines.keys()):
        yield from _differences(number, stored.get(number), lines.get(number))
    still_open, completed = sum(line.open > 0 for line in lines.values()), _told_once(story, "OrderCompleted", at_least=0)
    if completed and still_open:
        raise IrreparableError(f"it was told as completed, and by its story {still_open} lines are open")
    if (order.open_lines, order.completed) != (still_open, not still_open):
        yield Corrected(f"open lines {order.open_lines} → {still_open}, completed: {order.completed} → {not still_open}")
    _put(state, order._replace(open_lines=still_open, completed_at=_completed_at(story)), lines, context)


def _put(state: State, order: Order, lines: Mapping[int, Line], context: Context) -> None:
    """The order as it is right now, claimed anew; if it was never told that it is completed, now."""
    state.repaired.add(order.order)
    state.orders[order.order] = order
    state.lines[order.order] = {number: line._replace(demand_version=context.number) for number, line in lines.items()}
    state.claims.update(dict.fromkeys(((order.order, number) for number in lines), context.cause))
    if not order.open_lines and not order.completed:
        state.complete(order, context.now)
        state.tell(order.order, OrderCompleted(order=order.order, at=context.now), context)


def _accepted(story: Sequence[Recorded]) -> Mapping[int, Mapping[str, Any]]:
    """The lines as they were accepted, by number."""
    _told_once(story, "OrderAccepted", at_least=1)
    return {line["line"]: line for told in story if told.type == "OrderAccepted" for line in told.data["lines"]}


def _told_once(story: Sequence[Recorded], type_: str, at_least: int) -> bool:
    count = sum(told.type == type_ for told in story)
    if not at_least <= count <= 1:
        raise IrreparableError(f"its story has {count} times {type_}")
    return count == 1


def _completed_at(story: Sequence[Recorded]) -> datetime | None:
    return next((datetime.fromisoformat(told.data["at"]) for told in story if told.type == "OrderCompleted"), None)


def _line(stored: Line | None, order: str, accepted: Mapping[str, Any], story: Sequence[Recorded]) -> Line:
    """The line as it was last told. What no event tells (its promise, the answer it has) is kept as it is stored."""
    number, sku, ordered = accepted["line"], accepted["sku"], accepted["quantity"]
    line = stored or Line(order, number, sku, Decimal(accepted["unit_price"]), ordered)
    line = line._replace(sku=sku, ordered=ordered, cancelled=0, shipped=0, version=0)
    events = sorted(
        ((change["version"], told.type, change) for told in story if told.type.startswith("Line") for change in told.data["lines"]
         if change["line"] == number),
        key=lambda event: event[0],
    )  # fmt: skip
    if not events:
        return line._replace(served=0, answered=False)
    five = events[-1][2]["amounts"]
    moved = {kind: sum(change["quantity"] for _, type_, change in events if type_ == kind) for kind in ("LineShipped", "LineCancelled")}
    if [version for version, _, _ in events] != list(range(1, len(events) + 1)):
        raise IrreparableError(f"events of line {number} are missing or too many: {[version for version, _, _ in events]}")
    if (five["shipped"], five["cancelled"]) != (moved["LineShipped"], moved["LineCancelled"]) or not _sum(five) == five[
        "ordered"
    ] == ordered:
        raise IrreparableError(f"line {number} was last told as {five}, and by its events {moved} moved")
    if stored is not None and stored.version != len(events) and _stands(stored) != five:
        raise IrreparableError(
            f"line {number} has version {stored.version} with {_stands(stored)}, and its story ends at {len(events)} with {five}: was the end lost?"
        )
    line = line._replace(cancelled=five["cancelled"], shipped=five["shipped"], version=len(events))
    answered = line.answered or any(type_ in {"LineAllocated", "LineBackordered"} for _, type_, _ in events)
    told = five["shipped"] + five["allocated"]
    served = line.served if stored and line.served <= line.wanted and line.allocated == five["allocated"] else told
    return line._replace(served=served, answered=bool(five["backordered"]) or (answered and not five["pending"]))


def _stands(line: Line) -> dict[str, int]:
    return {name: getattr(line, name) for name in ("ordered", "pending", "allocated", "backordered", "shipped", "cancelled")}


def _said(amounts: Mapping[str, int]) -> str:
    return " ".join(f"{name}={units}" for name, units in amounts.items())


def _sum(five: Mapping[str, int]) -> int:
    return five["pending"] + five["allocated"] + five["backordered"] + five["shipped"] + five["cancelled"]


def _differences(number: int, before: Line | None, after: Line | None) -> Iterator[Corrected]:
    if before is None or after is None:
        yield Corrected(
            f"line {number} was never accepted: removed" if after is None else f"line {number} was lost: {_said(after.amounts)}"
        )
        return
    for name, was, is_ in zip(Line._fields, before, after, strict=True):
        if was != is_:
            yield Corrected(f"line {number}: {name} {was} → {is_}")
