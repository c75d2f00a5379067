"""Inventory without a database: the same handlers and decisions over rows kept in dicts, read back as the store would."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from services.inventory import handlers
from services.inventory.app import service
from services.inventory.domain import Demand, Ledger, LineKey, Moved, Movement, MovementKind, Policy, ReceiptLine, Sku, State, Supply
from services.inventory.timers import AnswerDue, StockAgain
from shared.contracts.base import Message
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandRefused, DemandServed
from shared.contracts.orders import DemandSet
from shared.contracts.purchasing import StockReceived, SupplyChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted
from shared.service import Context, Corrected, Effect, Refuse, Repair, Schedule, Send, Service, Timer, Unschedule
from shared.settings import Settings

SERVICE = service(Settings())

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TODAY = NOON.date()
POLICY = Policy(ZoneInfo("UTC"))


def day(offset: int):
    """A calendar day, counted from today."""
    return TODAY + timedelta(days=offset)


def moment(minutes: int) -> datetime:
    """A time of the morning's queue."""
    return NOON - timedelta(days=1) + timedelta(minutes=minutes)


def defined(sku: str = "A", backorder: BackorderPolicy = BackorderPolicy.ALLOW) -> SkuDefined:
    return SkuDefined(sku=sku, backorder=backorder)


def counted(on_hand: int, sku: str = "A") -> StockCounted:
    return StockCounted(count=f"C-{sku}", sku=sku, on_hand=on_hand, counted_at=NOON)


def received(good: int, receipt: str = "R-1", purchase_order: str = "P-1", line: int = 1, sku: str = "A") -> StockReceived:
    return StockReceived(receipt=receipt, purchase_order=purchase_order, line=line, sku=sku, good=good, received_at=NOON)


def supply(
    units: int, expected_on: Any = None, version: int = 1, purchase_order: str = "P-1", sku: str = "A", **more: Any
) -> SupplyChanged:
    return SupplyChanged(
        purchase_order=purchase_order, line=1, sku=sku, committed=more.get("committed", units), open=units,
        expected_on=expected_on, version=version,
    )  # fmt: skip


def repair(sku: str = "A") -> Repair:
    return Repair(aggregate=f"sku:{sku}", actor="ann", reason="somebody counted")


def demand(
    order: str,
    wanted: int,
    version: int = 1,
    *,
    line: int = 1,
    sku: str = "A",
    shipped: int = 0,
    at: int | None = None,
    asks: int | None = None,
) -> DemandSet:
    """A claim that queued at minute `at`; by default the number in the order's name. `asks` = its demand version, by default a new one."""
    when = moment(int("".join(filter(str.isdigit, order))) if at is None else at)
    return DemandSet(
        order=order, line=line, sku=sku, wanted=wanted, shipped=shipped, queued_at=when, ordered_at=when,
        demand_version=version if asks is None else asks, version=version,
    )  # fmt: skip


def in_order(messages: Sequence[Any]) -> list[Any]:
    """As a batch applies them."""
    topics = (*SERVICE.topics, INVENTORY_ALLOCATIONS)
    return sorted(messages, key=lambda message: topics.index(message.TOPIC) if isinstance(message, Message) else -1)


class BrokenError(AssertionError):
    """What a transaction broke: (invariant, aggregate, detail)."""


