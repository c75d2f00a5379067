"""What the shop and the warehouse tell us about a customer's order: the topic `commerce.orders`."""

from collections import Counter
from decimal import Decimal
from typing import Annotated, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.contracts.base import (
    MAX_LINES,
    Contract,
    Currency,
    Identifier,
    Instant,
    LineNumber,
    Message,
    Quantity,
    Text,
    Topic,
    contract,
    pattern,
)

COMMERCE_ORDERS = Topic("commerce.orders", key="order", public=True, log_append_time=True)
"""Its log-append time is the fairness clock: nobody's clock but the broker's decides who ordered first."""

_ZONES = available_timezones()


def _known_zone(name: str) -> str:
    if name not in _ZONES:
        raise ValueError("Input should be an IANA time zone such as Europe/London")
    return name


_EMAIL = pattern(r"^[^@\s<>,;\x00]+@[^@\s<>,;\x00]+$", "one mail address such as ann@example.com")
_LANGUAGE = pattern(r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", "a language such as en or pt-BR")

Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254, pattern=_EMAIL)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]
Language = Annotated[str, StringConstraints(max_length=35, pattern=_LANGUAGE)]
Price = Annotated[Decimal, Field(ge=0, le=Decimal("9999999999.9999"), decimal_places=4)]


class Customer(Contract):
    """Who ordered, and how to reach them."""

    id: Identifier
    name: Text
    email: Email
    language: Language = "en"
    time_zone: TimeZone = "UTC"


class OrderedLine(Contract):
    """One SKU and quantity. The same SKU may stand on several lines. `unit_price` is in the order's currency."""

    line: LineNumber
    sku: Identifier
    quantity: Quantity
    unit_price: Price


@contract(COMMERCE_ORDERS, key="order")
class OrderPlaced(Message):
    """A customer's order, complete. `placed_at` is when the customer ordered."""

    order: Identifier
    placed_at: Instant
    customer: Customer
    currency: Currency
    lines: Annotated[tuple[OrderedLine, ...], Field(min_length=1, max_length=MAX_LINES)]

    @model_validator(mode="after")
    def _line_numbers_differ(self) -> Self:
        numbers = [line.line for line in self.lines]
        if len(set(numbers)) < len(numbers):
            twice = sorted(number for number, times in Counter(numbers).items() if times > 1)
            raise ValueError(f"line numbers must differ within an order; given twice: {', '.join(map(str, twice[:10]))}")
        return self


@contract(COMMERCE_ORDERS, key="order")
class OrderCancelRequested(Message):
    """Cancel an order (no `line`), a line (no `quantity`) or some units of a line. `request` is the asker's own id of this wish."""

    request: Identifier
    order: Identifier
    line: LineNumber | None = None
    quantity: Quantity | None = None
    reason: Text = ""
    requested_at: Instant

    @model_validator(mode="after")
    def _quantity_needs_a_line(self) -> Self:
        if self.quantity is not None and self.line is None:
            raise ValueError("'quantity' needs a 'line': say which line to reduce")
        return self


class ShippedLine(Contract):
    """Units of one line that left the house."""

    line: LineNumber
    quantity: Quantity


@contract(COMMERCE_ORDERS, key="order")
class ShipmentConfirmed(Message):
    """The warehouse handed units to the carrier. `shipment` is the warehouse's own id of the parcel."""

    shipment: Identifier
    order: Identifier
    shipped_at: Instant
    lines: Annotated[tuple[ShippedLine, ...], Field(min_length=1, max_length=MAX_LINES)]
    carrier: Text = ""
    tracking: Text = ""
