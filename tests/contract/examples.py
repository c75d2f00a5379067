"""One message of every kind, and the records that carry them."""

from datetime import UTC, date, datetime
from decimal import Decimal

from aiokafka import ConsumerRecord

from shared.codec import cloud_event_headers, encode
from shared.contracts.base import Currency, Message
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced, ShipmentConfirmed, ShippedLine
from shared.contracts.inventory import DemandRefused, DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.notifier import NoticedLine, NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import (
    Amounts,
    CancelReason,
    CancelRefused,
    DemandSet,
    FieldError,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LineChange,
    LinePromised,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
    RefusedLine,
)
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued, StockReceived, SupplyChanged
from shared.contracts.suppliers import (
    AcknowledgedLine,
    GoodsReceived,
    LineAnswer,
    NotifiedLine,
    OfferChanged,
    PurchaseOrderAcknowledged,
    ReceivedLine,
    ShipmentNotified,
)
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

EUR = Currency("EUR")
AT = datetime(2025, 1, 2, 10, 30, tzinfo=UTC)
DAY = date(2025, 1, 9)
ANN = Customer(id="C-1", name="Ann Lee", email="ann@example.com", time_zone="Europe/London")
LINES = (OrderedLine(line=1, sku="17", quantity=3, unit_price=Decimal("2.50")),)
CHANGES = (
    LineChange(
        line=1, sku="17", quantity=3, version=2, ship_by=DAY, promise_version=1,
        amounts=Amounts(ordered=3, pending=0, allocated=0, backordered=3, shipped=0, cancelled=0),
    ),
)  # fmt: skip
NOTICES = (NoticedLine(line=1, kind=NoticeKind.BACKORDERED, promise_version=1),)

ORDER = OrderPlaced(order="A-1", placed_at=AT, customer=ANN, currency=EUR, lines=LINES)

EXAMPLES: tuple[Message, ...] = (
    ORDER,
    OrderCancelRequested(request="R-1", order="A-1", line=1, quantity=2, requested_at=AT),
    ShipmentConfirmed(shipment="S-1", order="A-1", shipped_at=AT, lines=(ShippedLine(line=1, quantity=3),)),
    OrderAccepted(order="A-1", at=AT, placed_at=AT, customer=ANN, currency=EUR, lines=LINES),
    OrderRejected(order="A-1", at=AT, errors=(FieldError(field="lines.0.quantity", error="too many"),)),
    LineBackordered(order="A-1", at=AT, lines=CHANGES),
    LinePromised(order="A-1", at=AT, lines=CHANGES),
    LineAllocated(order="A-1", at=AT, lines=CHANGES),
    LineShipped(order="A-1", at=AT, lines=CHANGES, shipment="S-1", carrier="Post"),
    LineCancelled(order="A-1", at=AT, lines=CHANGES, reason=CancelReason.CUSTOMER),
    CancelRefused(order="A-1", at=AT, request="R-1", reason="shipped", lines=(RefusedLine(line=1, quantity=1),)),
    OrderCompleted(order="A-1", at=AT),
    DemandSet(order="A-1", line=1, sku="17", wanted=3, shipped=0, queued_at=AT, ordered_at=AT, demand_version=7, version=7, causation="m#0"),
    DemandRefused(order="A-1", line=1, quantity=3, reason=CancelReason.UNKNOWN_SKU, demand_version=7, causation="m#1"),
    DemandServed(order="A-1", line=1, served=2, ship_by=DAY, promise_version=1, demand_version=7, version=8),
    ShortageChanged(sku="17", waiting=3, needed_by=AT, received_total=0, version=8),
    StockLevelChanged(sku="17", at=AT, available=0, waiting=3, backorderable=True, next_date=DAY, version=8),
    NoticeSent(order="A-1", mail="M-1", at=AT, notices=NOTICES),
    NoticeFailed(order="A-1", mail="M-1", at=AT, reason="no such mailbox", notices=NOTICES),
    PurchaseOrderIssued(
        purchase_order="acme-1", supplier="acme", currency=EUR, issued_at=AT,
        lines=(PurchaseLine(line=1, sku="17", quantity=10, unit_price=Decimal("1.10"), expected_on=DAY),),
    ),
    StockReceived(receipt="W-1", purchase_order="acme-1", line=1, sku="17", good=10, received_at=AT),
    SupplyChanged(purchase_order="acme-1", line=1, sku="17", committed=10, open=10, expected_on=DAY, version=9),
    OfferChanged(supplier="acme", sku="17", price=Decimal("1.10"), currency=EUR, pack=10, lead_days=7),
    PurchaseOrderAcknowledged(
        acknowledgement="K-1", purchase_order="acme-1", supplier="acme", acknowledged_at=AT,
        lines=(AcknowledgedLine(line=1, answer=LineAnswer.CHANGED, quantity=8),),
    ),
    ShipmentNotified(notice="N-1", purchase_order="acme-1", supplier="acme", expected_on=DAY, lines=(NotifiedLine(line=1, quantity=8),)),
    GoodsReceived(receipt="W-1", purchase_order="acme-1", received_at=AT, lines=(ReceivedLine(line=1, sku="17", good=8, damaged=1),)),
    SkuDefined(sku="17", description="Tofu", backorder=BackorderPolicy.ALLOW),
    StockCounted(count="opening", sku="17", on_hand=5, counted_at=AT),
)  # fmt: skip

Headers = list[tuple[str, bytes | None]]


def headers_of(message: Message, id_: str = "m-1") -> Headers:
    """The headers with which an outsider sends a message."""
    return list(cloud_event_headers(message.TYPE, "/clients/test", id_, AT, actor="shop:test"))


def record(topic: str, headers: Headers, value: bytes | None) -> "ConsumerRecord[bytes, bytes]":
    """A record as the broker hands it out; the types say that headers have values, the broker does not."""
    return ConsumerRecord(topic, 3, 42, int(AT.timestamp() * 1000), 1, b"key", value, None, 3, len(value or b""), tuple(headers))


def carried(message: Message) -> "ConsumerRecord[bytes, bytes]":
    """The message in a record of its own."""
    return record(message.TOPIC.name, headers_of(message), encode(message))
