"""What the service orders tells: the story of every order (`orders.events`) and each line's claim (`orders.demand`)."""

from enum import StrEnum
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
    Text,
    Topic,
    Version,
    contract,
)
from shared.contracts.commerce import Customer, OrderedLine

ORDERS_EVENTS = Topic("orders.events", key="order", public=True)
ORDERS_DEMAND = Topic("orders.demand", key="sku")
MAX_ERRORS, MAX_FIELD, MAX_ERROR = 20, 100, 500
"""What is said about one message is bounded, however much is wrong with it: entries, and characters of each part."""


class CancelReason(StrEnum):
    """Why units of a line were cancelled."""

    CUSTOMER = "customer"
    UNKNOWN_SKU = "unknown_sku"
    NOT_BACKORDERABLE = "not_backorderable"


class Amounts(Contract):
    """A line's five amounts after the change: pending + allocated + backordered + shipped + cancelled = ordered, always."""

    ordered: Quantity
    pending: Count
    allocated: Count
    backordered: Count
    shipped: Count
    cancelled: Count


class LineChange(Contract):
    """One line of an event: `quantity` units changed now; `amounts` and `version` are the line's after it. `ship_by` is the promise, None = no date yet."""

    line: LineNumber
    sku: Identifier
    quantity: Count
    amounts: Amounts
    version: Version
    ship_by: Day | None = None
    promise_version: Version = 0


@contract(ORDERS_EVENTS, key="order")
class OrderAccepted(Message):
    """The order is ours now. Carries what a notice needs: whom to write, in which language and zone. `queued_at` is the broker's
    time of the order's own record: its place in every queue."""

    order: Identifier
    at: Instant
    placed_at: Instant
    queued_at: Instant | None = None
    customer: Customer
    currency: Currency
    lines: Annotated[tuple[OrderedLine, ...], Field(max_length=MAX_LINES)]


class FieldError(Contract):
    """One thing that is wrong: where, and what was expected."""

    field: Annotated[str, Field(max_length=MAX_FIELD)]
    error: Annotated[str, Field(max_length=MAX_ERROR)]


@contract(ORDERS_EVENTS, key="order")
class OrderRejected(Message):
    """The order could not be accepted as it was sent; a corrected one under the same id is welcome."""

    order: Identifier
    at: Instant
    errors: Annotated[tuple[FieldError, ...], Field(max_length=MAX_ERRORS)]


class LineEvent(Message):
    """Base of the events of lines: one message per order, kind and transaction, listing the lines it is about."""

    order: Identifier
    at: Instant
    lines: Annotated[tuple[LineChange, ...], Field(max_length=MAX_LINES)]


@contract(ORDERS_EVENTS, key="order")
class LineBackordered(LineEvent):
    """`quantity` units wait for supply."""


@contract(ORDERS_EVENTS, key="order")
class LinePromised(LineEvent):
    """The date of the waiting units moved, appeared, or was lost (`ship_by` None)."""


@contract(ORDERS_EVENTS, key="order")
class LineAllocated(LineEvent):
    """`quantity` units were set aside: the warehouse may pick them."""


@contract(ORDERS_EVENTS, key="order")
class LineShipped(LineEvent):
    """`quantity` units left the house."""

    shipment: Identifier
    carrier: Text = ""
    tracking: Text = ""


@contract(ORDERS_EVENTS, key="order")
class LineCancelled(LineEvent):
    """`quantity` units are no longer wanted, or could not be had (`reason`). `request` is the customer's wish that it answers."""

    reason: CancelReason
    request: Identifier | None = None


class RefusedLine(Contract):
    """Units that could not be cancelled, because they have shipped."""

    line: LineNumber
    quantity: Quantity


@contract(ORDERS_EVENTS, key="order")
class CancelRefused(Message):
    """A cancellation, or a part of it, came too late or named nothing that could be cancelled."""

    order: Identifier
    at: Instant
    request: Identifier
    reason: Text
    lines: Annotated[tuple[RefusedLine, ...], Field(max_length=MAX_LINES)] = ()


@contract(ORDERS_EVENTS, key="order")
class OrderCompleted(Message):
    """Nothing of the order is pending, allocated or backordered any more."""

    order: Identifier
    at: Instant


@contract(ORDERS_DEMAND, key="sku", level=("order", "line"))
class DemandSet(ListedMessage):
    """A line's whole claim on its SKU. `wanted` = ordered − cancelled; `queued_at` is the broker's time of the order's own
    record (place in the queue), `ordered_at` the business time of the order, `queue_class` a constant for now.
    `demand_version` is the version under which `wanted` last changed: inventory answers each of these."""

    order: Identifier
    line: LineNumber
    sku: Identifier
    wanted: Count
    shipped: Count
    queue_class: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    queued_at: Instant
    ordered_at: Instant
    demand_version: Version
    version: Version
