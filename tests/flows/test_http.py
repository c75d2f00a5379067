"""The HTTP edge of a running system: 202 with where to look once the log has it, and clear words otherwise."""

from datetime import UTC, datetime

from shared.auth import Role
from shared.contracts.suppliers import AcknowledgedLine, LineAnswer, PurchaseOrderAcknowledged
from tests.flows.outside import Outside


def body(message: object) -> dict[str, object]:
    return message.model_dump(mode="json")  # type: ignore[attr-defined, no-any-return]


async def test_an_order_by_http_is_bought_received_shipped(world: Outside) -> None:
    sku = world.name("sku")
    await world.stock(sku, 0, acme=4)
    order = world.order((sku, 4))
    shop, warehouse = world.key(Role.SHOP, "shop"), world.key(Role.WAREHOUSE, "dock")
    first = await world.http.post(f"{world.url('orders')}/orders", json=body(order), headers=shop)
    again = await world.http.post(f"{world.url('orders')}/orders", json=body(order), headers=shop)
    assert first.status_code == again.status_code == 202
    assert first.headers["location"] == again.headers["location"] == f"/orders/{order.order}"
    look = await world.http.get(world.url("orders") + first.headers["location"])
    assert look.status_code == 200
    assert look.json()["status"] in {"pending", "waiting", "open", "backordered"} or look.json()["lines"]
    purchase = await world.issued(sku)
    answer = PurchaseOrderAcknowledged(
        acknowledgement=world.name("A"), purchase_order=purchase.purchase_order, supplier="acme", acknowledged_at=datetime.now(UTC),
        lines=tuple(AcknowledgedLine(line=line.line, answer=LineAnswer.ACCEPTED) for line in purchase.lines),
    )  # fmt: skip
    url = f"{world.url('purchasing')}/acknowledgements"
    assert (await world.http.post(url, json=body(answer), headers=world.key(Role.SUPPLIER, "other"))).status_code == 403
    assert (await world.http.post(url, json=body(answer), headers=world.key(Role.SUPPLIER, "acme"))).status_code == 202
    url = f"{world.url('purchasing')}/receipts"
    assert (await world.http.post(url, json=body(world.receipt(purchase)), headers=shop)).status_code == 403
    assert (await world.http.post(url, json=body(world.receipt(purchase)), headers=warehouse)).status_code == 202
    await world.line(order.order, allocated=4)
    parcel = {
        "shipment": world.name("P"),
        "order": order.order,
        "shipped_at": "2026-01-01T10:00:00Z",
        "lines": [{"line": 1, "quantity": 1}],
    }
    shipped = await world.http.post(f"{world.url('orders')}/shipments", json=parcel, headers=warehouse)
    assert shipped.status_code == 202
    await world.line(order.order, shipped=1)
    request = {"request": world.name("X"), "line": 1, "quantity": 1, "requested_at": "2026-01-01T10:00:00Z"}
    cancelled = await world.http.post(f"{world.url('orders')}/orders/{order.order}/cancellations", json=request, headers=shop)
    assert cancelled.status_code == 202
    await world.line(order.order, shipped=1, cancelled=1, allocated=2)


async def test_clear_words_for_what_cannot_be_taken(world: Outside) -> None:
    url = f"{world.url('orders')}/orders"
    order = body(world.order(("a", 1)))
    assert (await world.http.post(url, json=order)).status_code == 401
    assert (await world.http.post(url, json=order, headers={"Authorization": "Bearer shop:shop:forged"})).status_code == 401
    wrong = await world.http.post(url, json=order | {"currency": "ZZZ", "lines": []}, headers=world.key(Role.SHOP, "shop"))
    assert wrong.status_code == 422
    assert {error["field"] for error in wrong.json()["errors"]} == {"currency", "lines"}
    unnamed = {"line": 1, "quantity": 1, "requested_at": "2026-01-01T10:00:00Z"}
    nameless = await world.http.post(f"{url}/A-1/cancellations", json=unnamed, headers=world.key(Role.SHOP, "shop"))
    assert nameless.status_code == 400
    assert (await world.http.get(f"{url}/{world.name('none')}")).status_code == 404


async def test_health_metrics_and_documents(world: Outside) -> None:
    for service in ("orders", "inventory", "purchasing", "notifier"):
        root = world.url(service)
        live = (await world.http.get(f"{root}/health/live")).json()
        assert live["live"]
        assert live["silent_seconds"] < 60
        ready = await world.http.get(f"{root}/health/ready")
        assert ready.status_code == 200
        assert ready.json()["service"] == service
        assert "backorder_records_total" in (await world.http.get(f"{root}/metrics", follow_redirects=True)).text
        assert (await world.http.get(f"{root}/asyncapi")).json()["asyncapi"] == "3.0.0"
        assert (await world.http.get(f"{root}/openapi.json")).json()["info"]["title"] == f"Backorder: {service}"
