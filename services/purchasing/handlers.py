"""One function per message: it changes the working set and answers effects. What to buy is decided once, in `planning`."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

from services.purchasing.domain import (
    Acknowledgement,
    Booking,
    Line,
    Offer,
    Policy,
    Receipt,
    Status,
    answered,
    booked,
    deadline,
    least,
    told_day,
)
from services.purchasing.state import State
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.contracts.base import MAX_QUANTITY, Currency
from shared.contracts.inventory import ShortageChanged
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued, StockReceived
from shared.contracts.suppliers import GoodsReceived, OfferChanged, PurchaseOrderAcknowledged, ShipmentNotified
from shared.service import Context, Effect, Refuse

MAX_SUPPLIER_LENGTH = 52
"""Leaves room for a number in the purchase order's id `<supplier>-<n>`, which has at most 64 characters."""


def offer_changed(state: State, message: OfferChanged, context: Context) -> Iterator[Effect]:
    """New terms replace the old ones; what is planned under the old ones is planned anew; who declined is asked again."""
    offer = Offer(**message.model_dump())
    if len(offer.supplier) > MAX_SUPPLIER_LENGTH:
        yield Refuse(
            "supplier_id_too_long", f"a supplier's id may have at most {MAX_SUPPLIER_LENGTH} characters, it stands in purchase orders' ids"
        )
        return
    if least(offer) > MAX_QUANTITY:
        yield Refuse(
            "not_orderable",
            f"the minimum {offer.minimum} in packs of {offer.pack} is {least(offer)}; a line carries at most {MAX_QUANTITY}",
        )
        return
    known = state.offers.get((offer.supplier, offer.sku))
    if known is not None and known != offer:
        state.withdraw(offer.supplier, offer.sku, context.cause)
    state.offers.put(offer)
    sku = state.skus[offer.sku]
    state.skus.put(replace(sku, declined_by=tuple(supplier for supplier in sku.declined_by if supplier != offer.supplier)))
    state.touched[offer.sku] = context.cause


def shortage_changed(state: State, message: ShortageChanged, context: Context) -> Iterable[Effect]:
    """Inventory's latest word on what is short; an older one is ignored. Nothing waits any more: declines are forgotten."""
    sku = state.skus[message.sku]
    if message.version > sku.shortage_version:
        state.skus.put(
            replace(
                sku,
                waiting=message.waiting,
                needed_by=message.needed_by,
                received_total=message.received_total,
                shortage_version=message.version,
                attempts=0,
                declined_by=sku.declined_by if message.waiting else (),
            )
        )
        state.touched[sku.sku] = context.cause
    return ()


def window_closed(policy: Policy, state: State, timer: WindowClosed, context: Context) -> Iterator[Effect]:
    """The supplier's planned orders go out; empty lines, and orders without any other, disappear."""
    for order in state.planned_orders(timer.key):
        lines = state.lines_on(order.purchase_order)
        wanted = [line for line in lines if line.ordered]
        for line in lines:
            if not line.ordered:
                state.lines.drop(line)
        if not wanted:
            state.orders.drop(order)
            continue
        state.orders.put(replace(order, status=Status.ISSUED, issued_at=context.now))
        sent = []
        for line in wanted:
            day = policy.day(context.now) + timedelta(days=line.lead_days)
            state.change(replace(line, expected_on=day), context.cause)
            sent.append(PurchaseLine(line=line.line, sku=line.sku, quantity=line.ordered, unit_price=line.unit_price, expected_on=day))
        yield PurchaseOrderIssued(
            purchase_order=order.purchase_order,
            supplier=order.supplier,
            currency=Currency(order.currency),
            issued_at=context.now,
            lines=tuple(sent),
        )


def supply_overdue(policy: Policy, state: State, timer: SupplyOverdue, context: Context) -> Iterable[Effect]:
    """The expected day is over and units are missing: nobody knows when they come. A day moved meanwhile counts."""
    line = state.lines.get(timer.line_key)
    if line is not None:
        due = deadline(line, state.orders.get(line.purchase_order), policy)
        if due is not None and due <= context.now:
            state.change(replace(line, expected_on=None), context.cause)
    return ()


