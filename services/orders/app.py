"""The service orders, wired: which message is applied by what, over which topics, in which order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from services.orders import api, audit, handlers, invariants, read_back, repair, store
from services.orders.handlers import OrderInvalid
from services.orders.read_back import ClaimAgain
from services.orders.state import State
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandRefused, DemandServed
from shared.contracts.orders import (
    ORDERS_EVENTS,
    CancelRefused,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LinePromised,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
)
from shared.runtime import run
from shared.service import Repair, Route, Service
from shared.settings import Settings


def _order(message: Any) -> str:
    return f"order:{message.order}"


def service(_settings: Settings) -> Service[State]:
    """The service; no setting changes what it decides."""
    orders = Service(
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
            OrderAccepted: Route(read_back.order_accepted, _order),
            OrderRejected: Route(read_back.order_rejected, _order),
            LineBackordered: Route(read_back.line_told, _order),
            LinePromised: Route(read_back.line_told, _order),
            LineAllocated: Route(read_back.line_told, _order),
            LineShipped: Route(read_back.line_told, _order),
            LineCancelled: Route(read_back.line_told, _order),
            CancelRefused: Route(read_back.cancel_refused, _order),
            OrderCompleted: Route(read_back.order_completed, _order),
            ClaimAgain: Route(read_back.claim_again, lambda timer: f"order:{timer.key}"),
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
    restored = replace(
        orders,
        topics=(ORDERS_EVENTS, *orders.topics),
        routes={**orders.routes, OrderInvalid: Route(read_back.order_invalid, _order)},
        checks=invariants.WHILE_READING_BACK,
    )
    return replace(orders, read_back=restored)


if __name__ == "__main__":
    run(service)
