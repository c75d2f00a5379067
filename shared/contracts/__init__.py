"""The published language: every message of the system, one module per owner."""

from shared.contracts import commerce, inventory, notifier, orders, purchasing, suppliers, system, warehouse
from shared.contracts.base import REGISTRY, ListedMessage, Message, MessageType, Topic

TOPICS: tuple[Topic, ...] = (
    warehouse.WAREHOUSE_EVENTS,
    suppliers.SUPPLIERS_OFFERS,
    commerce.COMMERCE_ORDERS,
    suppliers.SUPPLIERS_MESSAGES,
    purchasing.PURCHASING_SUPPLY,
    purchasing.PURCHASING_ORDERS,
    orders.ORDERS_DEMAND,
    orders.ORDERS_EVENTS,
    inventory.INVENTORY_ALLOCATIONS,
    inventory.INVENTORY_SHORTAGES,
    inventory.INVENTORY_STOCK,
    notifier.NOTICES_EVENTS,
)
"""Every topic with the system's number of partitions, that is all but `system.clock`."""

__all__ = ["REGISTRY", "TOPICS", "ListedMessage", "Message", "MessageType", "Topic", "system"]
