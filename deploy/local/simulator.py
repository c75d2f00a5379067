"""Suppliers, receiving dock and shipping: outsiders, on the public contracts alone.

They read `purchasing.orders` and `orders.events` and answer on `suppliers.messages` and `commerce.orders`. What they say is a pure
function of what they read, under ids made from business ids: a simulator that is started again may read its topics from the
beginning and say everything again, without any effect.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from deploy.local.publisher import Publication
from deploy.local.suppliers import Behaviour, messages
from shared.contracts.base import Message
from shared.contracts.commerce import ShipmentConfirmed, ShippedLine
from shared.contracts.orders import LineAllocated, LineCancelled, LineEvent, LineShipped, OrderCompleted
from shared.contracts.purchasing import PurchaseOrderIssued

SHIPS_AFTER = timedelta(days=1)
"""From allocation to the carrier."""
_SHIPPING = "/clients/warehouse/shipping"


class Shipping:
    """Picks and ships what is allocated. Knows per line the units ever set aside and still wanted, and those it has confirmed.
    An event that is older than what is known of a line is a repeat."""

    def __init__(self) -> None:
        self._set_aside: dict[str, dict[int, tuple[int, int]]] = {}
        self._confirmed: dict[str, dict[int, int]] = {}
        self._done: set[str] = set()

    def seen(self, event: LineEvent) -> None:
        """Remembers what the event says of its lines. A shipment of ours that comes back needs no confirmation any more."""
        lines = self._set_aside.setdefault(event.order, {})
        for change in event.lines:
            now = change.version, change.amounts.allocated + change.amounts.shipped
            lines[change.line] = max(now, lines.get(change.line, now))
        if isinstance(event, LineShipped) and event.shipment not in self._done:
            self._done.add(event.shipment)
            for change in event.lines:
                self._confirm(event.order, change.line, change.quantity)

    def forget(self, order: str) -> None:
        """The order is completed: nothing of it will ever be allocated again."""
        self._set_aside.pop(order, None)
        self._confirmed.pop(order, None)

    def confirmation(self, event: LineAllocated, at: datetime) -> Publication | None:
        """The shipment of what was allocated with this event, without the units that were cancelled meanwhile."""
        shipment = shipment_id(event)
        if shipment in self._done:
            return None
        self._done.add(shipment)
        set_aside, confirmed = self._set_aside.get(event.order, {}), self._confirmed.get(event.order, {})
        lines = []
        for change in event.lines:
            quantity = min(change.quantity, set_aside.get(change.line, (0, 0))[1] - confirmed.get(change.line, 0))
            if quantity > 0:
                lines.append(ShippedLine(line=change.line, quantity=quantity))
                self._confirm(event.order, change.line, quantity)
        if not lines:
            return None
        message = ShipmentConfirmed(shipment=shipment, order=event.order, shipped_at=at, lines=tuple(lines), carrier="Local Carrier")
        return Publication(at, message, shipment, _SHIPPING)

    def _confirm(self, order: str, line: int, quantity: int) -> None:
        lines = self._confirmed.setdefault(order, {})
        lines[line] = lines.get(line, 0) + quantity


def shipment_id(event: LineAllocated) -> str:
    """The shipment that follows an allocation: a line and its version name one event of the order."""
    first = event.lines[0]
    return f"{event.order}-{first.line}.{first.version}"


class Simulator:
    """What suppliers, dock and shipping have still to say, in the order in which it is due (business time)."""

    def __init__(self, behaviour: Behaviour, zone: ZoneInfo) -> None:
        self._behaviour = behaviour
        self._zone = zone
        self._shipping = Shipping()
        self._known: set[str] = set()
        self._pending: list[tuple[datetime, int, Publication | LineAllocated]] = []
        self._number = 0
        self._takes: Mapping[type[Message], Callable[[Any], None]] = {
            PurchaseOrderIssued: self._ordered,
            LineAllocated: self._allocated,
            LineCancelled: self._shipping.seen,
            LineShipped: self._shipping.seen,
            OrderCompleted: self._completed,
        }

    def take(self, message: Message) -> None:
        """Hears a message of `purchasing.orders` or `orders.events`; a repeat is no news."""
        take = self._takes.get(type(message))
        if take is not None:
            take(message)

    @property
    def next_due(self) -> datetime | None:
        """When the next action is due; None when nothing is left to do."""
        return self._pending[0][0] if self._pending else None

    def due(self, until: datetime) -> Iterator[Publication]:
        """Takes out what is due until then (inclusive), in order."""
        while self._pending and self._pending[0][0] <= until:
            at, _, action = heapq.heappop(self._pending)
            publication = self._shipping.confirmation(action, at) if isinstance(action, LineAllocated) else action
            if publication is not None:
                yield publication

    def _plan(self, due: datetime, action: Publication | LineAllocated) -> None:
        """Remembers what to say then; of an allocation, what is to be shipped is known only then."""
        self._number += 1
        heapq.heappush(self._pending, (due, self._number, action))

    def _ordered(self, order: PurchaseOrderIssued) -> None:
        if order.purchase_order not in self._known:
            self._known.add(order.purchase_order)
            for publication in messages(order, self._behaviour(order), self._zone):
                self._plan(publication.time, publication)

    def _allocated(self, event: LineAllocated) -> None:
        self._shipping.seen(event)
        shipment = shipment_id(event)
        if shipment not in self._known:
            self._known.add(shipment)
            self._plan(event.at + SHIPS_AFTER, event)

    def _completed(self, event: OrderCompleted) -> None:
        self._shipping.forget(event.order)
