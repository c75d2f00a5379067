"""What the service inventory tells: who is served, what is short, and what a shop may sell."""

from shared.contracts.base import (
    Count,
    Day,
    Identifier,
    Instant,
    LineNumber,
    ListedMessage,
    Message,
    Quantity,
    Topic,
    Total,
    Version,
    contract,
)
from shared.contracts.orders import CancelReason

INVENTORY_ALLOCATIONS = Topic("inventory.allocations", key="order")
INVENTORY_SHORTAGES = Topic("inventory.shortages", key="sku")
INVENTORY_STOCK = Topic("inventory.stock", key="sku", public=True)


@contract(INVENTORY_ALLOCATIONS, key="order")
class DemandRefused(ListedMessage):
    """`quantity` units of the claim are not in stock and may not wait. Heeded only for the line's latest demand version."""

    order: Identifier
    line: LineNumber
    quantity: Quantity
    reason: CancelReason
    demand_version: Version


@contract(INVENTORY_ALLOCATIONS, key="order", level=("order", "line"))
class DemandServed(ListedMessage):
    """`served` = units ever set aside for the line and not taken back, shipped ones included; `refused` ones are not in stock and
    may not wait. `ship_by` is the promise for what still waits (None = no date), `promise_version` rises with each change of it.
    `demand_version` is the claim's that is answered."""

    order: Identifier
    line: LineNumber
    served: Count
    refused: Count = 0
    ship_by: Day | None = None
    promise_version: Version = 0
    demand_version: Version
    version: Version


@contract(INVENTORY_SHORTAGES, key="sku", level=("sku",))
class ShortageChanged(ListedMessage):
    """`waiting` units (gross of supply) wait; `received_total` = units of purchase receipts ever booked. Purchasing alone nets.
    `needed_by` = business time at which the first in the queue ordered."""

    sku: Identifier
    waiting: Total
    needed_by: Instant | None = None
    received_total: Total
    version: Version


@contract(INVENTORY_STOCK, key="sku", level=("sku",))
class StockLevelChanged(Message):
    """What a shop may show: units free now, whether more may be ordered, and when an order placed now could ship (None = unknown)."""

    sku: Identifier
    at: Instant
    available: Total
    waiting: Total
    backorderable: bool
    next_date: Day | None = None
    version: Version
