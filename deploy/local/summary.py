"""What came of a run, counted from the public topics alone: `orders.events`, `purchasing.orders`, `notices.events`, `suppliers.messages`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from shared.contracts.base import Message
from shared.contracts.notifier import NoticeSent
from shared.contracts.orders import Amounts, LineAllocated, LineBackordered, LineCancelled, LineEvent, LineShipped, OrderAccepted
from shared.contracts.purchasing import PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived

LineKey = tuple[str, int]


class AuditResult(BaseModel):
    """Whether every invariant held, and what broke them."""

    ok: bool
    violations: list[Any]


class Summary(BaseModel):
    """A run in numbers. Lines count once under each word that fits them: `backordered` = not served in full at the first decision;
    `filled` = of those, served in full later; `cancelled`, `shipped` = with units cancelled, shipped. `notices` = what customers
    were told, line by line. `seconds` from the first order until all had settled; `lines_per_second` = lines from the first
    order's publication until the last line was first decided."""

    orders: int
    lines: int
    backordered: int
    filled: int
    cancelled: int
    shipped: int
    purchase_orders: int
    receipts: int
    notices: int
    skipped: dict[str, int]
    seconds: float
    lines_per_second: float
    audit: AuditResult


class Tally:
    """Counts while it listens."""

    def __init__(self) -> None:
        self.orders: set[str] = set()
        self.lines = 0
        self.amounts: dict[LineKey, Amounts] = {}
        self.decided: set[LineKey] = set()
        self.backordered: set[LineKey] = set()
        self.filled: set[LineKey] = set()
        self.cancelled: set[LineKey] = set()
        self.shipped: set[LineKey] = set()
        self.purchase_orders: set[str] = set()
        self.receipts: set[str] = set()
        self.mails: dict[str, int] = {}
        self.last_decision_at: datetime | None = None
        self._takes: Mapping[type[Message], Callable[[Any, datetime], None]] = {
            OrderAccepted: self._accepted,
            LineAllocated: self._line_event,
            LineBackordered: self._line_event,
            LineCancelled: self._line_event,
            LineShipped: self._line_event,
            PurchaseOrderIssued: lambda order, _: self.purchase_orders.add(order.purchase_order),
            GoodsReceived: lambda receipt, _: self.receipts.add(receipt.receipt),
            NoticeSent: lambda mail, _: self.mails.update({mail.mail: len(mail.notices)}),
        }

    def take(self, message: Message, appended: datetime) -> None:
        """Hears a message and when the broker took it; a repeat changes nothing."""
        take = self._takes.get(type(message))
        if take is not None:
            take(message, appended)

    def lines_per_second(self, since: datetime) -> float:
        """Lines decided per second from then until the last line was first decided."""
        if self.last_decision_at is None:
            return 0.0
        return len(self.decided) / max(0.001, (self.last_decision_at - since).total_seconds())

    def states(self) -> dict[str, int]:
        """Lines by the state that most of all is theirs: what waits before what is open before what is done."""
        counts = dict.fromkeys(("pending", "backordered", "allocated", "shipped", "cancelled"), 0)
        counts["pending"] = self.lines - len(self.amounts)
        for amounts in self.amounts.values():
            state = next(state for state in counts if getattr(amounts, state))
            counts[state] += 1
        return counts

    def summary(self, skipped: Mapping[str, int], since: datetime, seconds: float, audit: AuditResult) -> Summary:
        """The run in numbers."""
        return Summary(
            orders=len(self.orders),
            lines=self.lines,
            backordered=len(self.backordered),
            filled=len(self.filled),
            cancelled=len(self.cancelled),
            shipped=len(self.shipped),
            purchase_orders=len(self.purchase_orders),
            receipts=len(self.receipts),
            notices=sum(self.mails.values()),
            skipped=dict(sorted(skipped.items())),
            seconds=round(seconds, 3),
            lines_per_second=round(self.lines_per_second(since), 1),
            audit=audit,
        )

    def _accepted(self, event: OrderAccepted, _appended: datetime) -> None:
        if event.order not in self.orders:
            self.orders.add(event.order)
            self.lines += len(event.lines)

    def _line_event(self, event: LineEvent, appended: datetime) -> None:
        for change in event.lines:
            key, amounts = (event.order, change.line), change.amounts
            self.amounts[key] = amounts
            if amounts.backordered and not amounts.pending and key not in self.decided:
                self.backordered.add(key)
            if not amounts.pending and key not in self.decided:
                self.decided.add(key)
                self.last_decision_at = max(appended, self.last_decision_at or appended)
            if isinstance(event, LineAllocated) and not amounts.backordered and key in self.backordered:
                self.filled.add(key)
            if amounts.cancelled:
                self.cancelled.add(key)
            if amounts.shipped:
                self.shipped.add(key)
