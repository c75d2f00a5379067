"""The rules of an order's lines: who owns which number, and what may become of a unit. Pure functions over frozen aggregates.

Orders owns a line's ordered, cancelled and shipped; inventory owns `served`, the units ever set aside for it and not taken
back. The five amounts that a customer sees are derived from these four, so they add up to `ordered` whatever crosses.
"""

import hashlib
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from shared.contracts.base import Message
from shared.contracts.inventory import DemandServed
from shared.contracts.orders import LineAllocated, LineBackordered, LineChange, LineEvent, LinePromised

CONTENT_LOST = b""
"""In place of the hash of a fact that is known only by what was told of it."""


class Order(NamedTuple):
    """An accepted order. `queued_at` is its place in every queue, `content` the hash by which its OrderPlaced is known again."""

    order: str
    placed_at: datetime
    queued_at: datetime
    content: bytes
    open_lines: int
    completed_at: datetime | None = None

    @property
    def completed(self) -> bool:
        """Whether that was told."""
        return self.completed_at is not None


class Line(NamedTuple):
    """One SKU of an order. Quantities are units; `version` counts the line's events, `demand_version` names the
    DemandSet that last changed what is wanted: only answers to it count."""

    order: str
    line: int
    sku: str
    unit_price: Decimal
    ordered: int
    cancelled: int = 0
    shipped: int = 0
    served: int = 0
    served_version: int = 0
    answered: bool = False
    ship_by: date | None = None
    promise_version: int = 0
    demand_version: int = 0
    version: int = 0

    @property
    def wanted(self) -> int:
        """Units that the customer still wants or has."""
        return self.ordered - self.cancelled

    @property
    def open(self) -> int:
        """Units wanted and not shipped: those that can still be cancelled."""
        return self.ordered - self.cancelled - self.shipped

    @property
    def allocated(self) -> int:
        """Units set aside that the warehouse may pick."""
        wanted, served = self.ordered - self.cancelled, self.served
        held = (served if served < wanted else wanted) - self.shipped
        return held if held > 0 else 0

    @property
    def pending(self) -> int:
        """Units about which inventory has not answered yet."""
        return 0 if self.answered else self.open - self.allocated

    @property
    def backordered(self) -> int:
        """Units that wait for supply."""
        return self.open - self.allocated if self.answered else 0

    @property
    def amounts(self) -> dict[str, int]:
        """What was ordered, and the five amounts that add up to it, as the fields of `Amounts`."""
        allocated = self.allocated
        rest = self.open - allocated
        return {
            "ordered": self.ordered,
            "pending": 0 if self.answered else rest,
            "allocated": allocated,
            "backordered": rest if self.answered else 0,
            "shipped": self.shipped,
            "cancelled": self.cancelled,
        }


class Step(NamedTuple):
    """One event of a line: what happened to how many units, and the line after it."""

    kind: type[LineEvent]
    quantity: int
    line: Line


def cancel(line: Line, quantity: int, number: int) -> tuple[Line, int]:
    """Cancels up to `quantity` of the open units, unserved ones first; answers the line and how many.

    `served` is lowered with `wanted`, so that an answer which is already on its way can never be read as more than we want.
    """
    done = min(quantity, line.open)
    if not done:
        return line, 0
    served = min(line.served, line.wanted - done)
    return line._replace(cancelled=line.cancelled + done, served=served, demand_version=number, version=line.version + 1), done


def refuse(line: Line, quantity: int, number: int) -> tuple[Line, int]:
    """Cancels up to `quantity` units that inventory does not have and that may not wait: never units that are set aside."""
    return cancel(line, min(quantity, line.open - line.allocated), number)


def ship(line: Line, quantity: int) -> tuple[Line, int]:
    """Ships up to `quantity` of the allocated units; answers the line and how many. What is wanted stays, and so do its answers."""
    done = min(quantity, line.allocated)
    if not done:
        return line, 0
    return line._replace(shipped=line.shipped + done, version=line.version + 1), done


def answer(line: Line, told: DemandServed) -> tuple[Line, list[Step]]:
    """Takes inventory's answer to the line's latest claim: the line after it, and its events one after the other.

    Units set aside come first; what is left after the first answer is backordered; a moved date is told of what still waits.
    """
    steps: list[Step] = []
    served, held = min(told.served, line.wanted), line.allocated
    backordered = line.open - held if line.answered else 0
    rise = max(0, served - line.shipped) - held
    after = line._replace(
        served=served,
        served_version=told.version,
        ship_by=told.ship_by,
        promise_version=told.promise_version,
        version=line.version + (rise > 0),
    )
    if rise > 0:
        steps.append(Step(LineAllocated, rise, after))
    rest = line.open - held - rise
    if rest > backordered:
        after = after._replace(answered=True, version=after.version + 1)
        steps.append(Step(LineBackordered, rest - backordered, after))
    elif not line.answered:
        after = after._replace(answered=True)
    elif rest and line.ship_by != told.ship_by:
        after = after._replace(version=after.version + 1)
        steps.append(Step(LinePromised, rest, after))
    return after, steps


def told(line: Line, change: LineChange, number: int) -> Line:
    """The line as it was told, whatever is known of it. `number` names a claim that is still to be made: no earlier answer counts."""
    amounts = change.amounts
    return line._replace(
        cancelled=amounts.cancelled,
        shipped=amounts.shipped,
        served=amounts.allocated + amounts.shipped,
        answered=not amounts.pending,
        ship_by=change.ship_by,
        promise_version=change.promise_version,
        demand_version=number,
        version=change.version,
    )


class Status(StrEnum):
    """What an order is in one word."""

    PENDING = "pending"
    """Received, not decided yet."""
    REJECTED = "rejected"
    """Could not be accepted as it was sent."""
    OPEN = "open"
    """Accepted; nothing waits for supply."""
    BACKORDERED = "backordered"
    """Accepted; some units wait for supply."""
    COMPLETED = "completed"
    """Everything that is still wanted has shipped."""
    CANCELLED = "cancelled"
    """Every unit was cancelled."""


def status(lines: Iterable[Line]) -> Status:
    """An accepted order's status, derived from its lines."""
    lines = tuple(lines)
    if any(line.backordered for line in lines):
        return Status.BACKORDERED
    if any(line.open for line in lines):
        return Status.OPEN
    return Status.COMPLETED if any(line.shipped for line in lines) else Status.CANCELLED


def counted(units: Iterable[tuple[int, int]]) -> bytes:
    """In place of a parcel's content, when all that is known of it is what was counted: units by line."""
    return hashlib.blake2b(repr(sorted(units)).encode(), digest_size=16).digest()


def content_of(message: Message) -> bytes:
    """A hash by which the same fact is known again under another message id.

    Defaults are left out, so that a contract which has grown an optional field still knows what came before it grew.
    """
    return hashlib.blake2b(message.model_dump_json(exclude_defaults=True).encode(), digest_size=16).digest()
