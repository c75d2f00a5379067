"""Bad input through the real topics: a specific answer or a dead letter with the reason, and nothing after it is held up."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.codec import cloud_event_headers
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed, ShippedLine
from shared.contracts.orders import OrderRejected
from shared.contracts.suppliers import GoodsReceived, ReceivedLine
from tests.flows.outside import Outside, eventually


def headers(id_: str, type_: str = OrderPlaced.TYPE) -> list[tuple[str, Any]]:
    return list(cloud_event_headers(type_, "/clients/test", id_, datetime.now(UTC)))


async def unhindered(world: Outside, key: bytes) -> None:
    """Another order in the same partition right behind it goes its way."""
    sku = world.name("sku")
    await world.stock(sku, 1)
    order = world.order((sku, 1))
    value = order.model_dump_json().encode()
    await world.raw(OrderPlaced.TOPIC.name, key, value, headers(world.name("id")))
    await world.line(order.order, allocated=1)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "no lines": ({"lines": []}, "lines"),
    "quantity 0": ({"lines": [{"line": 1, "sku": "a", "quantity": 0, "unit_price": "1"}]}, "lines.0.quantity"),
    "quantity -1": ({"lines": [{"line": 1, "sku": "a", "quantity": -1, "unit_price": "1"}]}, "lines.0.quantity"),
    "quantity 10^9": ({"lines": [{"line": 1, "sku": "a", "quantity": 10**9, "unit_price": "1"}]}, "lines.0.quantity"),
    "fractional quantity": ({"lines": [{"line": 1, "sku": "a", "quantity": 1.5, "unit_price": "1"}]}, "lines.0.quantity"),
    "unknown currency": ({"currency": "ZZZ"}, "currency"),
    "too many lines": ({"lines": [{"line": n, "sku": "a", "quantity": 1, "unit_price": "1"} for n in range(1, 1002)]}, "lines"),
    "line number twice": ({"lines": [{"line": 1, "sku": "a", "quantity": 1, "unit_price": "1"}] * 2}, "(whole message)"),
    "no time zone": ({"placed_at": "2026-01-01T10:00:00"}, "placed_at"),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_an_invalid_order_is_rejected_by_field(world: Outside, case: str) -> None:
    change, field = CHANGES[case]
    order = world.order(("a", 1))
    id_ = world.name("id")
    value = json.dumps(order.model_dump(mode="json") | change).encode()
    await world.raw(OrderPlaced.TOPIC.name, order.order.encode(), value, headers(id_))
    letter = await world.dead_letter("orders", "invalid", message_id=id_)
    assert field in letter["detail"]

    async def rejected() -> dict[str, Any] | None:
        answer = await world.http.get(f"{world.url('orders')}/orders/{order.order}")
        return answer.json() if answer.status_code == 200 and answer.json()["status"] == "rejected" else None

    view = await eventually(rejected, "the order to be rejected")
    assert [error["field"] for error in view["errors"]] == [field]


async def test_a_missing_field_is_named_and_a_corrected_order_is_welcome(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 1)
    order = world.order((sku, 1))
    data = order.model_dump(mode="json")
    del data["customer"]
    await world.raw(OrderPlaced.TOPIC.name, order.order.encode(), json.dumps(data).encode(), headers(world.name("id")))
    await world.publish(order)
    await world.line(order.order, allocated=1)
    told = [message for message in await world.messages("orders.events") if message.key == order.order]
    assert isinstance(told[0], OrderRejected)
    assert [(error.field, error.error) for error in told[0].errors] == [("customer", "Field required")]


RECORDS: dict[str, tuple[bytes | None, str, str | None]] = {
    "not JSON": (b"hello", "not_json", None),
    "truncated": (b'{"order": "A-1", "placed', "not_json", None),
    "null value": (None, "no_data", None),
    "empty value": (b"", "no_data", None),
    "unknown type": (b"{}", "unknown_type", "backorder.commerce.OrderTeleported.v1"),
    "unknown version": (b"{}", "unknown_version", "backorder.commerce.OrderPlaced.v9"),
    "type of another topic": (b"{}", "unknown_type", "backorder.warehouse.SkuDefined.v1"),
}


@pytest.mark.parametrize("case", RECORDS)
async def test_a_record_that_is_no_message_is_kept_with_its_reason(world: Outside, case: str) -> None:
    value, reason, type_ = RECORDS[case]
    id_, key = world.name("id"), world.name("key").encode()
    await world.raw(OrderPlaced.TOPIC.name, key, value, headers(id_, type_ or OrderPlaced.TYPE))
    letter = await world.dead_letter("orders", reason, message_id=id_)
    assert letter["state"] == "refused"
    assert letter["body"] == value
    await unhindered(world, key)


@pytest.mark.parametrize("broken", [b"\xff\xfe", None], ids=["not UTF-8", "null"])
async def test_a_bad_header_costs_only_its_own_record(world: Outside, broken: bytes | None) -> None:
    key = world.name("key").encode()
    order = world.order(("a", 1))
    given = [(name, broken if name == "ce_id" else text) for name, text in headers("x")]
    partition, offset = await world.raw(OrderPlaced.TOPIC.name, key, order.model_dump_json().encode(), given)
    await world.dead_letter("orders", "bad_header", partition=partition, offset=offset)
    await unhindered(world, key)


async def test_the_same_id_again_has_no_effect_and_with_other_content_is_reported(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 10)
    order, id_ = world.order((sku, 2)), world.name("id")
    await world.publish(order, order, ids=[id_, id_])
    await world.publish(order.model_copy(update={"lines": world.order((sku, 3)).lines}), ids=[id_])
    letter = await world.dead_letter("orders", "id_reused", message_id=id_)
    assert "before for other content" in letter["detail"]
    line = await world.line(order.order, allocated=2)
    assert line["amounts"]["ordered"] == 2


async def test_the_same_order_under_a_new_id_has_no_effect_and_another_one_is_refused(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 10)
    order = world.order((sku, 2))
    await world.publish(order, order)
    await world.publish(order.model_copy(update={"lines": world.order((sku, 3)).lines}))
    letter = await world.dead_letter("orders", "order_exists")
    assert order.order in letter["detail"]
    await world.line(order.order, allocated=2)


async def refused(world: Outside, service: str, message: Message, reason: str) -> str:
    """Publishes the message; answers what the service says against it."""
    id_ = world.name("id")
    await world.publish(message, ids=[id_])
    letter = await world.dead_letter(service, reason, message_id=id_)
    assert letter["state"] == "refused"
    return str(letter["detail"])


async def test_a_receipt_of_an_unknown_purchase_order_is_refused(world: Outside) -> None:
    receipt = GoodsReceived(
        receipt=world.name("R"), purchase_order="nobody-1", received_at=datetime.now(UTC), lines=(ReceivedLine(line=1, sku="a", good=1),)
    )
    assert "nobody-1" in await refused(world, "purchasing", receipt, "unknown_purchase_order")


async def test_a_receipt_counts_once_and_only_what_is_outstanding(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 0, acme=5)
    order = world.order((sku, 5))
    await world.publish(order)
    purchase = await world.issued(sku)
    units = next(line.quantity for line in purchase.lines if line.sku == sku)
    receipt = world.receipt(purchase, **{sku: units})
    await world.publish(receipt, receipt)  # the same receipt under two message ids
    await world.line(order.order, allocated=5)
    detail = await refused(world, "purchasing", world.receipt(purchase, **{sku: 1}), "more_than_outstanding")
    assert sku in detail or purchase.purchase_order in detail
    stock = (await world.http.get(f"{world.url('inventory')}/skus/{sku}")).json()
    assert stock["on_hand"] == units


async def test_more_cannot_be_shipped_than_is_allocated(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 3)
    order = world.order((sku, 3))
    await world.publish(order)
    await world.line(order.order, allocated=3)
    parcel = ShipmentConfirmed(
        shipment=world.name("P"), order=order.order, shipped_at=datetime.now(UTC), lines=(ShippedLine(line=1, quantity=4),)
    )
    assert "3" in await refused(world, "orders", parcel, "shipped_more_than_allocated")
    await world.line(order.order, shipped=3)


async def test_what_names_an_unknown_order_is_refused(world: Outside) -> None:
    now = datetime.now(UTC)
    await refused(
        world, "orders", OrderCancelRequested(request=world.name("X"), order=world.name("none"), requested_at=now), "unknown_order"
    )
    parcel = ShipmentConfirmed(shipment=world.name("P"), order=world.name("none"), shipped_at=now, lines=(ShippedLine(line=1, quantity=4),))
    await refused(world, "orders", parcel, "unknown_order")
