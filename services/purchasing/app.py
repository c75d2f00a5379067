"""The service purchasing: which message goes where. `python -m services.purchasing.app` runs it."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from services.purchasing import api, audit, handlers, invariants, planning, read_back, repair, store, touches
from services.purchasing.domain import Policy
from services.purchasing.state import State
from services.purchasing.timers import SupplyAgain, SupplyOverdue, WindowClosed
from shared.contracts.inventory import INVENTORY_SHORTAGES, ShortageChanged
from shared.contracts.purchasing import PURCHASING_ORDERS, PURCHASING_SUPPLY, PurchaseOrderIssued, SupplyChanged
from shared.contracts.suppliers import (
    SUPPLIERS_MESSAGES,
    SUPPLIERS_OFFERS,
    GoodsReceived,
    OfferChanged,
    PurchaseOrderAcknowledged,
    ShipmentNotified,
)
from shared.runtime import run
from shared.service import Repair, Route, Service
from shared.settings import Settings


def _sku(message: OfferChanged | ShortageChanged | SupplyChanged) -> str:
    return f"sku:{message.sku}"


def _supplier(timer: WindowClosed) -> str:
    return f"supplier:{timer.key}"


def _purchase_order(message: PurchaseOrderAcknowledged | ShipmentNotified | GoodsReceived | PurchaseOrderIssued) -> str:
    return f"purchase_order:{message.purchase_order}"


def _purchase_order_of_line(timer: SupplyOverdue | SupplyAgain) -> str:
    return f"purchase_order:{timer.key.partition('/')[0]}"


def service(settings: Settings) -> Service[State]:
    """The service under these settings: consolidation window and the warehouse's zone."""
    policy = Policy(window=timedelta(hours=settings.consolidation_hours), zone=settings.zone)
    purchasing = Service(
        name="purchasing",
        topics=(SUPPLIERS_OFFERS, INVENTORY_SHORTAGES, SUPPLIERS_MESSAGES),
        routes={
            OfferChanged: Route(handlers.offer_changed, _sku, touches.of_a_sku),
            ShortageChanged: Route(handlers.shortage_changed, _sku, touches.of_a_sku),
            PurchaseOrderAcknowledged: Route(handlers.purchase_order_acknowledged, _purchase_order, touches.of_lines),
            ShipmentNotified: Route(handlers.shipment_notified, _purchase_order, touches.of_lines),
            GoodsReceived: Route(handlers.goods_received, _purchase_order, touches.of_lines),
            WindowClosed: Route(partial(handlers.window_closed, policy), _supplier, touches.of_a_window),
            SupplyOverdue: Route(partial(handlers.supply_overdue, policy), _purchase_order_of_line, touches.of_a_line),
            SupplyChanged: Route(read_back.supply_changed, _sku),
            PurchaseOrderIssued: Route(partial(read_back.purchase_order_issued, policy), _purchase_order),
            SupplyAgain: Route(read_back.supply_again, _purchase_order_of_line),
            Repair: Route(partial(repair.repair, policy), lambda message: message.aggregate),
        },
        load=store.load,
        save=store.save,
        checks=invariants.CHECKS,
        watched=audit.WATCHED,
        decide=partial(planning.decide, policy),
        migrations=Path(__file__).parent / "migrations",
        api=api.router,
    )
    # What was ever planned first, so that its numbers are not used again.
    told = (PURCHASING_SUPPLY, PURCHASING_ORDERS)
    restored = replace(
        purchasing, topics=(*told, *purchasing.topics), decide=partial(read_back.decide, policy), checks=invariants.WHILE_READING_BACK
    )
    return replace(purchasing, read_back=restored)


if __name__ == "__main__":
    run(service)
