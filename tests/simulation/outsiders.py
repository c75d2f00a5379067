"""Whoever stands outside: the shop with its story, suppliers and the warehouse that react to what they read, and all of their mistakes.

They speak the public contracts only. What they react with is a function of what they read, whoever asks how often.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from deploy.local.choice import fraction
from deploy.local.publisher import Publication
from deploy.local.suppliers import Rates, at_rates, messages
from shared.codec import Delivery, cloud_event_headers, encode, partition_of, read
from shared.contracts.base import Message
from shared.contracts.commerce import ShipmentConfirmed, ShippedLine
from shared.contracts.orders import ORDERS_EVENTS, Amounts, LineAllocated, LineEvent
from shared.contracts.purchasing import PURCHASING_ORDERS, PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived, NotifiedLine, ShipmentNotified
from shared.partitions import Place
from tests.simulation.log import Draft, Log
from tests.simulation.story import Story

SHIPPING = "/clients/warehouse/shipping"
SHIPS_AFTER = timedelta(hours=20)
_UTC = ZoneInfo("UTC")


def draft(publication: Publication) -> Draft:
    """The record of a publication."""
    message = publication.message
    headers = cloud_event_headers(message.TYPE, publication.source, publication.id, publication.time)
    return Draft(message.key.encode(), encode(message), headers)


class Warehouse:
    """Ships what is allocated, some time later, now and then in two parcels; goes by the newest version of a line that it has read."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._known: dict[tuple[str, int], tuple[int, Amounts]] = {}
        self._confirmed: dict[tuple[str, int], int] = {}

    def hear(self, event: LineEvent) -> None:
        """Remembers what the event says of its lines."""
        for change in event.lines:
            version, _ = self._known.get((event.order, change.line), (-1, None))
            if change.version > version:
                self._known[event.order, change.line] = change.version, change.amounts

    def parcels(self, allocated: LineAllocated, at: datetime) -> Iterator[Publication]:
        """What leaves the house of what was allocated with this event: not what was cancelled meanwhile."""
        for change in allocated.lines:
            line = (allocated.order, change.line)
            amounts = self._known[line][1]
            confirmed = self._confirmed.get(line, 0)
            quantity = min(change.quantity, amounts.allocated + amounts.shipped - confirmed)
            self._confirmed[line] = confirmed + max(0, quantity)
            parcel = f"{allocated.order}-{change.line}.{change.version}"
            first = 1 if quantity > 1 and fraction(self._seed, "two parcels", parcel) < 0.4 else quantity
            for number, units in enumerate((first, quantity - first)):
                if units > 0:
                    shipment = f"{parcel}-{number}"
                    told = ShipmentConfirmed(
                        shipment=shipment, order=allocated.order, shipped_at=at, lines=(ShippedLine(line=change.line, quantity=units),)
                    )
                    yield Publication(at, told, shipment, SHIPPING)


class Suppliers:
    """Answer purchase orders, and deliver: late, short, damaged, in parts, and tell it twice."""

    def __init__(self, seed: int, story: Story) -> None:
        self._seed = seed
        last = {article.sku: article.suppliers[-1] for article in story.articles}
        self._behaviour = at_rates(Rates(slip=0.3, reject=0.3, short=0.4, twice=0.3, seed=seed), last)

    def answers(self, order: PurchaseOrderIssued) -> Iterator[Publication]:
        """Everything that follows from a purchase order."""
        for publication in messages(order, self._behaviour(order), _UTC):
            yield replace(publication, message=self._handled(publication.message))
        if fraction(self._seed, "notice", order.purchase_order) < 0.4:
            yield self._notice(order)

    def _notice(self, order: PurchaseOrderIssued) -> Publication:
        at = order.issued_at + timedelta(hours=5)
        line = order.lines[0]
        told = ShipmentNotified(
            notice=f"{order.purchase_order}-asn", purchase_order=order.purchase_order, supplier=order.supplier,
            expected_on=line.expected_on + timedelta(days=1), lines=(NotifiedLine(line=line.line, quantity=line.quantity),),
        )  # fmt: skip
        return Publication(at, told, told.notice, f"/clients/supplier/{order.supplier}")

    def _handled(self, message: Message) -> Message:
        """A unit of the first orders' receipts may be damaged on the way: it has to be bought again."""
        if not isinstance(message, GoodsReceived) or int(message.purchase_order.rpartition("-")[2]) > 2:
            return message
        lines = tuple(
            line.model_copy(update={"good": line.good - 1, "damaged": 1})
            if fraction(self._seed, "damaged", message.receipt, line.line) < 0.2
            else line
            for line in message.lines
        )
        return message.model_copy(update={"lines": lines})


@dataclass
class Outside:
    """All of them, with what they have still to say."""

    seed: int
    story: Story
    log: Log
    partitions: int
    read_to: dict[Place, int] = field(default_factory=dict)
    said: list[tuple[Place, Draft]] = field(default_factory=list)
    """Every good record that they have published, to be repeated."""

    def __post_init__(self) -> None:
        self._suppliers, self._warehouse = Suppliers(self.seed, self.story), Warehouse(self.seed)
        self._pending: list[tuple[datetime, int, Publication | LineAllocated]] = []
        self._heard: set[str] = set()
        self._number = 0
        for event in self.story.events:
            self._plan(event.time, event)

    def place(self, message: Message) -> Place:
        """Where a message belongs."""
        return message.TOPIC.name, partition_of(message.key, self.partitions)

    def say(self, publication: Publication) -> str:
        """Publishes; answers what, for the timeline."""
        place, record = self.place(publication.message), draft(publication)
        self.log.append(place, [record])
        self.said.append((place, record))
        return f"{type(publication.message).__name__} {publication.id} in {place[0]}/{place[1]}[{self.log.end(place) - 1}]"

    def listen(self, random: Random | None = None) -> None:
        """Reads what is new (or a part of it) in the topics that are for outsiders; a record that comes again is no news."""
        for place in self.log.places:
            if place[0] not in {ORDERS_EVENTS.name, PURCHASING_ORDERS.name} or (random and random.random() < 0.3):
                continue
            for record in self.log.read(place, self.read_to.get(place, 0)):
                self.read_to[place] = record.offset + 1
                self._hear(read(record, place[0]))

    @property
    def next_due(self) -> datetime | None:
        """When the next of them says something."""
        return self._pending[0][0] if self._pending else None

    def due(self, until: datetime, limit: int | None = None) -> list[str]:
        """Publishes what is due; answers what."""
        told: list[str] = []
        while self._pending and self._pending[0][0] <= until and (limit is None or len(told) < limit):
            at, _, action = heapq.heappop(self._pending)
            said: Sequence[Publication] = (action,) if isinstance(action, Publication) else tuple(self._warehouse.parcels(action, at))
            told += map(self.say, said)
        return told

    def _plan(self, due: datetime, action: Publication | LineAllocated) -> None:
        self._number += 1
        heapq.heappush(self._pending, (due, self._number, action))

    def _hear(self, delivery: Delivery) -> None:
        if delivery.envelope.id in self._heard:
            return
        self._heard.add(delivery.envelope.id)
        for _, message in delivery.messages:
            if isinstance(message, PurchaseOrderIssued):
                for publication in self._suppliers.answers(message):
                    self._plan(publication.time, publication)
            if isinstance(message, LineEvent):
                self._warehouse.hear(message)
            if isinstance(message, LineAllocated):
                self._plan(message.at + SHIPS_AFTER, message)
