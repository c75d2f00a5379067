"""What the service purchasing tells: orders to suppliers, and expected and received supply to inventory."""

from typing import Annotated

from pydantic import Field

from shared.contracts.base import (
    MAX_LINES,
    Contract,
    Count,
    Currency,
    Day,
    Identifier,
    Instant,
    LineNumber,
    ListedMessage,
    Message,
    Quantity,
    Topic,
    Version,
    contract,
)
from shared.contracts.commerce import Price

PURCHASING_ORDERS = Topic("purchasing.orders", key="purchase_order", public=True)
PURCHASING_SUPPLY = Topic("purchasing.supply", key="sku")


class PurchaseLine(Contract):
    """One SKU of a purchase order; `expected_on` is a day in the warehouse's zone."""

    line: LineNumber
    sku: Identifier
    quantity: Quantity
    unit_price: Price
    expected_on: Day


@contract(PURCHASING_ORDERS, key="purchase_order")
class PurchaseOrderIssued(Message):
    """We order these goods from this supplier."""

    purchase_order: Identifier
    supplier: Identifier
    currency: Currency
    issued_at: Instant
    lines: Annotated[tuple[PurchaseLine, ...], Field(min_length=1, max_length=MAX_LINES)]


@contract(PURCHASING_SUPPLY, key="sku")
class StockReceived(ListedMessage):
    """`good` units of a purchase-order line arrived; once per receipt and purchase-order line."""

    receipt: Identifier
    purchase_order: Identifier
    line: LineNumber
    sku: Identifier
    good: Quantity
    received_at: Instant


@contract(PURCHASING_SUPPLY, key="sku", level=("purchase_order", "line"))
class SupplyChanged(ListedMessage):
    """The whole of a purchase-order line's outlook: `committed` = ordered − declined − closed short; `open` of them are still
    to come on `expected_on` (None = nobody knows when)."""

    purchase_order: Identifier
    line: LineNumber
    sku: Identifier
    committed: Count
    open: Count
    expected_on: Day | None = None
    version: Version
