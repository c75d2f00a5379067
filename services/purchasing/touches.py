"""What else a message changes than what keeps its order: it waits while one of these is quarantined."""

from collections.abc import Iterator

from services.purchasing.state import State
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.contracts.inventory import ShortageChanged
from shared.contracts.suppliers import GoodsReceived, OfferChanged, PurchaseOrderAcknowledged, ShipmentNotified


def of_a_sku(state: State, message: OfferChanged | ShortageChanged) -> Iterator[str]:
    """Planned orders that have the SKU: planning anew changes their lines."""
    return (f"purchase_order:{line.purchase_order}" for line in state.planned_lines(message.sku))


def of_lines(state: State, message: PurchaseOrderAcknowledged | ShipmentNotified | GoodsReceived) -> Iterator[str]:
    """SKUs of the lines: what is declined is planned anew."""
    for named in message.lines:
        line = state.lines.get((message.purchase_order, named.line))
        if line is not None:
            yield f"sku:{line.sku}"


def of_a_window(state: State, timer: WindowClosed) -> Iterator[str]:
    """The orders that would be issued, and the SKUs on them: a purchase order is sent as a whole."""
    for order in state.planned_orders(timer.key):
        yield f"purchase_order:{order.purchase_order}"
        yield from (f"sku:{line.sku}" for line in state.lines_on(order.purchase_order))


def of_a_line(state: State, timer: SupplyOverdue) -> Iterator[str]:
    """Its SKU."""
    line = state.lines.get(timer.line_key)
    if line is not None:
        yield f"sku:{line.sku}"
