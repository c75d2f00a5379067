"""The working set of one transaction: what was loaded and locked, what changed, and the story that the transaction tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from services.orders.domain import Line, Order
from shared.contracts.base import Message
from shared.contracts.commerce import OrderPlaced
from shared.contracts.orders import FieldError, LineEvent
from shared.service import Context, Send

LineKey = tuple[str, int]
FactKey = tuple[str, str]
"""(order, id given by whoever tells it): a shipment or a cancellation."""


class Told(NamedTuple):
    """One entry of an order's story: a whole message."""

    event: Message
    cause: str
    actor: str


class Changed(NamedTuple):
    """One entry of an order's story: a line's part of a message, whose other `facts` the lines in it share."""

    kind: type[LineEvent]
    apart: str
    """Changes of one kind share a message unless this differs: each parcel, each cancellation has a message of its own."""
    change: Mapping[str, Any]
    """The fields of its `LineChange`: validated with all others of the message, at once."""
    facts: Mapping[str, Any]
    cause: str
    actor: str


class Recorded(NamedTuple):
    """An entry of an order's timeline: the type of what was told, and its data."""

    type: str
    data: dict[str, Any]


@dataclass(slots=True)
class Facts:
    """What has been told under ids of the tellers' own: the hash of each content, and which ones are new."""

    known: dict[FactKey, bytes] = field(default_factory=dict)
    new: list[FactKey] = field(default_factory=list)

    def admit(self, key: FactKey, content: bytes) -> bytes | None:
        """Keeps a new fact and answers None; answers the content that stands under the key already otherwise."""
        if key in self.known:
            return self.known[key]
        self.known[key] = content
        self.new.append(key)
        return None


@dataclass(slots=True)
class State:
    """Orders are locked, and with each order its lines and natural keys. Lines are loaded as far as messages name them."""

    orders: dict[str, Order] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    stubs: set[str] = field(default_factory=set)
    lines: dict[str, dict[int, Line]] = field(default_factory=dict)
    cancellations: Facts = field(default_factory=Facts)
    shipments: Facts = field(default_factory=Facts)

    placed: dict[str, OrderPlaced] = field(default_factory=dict)
    errors: dict[str, tuple[FieldError, ...]] = field(default_factory=dict)
    counted: dict[str, Order] = field(default_factory=dict)
    changed: dict[LineKey, Line] = field(default_factory=dict)
    """Orders whose open lines were counted anew, and lines that changed, each as it was before."""
    claims: dict[LineKey, str] = field(default_factory=dict)
    """Lines whose claim on inventory changed, each with the cause of its latest change."""
    recorded: dict[str, list[Recorded]] = field(default_factory=dict)
    repaired: set[str] = field(default_factory=set)
    """Timelines of orders that are to be repaired, and orders that were: all of their lines are written anew."""
    stories: dict[str, list[Told | Changed]] = field(default_factory=dict)
    timeline: list[tuple[str, datetime, Message, str]] = field(default_factory=list)
    """What was published of an order: order, when, message, cause."""

    def line(self, order: str, line: int) -> Line | None:
        """The line, or None if there is none."""
        return self.lines.get(order, {}).get(line)

    def put(self, line: Line) -> None:
        """Replaces a line, and counts its order's open lines."""
        lines = self.lines[line.order]
        if lines[line.line].open and not line.open:
            order = self.orders[line.order]
            self.orders[line.order] = order._replace(open_lines=order.open_lines - 1)
            self.counted.setdefault(line.order, order)
        self.changed.setdefault((line.order, line.line), lines[line.line])
        lines[line.line] = line

    def complete(self, order: Order, at: datetime) -> None:
        """Nothing of the order is open any more."""
        self.orders[order.order] = order._replace(completed_at=at)
        self.counted.setdefault(order.order, order)

    def tell(self, order: str, event: Message, context: Context) -> None:
        """Adds a message to the order's story."""
        self.stories.setdefault(order, []).append(Told(event, context.cause, context.actor))

    def tell_line(
        self, line: Line, quantity: int, kind: type[LineEvent], facts: Mapping[str, Any], context: Context, apart: str = ""
    ) -> None:
        """Adds to the order's story that `quantity` units of the line changed; `line` is the line after it."""
        change = {
            "line": line.line,
            "sku": line.sku,
            "quantity": quantity,
            "amounts": line.amounts,
            "version": line.version,
            "ship_by": line.ship_by,
            "promise_version": line.promise_version,
        }
        self.stories.setdefault(line.order, []).append(Changed(kind, apart, change, facts, context.cause, context.actor))


def messages(order: str, story: Sequence[Told | Changed]) -> Iterator[Send]:
    """An order's story as messages: line changes of one kind share one, as long as every line's own events keep their order.

    So a change joins the latest message of its kind, unless its line stands in that one or in a later one already. Nothing is
    moved across a message that is not about lines.
    """
    groups: list[Told | list[Changed]] = []
    latest: dict[tuple[type[LineEvent], str], int] = {}
    last_of_line: dict[int, int] = {}
    for told in story:
        if isinstance(told, Told):
            groups.append(told)
            latest.clear()
            continue
        kind = told.kind, told.apart
        index = latest.get(kind, -1)
        line = told.change["line"]
        if index <= last_of_line.get(line, -1):
            index = latest[kind] = len(groups)
            groups.append([])
        group = groups[index]
        assert isinstance(group, list)
        group.append(told)
        last_of_line[line] = index
    for entry in groups:
        if isinstance(entry, Told):
            yield Send(*entry)
        else:
            first = entry[0]
            lines: Any = [changed.change for changed in entry]
            yield Send(first.kind(order=order, lines=lines, **first.facts), first.cause, first.actor)
