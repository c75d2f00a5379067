"""What the warehouse and the catalogue tell inventory: the topic `warehouse.events`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from shared.contracts.base import Identifier, Instant, Message, Text, Topic, contract

WAREHOUSE_EVENTS = Topic("warehouse.events", key="sku", public=True)
MAX_ON_HAND = 1_000_000_000


class BackorderPolicy(StrEnum):
    """May a customer order what is not in stock?"""

    ALLOW = "allow"
    DENY = "deny"


@contract(WAREHOUSE_EVENTS, key="sku")
class SkuDefined(Message):
    """The catalogue knows this SKU. A later definition replaces an earlier one for what is ordered after it."""

    sku: Identifier
    description: Text = ""
    backorder: BackorderPolicy


@contract(WAREHOUSE_EVENTS, key="sku")
class StockCounted(Message):
    """The opening count of a SKU. `count` is the warehouse's id of the count. (A second count is reported, not applied.)"""

    count: Identifier
    sku: Identifier
    on_hand: Annotated[int, Field(strict=True, ge=0, le=MAX_ON_HAND)]
    counted_at: Instant
