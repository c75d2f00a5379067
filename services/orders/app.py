"""The service orders, wired: which message is applied by what, over which topics, in which order."""

from pathlib import Path
from typing import Any

from services.orders import api, audit, handlers, invariants, repair, store
from services.orders.handlers import OrderInvalid
from services.orders.state import State
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandRefused, DemandServed
from shared.runtime import run
from shared.service import Repair, Route, Service
from shared.settings import Settings


def _order(message: Any) -> str:
    return f"order:{message.order}"


def service(_settings: Settings) -> Service[State]:
    """The service; no setting changes what it decides."""
    return Service(
        name="orders",
        # What inventory has set aside counts before what customers and the warehouse do with it.
        topics=(INVENTORY_ALLOCATIONS, COMMERCE_ORDERS),
        routes={
            DemandRefused: Route(handlers.demand_refused, _order),
            DemandServed: Route(handlers.demand_served, _order),
            OrderPlaced: Route(handlers.order_placed, _order),
            OrderCancelRequested: Route(handlers.order_cancel_requested, _order),
            ShipmentConfirmed: Route(handlers.shipment_confirmed, _order),
            OrderInvalid: Route(handlers.order_invalid, _order),
            Repair: Route(repair.repair, lambda message: message.aggregate),
        },
        load=store.load,
        decide=handlers.decide,
        save=store.save,
        invalid=handlers.invalid,
        checks=invariants.CHECKS,
        watched=audit.WATCHED,
        migrations=Path(__file__).parent / "migrations",
        api=api.router,
    )


if __name__ == "__main__":
    run(service)
