"""The rules of stock: who is served next, when the others can ship, and what a transaction works on.

Quantities are whole units, days are the warehouse's calendar days. Nothing here reads a clock or a database.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from shared.contracts.base import LAST_DAY
from shared.contracts.warehouse import BackorderPolicy

HANDLING_DAYS = 1
"""From the dock to the carrier: what arrives on a day ships on the next."""

LineKey: TypeAlias = tuple[str, int]
"""(order, line) of a demand; (purchase order, line) of a supply."""
ReceiptLine: TypeAlias = tuple[str, str, int]
"""(receipt, purchase order, line): what is booked once."""
Place: TypeAlias = tuple[int, datetime, str, int]
"""A line's place in its SKU's queue: (class, queue time, order, line), a strict total order."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator of the system decides: the zone whose calendar days promises are."""

    zone: ZoneInfo

    def today(self, now: datetime) -> date:
        """The warehouse's calendar day at an instant."""
        return now.astimezone(self.zone).date()


class Sku(NamedTuple):
    """Stock of one SKU. `backorder` is None until the catalogue has defined it; `waiting` is gross of supply;
    `needed_by` is when the first in the queue ordered, `next_date` when one more unit than the waiting ones could ship."""

    sku: str
    description: str = ""
    backorder: BackorderPolicy | None = None
    counted: bool = False
    on_hand: int = 0
    allocated: int = 0
    waiting: int = 0
    received_total: int = 0
    needed_by: datetime | None = None
    next_date: date | None = None

    @property
    def free(self) -> int:
        """Units in the house that belong to nobody."""
        return self.on_hand - self.allocated

    @property
    def shortage(self) -> tuple[int, datetime | None, int]:
        """What purchasing is told: (waiting, needed by, received in total)."""
        return self.waiting, self.needed_by, self.received_total

    @property
    def shown(self) -> tuple[int, bool, date | None] | None:
        """What the shop is told: (available, backorderable, next date); nothing of a SKU that the catalogue does not know."""
        return None if self.backorder is None else (self.free, self.backorder is BackorderPolicy.ALLOW, self.next_date)


class Demand(NamedTuple):
    """A line's claim. `served` counts units ever set aside and not taken back, shipped ones included; `refused` ones may not wait.
    `version` is that of the claim as a whole, `demand_version` that of what is wanted."""

    order: str
    line: int
    sku: str
    wanted: int
    shipped: int
    served: int
    refused: int
    queue_class: int
    queued_at: datetime
    ordered_at: datetime
    demand_version: int
    version: int
    ship_by: date | None = None
    promise_version: int = 0

    @property
    def key(self) -> LineKey:
        """(order, line)."""
        return self.order, self.line

    @property
    def place(self) -> Place:
        """Its place in the queue."""
        return self.queue_class, self.queued_at, self.order, self.line

    @property
    def open(self) -> int:
        """Units that wait."""
        rest = self.wanted - self.served - self.refused
        return rest if rest > 0 else 0


class Supply(NamedTuple):
    """A purchase-order line's outlook: `open` of the `committed` units are still to come on `expected_on` (None = nobody knows)."""

    purchase_order: str
    line: int
    sku: str
    committed: int
    open: int
    expected_on: date | None
    version: int

    @property
    def key(self) -> LineKey:
        """(purchase order, line)."""
        return self.purchase_order, self.line


class MovementKind(StrEnum):
    """What a ledger entry records."""

    COUNTED = "counted"
    RECEIVED = "received"
    BACKORDERED = "backordered"
    ALLOCATED = "allocated"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"
    SHIPPED = "shipped"
    RESTORED = "restored"
    """Set aside as it had been before the database was restored: decided then, not now."""
    CORRECTED = "corrected"
    """Makes up for entries that were lost or changed; moves nothing now."""


class Movement(NamedTuple):
    """An entry of the append-only ledger: signed changes of the three balances, and why. `undoes` names the kind that it compensates."""

    sku: str
    kind: MovementKind
    on_hand: int = 0
    allocated: int = 0
    waiting: int = 0
    order: str | None = None
    receipt: str | None = None
    purchase_order: str | None = None
    line: int | None = None
    undoes: MovementKind | None = None
    cause: str = ""


class Moved(NamedTuple):
    """What all entries of the ledger about a line add up to: units set aside and not shipped, shipped, waiting."""

    held: int = 0
    shipped: int = 0
    waiting: int = 0


