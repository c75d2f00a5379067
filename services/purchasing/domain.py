"""The rules of purchasing: what is needed, how many units an offer can be bought in, what an answer or a receipt does to a line.

Pure functions over frozen rows; a class has its table's columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias
from zoneinfo import ZoneInfo

from shared.contracts.base import LAST_DAY, MAX_QUANTITY
from shared.contracts.suppliers import AcknowledgedLine, Balance, LineAnswer, ReceivedLine

LineKey: TypeAlias = tuple[str, int]
"""Purchase order and line number."""


class Status(StrEnum):
    """Planned orders change with the need; issued ones are with the supplier and do not."""

    PLANNED = "planned"
    ISSUED = "issued"


class ExceptionReason(StrEnum):
    """Why a need cannot be bought: an operator has to see to it."""

    NO_OFFER = "no_offer"
    EVERY_SUPPLIER_DECLINED = "every_supplier_declined"
    TOO_MUCH_AT_ONCE = "too_much_at_once"


@dataclass(frozen=True, slots=True)
class Supplier:
    """`next_number` numbers its purchase orders."""

    supplier: str
    next_number: int = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """A supplier's terms for a SKU. `price` is per unit; `lead_days` are calendar days."""

    supplier: str
    sku: str
    price: Decimal
    currency: str
    pack: int
    minimum: int
    lead_days: int


@dataclass(frozen=True, slots=True)
class Sku:
    """What is short of a SKU (inventory's numbers, by `shortage_version`) and what we have undertaken to get.

    `committed` = Σ(ordered − declined − closed_short) over all its lines ever. `attempts` counts the lines opened for this
    version of the shortage; `declined_by` are the suppliers that are not asked again while units wait (sorted).
    """

    sku: str
    waiting: int = 0
    needed_by: datetime | None = None
    received_total: int = 0
    shortage_version: int = -1
    committed: int = 0
    attempts: int = 0
    declined_by: tuple[str, ...] = ()

    @property
    def need(self) -> int:
        """Units still to buy; negative = bought too many. Units on their way from dock to stock are in both terms."""
        return self.waiting + self.received_total - self.committed


@dataclass(frozen=True, slots=True)
class PurchaseOrder:
    """`window_due` is when it is to be issued, `last_line` the highest line number given."""

    purchase_order: str
    supplier: str
    currency: str
    window_due: datetime
    status: Status = Status.PLANNED
    issued_at: datetime | None = None
    last_line: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A purchase-order line: ordered = outstanding + received + declined + closed_short, always.

    `expected_on` is a day in the warehouse's zone (None = nobody knows). It was opened for one attempt at one version of
    the SKU's shortage.
    """

    purchase_order: str
    line: int
    sku: str
    shortage_version: int
    attempt: int
    ordered: int = 0
    declined: int = 0
    closed_short: int = 0
    received: int = 0
    unit_price: Decimal = Decimal(0)
    lead_days: int = 0
    expected_on: date | None = None

    @property
    def key(self) -> LineKey:
        """Its identity."""
        return self.purchase_order, self.line

    @property
    def committed(self) -> int:
        """Units that came or are still to come."""
        return self.ordered - self.declined - self.closed_short

    @property
    def outstanding(self) -> int:
        """Units still to come."""
        return self.committed - self.received


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An open row of the table `exception`: a need without a supplier."""

    sku: str
    reason: ExceptionReason
    quantity: int
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Booking:
    """What was booked of one line of a receipt: good units into stock, units closed short. `refused` = good units too many."""

    line: int
    sku: str
    good: int
    closed_short: int
    refused: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that counted; `content` is a hash over the whole message."""

    receipt: str
    content: bytes
    purchase_order: str
    received_at: datetime
    lines: tuple[Booking, ...]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A supplier's answer that counted."""

    supplier: str
    acknowledgement: str
    purchase_order: str
    acknowledged_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """`window` = business time that a planned purchase order waits for more lines; `zone` = the warehouse's."""

    window: timedelta
    zone: ZoneInfo

    def day(self, moment: datetime) -> date:
        """The warehouse's calendar day."""
        return moment.astimezone(self.zone).date()

    def end_of(self, day: date) -> datetime:
        """The first moment (UTC) after the warehouse's day, whatever the clocks do in that night."""
        return datetime.combine(day + timedelta(days=1), time.min, tzinfo=self.zone).astimezone(UTC)


def least(offer: Offer) -> int:
    """The smallest quantity that the offer can be bought in: its minimum, rounded up to whole packs."""
    return -(-offer.minimum // offer.pack) * offer.pack


def most(offer: Offer) -> int:
    """The largest quantity in whole packs that one line may carry."""
    return MAX_QUANTITY // offer.pack * offer.pack


def units(wanted: int, offer: Offer) -> int:
    """What to order for `wanted` units: whole packs, at least the minimum, nothing for nothing, no more than a line may carry.

    Always computed from a line's whole net need, never from an increase: so rounding happens once per line.
    """
    if wanted <= 0:
        return 0
    return min(max(-(-wanted // offer.pack) * offer.pack, least(offer)), most(offer))


def cheapest(offers: Iterable[Offer], declined_by: Iterable[str]) -> Offer | None:
    """The offer to buy from: lowest price as given, then shortest lead time, then supplier id; never one who declined."""
    return min(
        (offer for offer in offers if offer.supplier not in declined_by),
        key=lambda offer: (offer.price, offer.lead_days, offer.supplier),
        default=None,
    )


def shrunk(line: Line, need: int, offer: Offer) -> Line:
    """A planned line without the surplus (`need` < 0), as far as packs and the minimum allow."""
    return replace(line, ordered=min(line.ordered, units(line.ordered + need, offer)))


def told_day(day: date) -> date | None:
    """A day that somebody told us; None for the one that stands for "nobody knows when"."""
    return None if day == LAST_DAY else day


def answered(line: Line, answer: AcknowledgedLine) -> tuple[Line, int]:
    """The line after its supplier's answer, and by how many units the answer exceeds what is outstanding.

    Units that the supplier does not confirm are declined; no quantity confirms all of them.
    """
    rejected = answer.answer is LineAnswer.REJECTED
    coming = 0 if rejected else answer.quantity or line.outstanding
    day = line.expected_on if rejected or answer.expected_on is None else told_day(answer.expected_on)
    declined = max(0, line.outstanding - coming)
    return replace(line, declined=line.declined + declined, expected_on=day), max(0, coming - line.outstanding)


def booked(line: Line, arrived: ReceivedLine) -> tuple[Line, Booking]:
    """The line after a receipt. Good units count up to what is outstanding; damaged ones, and a closed balance, are closed short."""
    good = min(arrived.good, line.outstanding)
    rest = line.outstanding - good
    short = rest if arrived.balance is Balance.CLOSED else min(arrived.damaged, rest)
    after = replace(line, received=line.received + good, closed_short=line.closed_short + short)
    return after, Booking(line.line, line.sku, good, short, arrived.good - good)


def outlook(line: Line | None) -> tuple[int, int, date | None]:
    """What inventory is told of a line: committed, open and, while units are to come, the day. A line that is no more has nothing."""
    if line is None:
        return 0, 0, None
    return line.committed, line.outstanding, line.expected_on if line.outstanding else None


def deadline(line: Line | None, order: PurchaseOrder | None, policy: Policy) -> datetime | None:
    """When units of an issued line become overdue; None when nothing is to come or nobody knows when."""
    if line is None or order is None or order.status is Status.PLANNED or not line.outstanding or line.expected_on is None:
        return None
    return policy.end_of(line.expected_on)