def purchase_order_acknowledged(state: State, message: PurchaseOrderAcknowledged, context: Context) -> Iterator[Effect]:
    """A supplier's answer: days move, units are declined. Who declined a SKU that units wait for is not asked again for now."""
    refusal = _unknown(state, message.purchase_order) or _foreign(state, message)
    if refusal is not None:
        yield refusal
        return
    if state.acknowledgements.get((message.supplier, message.acknowledgement)) is not None:
        return
    state.acknowledgements.put(Acknowledgement(message.supplier, message.acknowledgement, message.purchase_order, message.acknowledged_at))
    for answer in message.lines:
        before = state.lines.get((message.purchase_order, answer.line))
        if before is None:
            yield _unknown_line(message.purchase_order, answer.line)
            continue
        line, surplus = answered(before, answer)
        state.change(line, context.cause)
        if line.declined > before.declined:
            _declined(state, message.supplier, line.sku, context.cause)
        if surplus:
            yield _more_than_outstanding(line, "confirmed", surplus, before.outstanding)


def shipment_notified(state: State, message: ShipmentNotified, context: Context) -> Iterator[Effect]:
    """Units are on their way: their lines are expected on that day."""
    refusal = _unknown(state, message.purchase_order) or _foreign(state, message)
    if refusal is not None:
        yield refusal
        return
    for notified in message.lines:
        line = state.lines.get((message.purchase_order, notified.line))
        if line is None:
            yield _unknown_line(message.purchase_order, notified.line)
        else:
            state.change(replace(line, expected_on=told_day(message.expected_on)), context.cause)


def goods_received(state: State, message: GoodsReceived, context: Context) -> Iterator[Effect]:
    """Units arrived at the dock. Every line that is right counts, whatever is wrong with the others."""
    content = hashlib.blake2b(message.model_dump_json().encode(), digest_size=16).digest()
    known = state.receipts.get(message.receipt)
    if known is not None:
        if known.content != content:
            yield Refuse("receipt_exists", f"receipt {message.receipt!r} was booked with other content; give a new receipt a new id")
        return
    refusal = _unknown(state, message.purchase_order)
    if refusal is not None:
        yield refusal
        return
    bookings: list[Booking] = []
    for arrived in message.lines:
        before = state.lines.get((message.purchase_order, arrived.line))
        if before is None:
            yield _unknown_line(message.purchase_order, arrived.line)
            continue
        if before.sku != arrived.sku:
            yield Refuse("sku_mismatch", f"line {arrived.line} of {message.purchase_order!r} is SKU {before.sku!r}, not {arrived.sku!r}")
            continue
        line, booking = booked(before, arrived)
        state.change(line, context.cause)
        bookings.append(booking)
        if booking.good:
            yield _stock_received(message, booking, context.cause)
        if booking.refused:
            yield _more_than_outstanding(line, "received", booking.refused, before.outstanding)
    if bookings:
        state.receipts.put(Receipt(message.receipt, content, message.purchase_order, message.received_at, tuple(bookings)))


def _stock_received(message: GoodsReceived, booking: Booking, cause: str) -> StockReceived:
    return StockReceived(
        receipt=message.receipt,
        purchase_order=message.purchase_order,
        line=booking.line,
        sku=booking.sku,
        good=booking.good,
        received_at=message.received_at,
        causation=cause,
    )


def _declined(state: State, supplier: str, sku_id: str, cause: str) -> None:
    sku = state.skus[sku_id]
    if sku.waiting and supplier not in sku.declined_by:
        state.skus.put(replace(sku, declined_by=tuple(sorted((*sku.declined_by, supplier)))))
        state.withdraw(supplier, sku_id, cause)


def _unknown(state: State, purchase_order: str) -> Refuse | None:
    order = state.orders.get(purchase_order)
    if order is None:
        return Refuse(
            "unknown_purchase_order", f"there is no purchase order {purchase_order!r}; use the id that PurchaseOrderIssued gave it"
        )
    if order.status is Status.PLANNED:
        return Refuse("not_issued", f"purchase order {purchase_order!r} has not been issued yet; wait for its PurchaseOrderIssued")
    return None


def _foreign(state: State, message: PurchaseOrderAcknowledged | ShipmentNotified) -> Refuse | None:
    if state.orders[message.purchase_order].supplier == message.supplier:
        return None
    return Refuse(
        "not_your_order", f"purchase order {message.purchase_order!r} is not with supplier {message.supplier!r}; answer your own only"
    )


def _unknown_line(purchase_order: str, line: int) -> Refuse:
    return Refuse(
        "unknown_line",
        f"purchase order {purchase_order!r} has no line {line}; use the line numbers of PurchaseOrderIssued. Other lines counted.",
    )


def _more_than_outstanding(line: Line, verb: str, surplus: int, outstanding: int) -> Refuse:
    return Refuse(
        "more_than_outstanding",
        f"line {line.line} of {line.purchase_order!r} ({line.sku}): {outstanding + surplus} units {verb}, {outstanding} outstanding, {surplus} too many",
    )
