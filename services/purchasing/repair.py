"""What a broken SKU or purchase order is put right from: receipts say what was received and closed short, lines what was committed.

What was ordered and declined stands in the topics alone: if that is wrong, it is said. Afterwards the SKUs are planned anew, and
inventory is told of every line again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.purchasing.domain import Line, LineKey, Policy, Sku, Status, deadline
from services.purchasing.state import State
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.service import Context, Corrected, Effect, IrreparableError, Repair, Schedule


def repair(policy: Policy, state: State, message: Repair, context: Context) -> Iterator[Effect]:
    """The lines of a SKU, or of a purchase order, then the sums of their SKUs. Raises IrreparableError."""
    of_sku = message.aggregate.startswith("sku:")
    lines = state.lines.of(message.key) if of_sku else state.lines_on(message.key)
    yield from _as_booked(state, lines)
    for sku in sorted({message.key} if of_sku else {line.sku for line in lines}):
        yield from _as_summed(state, sku)
        state.touched[sku] = context.cause
    for line in lines:
        state.again[line.key] = line.sku
        state.causes[line.key] = context.cause
    yield from _timers(policy, state, {message.key} if not of_sku else {line.purchase_order for line in lines}, lines)


def _as_booked(state: State, lines: Iterable[Line]) -> Iterator[Corrected]:
    good: Counter[LineKey] = Counter()
    short: Counter[LineKey] = Counter()
    for receipt in state.receipts.all():
        for booking in receipt.lines:
            good[receipt.purchase_order, booking.line] += booking.good
            short[receipt.purchase_order, booking.line] += booking.closed_short
    for line in lines:
        right = replace(line, received=good[line.key], closed_short=short[line.key])
        if right.received < line.received and right.closed_short < line.closed_short:
            raise IrreparableError(
                f"line {line.line} of {line.purchase_order} has received {line.received} and closed short {line.closed_short}, its receipts"
                f" {right.received} and {right.closed_short}: were receipts lost?"
            )
        if min(right.ordered, right.declined, right.outstanding) < 0:
            raise IrreparableError(
                f"line {line.line} of {line.purchase_order}: ordered {right.ordered}, declined {right.declined}, and by its receipts"
                f" received {right.received}, closed short {right.closed_short}: what was ordered and declined stands in the topics alone"
            )
        yield from _differences(f"line {line.line} of {line.purchase_order}", line, right, "received", "closed_short")
        state.lines.correct(right)


def _as_summed(state: State, name: str) -> Iterator[Corrected]:
    sku = state.skus.get(name)
    if sku is None:
        raise IrreparableError(f"there is no SKU {name!r}, only lines of it")
    received = sum(line.received for line in state.lines.of(name))
    if received < sku.received_total:
        raise IrreparableError(
            f"inventory has booked {sku.received_total} units of {name}, the receipts have {received}: were receipts lost?"
        )
    right = replace(sku, committed=sum(line.committed for line in state.lines.of(name)))
    yield from _differences(f"SKU {name}", sku, right, "committed")
    state.skus.correct(right)


def _timers(policy: Policy, state: State, orders: Iterable[str], lines: Iterable[Line]) -> Iterator[Effect]:
    """A planned order closes with its window, and units with a date become overdue."""
    for order in filter(None, map(state.orders.get, sorted(orders))):
        if order.status is Status.PLANNED:
            yield Schedule(WindowClosed(key=order.supplier), order.window_due)
    for line in lines:
        if due := deadline(state.lines[line.key], state.orders.get(line.purchase_order), policy):
            yield Schedule(SupplyOverdue(key=f"{line.purchase_order}/{line.line}"), due)


def _differences(what: str, before: Line | Sku, after: Line | Sku, *names: str) -> Iterator[Corrected]:
    for name in names:
        if getattr(before, name) != getattr(after, name):
            yield Corrected(f"{what}: {name} {getattr(before, name)} → {getattr(after, name)}")
