"""The story of the notifier: what it does on each message, on a changed working set and without any I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.notifier import rendering
from services.notifier.domain import (
    Circumstances,
    Contact,
    Correspondence,
    Mail,
    MailKey,
    Policy,
    Sending,
    ToldOfLine,
    gathered,
    mail_id,
    next_due,
    noted,
    told_too,
)
from shared.contracts.notifier import NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import LineCancelled, LineEvent, LineShipped, OrderAccepted
from shared.service import Context, Effect, Handler, Local, Refuse, Schedule, Send, Timer, Unschedule


class DigestDue(Timer):
    """The digest window of the order `key` has closed: write its mail."""


class MailSent(Local):
    """The mail server took the mail."""

    order: str
    number: int


class MailFailed(Local):
    """The mail server refused the mail, for good (`permanent`) or for now."""

    order: str
    number: int
    reason: str
    permanent: bool


@dataclass(slots=True)
class State:
    """The working set. `told`: of the touched lines, by order and line; `mails`: the new ones; `changed…` is what has to be saved."""

    orders: dict[str, Correspondence] = field(default_factory=dict)
    told: dict[tuple[str, int], ToldOfLine] = field(default_factory=dict)
    mails: dict[MailKey, Mail] = field(default_factory=dict)
    sendings: dict[MailKey, Sending] = field(default_factory=dict)
    changed_orders: set[str] = field(default_factory=set)
    changed_sendings: set[MailKey] = field(default_factory=set)

    def told_of(self, order: str, line: int) -> ToldOfLine:
        """What was last told of a line."""
        return self.told.get((order, line), {})

    def put(self, order: str, known: Correspondence) -> None:
        """Adds or changes what is known of an order."""
        self.orders[order] = known
        self.changed_orders.add(order)

    def write(self, mail: Mail) -> None:
        """Adds a mail: what it says is told."""
        self.mails[mail.key] = mail
        for notice in mail.notices:
            line = mail.key.order, notice.line
            self.told[line] = told_too(self.told_of(*line), notice)

    def put_sending(self, sending: Sending) -> None:
        """Changes what became of a mail."""
        self.sendings[sending.key] = sending
        self.changed_sendings.add(sending.key)


def order_accepted(state: State, message: OrderAccepted, _context: Context) -> Iterable[Effect]:
    """Remembers whom to write."""
    customer = message.customer
    contact = Contact(customer.name, customer.email, customer.language, customer.time_zone)
    known = state.orders.get(message.order)
    state.put(message.order, Correspondence(contact, {} if known is None else known.waiting))
    return ()


def _circumstances(message: LineEvent) -> Circumstances:
    """What an event says of all its lines."""
    match message:
        case LineShipped():
            return Circumstances(message.at, carrier=message.carrier, tracking=message.tracking)
        case LineCancelled():
            return Circumstances(message.at, reason=message.reason)
    return Circumstances(message.at)


def line_event(policy: Policy, kind: NoticeKind) -> Handler[State]:
    """The handler of a line's event: notes what there is to tell and sets the timer of the order's mail."""

    def handle(state: State, message: LineEvent, context: Context) -> Iterable[Effect]:
        order, known = message.order, state.orders.get(message.order)
        if known is None:  # they share a topic and a key: somebody has to look
            detail = f"news of order {order!r}, which was never accepted as far as the notifier knows; replay it once it was"
            return (Refuse("unknown_order", detail),)
        before = next_due(known.waiting)
        window = context.now + policy.digest
        closes = window if before is None else min(before, window)
        circumstances = _circumstances(message)
        waiting = dict(known.waiting)
        for change in message.lines:
            line = change.line
            waiting[line] = noted(
                waiting.get(line, ()), state.told_of(order, line), kind, change, circumstances, now=context.now, closes=closes
            )
        state.put(order, Correspondence(known.contact, waiting))
        return reschedule(order, before, next_due(waiting))

    return handle


def reschedule(order: str, before: datetime | None, after: datetime | None) -> Iterable[Effect]:
    """The timer follows the earliest notice that waits."""
    if after == before:
        return ()
    return (Unschedule(DigestDue(key=order)) if after is None else Schedule(DigestDue(key=order), after),)


def digest_due(policy: Policy) -> Handler[State]:
    """The handler of DigestDue: gathers what is due into one mail and waits for the rest."""

    def handle(state: State, message: DigestDue, context: Context) -> Iterable[Effect]:
        order, known = message.key, state.orders[message.key]
        notices, waiting = gathered(known.waiting, context.now)
        if notices:
            key = MailKey(order, context.number)
            text = rendering.render(order, known.contact, notices, context.now)
            identity = mail_id(key)
            message_id = policy.message_id(identity)
            state.write(Mail(key, identity, known.contact.email, text.subject, text.body, message_id, context.now, notices))
            state.put(order, Correspondence(known.contact, waiting))
        return reschedule(order, None, next_due(waiting))

    return handle


def mail_sent(state: State, message: MailSent, context: Context) -> Iterable[Effect]:
    """The mail is out; a second word of the same mail (it was sent again after a crash) is no news."""
    sending = state.sendings[MailKey(message.order, message.number)]
    if sending.status != "queued":
        return ()
    state.put_sending(replace(sending, status="sent", attempts=sending.attempts + 1, sent_at=context.now, last_error=""))
    mail = str(sending.mail_id)
    told = NoticeSent(order=message.order, mail=mail, number=message.number, at=context.now, notices=sending.lines)
    return (Send(told, cause=mail),)


def mail_failed(state: State, message: MailFailed, context: Context) -> Iterable[Effect]:
    """The mail waits for another attempt, or has failed for good."""
    sending = state.sendings[MailKey(message.order, message.number)]
    if sending.status != "queued":
        return ()
    status = "failed" if message.permanent else "queued"
    state.put_sending(replace(sending, status=status, attempts=sending.attempts + 1, last_error=message.reason))
    if not message.permanent:
        return ()
    mail = str(sending.mail_id)
    told = NoticeFailed(order=message.order, mail=mail, number=message.number, at=context.now, reason=message.reason, notices=sending.lines)
    return (Send(told, cause=mail),)
