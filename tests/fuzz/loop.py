"""A good story through every topic of the system: whoever holds one up, it does not come to its end."""

from datetime import UTC, datetime
from decimal import Decimal

from shared.codec import partition_of
from shared.contracts.commerce import ShipmentConfirmed, ShippedLine
from shared.contracts.suppliers import AcknowledgedLine, GoodsReceived, LineAnswer, OfferChanged, PurchaseOrderAcknowledged, ReceivedLine
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted
from tests.flows.outside import Outside, eventually

PREFIX = "loop-"
"""Of every id in it."""
_ISSUED = """
    SELECT purchase_order, line, ordered FROM purchase_line JOIN purchase_order USING (purchase_order)
    WHERE sku = $1 AND status = 'issued'"""


async def loop(world: Outside, partition: int, seconds: float) -> None:
    """An order of three of which there is one is backordered, bought, received, shipped and told, all in this partition of
    every topic. Raises AssertionError, naming the step, when that takes longer than so many seconds a step."""
    now = datetime.now(UTC)
    sku, order = _named(world, "sku", partition), _named(world, "order", partition)
    supplier = _named(world, "supplier", partition, number="-1")
    await world.publish(
        OfferChanged(supplier=supplier, sku=sku, price=Decimal(1), currency="EUR", lead_days=0),
        SkuDefined(sku=sku, backorder=BackorderPolicy.ALLOW),
        StockCounted(count=sku, sku=sku, on_hand=1, counted_at=now),
    )
    await eventually(lambda: world.rows("purchasing", "SELECT sku FROM offer WHERE sku = $1", sku), f"offer of {sku}", seconds)
    await eventually(lambda: world.rows("inventory", "SELECT sku FROM sku WHERE sku = $1 AND on_hand = 1", sku), f"stock of {sku}", seconds)
    await world.publish(world.order((sku, 3), order=order))
    [bought] = await eventually(lambda: world.rows("purchasing", _ISSUED, sku), f"purchase order of {sku}", seconds)
    answer = AcknowledgedLine(line=bought["line"], answer=LineAnswer.ACCEPTED)
    arrived = ReceivedLine(line=bought["line"], sku=sku, good=bought["ordered"])
    number = bought["purchase_order"]
    await world.publish(
        PurchaseOrderAcknowledged(acknowledgement=number, purchase_order=number, supplier=supplier, acknowledged_at=now, lines=(answer,)),
        GoodsReceived(receipt=number, purchase_order=number, received_at=now, lines=(arrived,)),
    )
    await _amount(world, order, "allocated", seconds)
    await world.publish(ShipmentConfirmed(shipment=order, order=order, shipped_at=now, lines=(ShippedLine(line=1, quantity=3),)))
    await _amount(world, order, "shipped", seconds)
    await eventually(
        lambda: world.rows("notifier", "SELECT kind FROM notice WHERE order_id = $1 AND kind = 'shipped'", order),
        f"notice of {order}",
        seconds,
    )


async def _amount(world: Outside, order: str, name: str, seconds: float) -> None:
    found = f"SELECT line FROM line_amounts WHERE order_id = $1 AND {name} = 3"
    await eventually(lambda: world.rows("orders", found, order), f"{name} units of {order}", seconds)


def _named(world: Outside, stem: str, partition: int, number: str = "") -> str:
    """A new id whose records (with this number behind it) go to the partition."""
    while partition_of((name := world.name(f"{PREFIX}{stem}")) + number, world.settings.partitions) != partition:
        pass
    return name
