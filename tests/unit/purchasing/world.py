"""purchasing without database and broker: the same rows, routes and decisions, transaction after transaction."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.purchasing.app import service
from services.purchasing.domain import Line, PurchaseOrder, Sku, Supplier
from services.purchasing.state import State, working_set
from services.purchasing.store import touched
from services.purchasing.timers import SupplyOverdue
from shared.contracts.base import Message
from shared.contracts.inventory import ShortageChanged
from shared.contracts.purchasing import PurchaseOrderIssued, StockReceived, SupplyChanged
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
from shared.service import Applicable, Context, Effect, Refuse, Schedule, Send, Service, Timer, Unschedule
from shared.settings import Settings

MONDAY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SERVICE: Service[State] = service(Settings(consolidation_hours=4, time_zone="Europe/London"))


class BrokenError(AssertionError):
    """What a transaction broke: (invariant, aggregate, detail)."""


def transact(state: State, messages: Iterable[Applicable], now: datetime, number: int, service: Service[State]) -> list[Effect]:
    """What the runtime does between load and save. Raises BrokenError."""
    effects: list[Effect] = []
    for index, message in enumerate(messages):
        context = Context(now, number, f"{number}#{index}", "", now, now)
        effects.extend(service.routes[type(message)].handler(state, message, context))
    context = Context(now, number, "", "", now, now)
    effects.extend(service.decide(state, context))
    broken = [(name, *found) for name, check in service.checks.items() for found in check(state, messages_of(effects), context)]
    if broken:
        raise BrokenError(broken)
    return effects


def messages_of(effects: Iterable[Effect]) -> list[Message]:
    """The messages among the effects."""
    return [effect.message if isinstance(effect, Send) else effect for effect in effects if isinstance(effect, Message | Send)]


def rows_of(state: State) -> dict[str, list[Any]]:
    """Every row of the state."""
    return {
        name: getattr(state, name).all()
        for name in ("skus", "offers", "suppliers", "orders", "lines", "shortfalls", "receipts", "acknowledgements")
    }


@dataclass
class World:
    """All rows of the service, its timers, and everything it ever heard and said."""

    state: State = field(default_factory=working_set)
    now: datetime = MONDAY
    number: int = 0
    timers: dict[tuple[str, str], tuple[Timer, datetime]] = field(default_factory=dict)
    heard: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    ids: "itertools.count[int]" = field(default_factory=itertools.count)

    def apply(self, *messages: Applicable, touching: Iterable[str] = (), service: Service[State] | None = None) -> list[Effect]:
        """One transaction, which also plans the SKUs in `touching`."""
        self.heard += [message for message in messages if isinstance(message, Message)]
        keys = touched(messages)
        for sku in keys.skus:
            if self.state.skus.get(sku) is None:
                self.state.skus.put(Sku(sku))
        for supplier in keys.suppliers:
            if self.state.suppliers.get(supplier) is None:
                self.state.suppliers.put(Supplier(supplier))
        self.number += 1
        self.state = working_set(**rows_of(self.state))
        self.state.touched.update(dict.fromkeys(touching, "test"))
        effects = transact(self.state, messages, self.now, self.number, service or SERVICE)
        for effect in effects:
            match effect:
                case Schedule(timer, due):
                    self.timers[type(timer).__name__, timer.key] = timer, due
                case Unschedule(timer):
                    self.timers.pop((type(timer).__name__, timer.key), None)
        self.sent.extend(messages_of(effects))
        return effects

    def advance(self, to: datetime) -> list[Effect]:
        """Lets time pass: due timers fire, each in a transaction of its own, at the time at which they are due."""
        effects: list[Effect] = []
        while due := [(when, key) for key, (_, when) in self.timers.items() if when <= to]:
            when, key = min(due)
            timer, _ = self.timers.pop(key)
            self.now = max(self.now, when)
            effects += self.apply(timer)
        self.now = to
        return effects

    def offer(self, supplier: str, sku: str = "X", **terms: Any) -> list[Effect]:
        usual: dict[str, Any] = {"price": Decimal(1), "currency": "EUR", "lead_days": 7}
        return self.apply(OfferChanged(supplier=supplier, sku=sku, **(usual | terms)))

    def short(self, waiting: int, received: int = 0, sku: str = "X", version: int | None = None) -> list[Effect]:
        version = self.number + 1 if version is None else version
        needed_by = MONDAY if waiting else None
        return self.apply(ShortageChanged(sku=sku, waiting=waiting, needed_by=needed_by, received_total=received, version=version))

    def close_windows(self) -> list[Effect]:
        return self.advance(max(self.now, *(due for (kind, _), (_, due) in self.timers.items() if kind == "WindowClosed")))

    def answer(self, purchase_order: str, answer: str, line: int = 1, **rest: Any) -> list[Effect]:
        """A supplier's answer to one line; `supplier`, `id`, `quantity`, `expected_on` where they matter."""
        supplier = rest.pop("supplier", purchase_order.rpartition("-")[0])
        acknowledgement = rest.pop("id", f"A{next(self.ids)}")
        lines = (AcknowledgedLine(line=line, answer=LineAnswer(answer), **rest),)
        return self.apply(
            PurchaseOrderAcknowledged(
                acknowledgement=acknowledgement, purchase_order=purchase_order, supplier=supplier, acknowledged_at=self.now, lines=lines
            )
        )

    def notice(self, purchase_order: str, expected_on: date, line: int = 1, supplier: str = "") -> list[Effect]:
        return self.apply(
            ShipmentNotified(
                notice=f"N{next(self.ids)}",
                purchase_order=purchase_order,
                supplier=supplier or purchase_order.rpartition("-")[0],
                expected_on=expected_on,
                lines=(NotifiedLine(line=line, quantity=1),),
            )
        )

    def receive(self, purchase_order: str, *lines: ReceivedLine, receipt: str = "") -> list[Effect]:
        return self.apply(
            GoodsReceived(receipt=receipt or f"R{next(self.ids)}", purchase_order=purchase_order, received_at=self.now, lines=lines)
        )

    def line(self, purchase_order: str, line: int = 1) -> Line:
        return self.state.lines[purchase_order, line]

    def order(self, purchase_order: str) -> PurchaseOrder:
        return self.state.orders[purchase_order]

    def due(self, timer: Timer) -> datetime | None:
        return self.timers.get((type(timer).__name__, timer.key), (None, None))[1]


