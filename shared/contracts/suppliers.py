"""What suppliers and the receiving dock tell purchasing: `suppliers.offers` and `suppliers.messages`."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.contracts.base import (
    MAX_LINES,
    Contract,
    Count,
    Currency,
    Day,
    Identifier,
    Instant,
    LineNumber,
    Message,
    Quantity,
    Text,
    Topic,
    contract,
)
from shared.contracts.commerce import Price

SUPPLIERS_OFFERS = Topic("suppliers.offers", key="sku", public=True)
SUPPLIERS_MESSAGES = Topic("suppliers.messages", key="purchase_order", public=True)


@contract(SUPPLIERS_OFFERS, key="sku")
class OfferChanged(Message):
    """A supplier's terms for a SKU: units come in multiples of `pack`, at least `minimum`, `lead_days` calendar days after the order."""

    supplier: Identifier
    sku: Identifier
    price: Price
    currency: Currency
    pack: Quantity = 1
    minimum: Quantity = 1
    lead_days: Annotated[int, Field(strict=True, ge=0, le=365)]


class LineAnswer(StrEnum):
    """A supplier's answer to one line of a purchase order."""

    ACCEPTED = "accepted"
    CHANGED = "changed"
    REJECTED = "rejected"


class AcknowledgedLine(Contract):
    """`changed`: `quantity` units will come (the rest is declined) and/or they come on `expected_on`."""

    line: LineNumber
    answer: LineAnswer
    quantity: Quantity | None = None
    expected_on: Day | None = None

    @model_validator(mode="after")
    def _change_says_what(self) -> Self:
        if self.answer is LineAnswer.CHANGED and self.quantity is None and self.expected_on is None:
            raise ValueError("'changed' needs a 'quantity', an 'expected_on', or both: say what changes")
        return self


@contract(SUPPLIERS_MESSAGES, key="purchase_order")
class PurchaseOrderAcknowledged(Message):
    """A supplier answers lines of a purchase order; a later answer replaces an earlier date. `acknowledgement` is the supplier's own id."""

    acknowledgement: Identifier
    purchase_order: Identifier
    supplier: Identifier
    acknowledged_at: Instant
    lines: Annotated[tuple[AcknowledgedLine, ...], Field(min_length=1, max_length=MAX_LINES)]


class NotifiedLine(Contract):
    """Units of a line that are on their way."""

    line: LineNumber
    quantity: Quantity


@contract(SUPPLIERS_MESSAGES, key="purchase_order")
class ShipmentNotified(Message):
    """A supplier's shipping notice: these lines are on their way and are expected on that day."""

    notice: Identifier
    purchase_order: Identifier
    supplier: Identifier
    expected_on: Day
    lines: Annotated[tuple[NotifiedLine, ...], Field(min_length=1, max_length=MAX_LINES)]
    carrier: Text = ""
    tracking: Text = ""


class Balance(StrEnum):
    """What becomes of a line's units that did not come with this receipt."""

    FOLLOWS = "follows"
    CLOSED = "closed"


class ReceivedLine(Contract):
    """Units that arrived for purchase-order line `line`: good ones go to stock; damaged ones do not, and are bought again."""

    line: LineNumber
    sku: Identifier
    good: Count
    damaged: Count = 0
    balance: Balance = Balance.FOLLOWS


@contract(SUPPLIERS_MESSAGES, key="purchase_order")
class GoodsReceived(Message):
    """The dock received goods of a purchase order. `receipt` is the warehouse's own id of it."""

    receipt: Identifier
    purchase_order: Identifier
    received_at: Instant
    lines: Annotated[tuple[ReceivedLine, ...], Field(min_length=1, max_length=MAX_LINES)]

    @model_validator(mode="after")
    def _lines_differ(self) -> Self:
        numbers = [line.line for line in self.lines]
        if len(set(numbers)) < len(numbers):
            raise ValueError("each purchase-order line may stand once in a receipt: add its units up")
        return self
