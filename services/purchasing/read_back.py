"""After a restore: what purchasing told when its database was already backed up. Orders that suppliers have are taken as they
stand, plans that only inventory heard of are void, and their numbers are not used again.

Meanwhile planning goes on, but what changes is told only afterwards, once: what stands in between is past.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.purchasing import planning
from services.purchasing.domain import Line, LineKey, Policy, PurchaseOrder, Status, outlook
from services.purchasing.state import State
from services.purchasing.timers import SupplyAgain
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued, SupplyChanged
from shared.service import Context, Effect, Schedule


def supply_changed(state: State, message: SupplyChanged, context: Context) -> Iterable[Effect]:
    """Inventory was told of this line: its number is taken, and inventory is told again what has become of it."""
    _skip(state, message.purchase_order, message.line)
    return (_again((message.purchase_order, message.line), message.sku, context),)


def purchase_order_issued(policy: Policy, state: State, message: PurchaseOrderIssued, context: Context) -> Iterable[Effect]:
    """The supplier has this order, with exactly these lines, whatever is planned for it here. It is not sent again."""
    known = state.orders.get(message.purchase_order)
    if known is not None and known.status is Status.ISSUED:
        return ()
    last_line = max(line.line for line in message.lines)
    _skip(state, message.purchase_order, last_line)
    for line in state.lines_on(message.purchase_order):
        if line.line not in {sent.line for sent in message.lines}:
            state.change(replace(line, ordered=0), context.cause)
            state.lines.drop(line)
    state.orders.put(
        PurchaseOrder(
            message.purchase_order,
            message.supplier,
            message.currency,
            known.window_due if known else message.issued_at,
            Status.ISSUED,
            message.issued_at,
            max(last_line, known.last_line if known else 0),
        )
    )
    for sent in message.lines:
        line = state.lines.get((message.purchase_order, sent.line)) or _opened(state, message.purchase_order, sent)
        lead_days = (sent.expected_on - policy.day(message.issued_at)).days
        sold = replace(line, ordered=sent.quantity, unit_price=sent.unit_price, lead_days=lead_days, expected_on=sent.expected_on)
        state.change(sold, context.cause)
    return ()


def supply_again(state: State, timer: SupplyAgain, context: Context) -> Iterable[Effect]:
    """Has inventory told of the line, changed or not."""
    key, sku = timer.line_key
    state.again[key] = sku
    state.causes[key] = context.cause
    return ()


def decide(policy: Policy, state: State, context: Context) -> Iterator[Effect]:
    """Plans as ever, but only notes of which lines inventory is to be told."""
    yield from planning.plan_all(policy, state, context)
    for key in sorted(state.causes):
        before, after = state.lines.loaded.get(key), state.lines.get(key)
        line = after or before
        if line is not None and outlook(after) != outlook(before):
            yield _again(key, line.sku, context)
        yield from planning.overdue(policy, state, key)


def _again(key: LineKey, sku: str, context: Context) -> Effect:
    return Schedule(SupplyAgain.of(key, sku), context.now)


def _skip(state: State, purchase_order: str, line: int) -> None:
    """What is planned from now on has higher numbers."""
    name, _, number = purchase_order.rpartition("-")
    supplier = state.suppliers[name]
    state.suppliers.put(replace(supplier, next_number=max(supplier.next_number, int(number) + 1)))
    order = state.orders.get(purchase_order)
    if order is not None and order.last_line < line:
        state.orders.put(replace(order, last_line=line))


def _opened(state: State, purchase_order: str, sent: PurchaseLine) -> Line:
    """A line for the next attempt at the shortage, as far as it is known."""
    sku = state.skus[sent.sku]
    state.skus.put(replace(sku, attempts=sku.attempts + 1))
    return Line(purchase_order, sent.line, sent.sku, sku.shortage_version, sku.attempts + 1)
