"""The loop end to end: an order for something out of stock is bought, received, served in order, shipped and told."""

from datetime import UTC, datetime

from shared.contracts.commerce import OrderCancelRequested, ShipmentConfirmed, ShippedLine
from shared.contracts.suppliers import AcknowledgedLine, LineAnswer, PurchaseOrderAcknowledged
from shared.contracts.warehouse import BackorderPolicy
from tests.flows.outside import Outside, eventually


async def test_out_of_stock_is_bought_received_and_shipped(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 2, acme=10)
    order = world.order((sku, 5))
    await world.publish(order)
    waiting = await world.line(order.order, allocated=2, backordered=3)
    purchase = await world.issued(sku)
    assert [line.quantity for line in purchase.lines if line.sku == sku] == [10]
    receipt = world.receipt(purchase)
    await world.publish(receipt)
    served = await world.line(order.order, allocated=5, backordered=0)
    assert served["version"] > waiting["version"]
    parcel = ShipmentConfirmed(
        shipment=world.name("P"), order=order.order, shipped_at=datetime.now(UTC), lines=(ShippedLine(line=1, quantity=5),), tracking="T-1"
    )
    await world.publish(parcel)
    await world.line(order.order, shipped=5, allocated=0)

    async def completed() -> list[str] | None:
        story = await world.timeline(order.order)
        return story if story[-1] == "OrderCompleted" else None

    story = await eventually(completed, "the order to be completed")
    assert story[0] == "OrderAccepted"
    for told in ("LineBackordered", "LinePromised", "LineAllocated", "LineShipped"):
        assert told in story

    async def shipped_mail() -> list[dict[str, object]] | None:
        rows = await world.rows("notifier", "SELECT * FROM mail WHERE order_id = $1 AND status = 'sent' ORDER BY created_at", order.order)
        return rows if any("T-1" in row["body"] for row in rows) else None

    sent = await eventually(shipped_mail, "the mail that says 'shipped'")
    assert all(row["recipient"] == "ann@example.com" for row in sent)


async def test_customers_are_served_in_the_order_in_which_they_ordered(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 0, acme=1)
    orders = [world.order((sku, 2)) for _ in range(5)]
    for order in orders:
        await world.publish(order)
        await world.line(order.order, backordered=2)
    queue = (await world.http.get(f"{world.url('inventory')}/skus/{sku}/queue")).json()
    waiting = queue if isinstance(queue, list) else next(value for value in queue.values() if isinstance(value, list))
    assert [entry["order"] for entry in waiting] == [order.order for order in orders]
    purchase = await world.issued(sku)
    await world.publish(world.receipt(purchase, **{sku: min(5, purchase.lines[0].quantity)}))
    await world.line(orders[0].order, allocated=2)
    received = min(5, purchase.lines[0].quantity)
    allocated = [(await world.line(order.order))["amounts"]["allocated"] for order in orders]
    assert allocated == [max(0, min(2, received - 2 * place)) for place in range(5)]


async def test_a_cancelled_backorder_frees_nothing_and_the_next_one_moves_up(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 0, acme=1)
    first, second = world.order((sku, 3)), world.order((sku, 2))
    for order in (first, second):
        await world.publish(order)
        await world.line(order.order, backordered=order.lines[0].quantity)
    await world.publish(OrderCancelRequested(request=world.name("X"), order=first.order, requested_at=datetime.now(UTC)))
    await world.line(first.order, cancelled=3, backordered=0)
    stock = (await world.http.get(f"{world.url('inventory')}/skus/{sku}")).json()
    assert stock["free"] == 0
    purchase = await world.issued(sku)
    await world.publish(world.receipt(purchase))
    await world.line(second.order, allocated=2)


async def test_when_a_supplier_declines_the_next_one_is_asked(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 0, cheap=5, dear=5)
    order = world.order((sku, 4))
    await world.publish(order)
    first = await world.issued(sku)
    assert first.supplier == "cheap"
    line = next(line for line in first.lines if line.sku == sku)
    await world.publish(
        PurchaseOrderAcknowledged(
            acknowledgement=world.name("A"), purchase_order=first.purchase_order, supplier="cheap", acknowledged_at=datetime.now(UTC),
            lines=(AcknowledgedLine(line=line.line, answer=LineAnswer.REJECTED),),
        )
    )  # fmt: skip
    second = await world.issued(sku, besides=[first.purchase_order])
    assert second.supplier == "dear"
    await world.publish(world.receipt(second))
    await world.line(order.order, allocated=4)


async def test_what_may_not_wait_is_refused_with_its_reason(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 1, BackorderPolicy.DENY, acme=5)
    order = world.order((sku, 3), (world.name("never-heard-of"), 1))
    await world.publish(order)
    await world.line(order.order, allocated=1, cancelled=2)
    await world.line(order.order, 2, cancelled=1)
    answer = await world.http.get(f"{world.url('orders')}/orders/{order.order}/timeline")
    assert {entry["data"]["reason"] for entry in answer.json() if "reason" in entry["data"]} == {"not_backorderable", "unknown_sku"}
