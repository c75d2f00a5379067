"""How suppliers behave: what they answer to a purchase order and what arrives when. Pure functions of the order, so that whoever
asks again, in another process or after a restart, gets the same messages under the same ids."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

from deploy.local.choice import fraction, one_of
from deploy.local.publisher import Publication
from shared.contracts.base import Message
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued
from shared.contracts.suppliers import AcknowledgedLine, GoodsReceived, LineAnswer, OfferChanged, PurchaseOrderAcknowledged, ReceivedLine

REST_FOLLOWS = timedelta(days=3)
"""After so many days comes the rest of what was delivered short."""
_DOCK_OPENS = time(8)
_SLIPS = (2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a supplier makes of one purchase order. `rejected` and `short` name its lines; a short one comes in two parts.
    `repeats` = how often receipts are sent again: as they were, and under a new message id."""

    answers_after: timedelta = timedelta(hours=2)
    slip_days: int = 0
    rejected: frozenset[int] = frozenset()
    short: frozenset[int] = frozenset()
    repeated: bool = False
    told_again: bool = False


Behaviour: TypeAlias = Callable[[PurchaseOrderIssued], Conduct]


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares between 0 and 1: of purchase orders whose date slips, of lines rejected, of lines delivered short, of receipts that
    come a second time. `seed` varies who is hit."""

    slip: float = 0.1
    reject: float = 0.05
    short: float = 0.1
    twice: float = 0.1
    seed: int = 0


class LastSuppliers(dict[str, str]):
    """SKU → the supplier that purchasing asks last, by the public offers."""

    def __init__(self) -> None:
        super().__init__()
        self._offers: dict[str, dict[str, OfferChanged]] = {}

    def take(self, message: Message) -> None:
        """Hears an offer."""
        if isinstance(message, OfferChanged):
            offers = self._offers.setdefault(message.sku, {})
            offers[message.supplier] = message
            self[message.sku] = max(offers.values(), key=lambda offer: (offer.price, offer.lead_days, offer.supplier)).supplier


def at_rates(rates: Rates, last_supplier: Mapping[str, str]) -> Behaviour:
    """Behaviour at these rates. The last supplier of a SKU (`last_supplier`: SKU → supplier; unknown SKUs have no other) never rejects
    it, so that in the end everything is delivered."""

    def hit(rate: float, what: str, *names: object) -> bool:
        return fraction(rates.seed, what, *names) < rate

    def conduct(order: PurchaseOrderIssued) -> Conduct:
        name = order.purchase_order
        rejected = frozenset(
            line.line
            for line in order.lines
            if last_supplier.get(line.sku, order.supplier) != order.supplier and hit(rates.reject, "reject", name, line.line)
        )
        return Conduct(
            answers_after=timedelta(hours=1 + 7 * fraction(rates.seed, "answer", name)),
            slip_days=one_of(_SLIPS, rates.seed, "days", name) if hit(rates.slip, "slip", name) else 0,
            rejected=rejected,
            short=frozenset(line.line for line in order.lines if line.quantity > 1 and hit(rates.short, "short", name, line.line)),
            repeated=hit(rates.twice, "repeat", name),
            told_again=hit(rates.twice, "again", name),
        )

    return conduct


def messages(order: PurchaseOrderIssued, conduct: Conduct, zone: ZoneInfo) -> Iterator[Publication]:
    """Everything that follows from a purchase order, each at its business time: the answer, and the receipts at the dock.

    Goods arrive in the morning of the (acknowledged) day, in the warehouse's zone.
    """
    answered_at = order.issued_at + conduct.answers_after
    yield _acknowledged(order, conduct, answered_at)
    coming = [line for line in order.lines if line.line not in conduct.rejected]
    parts = ((1, timedelta(), _first_part), (2, REST_FOLLOWS, _rest))
    for number, later, units in parts:
        arrivals: dict[date, list[ReceivedLine]] = {}
        for line in coming:
            if quantity := units(line, conduct):
                day = line.expected_on + timedelta(days=conduct.slip_days) + later
                arrivals.setdefault(day, []).append(ReceivedLine(line=line.line, sku=line.sku, good=quantity))
        for index, (day, lines) in enumerate(sorted(arrivals.items())):
            at = max(_morning(day, zone), answered_at)
            yield from _received(order, f"{order.purchase_order}-r{number}{_letter(index)}", at, lines, conduct)


def _first_part(line: PurchaseLine, conduct: Conduct) -> int:
    return line.quantity // 2 if line.line in conduct.short else line.quantity


def _rest(line: PurchaseLine, conduct: Conduct) -> int:
    return line.quantity - _first_part(line, conduct)


def _letter(index: int) -> str:
    """Tells the receipts of one purchase order apart when its lines are expected on several days: none, b, c, …"""
    return "" if index == 0 else f".{index + 1}"


def _acknowledged(order: PurchaseOrderIssued, conduct: Conduct, at: datetime) -> Publication:
    answer = PurchaseOrderAcknowledged(
        acknowledgement=f"{order.purchase_order}-ack",
        purchase_order=order.purchase_order,
        supplier=order.supplier,
        acknowledged_at=at,
        lines=tuple(_answer(line, conduct) for line in order.lines),
    )
    return Publication(at, answer, answer.acknowledgement, f"/clients/supplier/{order.supplier}")


def _answer(line: PurchaseLine, conduct: Conduct) -> AcknowledgedLine:
    if line.line in conduct.rejected:
        return AcknowledgedLine(line=line.line, answer=LineAnswer.REJECTED)
    if conduct.slip_days:
        day = line.expected_on + timedelta(days=conduct.slip_days)
        return AcknowledgedLine(line=line.line, answer=LineAnswer.CHANGED, expected_on=day)
    return AcknowledgedLine(line=line.line, answer=LineAnswer.ACCEPTED)


def _received(
    order: PurchaseOrderIssued, receipt: str, at: datetime, lines: Iterable[ReceivedLine], conduct: Conduct
) -> Iterator[Publication]:
    """The receipt and, where the dock is clumsy, its repeats: the same message again, and the same receipt under a new message id."""
    message: Message = GoodsReceived(receipt=receipt, purchase_order=order.purchase_order, received_at=at, lines=tuple(lines))
    source = "/clients/warehouse/dock"
    yield Publication(at, message, receipt, source)
    if conduct.repeated:
        yield Publication(at + timedelta(minutes=10), message, receipt, source)
    if conduct.told_again:
        yield Publication(at + timedelta(minutes=20), message, f"{receipt}-again", source)


def _morning(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, _DOCK_OPENS, tzinfo=zone).astimezone(UTC)