@dataclass
class House:
    """The rows of inventory, and what the last transaction answered. `numbers` are the ledger's, entry by entry. A `guarded`
    one raises BrokenError when a transaction breaks an invariant."""

    skus: dict[str, Sku] = field(default_factory=dict)
    demands: dict[LineKey, Demand] = field(default_factory=dict)
    supplies: dict[LineKey, Supply] = field(default_factory=dict)
    receipts: dict[ReceiptLine, int] = field(default_factory=dict)
    ledger: list[Movement] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    number: int = 0
    sent: list[Message] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    corrections: list[str] = field(default_factory=list)
    reads: dict[str, int | None] = field(default_factory=dict)
    timers: dict[tuple[str, str], Timer] = field(default_factory=dict)
    guarded: bool = True

    def apply(self, *messages: Any, now: datetime = NOON, service: Service[State] | None = None) -> "House":
        """One transaction, as the runtime runs it: by topic, then in the given order; by the service as ever, or by another."""
        decide, service = (service.decide, service) if service else (partial(handlers.decide, POLICY), SERVICE)
        self.number += 1
        ordered = in_order(messages)
        state = self._load(ordered)
        effects: list[Effect] = []
        for index, message in enumerate(ordered):
            effects += service.routes[type(message)].handler(
                state, message, Context(now, self.number, f"m{self.number}#{index}", "", now, now)
            )
        self.reads = state.queue_reads()
        for sku, limit in self.reads.items():
            state.add_queue(self.queue(sku)[:limit])
        context = Context(now, self.number, "", "", now, now)
        effects += decide(state, context)
        sends = [effect for effect in effects if isinstance(effect, Send)]
        told = [send.message for send in sends]
        broken = [(name, *found) for name, check in service.checks.items() for found in check(state, told, context)]
        if broken and self.guarded:
            raise BrokenError(broken)
        self._save(state)
        for effect in effects:
            match effect:
                case Schedule(timer):
                    self.timers[type(timer).__name__, timer.key] = timer
                case Unschedule(timer):
                    self.timers.pop((type(timer).__name__, timer.key), None)
        self.refusals = [effect.reason for effect in effects if isinstance(effect, Refuse)]
        self.corrections = [effect.detail for effect in effects if isinstance(effect, Corrected)]
        self.sent, self.causes = [send.message for send in sends], [send.cause for send in sends]
        return self

    def queue(self, sku: str = "A") -> list[Demand]:
        """Who waits, in order."""
        return sorted((line for line in self.demands.values() if line.sku == sku and line.open), key=lambda line: line.place)

    def moved(self, number: int) -> list[tuple[str, str | None, int, int]]:
        """The entries of a transaction: (kind, order, change of allocated, change of waiting)."""
        return [
            (each.kind.value, each.order, each.allocated, each.waiting)
            for each, written in zip(self.ledger, self.numbers, strict=True)
            if written == number
        ]

    def entries(self) -> list[Any]:
        """Who waited and who was served, as the SQL of `deploy.local.fairness` reads it."""
        rows = [
            (each.sku, number, line.order, line.line, line.queue_class, line.queued_at,
             each.allocated if each.kind is MovementKind.ALLOCATED else 0, each.waiting)
            for each, number in zip(self.ledger, self.numbers, strict=True)
            if each.kind is MovementKind.ALLOCATED or each.waiting
            for line in [self.demands[str(each.order), int(each.line or 0)]]
        ]  # fmt: skip
        return sorted(rows, key=lambda row: row[0])

    def told(self, kind: type[Message]) -> list[Any]:
        """What the last transaction sent of this kind."""
        return [message for message in self.sent if type(message) is kind]

    def served(self) -> dict[str, int]:
        """Order → served, as the last transaction told."""
        return {message.order: message.served for message in self.told(DemandServed)}

    def refused(self) -> dict[str, tuple[int, str, int]]:
        """Order → (quantity, reason, demand version), as the last transaction told."""
        return {message.order: (message.quantity, message.reason.value, message.demand_version) for message in self.told(DemandRefused)}

    def promised(self) -> dict[str, tuple[Any, int]]:
        """Order → (ship_by, promise version), as the last transaction told."""
        return {message.order: (message.ship_by, message.promise_version) for message in self.told(DemandServed)}

    def _load(self, messages: Sequence[Any]) -> State:
        lines = {(message.order, message.line) for message in messages if isinstance(message, DemandSet | DemandServed)}
        lines |= {message.line_key for message in messages if isinstance(message, AnswerDue)}
        skus = {message.key for message in messages if isinstance(message, StockAgain)}
        skus |= {self.demands[key].sku for key in lines if key in self.demands}
        skus |= {message.sku for message in messages if isinstance(message, Message) and not isinstance(message, DemandServed)}  # type: ignore[attr-defined]
        ill = {message.key for message in messages if isinstance(message, Repair)}
        named = {(message.purchase_order, message.line) for message in messages if isinstance(message, StockReceived | SupplyChanged)}
        for sku in skus:
            self.skus.setdefault(sku, Sku(sku))
        skus |= ill
        return State(
            skus={sku: self.skus[sku] for sku in sorted(skus) if sku in self.skus},
            demands={key: line for key, line in self.demands.items() if key in lines or line.sku in ill},
            supplies={key: each for key, each in self.supplies.items() if (each.sku in skus and each.open) or key in named},
            receipts=dict(self.receipts),
            ledgers={sku: self._sums(sku) for sku in ill},
        )

    def _sums(self, sku: str) -> Ledger:
        ledger = Ledger()
        for entry in self.ledger:
            if entry.sku == sku:
                ledger.on_hand += entry.on_hand
                ledger.allocated += entry.allocated
                ledger.waiting += entry.waiting
                ledger.counts += entry.kind is MovementKind.COUNTED
                ledger.received += entry.on_hand if entry.kind is MovementKind.RECEIVED else 0
                if entry.order is not None:
                    held, shipped, waiting = ledger.lines.get((entry.order, int(entry.line or 0)), Moved())
                    moved = Moved(held + entry.allocated, shipped - entry.on_hand, waiting + entry.waiting)
                    ledger.lines[entry.order, int(entry.line or 0)] = moved
        return ledger

    def _save(self, state: State) -> None:
        self.skus |= state.skus
        self.demands |= state.demands
        self.supplies |= state.supplies
        self.receipts |= state.receipts
        self.ledger += state.movements
        self.numbers += [self.number] * len(state.movements)
