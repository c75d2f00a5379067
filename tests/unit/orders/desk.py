"""The service orders without a database: what it keeps between transactions, and messages to tell it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from services.orders.app import service
from services.orders.state import Facts, State
from shared.contracts.base import Message
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced, ShipmentConfirmed, ShippedLine
from shared.contracts.inventory import DemandRefused, DemandServed
from shared.contracts.orders import CancelReason, DemandSet, LineEvent
from shared.service import Applicable, Context, Corrected, Effect, Refuse, Schedule, Send, Service, Timer
from shared.settings import Settings

SERVICE = service(Settings())

T = TypeVar("T")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ADA = Customer(id="c-1", name="Ada", email="ada@example.org")


class BrokenError(AssertionError):
    """What a transaction broke: (invariant, aggregate, detail)."""


class Desk:
    """Applies transactions one after the other, as the runtime would, and remembers everything that was published."""

    def __init__(self) -> None:
        self.state = State()
        self.number = 1000
        self.sent: list[Send] = []
        self.refused: list[Refuse] = []
        self.timers: dict[str, Timer] = {}
        self.heard: list[Sequence[Applicable]] = []
        self.corrections: list[str] = []

    def tell(self, *messages: Applicable, service: Service[State] | None = None) -> list[Message]:
        """One transaction; answers what it published. The n-th message's cause is `<transaction>.<n>`."""
        return self.apply(kept(self.state), messages, service)

    def apply(self, state: State, messages: Sequence[Applicable], service: Service[State] | None = None) -> list[Message]:
        """Applies messages to a loaded state, which is then what the desk knows; by the service as ever, or by another."""
        service = service or SERVICE
        self.number += 1
        effects: list[Effect] = []
        for index, message in enumerate(messages):
            context = self.context._replace(cause=f"{self.number}.{index}", actor=f"actor.{index}")
            effects += service.routes[type(message)].handler(state, message, context)
        effects += service.decide(state, self.context)
        self.state = state
        self.refused += [effect for effect in effects if isinstance(effect, Refuse)]
        self.corrections = [effect.detail for effect in effects if isinstance(effect, Corrected)]
        self.timers |= {effect.timer.key: effect.timer for effect in effects if isinstance(effect, Schedule)}
        published = [_send(effect) for effect in effects if not isinstance(effect, Refuse | Corrected | Schedule)]
        told = [send.message for send in published]
        broken = [(name, *found) for name, check in service.checks.items() for found in check(state, told, self.context)]
        if broken:
            raise BrokenError(broken)
        self.sent += published
        return [send.message for send in published]

    @property
    def context(self) -> Context:
        """Of the latest transaction, as `decide` and `save` see it."""
        now = NOON + timedelta(minutes=self.number)
        return Context(now, self.number, "", "", now, now - timedelta(seconds=1))

    def sent_of(self, kind: type[T]) -> list[T]:
        return of(kind, [send.message for send in self.sent])

    def amounts(self, order: str = "A", line: int = 1) -> tuple[int, int, int, int, int]:
        """(pending, allocated, backordered, shipped, cancelled) of a line."""
        it = self.state.lines[order][line]
        return it.pending, it.allocated, it.backordered, it.shipped, it.cancelled

    def served(self, units: int, order: str = "A", line: int = 1, **fields: object) -> DemandServed:
        """Inventory's answer to the line's latest claim."""
        claim = self.state.lines[order][line].demand_version
        return DemandServed.model_validate(
            {"order": order, "line": line, "served": units, "demand_version": claim, "version": self.number} | fields
        )

    def unavailable(self, units: int, order: str = "A", line: int = 1) -> DemandRefused:
        """Inventory's refusal of the line's latest claim."""
        claim = self.state.lines[order][line].demand_version
        return DemandRefused(order=order, line=line, quantity=units, reason=CancelReason.NOT_BACKORDERABLE, demand_version=claim)


def kept(state: State) -> State:
    """What the next transaction finds."""
    return State(
        orders=dict(state.orders),
        rejected=set(state.rejected),
        lines={order: dict(lines) for order, lines in state.lines.items()},
        cancellations=Facts(dict(state.cancellations.known)),
        shipments=Facts(dict(state.shipments.known)),
    )


def _send(effect: Effect) -> Send:
    if isinstance(effect, Send):
        return effect
    assert isinstance(effect, DemandSet), f"{effect} does not name its cause"
    return Send(effect, effect.causation)


def of(kind: type[T], messages: Sequence[Message]) -> list[T]:
    return [message for message in messages if isinstance(message, kind)]


def changes(messages: Sequence[Message]) -> Iterator[tuple[str, int, int]]:
    """Every line change as (event, line, quantity)."""
    for message in of(LineEvent, messages):
        for change in message.lines:
            yield type(message).__name__, change.line, change.quantity


def placed(order: str = "A", *quantities: int, price: str = "9.90") -> OrderPlaced:
    return OrderPlaced.model_validate(
        {
            "order": order,
            "placed_at": NOON,
            "customer": ADA,
            "currency": "EUR",
            "lines": tuple(
                OrderedLine(line=number, sku=f"S{number}", quantity=quantity, unit_price=Decimal(price))
                for number, quantity in enumerate(quantities or (5,), 1)
            ),
        }
    )


def cancel(request: str = "r1", order: str = "A", line: int | None = None, quantity: int | None = None) -> OrderCancelRequested:
    return OrderCancelRequested(request=request, order=order, line=line, quantity=quantity, requested_at=NOON)


def shipped(shipment: str, *lines: tuple[int, int], order: str = "A") -> ShipmentConfirmed:
    return ShipmentConfirmed(
        shipment=shipment, order=order, shipped_at=NOON, lines=tuple(ShippedLine(line=line, quantity=units) for line, units in lines)
    )
