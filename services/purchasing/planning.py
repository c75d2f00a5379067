"""What to buy, from whom, on which order: once per touched SKU; then what the world hears of each touched line, once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from services.purchasing.domain import (
    ExceptionReason,
    Line,
    LineKey,
    Offer,
    Policy,
    PurchaseOrder,
    Shortfall,
    cheapest,
    deadline,
    most,
    outlook,
    shrunk,
    units,
)
from services.purchasing.state import State
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.contracts.base import MAX_LINES
from shared.contracts.purchasing import SupplyChanged
from shared.service import Context, Effect, Schedule, Send, Unschedule

LINES_AT_ONCE = 100
"""Lines that are opened for a SKU at once. A need beyond, of a hundred million units and more, waits for an operator or for the
next news of the SKU: whatever a message says, planning it takes its fraction of a second."""


def decide(policy: Policy, state: State, context: Context) -> Iterator[Effect]:
    """Plans every touched SKU and tells every touched line, in the order of their keys."""
    yield from plan_all(policy, state, context)
    for key, cause in sorted(state.causes.items()):
        yield from _tell(state, key, cause, context.number)
        yield from overdue(policy, state, key)


def plan_all(policy: Policy, state: State, context: Context) -> Iterator[Effect]:
    """Plans every touched SKU."""
    for sku, cause in sorted(state.touched.items()):
        yield from plan(policy, state, sku, cause, context.now)


def plan(policy: Policy, state: State, sku: str, cause: str, now: datetime) -> Iterator[Effect]:
    """Brings planned lines in line with the need. Planning again without news changes nothing."""
    offer = cheapest(state.offers.of(sku), state.skus[sku].declined_by)
    if offer is not None:
        yield from _grow(policy, state, offer, cause, now)
    # After growing: a new pack may hold what is planned with another supplier too.
    _shrink(state, sku, cause)
    _report(state, sku, now)


def _grow(policy: Policy, state: State, offer: Offer, cause: str, now: datetime) -> Iterator[Effect]:
    """A need is added to the supplier's planned line, else becomes a new line; more than a line may carry takes several."""
    opened = 0
    while (need := state.skus[offer.sku].need) > 0:
        line = _line_with_room(state, offer)
        if line is None:
            if opened == LINES_AT_ONCE:
                return
            opened += 1
            order = _order_with_room(state, offer)
            if order is None:
                order, timer = _open_order(policy, state, offer, now)
                yield from timer
            line = _open_line(state, order, offer.sku)
        day = policy.day(state.orders[line.purchase_order].window_due) + timedelta(days=offer.lead_days)
        ordered = units(line.ordered + need, offer)
        state.change(replace(line, ordered=ordered, unit_price=offer.price, lead_days=offer.lead_days, expected_on=day), cause)


def _shrink(state: State, sku: str, cause: str) -> None:
    """A surplus is taken back from what is not issued yet, newest lines first; the rest of it becomes free stock."""
    for line in reversed(state.planned_lines(sku)):
        need = state.skus[sku].need
        if need >= 0:
            return
        offer = state.offers[state.orders[line.purchase_order].supplier, sku]
        state.change(shrunk(line, need, offer), cause)


def _suits(order: PurchaseOrder, offer: Offer) -> bool:
    return order.supplier == offer.supplier and order.currency == offer.currency


def _line_with_room(state: State, offer: Offer) -> Line | None:
    lines = (line for line in state.planned_lines(offer.sku) if _suits(state.orders[line.purchase_order], offer))
    return next((line for line in lines if line.ordered < most(offer)), None)


def _order_with_room(state: State, offer: Offer) -> PurchaseOrder | None:
    """A planned order has each SKU once, and no more lines than one message may answer."""
    taken = {line.purchase_order for line in state.lines.of(offer.sku)}
    orders = (order for order in state.planned_orders(offer.supplier) if _suits(order, offer))
    return next((order for order in orders if order.last_line < MAX_LINES and order.purchase_order not in taken), None)


def _open_order(policy: Policy, state: State, offer: Offer, now: datetime) -> tuple[PurchaseOrder, tuple[Effect, ...]]:
    """A new planned order joins the supplier's open window, or opens one."""
    supplier = state.suppliers[offer.supplier]
    waiting = state.planned_orders(offer.supplier)
    due = waiting[0].window_due if waiting else now + policy.window
    order = PurchaseOrder(f"{supplier.supplier}-{supplier.next_number}", supplier.supplier, offer.currency, due)
    state.suppliers.put(replace(supplier, next_number=supplier.next_number + 1))
    state.orders.put(order)
    return order, () if waiting else (Schedule(WindowClosed(key=offer.supplier), due),)


def _open_line(state: State, order: PurchaseOrder, sku_id: str) -> Line:
    """An empty line: the next attempt at this version of the shortage (unique, so that nothing is bought twice)."""
    sku = state.skus[sku_id]
    sku = replace(sku, attempts=sku.attempts + 1)
    order = replace(order, last_line=order.last_line + 1)
    state.skus.put(sku)
    state.orders.put(order)
    return Line(order.purchase_order, order.last_line, sku.sku, sku.shortage_version, sku.attempts)


def _report(state: State, sku: str, now: datetime) -> None:
    """A need that nobody can cover is an operator's; it is closed when the need is covered or gone."""
    need, known = state.skus[sku].need, state.shortfalls.get(sku)
    if need > 0:
        state.shortfalls.put(Shortfall(sku, _why(state, sku), need, known.opened_at if known else now))
    elif known is not None:
        state.shortfalls.drop(known)


def _why(state: State, sku: str) -> ExceptionReason:
    offers = state.offers.of(sku)
    if not offers:
        return ExceptionReason.NO_OFFER
    asked = cheapest(offers, state.skus[sku].declined_by)
    return ExceptionReason.EVERY_SUPPLIER_DECLINED if asked is None else ExceptionReason.TOO_MUCH_AT_ONCE


def _tell(state: State, key: LineKey, cause: str, version: int) -> Iterator[Effect]:
    """One SupplyChanged if the line's outlook has changed, or is to be told again."""
    before, after = state.lines.loaded.get(key), state.lines.get(key)
    line = after or before
    sku = line.sku if line is not None else state.again.get(key)
    if sku is not None and (key in state.again or outlook(after) != outlook(before)):
        committed, outstanding, day = outlook(after)
        told = SupplyChanged(
            purchase_order=key[0], line=key[1], sku=sku, causation=cause,
            committed=committed, open=outstanding, expected_on=day, version=version,
        )  # fmt: skip
        yield Send(told, cause)


def overdue(policy: Policy, state: State, key: LineKey) -> Iterator[Effect]:
    """A line's overdue timer follows its date."""
    due = deadline(state.lines.get(key), state.orders.get(key[0]), policy)
    if due != deadline(state.lines.loaded.get(key), state.orders.loaded.get(key[0]), policy):
        timer = SupplyOverdue(key=f"{key[0]}/{key[1]}")
        yield Schedule(timer, due) if due else Unschedule(timer)
