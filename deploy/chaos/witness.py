"""Listens to what the system tells the world, and says at once when it contradicts itself.

A record may come twice (at least once is Kafka's word, and the vandal replays), but then it is the same; what is new follows on
what was told before: no event of a line is missing, none is told twice under different versions, and the sums are right.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from deploy.chaos.violation import Violation
from shared.contracts.base import Message
from shared.contracts.inventory import StockLevelChanged
from shared.contracts.notifier import NoticeFailed, NoticeSent
from shared.contracts.orders import (
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LineChange,
    LineEvent,
    LinePromised,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
)
from shared.contracts.purchasing import PurchaseOrderIssued

LineKey: TypeAlias = tuple[str, int]


class Witness:
    """`heard` counts messages that were news, `repeats` those that were not; `violations` grows as it listens."""

    def __init__(self) -> None:
        self.heard = 0
        self.repeats = 0
        self.violations: list[Violation] = []
        self._told: dict[tuple[type[Message], object], Message] = {}
        self._changes: dict[LineKey, dict[int, LineChange]] = {}
        self._takes: Mapping[type[Message], Callable[[Any], None]] = {
            OrderAccepted: lambda event: self._once(event, event.order),
            OrderCompleted: lambda event: self._once(event, event.order),
            PurchaseOrderIssued: lambda order: self._once(order, order.purchase_order),
            NoticeSent: lambda notice: self._once(notice, notice.mail),
            NoticeFailed: lambda notice: self._once(notice, notice.mail),
            StockLevelChanged: lambda level: self._once(level, (level.sku, level.version)),
            **dict.fromkeys((LineAllocated, LineBackordered, LineCancelled, LinePromised, LineShipped), self._line_event),
        }

    def take(self, message: Message, _appended: datetime) -> None:
        """Hears a message of a public topic, in the order of its partition."""
        take = self._takes.get(type(message))
        if take is not None:
            take(message)

    @property
    def versions(self) -> dict[LineKey, int]:
        """How many events of each line were told."""
        return {line: len(changes) for line, changes in self._changes.items()}

    def told(self, *kinds: type[Message]) -> dict[str, frozenset[str]]:
        """Of these messages, what they were about, by the message's name."""
        return {kind.__name__: frozenset(str(about) for known, about in self._told if known is kind) for kind in kinds}

    def _once(self, message: Message, identity: object) -> None:
        """There is one such message; a repeat is the same to the letter."""
        known = self._told.setdefault((type(message), identity), message)
        if known is message:
            self.heard += 1
        elif known == message:
            self.repeats += 1
        else:
            self._saw(f"there is one {type(message).__name__} of each kind, and a repeat is the same", message, {"before": repr(known)})

    def _line_event(self, event: LineEvent) -> None:
        for change in event.lines:
            changes = self._changes.setdefault((event.order, change.line), {})
            if change.version in changes:
                self.repeats += 1
                if changes[change.version] != change:
                    self._saw("a line's event that comes again is the same", event, {"before": repr(changes[change.version])})
                continue
            self.heard += 1
            if change.version != len(changes) + 1:
                self._saw(
                    "a line's events come one after the other, none is missing", event, {"line": change.line, "expected": len(changes) + 1}
                )
            if (wrong := _wrong(type(event), change, changes.get(change.version - 1))) is not None:
                self._saw(wrong, event, {"line": change.line})
            changes[change.version] = change

    def _saw(self, check: str, message: Message, row: dict[str, Any]) -> None:
        named = {"message": type(message).__name__, "key": message.key}
        self.violations.append(Violation(check, {**named, **row, "content": message.model_dump_json()}))


def _wrong(kind: type[LineEvent], change: LineChange, before: LineChange | None) -> str | None:
    """What is wrong with a line's event, given the one before it."""
    now = change.amounts
    if now.pending + now.allocated + now.backordered + now.shipped + now.cancelled != now.ordered:
        return "a line's five amounts add up to what was ordered"
    if before is None:
        return None
    was = before.amounts
    grown = {LineShipped: now.shipped - was.shipped, LineCancelled: now.cancelled - was.cancelled}
    if now.ordered != was.ordered or any(units != (change.quantity if kind is what else 0) for what, units in grown.items()):
        return "shipped and cancelled units are told once each, when it happens"
    return None