@dataclass(slots=True)
class Ledger:
    """What all entries about a SKU add up to, and about each of its lines; `counts` is how many counts there are among them."""

    on_hand: int = 0
    allocated: int = 0
    waiting: int = 0
    received: int = 0
    counts: int = 0
    lines: dict[LineKey, Moved] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """What one transaction works on. Aggregates are replaced, never changed; the `stored_…` ones are as the database has them.

    Four say which message was the last to do something: `touched` a SKU at all, `freed` units of it, `rescheduled` it (supply
    ahead of its queue is another than when promises were made), and brought the newest claim of a line (`claimed`). Lines with a
    new demand version are `unanswered`. `receipts` are the booked ones with their good units. After a restore lines have units `restored`
    that they were given before, and of SKUs everyone is told `again`. Of SKUs to be repaired there are all lines and the sums of the
    ledger; once `repaired`, the stored ones are as they should have been.
    """

    skus: dict[str, Sku] = field(default_factory=dict)
    demands: dict[LineKey, Demand] = field(default_factory=dict)
    supplies: dict[LineKey, Supply] = field(default_factory=dict)
    receipts: dict[ReceiptLine, int] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    stored_skus: dict[str, Sku] = field(init=False)
    stored_demands: dict[LineKey, Demand] = field(init=False)
    stored_supplies: dict[LineKey, Supply] = field(init=False)
    movements: list[Movement] = field(default_factory=list, init=False)
    touched: dict[str, str] = field(default_factory=dict, init=False)
    freed: dict[str, str] = field(default_factory=dict, init=False)
    rescheduled: dict[str, str] = field(default_factory=dict, init=False)
    claimed: dict[LineKey, str] = field(default_factory=dict, init=False)
    unanswered: set[LineKey] = field(default_factory=set, init=False)
    restored: dict[LineKey, int] = field(default_factory=dict, init=False)
    again: set[str] = field(default_factory=set, init=False)
    repaired: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.stored_skus, self.stored_demands, self.stored_supplies = dict(self.skus), dict(self.demands), dict(self.supplies)

    def waited(self, key: LineKey) -> int:
        """Units of the line that waited before this transaction."""
        stored = self.stored_demands.get(key)
        return stored.open if stored else 0

    def changed(self, keys: Iterable[LineKey]) -> Iterator[tuple[LineKey, Demand]]:
        """The lines of these that are other than they were: what only stands in a queue is most of them, and has no news."""
        for key in keys:
            line = self.demands[key]
            if line is not self.stored_demands.get(key):
                yield key, line

    def cause(self, line: Demand, otherwise: Mapping[str, str]) -> str:
        """The message to which a line owes its change: its own newest claim, or else what was done to its SKU."""
        return self.claimed.get(line.key) or otherwise.get(line.sku) or self.touched[line.sku]

    def queue_reads(self) -> dict[str, int | None]:
        """How many lines of which queues the decisions need, in queue order: None = all of them, where supply was rescheduled.

        Elsewhere every free unit serves at most one line up; lines in memory may have left the queue since; and one line
        more is the queue's next head. So the cost does not grow with the queue.
        """
        in_memory = Counter(demand.sku for demand in self.stored_demands.values() if demand.open)
        return {
            sku: None if sku in self.rescheduled else max(0, self.skus[sku].free) + in_memory[sku] + 1
            for sku in sorted(self.touched)
            if self.stored_skus[sku].waiting
        }

    def add_queue(self, lines: Iterable[Demand]) -> None:
        """Adds lines as the database has them; what is already in memory is newer and stays."""
        for line in lines:
            if line.key not in self.demands:
                self.demands[line.key] = self.stored_demands[line.key] = line


def allocate(free: int, waiting_lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
    """Gives free units to the waiting lines: head of the queue first, partially if need be, so that nobody is served while an
    earlier line waits. Answers (line, units) of those that got some."""
    given: list[tuple[Demand, int]] = []
    for line in sorted((line for line in waiting_lines if line.open), key=attrgetter("place")):
        if free <= 0:
            break
        units = min(free, line.open)
        given.append((line, units))
        free -= units
    return given


def promises(units_ahead: int, open_units: Sequence[int], supplies: Iterable[Supply], today: date) -> list[date | None]:
    """The promises of consecutive lines of a queue, by their open units, in one pass; a line ships when its last unit can: HANDLING_DAYS
    after the expected day of the supply that covers it. A supply without a day (LAST_DAY is none), or whose day has passed, covers
    nobody; None = no date."""
    dated = sorted(
        (supply.expected_on, supply.open) for supply in supplies if supply.expected_on and today <= supply.expected_on < LAST_DAY
    )
    covered = list(accumulate(units for _, units in dated))
    days = [*(day + timedelta(days=HANDLING_DAYS) for day, _ in dated), None]
    return [days[bisect_left(covered, units_ahead + position)] for position in accumulate(open_units)]
