"""An order's story told to the notifier's handlers, with everything in memory and a clock in the test's hand."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.notifier.domain import Mail, MailKey, Notice, Policy, Sending, ToldOfLine
from services.notifier.handlers import (
    DigestDue,
    MailFailed,
    MailSent,
    State,
    digest_due,
    line_event,
    mail_failed,
    mail_sent,
    order_accepted,
)
from services.notifier.invariants import CHECKS
from shared.contracts.base import Currency
from shared.contracts.commerce import Customer
from shared.contracts.notifier import NoticedLine, NoticeKind
from shared.contracts.orders import (
    Amounts,
    CancelReason,
    LineAllocated,
    LineBackordered,
    LineCancelled,
    LineChange,
    LineEvent,
    LinePromised,
    LineShipped,
    OrderAccepted,
)
from shared.service import Check, Context, Corrected, Effect, Schedule, Send, Unschedule

NOON = datetime(2026, 12, 4, 12, 0, tzinfo=UTC)
DIGEST = timedelta(minutes=15)
POLICY = Policy(DIGEST, "backorder.example")

KINDS: dict[type[LineEvent], NoticeKind] = {
    LineBackordered: NoticeKind.BACKORDERED,
    LinePromised: NoticeKind.BACKORDERED,
    LineAllocated: NoticeKind.ALLOCATED,
    LineShipped: NoticeKind.SHIPPED,
    LineCancelled: NoticeKind.CANCELLED,
}


def december(day: int) -> date:
    return date(2026, 12, day)


def accepted(order: str = "A-1", **customer: Any) -> OrderAccepted:
    known = Customer(**{"id": "C-1", "name": "Ann", "email": "ann@example.org", "time_zone": "Europe/London"} | customer)
    return OrderAccepted(order=order, at=NOON, placed_at=NOON, customer=known, currency=Currency("EUR"), lines=())


def change(quantity: int, *, line: int = 1, version: int = 1, ship_by: date | None = None, promise: int = 0, **amounts: int) -> LineChange:
    """A line's change; amounts that are not named are 0, `ordered` is their sum."""
    five = dict.fromkeys(("pending", "allocated", "backordered", "shipped", "cancelled"), 0) | amounts
    told = Amounts(ordered=sum(five.values()), **five)
    return LineChange(
        line=line, sku=f"SKU-{line}", quantity=quantity, amounts=told, version=version, ship_by=ship_by, promise_version=promise
    )  # fmt: skip


class BrokenError(AssertionError):
    """What a transaction broke: (invariant, aggregate, detail)."""


class World:
    """One order's notices, its timer and its mails."""

    def __init__(self, order: str = "A-1", **customer: Any) -> None:
        self.order, self.now, self.number = order, NOON, 100
        self.state = State()
        self.timer: datetime | None = None
        self.sends: list[Send] = []
        self.corrections: list[str] = []
        self.mails: dict[MailKey, Mail] = {}
        self._run(order_accepted(self.state, accepted(order, **customer), self.context()))

    def context(self) -> Context:
        return Context(now=self.now, number=self.number, cause="cause", actor="", time=self.now, appended=self.now)

    def _run(self, effects: Iterable[Effect], checks: Mapping[str, Check[State]] = CHECKS) -> None:
        """The rest of a transaction that the handler began. Raises BrokenError."""
        effects = list(effects)
        sends = [effect for effect in effects if isinstance(effect, Send)]
        told = [send.message for send in sends]
        broken = [(name, *found) for name, check in checks.items() for found in check(self.state, told, self.context())]
        if broken:
            raise BrokenError(broken)
        self.sends += sends
        self.corrections = [effect.detail for effect in effects if isinstance(effect, Corrected)]
        for effect in effects:
            match effect:
                case Schedule(DigestDue(), due):
                    self.timer = due
                case Unschedule(DigestDue()):
                    self.timer = None
                case Send() | Corrected():
                    pass
                case _:
                    raise AssertionError(effect)
        self.state = self._kept()

    def _kept(self) -> State:
        """What the next transaction finds: all of it, and nothing changed."""
        self.mails |= self.state.mails
        return State(orders=dict(self.state.orders), told=dict(self.state.told), sendings=dict(self.state.sendings))

    def event(self, message: LineEvent) -> None:
        self._run(line_event(POLICY, KINDS[type(message)])(self.state, message, self.context()))

    def backordered(self, *changes: LineChange) -> None:
        self.event(LineBackordered(order=self.order, at=self.now, lines=changes))

    def promised(self, *changes: LineChange) -> None:
        self.event(LinePromised(order=self.order, at=self.now, lines=changes))

    def allocated(self, *changes: LineChange) -> None:
        self.event(LineAllocated(order=self.order, at=self.now, lines=changes))

    def shipped(self, *changes: LineChange, shipment: str = "P-1", carrier: str = "", tracking: str = "") -> None:
        self.event(LineShipped(order=self.order, at=self.now, lines=changes, shipment=shipment, carrier=carrier, tracking=tracking))

    def cancelled(self, *changes: LineChange, reason: CancelReason = CancelReason.CUSTOMER) -> None:
        self.event(LineCancelled(order=self.order, at=self.now, lines=changes, reason=reason))

    def passes(self, time: timedelta) -> list[Mail]:
        """Lets time pass and the timer fire when it is due; the mails that were written."""
        end, before = self.now + time, set(self.mails)
        while self.timer is not None and self.timer <= end:
            self.now, self.timer, self.number = max(self.now, self.timer), None, self.number + 1
            self._run(digest_due(POLICY)(self.state, DigestDue(key=self.order), self.context()))
        self.now = end
        written = [mail for key, mail in self.mails.items() if key not in before]
        for mail in written:
            lines = tuple(
                NoticedLine(
                    line=n.line, kind=n.kind, promise_version=n.version, total=n.total,
                    sku=n.sku, units=n.units, ordered=n.ordered, ship_by=n.ship_by,
                )
                for n in mail.notices
            )  # fmt: skip
            self.state.sendings[mail.key] = Sending(mail.key, mail.mail_id, lines)
        return written

    def sent(self, mail: Mail) -> None:
        self._run(mail_sent(self.state, MailSent(order=mail.key.order, number=mail.key.number), self.context()))

    def failed(self, mail: Mail, *, permanent: bool) -> None:
        refusal = MailFailed(order=mail.key.order, number=mail.key.number, reason="550 no", permanent=permanent)
        self._run(mail_failed(self.state, refusal, self.context()))

    @property
    def waiting(self) -> list[Notice]:
        """What is still to be told."""
        return [notice for notices in self.state.orders[self.order].waiting.values() for notice in notices]

    @property
    def told(self) -> list[Notice]:
        """What went into mails."""
        return [notice for mail in self.mails.values() for notice in mail.notices]

    def told_of(self, line: int) -> ToldOfLine:
        """What the customer was last told of a line."""
        return self.state.told_of(self.order, line)
