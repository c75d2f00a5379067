"""The service inventory: the table {message → handler}."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from services.inventory import api, audit, handlers, invariants, read_back, repair, store
from services.inventory.domain import Policy, State
from services.inventory.timers import AnswerDue, StockAgain
from shared.contracts.base import Message
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandServed
from shared.contracts.orders import ORDERS_DEMAND, DemandSet
from shared.contracts.purchasing import PURCHASING_SUPPLY, StockReceived, SupplyChanged
from shared.contracts.warehouse import WAREHOUSE_EVENTS, SkuDefined, StockCounted
from shared.runtime import run
from shared.service import Repair, Route, Service
from shared.settings import Settings


def _sku(message: Message | StockAgain) -> str:
    return f"sku:{message.key}"


def _line(message: DemandSet | DemandServed) -> str:
    return f"line:{message.order}/{message.line}"


def service(settings: Settings) -> Service[State]:
    """The service under these settings: promises are days of the warehouse's zone."""
    inventory = Service(
        name="inventory",
        topics=(WAREHOUSE_EVENTS, PURCHASING_SUPPLY, ORDERS_DEMAND),
        routes={
            SkuDefined: Route(handlers.sku_defined, _sku),
            StockCounted: Route(handlers.stock_counted, _sku),
            StockReceived: Route(handlers.stock_received, _sku),
            SupplyChanged: Route(handlers.supply_changed, _sku),
            DemandSet: Route(handlers.demand_set, _line, lambda _, message: (_sku(message),)),
            Repair: Route(repair.repair, lambda message: message.aggregate),
            DemandServed: Route(read_back.demand_served, _line),
            AnswerDue: Route(read_back.answer_due, lambda timer: f"line:{timer.key}"),
            StockAgain: Route(read_back.stock_again, _sku),
        },
        load=store.load,
        prepare=store.prepare,
        decide=partial(handlers.decide, Policy(settings.zone)),
        save=store.save,
        checks=invariants.CHECKS,
        watched=audit.WATCHED,
        migrations=Path(__file__).parent / "migrations",
        api=api.router,
    )
    restored = replace(
        inventory,
        # First what the house holds: what was set aside or has shipped can only be taken from that.
        topics=(*inventory.topics, INVENTORY_ALLOCATIONS),
        routes={**inventory.routes, DemandSet: Route(read_back.demand_set, _line)},
        checks=invariants.WHILE_READING_BACK,
        prepare=read_back.prepare,
        decide=read_back.decide,
    )
    return replace(inventory, read_back=restored)


if __name__ == "__main__":
    run(service)
