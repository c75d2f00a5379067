"""Whatever happened in a system, its state follows from its log; a row that does not is found and named."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from typer.testing import CliRunner

from deploy.local import from_log
from deploy.local.cli import app
from deploy.local.settled import wait_settled
from shared.codec import cloud_event_headers
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed, ShippedLine
from shared.contracts.warehouse import BackorderPolicy
from shared.settings import SERVICES
from tests.flows.outside import Outside

SAME = "{}: replaying the topics by the journal gives the same state"
# Nothing that breaks an invariant: it would be quarantined.
TAMPERED = {
    "orders": ("line", "UPDATE line SET unit_price = unit_price + $2::int WHERE order_id = $1 RETURNING unit_price"),
    "inventory": ("demand", "UPDATE demand SET promise_version = promise_version + $2 WHERE order_id = $1 RETURNING promise_version"),
    "purchasing": ("offer", "UPDATE offer SET lead_days = lead_days + $2 WHERE supplier = $1 RETURNING lead_days"),
    "notifier": (
        "correspondence",
        "UPDATE correspondence SET language = CASE $2::int WHEN 1 THEN 'xx' ELSE 'en' END WHERE order_id = $1 RETURNING language",
    ),
}


async def a_day(world: Outside) -> tuple[str, str]:
    """Something of everything: an order bought, received, shipped, cancelled in part, said twice, refused; a supplier's name too."""
    sku, scarce, supplier = world.name("sku"), world.name("sku"), world.name("acme")
    await world.stock(sku, 2, BackorderPolicy.ALLOW, **{supplier: 10})
    await world.stock(scarce, 1, BackorderPolicy.DENY)
    order = world.order((sku, 8), (scarce, 3))
    await world.publish(order, order, ids=["same", "same"], source=f"/clients/{order.order}")
    await world.line(order.order, allocated=2, backordered=6)
    await world.line(order.order, 2, allocated=1, cancelled=2)
    headers = list(cloud_event_headers(OrderPlaced.TYPE, "/clients/test", world.name("bad"), datetime.now(UTC)))
    await world.raw(OrderPlaced.TOPIC.name, order.order.encode(), b'{"order": "' + world.name("bad").encode() + b'"}', headers)
    await world.publish(world.receipt(await world.issued(sku)))
    await world.line(order.order, allocated=8)
    now = datetime.now(UTC)
    await world.publish(OrderCancelRequested(request=world.name("c"), order=order.order, line=1, quantity=3, requested_at=now))
    await world.line(order.order, allocated=5, cancelled=3)
    parcel = ShipmentConfirmed(shipment=world.name("P"), order=order.order, shipped_at=now, lines=(ShippedLine(line=1, quantity=9),))
    await world.publish(parcel)
    await world.line(order.order, shipped=5)
    return order.order, supplier


async def test_the_state_follows_from_the_log_and_a_tampered_row_does_not(world: Outside) -> None:
    order, supplier = await a_day(world)
    assert not await wait_settled(world.settings, 60)
    checks = await from_log.checks(world.settings)
    assert checks.keys() == {SAME.format(name) for name in SERVICES}
    assert [violation for check in checks.values() for violation in check.violations] == []
    assert all(check.checked for check in checks.values())
    otherwise = world.settings.model_copy(update={"consolidation_hours": 5.0, "digest_minutes": 5.0})
    assert {name for name, check in (await from_log.checks(otherwise)).items() if check.violations} == {
        SAME.format("purchasing"), SAME.format("notifier"),
    }, "what decides is what the system was set up with"  # fmt: skip
    try:
        for name, (_, sql) in TAMPERED.items():
            assert await world.rows(name, sql, supplier if name == "purchasing" else order, 1)
        result = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "--from-log", "--json", "--home", str(world.home.path)])
    finally:
        for name, (_, sql) in TAMPERED.items():
            await world.rows(name, sql, supplier if name == "purchasing" else order, -1)
    assert result.exit_code == 1
    audit: dict[str, Any] = json.loads(result.stdout)
    for name, (table, _) in TAMPERED.items():
        [violation] = audit["checks"][SAME.format(name)]["violations"]
        assert (violation["service"], violation["row"]["table"]) == (name, table)
        assert {order, supplier} & set(violation["row"].values())
