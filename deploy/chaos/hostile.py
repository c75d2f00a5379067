"""What a hostile world makes of a demand: it repeats itself, contradicts itself, speaks too early, too late and about nothing.

Everything is chosen by hash of the seed and the message's own id. What must be refused says so (`expects`); all the rest must be
applied, once in meaning. It speaks the public contracts alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from deploy.local.choice import fraction, one_of
from deploy.local.publisher import Publication
from deploy.local.simulator import Simulator
from deploy.local.suppliers import Behaviour, messages
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed, ShippedLine
from shared.contracts.orders import OrderCompleted
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued
from shared.contracts.suppliers import (
    AcknowledgedLine,
    Balance,
    GoodsReceived,
    LineAnswer,
    NotifiedLine,
    OfferChanged,
    PurchaseOrderAcknowledged,
    ReceivedLine,
    ShipmentNotified,
)
from shared.contracts.warehouse import SkuDefined, StockCounted

NOBODY = 999
"""A line that no order has."""
_LATER = (timedelta(0), timedelta(minutes=1), timedelta(hours=2), timedelta(days=3), timedelta(days=12))
_STRANGER = "supplier-99"


@dataclass(frozen=True, slots=True)
class Said(Publication):
    """`value`: the data as sent, where it is not the message as we would write it. `expects`: it, or a part of it, must be refused
    for one of these reasons."""

    value: bytes | None = None
    expects: frozenset[str] = frozenset()


def hostile_shop(seed: int, events: Iterable[Publication]) -> list[Publication]:
    """The events of shop, catalogue and suppliers' offers with everything that a hostile world adds, in the order of time."""
    return sorted((said for event in events for said in _about(seed, event)), key=lambda said: said.time)


def _about(seed: int, said: Publication) -> Iterator[Publication]:
    if isinstance(said.message, OrderPlaced) and fraction(seed, "wrong at first", said.id) < 0.04:
        yield _said(said, id=f"{said.id}~wrong", value=_without(said.message, "customer"), expects=_reasons("invalid"))
    if fraction(seed, "with more fields", said.id) < 0.05:
        yield _said(said, value=_with_more(said.message))
    else:
        yield said
    if fraction(seed, "about nobody", said.id) < 0.02:
        wish = OrderCancelRequested(request=f"{said.id}-?".replace("/", "-"), order=f"nobody-{said.message.key}", requested_at=said.time)
        yield Said(said.time, wish, f"{said.id}~nobody", said.source, expects=_reasons("unknown_order"))
    yield from repeats(seed, said)


def repeats(seed: int, said: Publication) -> Iterator[Publication]:
    """The same again under the same id and under a new one; other content under the same id and, of what has an id of its own in
    its content, under a new one."""
    sooner_or_later = one_of(_LATER, seed, "how late", said.id)
    if fraction(seed, "repeated", said.id) < 0.08:
        yield _said(said, time=said.time + sooner_or_later)
    if fraction(seed, "told again", said.id) < 0.07:
        expects = _reasons("already_counted") if isinstance(said.message, StockCounted) else frozenset[str]()
        yield _said(said, id=f"{said.id}~again", time=said.time + sooner_or_later, expects=expects)
    contradiction = _other(said.message)
    if contradiction is None:
        return
    message, reason = contradiction
    afterwards = said.time + max(sooner_or_later, timedelta(minutes=1))
    if fraction(seed, "id used again", said.id) < 0.03:
        yield _said(said, message=message, time=afterwards, expects=_reasons("id_reused"))
    if reason and fraction(seed, "contradicted", said.id) < 0.03:
        yield _said(said, id=f"{said.id}~other", message=message, time=afterwards, expects=_reasons(reason))


def _said(said: Publication, **changes: Any) -> Said:
    return replace(Said(said.time, said.message, said.id, said.source), **changes)


def _reasons(*reasons: str) -> frozenset[str]:
    return frozenset(reasons)


def _without(message: Message, field: str) -> bytes:
    return orjson.dumps({name: value for name, value in message.model_dump(mode="json").items() if name != field})


def _with_more(message: Message) -> bytes:
    """A later version's optional field, which today's must ignore."""
    return orjson.dumps({"channel": {"name": "app", "tags": ["ü", 1, None]}} | message.model_dump(mode="json"))


def _other(message: Message) -> tuple[Message, str] | None:
    """The message with other content, and the reason for which it is refused under a new message id (none: it is welcome)."""
    if type(message) not in _CONTRADICTIONS:
        return None
    changes, reason = _CONTRADICTIONS[type(message)]
    return message.model_copy(update=changes(message)), reason


def _one_more(field: str) -> Callable[[Any], dict[str, Any]]:
    """One unit more on the first line."""

    def changes(message: Any) -> dict[str, Any]:
        first, *others = message.lines
        return {"lines": (first.model_copy(update={field: getattr(first, field) + 1}), *others)}

    return changes