def arrived(sku: str = "X", line: int = 1, good: int = 0, damaged: int = 0, balance: str = "follows") -> ReceivedLine:
    return ReceivedLine(line=line, sku=sku, good=good, damaged=damaged, balance=Balance(balance))


def supply(effects: Sequence[Effect]) -> list[tuple[str, int, int, int, date | None]]:
    """What inventory is told of lines: (purchase order, line, committed, open, expected on)."""
    told = [message for message in messages_of(effects) if isinstance(message, SupplyChanged)]
    return [(m.purchase_order, m.line, m.committed, m.open, m.expected_on) for m in told]


def stock(effects: Sequence[Effect]) -> list[tuple[str, int, int]]:
    """Good units that go to stock: (purchase order, line, good)."""
    return [(m.purchase_order, m.line, m.good) for m in messages_of(effects) if isinstance(m, StockReceived)]


def issued(effects: Sequence[Effect]) -> list[PurchaseOrderIssued]:
    return [message for message in messages_of(effects) if isinstance(message, PurchaseOrderIssued)]


def refusals(effects: Sequence[Effect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Refuse)]


def overdue(purchase_order: str, line: int = 1) -> SupplyOverdue:
    return SupplyOverdue(key=f"{purchase_order}/{line}")


def after(**delta: float) -> datetime:
    return MONDAY + timedelta(**delta)
