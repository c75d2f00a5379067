"""The service purchasing: which message goes where. `python -m services.purchasing.app` runs it."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from services.purchasing import api, handlers, planning, store
from services.purchasing.domain import Policy
from services.purchasing.state import State
from services.purchasing.timers import SupplyOverdue, WindowClosed
from shared.contracts.inventory import INVENTORY_SHORTAGES, ShortageChanged
from shared.contracts.suppliers import (
    SUPPLIERS_MESSAGES,
    SUPPLIERS_OFFERS,
    GoodsReceived,
    OfferChanged,
    PurchaseOrderAcknowledged,
    ShipmentNotified,
)
from shared.runtime import run
from shared.service import Route, Service
from shared.settings import Settings


def _sku(message: OfferChanged | ShortageChanged) -> str:
    return f"sku:{message.sku}"


def _supplier(timer: WindowClosed) -> str:
    return f"supplier:{timer.key}"


def _purchase_order(message: PurchaseOrderAcknowledged | ShipmentNotified | GoodsReceived) -> str:
    return f"purchase_order:{message.purchase_order}"


def _purchase_order_of_line(timer: SupplyOverdue) -> str:
    return f"purchase_order:{timer.line_key[0]}"


def service(settings: Settings) -> Service[State]:
    """The service under these settings: consolidation window and the warehouse's zone."""
    policy = Policy(window=timedelta(hours=settings.consolidation_hours), zone=settings.zone)
    return Service(
        name="purchasing",
        topics=(SUPPLIERS_OFFERS, INVENTORY_SHORTAGES, SUPPLIERS_MESSAGES),
        routes={
            OfferChanged: Route(handlers.offer_changed, _sku),
            ShortageChanged: Route(handlers.shortage_changed, _sku),
            PurchaseOrderAcknowledged: Route(handlers.purchase_order_acknowledged, _purchase_order),
            ShipmentNotified: Route(handlers.shipment_notified, _purchase_order),
            GoodsReceived: Route(handlers.goods_received, _purchase_order),
            WindowClosed: Route(partial(handlers.window_closed, policy), _supplier),
            SupplyOverdue: Route(partial(handlers.supply_overdue, policy), _purchase_order_of_line),
        },
        load=store.load,
        save=store.save,
        decide=partial(planning.decide, policy),
        migrations=Path(__file__).parent / "migrations",
        api=api.router,
    )


if __name__ == "__main__":
    run(service)