_CONTRADICTIONS: dict[type[Message], tuple[Callable[[Any], dict[str, Any]], str]] = {
    OrderPlaced: (_one_more("quantity"), "order_exists"),
    OrderCancelRequested: (lambda _: {"reason": "changed my mind"}, "cancellation_exists"),
    ShipmentConfirmed: (_one_more("quantity"), "shipment_exists"),
    GoodsReceived: (_one_more("good"), "receipt_exists"),
    PurchaseOrderAcknowledged: (lambda message: {"acknowledged_at": message.acknowledged_at + timedelta(minutes=1)}, ""),
    SkuDefined: (lambda _: {"description": "something else"}, ""),
    StockCounted: (lambda message: {"on_hand": message.on_hand + 1}, "already_counted"),
    OfferChanged: (lambda message: {"price": message.price + 1}, ""),
}


class HostileSimulator(Simulator):
    """Suppliers, dock and shipping on their worst days. In the end everything is delivered all the same: `last` names the supplier of
    each SKU that never declines."""

    def __init__(self, behaviour: Behaviour, zone: ZoneInfo, seed: int, last: Mapping[str, str]) -> None:
        super().__init__(behaviour, zone)
        self._seed, self._last = seed, last
        self._issued: dict[str, PurchaseOrderIssued] = {}
        self._agreed: dict[str, PurchaseOrderIssued] = {}

    def due(self, until: Any) -> Iterator[Publication]:
        """Takes out what is due until then (inclusive), in order, and plans what a hostile world adds to it."""
        for said in super().due(until):
            if isinstance(said, Said):
                yield said
                continue
            for twisted in self._twisted(said):
                if twisted.time <= said.time:
                    yield twisted
                else:
                    self._plan(twisted.time, twisted)

    def _hit(self, share: float, *names: object) -> bool:
        return fraction(self._seed, *names) < share

    def _ordered(self, order: PurchaseOrderIssued) -> None:
        """What the supplier makes of an order: some lines it takes only in part; some orders are also answered by somebody else."""
        if order.purchase_order in self._known:
            return
        self._known.add(order.purchase_order)
        agreed = order.model_copy(update={"lines": tuple(self._taken(order, line) for line in order.lines)})
        self._issued[order.purchase_order], self._agreed[order.purchase_order] = order, agreed
        for publication in messages(agreed, self._behaviour(agreed), self._zone):
            self._plan(publication.time, publication)

    def _taken(self, order: PurchaseOrderIssued, line: PurchaseLine) -> PurchaseLine:
        willing = self._last.get(line.sku, order.supplier) == order.supplier or line.quantity < 2
        if willing or not self._hit(0.1, "takes a part", order.purchase_order, line.line):
            return line
        return line.model_copy(update={"quantity": line.quantity // 2})

    def _completed(self, event: OrderCompleted) -> None:
        """A parcel too many leaves for an order of which nothing is open."""
        super()._completed(event)
        shipment = f"{event.order}-extra"
        if shipment not in self._known and self._hit(0.08, "one parcel too many", event.order):
            self._known.add(shipment)
            at = event.at + timedelta(days=1)
            parcel = ShipmentConfirmed(shipment=shipment, order=event.order, shipped_at=at, lines=(ShippedLine(line=1, quantity=1),))
            expects = _reasons("shipped_more_than_allocated")
            self._plan(at, Said(at, parcel, f"{event.order}/{shipment}", "/clients/warehouse/shipping", expects=expects))

    def _twisted(self, said: Publication) -> Iterator[Publication]:
        match said.message:
            case ShipmentConfirmed():
                yield from self._shipment(said, said.message)
            case PurchaseOrderAcknowledged():
                yield from self._answer(said, said.message)
            case GoodsReceived():
                yield from self._receipt(said, said.message)
            case _:
                yield said

    def _shipment(self, said: Publication, message: ShipmentConfirmed) -> Iterator[Publication]:
        """Under the id that the HTTP edge gives it, too."""
        said = _said(said, id=f"{message.order}/{message.shipment}")
        yield said
        if self._hit(0.02, "parcel for nobody", said.id):
            stray = message.model_copy(update={"order": f"nobody-{message.order}"})
            yield _said(said, message=stray, id=f"{said.id}~nobody", expects=_reasons("unknown_order"))
        yield from repeats(self._seed, said)

    def _answer(self, said: Publication, message: PurchaseOrderAcknowledged) -> Iterator[Publication]:
        name = message.acknowledgement
        lines = tuple(self._in_part(message.purchase_order, answer) for answer in message.lines)
        expects: frozenset[str] = frozenset()
        if self._hit(0.05, "answers too many lines", name):
            lines += (AcknowledgedLine(line=NOBODY, answer=LineAnswer.ACCEPTED),)
            expects = _reasons("unknown_line")
        elif self._hit(0.05, "confirms too much", name) and lines[0].answer is LineAnswer.ACCEPTED:
            too_many = _line(self._issued[message.purchase_order], lines[0].line).quantity + 1
            lines = (AcknowledgedLine(line=lines[0].line, answer=LineAnswer.CHANGED, quantity=too_many), *lines[1:])
            expects = _reasons("more_than_outstanding")
        # What says how much is coming must not come after the goods: it would confirm them once more.
        may_be_late = all(line.quantity is None for line in lines)
        late = timedelta(days=2 + 7 * fraction(self._seed, "days", name)) * (may_be_late and self._hit(0.12, "late answer", name))
        answer = _said(said, time=said.time + late, message=message.model_copy(update={"lines": lines}), expects=expects)
        if not self._hit(0.05, "no answer", name) or any(line.answer is not LineAnswer.ACCEPTED for line in lines):
            yield answer
            yield from repeats(self._seed, answer)
        if self._hit(0.04, "somebody else answers", name):
            foreign = message.model_copy(update={"supplier": _STRANGER})
            expects = _reasons("not_your_order")
            yield _said(said, message=foreign, id=f"{name}~foreign", source=f"/clients/supplier/{_STRANGER}", expects=expects)
        if self._hit(0.2, "tells when it comes", name):
            yield self._notice(said, message)

    def _in_part(self, purchase_order: str, answer: AcknowledgedLine) -> AcknowledgedLine:
        """The answer, with the quantity where the supplier takes less than was ordered."""
        agreed = _line(self._agreed[purchase_order], answer.line)
        if answer.answer is LineAnswer.REJECTED or agreed == _line(self._issued[purchase_order], answer.line):
            return answer
        return AcknowledgedLine(line=answer.line, answer=LineAnswer.CHANGED, quantity=agreed.quantity, expected_on=answer.expected_on)

    def _notice(self, said: Publication, message: PurchaseOrderAcknowledged) -> Said:
        agreed = self._agreed[message.purchase_order]
        notice = ShipmentNotified(
            notice=f"{message.purchase_order}-notice",
            purchase_order=message.purchase_order,
            supplier=message.supplier,
            expected_on=max(line.expected_on for line in agreed.lines),
            lines=tuple(NotifiedLine(line=line.line, quantity=line.quantity) for line in agreed.lines),
        )
        return _said(said, message=notice, id=notice.notice, time=said.time + timedelta(hours=5))

    def _receipt(self, said: Publication, message: GoodsReceived) -> Iterator[Publication]:
        """The receipt says one thing, however often it is said; what must be refused of it is refused at the first time."""
        content, reason = self._arrived(message)
        first = said.id == message.receipt and said.id not in self._known
        self._known.add(message.receipt)
        yield _said(said, message=content, expects=_reasons(reason) if first and reason else frozenset())
        if not first:
            return
        if self._hit(0.03, "goods of nobody's order", said.id):
            stray = content.model_copy(update={"purchase_order": f"nobody-{message.purchase_order}", "receipt": f"{message.receipt}-n"})
            yield _said(said, message=stray, id=stray.receipt, expects=_reasons("unknown_purchase_order"))
        if self._hit(0.03, "other goods", said.id):
            wrong = content.lines[0].model_copy(update={"sku": "sku-else"})
            other = content.model_copy(update={"receipt": f"{message.receipt}-m", "lines": (wrong,)})
            yield _said(said, message=other, id=other.receipt, expects=_reasons("sku_mismatch"))
        yield from repeats(self._seed, _said(said, message=content))

    def _arrived(self, message: GoodsReceived) -> tuple[GoodsReceived, str]:
        """What arrives: sometimes too much, broken, or less for good; and the reason for which a part of it will be refused."""
        agreed = self._agreed[message.purchase_order]
        in_parts = bool(self._behaviour(agreed).short)
        line, *others = message.lines
        chance = fraction(self._seed, "what arrives", message.receipt)
        if chance < 0.06 and not in_parts:
            return _with(message, line.model_copy(update={"good": line.good + 3}), others), "more_than_outstanding"
        if chance < 0.14 and line.good > 1:
            return _with(message, line.model_copy(update={"good": line.good - 1, "damaged": 1}), others), ""
        if chance < 0.22 and line.good > 1 and not in_parts:
            return _with(message, line.model_copy(update={"good": line.good - 1, "balance": Balance.CLOSED}), others), ""
        if chance < 0.26:
            return _with(message, line, [*others, ReceivedLine(line=NOBODY, sku=line.sku, good=1)]), "unknown_line"
        return message, ""


def _line(order: PurchaseOrderIssued, number: int) -> PurchaseLine:
    return next(line for line in order.lines if line.line == number)


def _with(message: GoodsReceived, first: ReceivedLine, others: Sequence[ReceivedLine]) -> GoodsReceived:
    return message.model_copy(update={"lines": (first, *others)})
