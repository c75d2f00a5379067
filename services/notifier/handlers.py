"""The story of the notifier: what it does on each message, on a changed working set and without any I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from services.notifier import rendering
from services.notifier.domain import Contact, Facts, Key, Mail, Notice, Policy, due, mail_id, next_due, noted
from shared.contracts.notifier import NoticedLine, NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import LineCancelled, LineChange, LineEvent, LineShipped, OrderAccepted
from shared.service import Context, Effect, Handler, Local, Refuse, Schedule, Send, Timer, Unschedule


class DigestDue(Timer):
    """The digest window of the order `key` has closed: write its mail."""


class MailSent(Local):
    """The mail server took the mail."""

    mail: UUID


class MailFailed(Local):
    """The mail server refused the mail, for good (`permanent`) or for now."""

    mail: UUID
    reason: str
    permanent: bool


@dataclass(slots=True)
class State:
    """The working set. `notices`: order → line → key; `changed…` and `new…` are what has to be saved."""

    contacts: dict[str, Contact] = field(default_factory=dict)
    notices: dict[str, dict[int, dict[Key, Notice]]] = field(default_factory=dict)
    mails: dict[UUID, Mail] = field(default_factory=dict)
    changed_contacts: set[str] = field(default_factory=set)
    changed_notices: set[tuple[str, Key]] = field(default_factory=set)
    new_mails: set[UUID] = field(default_factory=set)
    changed_mails: set[UUID] = field(default_factory=set)

    def line(self, order: str, line: int) -> dict[Key, Notice]:
        """The notices of one line."""
        return self.notices.setdefault(order, {}).setdefault(line, {})

    def all_of(self, order: str) -> Iterable[Notice]:
        """The notices of an order that are at hand: all that wait, and all of the touched lines."""
        return (notice for line in self.notices.get(order, {}).values() for notice in line.values())

    def put(self, order: str, notices: Iterable[Notice]) -> None:
        """Adds or changes notices."""
        for notice in notices:
            self.line(order, notice.key.line)[notice.key] = notice
            self.changed_notices.add((order, notice.key))

    def put_mail(self, mail: Mail) -> None:
        """Changes a mail."""
        self.mails[mail.mail_id] = mail
        self.changed_mails.add(mail.mail_id)


def order_accepted(state: State, message: OrderAccepted, _context: Context) -> Iterable[Effect]:
    """Remembers whom to write."""
    customer = message.customer
    state.contacts[message.order] = Contact(customer.name, customer.email, customer.language, customer.time_zone)
    state.changed_contacts.add(message.order)
    return ()


def _facts(message: LineEvent, change: LineChange) -> Facts:
    """What is recorded of one line of an event."""
    facts = Facts(at=message.at, sku=change.sku, quantity=change.quantity, amounts=change.amounts, ship_by=change.ship_by)
    match message:
        case LineShipped():
            return facts.model_copy(update={"carrier": message.carrier, "tracking": message.tracking})
        case LineCancelled():
            return facts.model_copy(update={"reason": message.reason})
    return facts


def line_event(policy: Policy, kind: NoticeKind) -> Handler[State]:
    """The handler of a line's event: notes what there is to tell and sets the timer of the order's mail."""

    def handle(state: State, message: LineEvent, context: Context) -> Iterable[Effect]:
        if message.order not in state.contacts:  # they share a topic and a key: somebody has to look
            detail = f"news of order {message.order!r}, which was never accepted as far as the notifier knows; replay it once it was"
            return (Refuse("unknown_order", detail),)
        before = next_due(state.all_of(message.order))
        window = context.now + policy.digest
        closes = window if before is None else min(before, window)
        for change in message.lines:
            known = state.line(message.order, change.line)
            state.put(message.order, noted(known, kind, change, _facts(message, change), now=context.now, closes=closes))
        return _reschedule(message.order, before, next_due(state.all_of(message.order)))

    return handle


def _reschedule(order: str, before: datetime | None, after: datetime | None) -> Iterable[Effect]:
    """The timer follows the earliest notice that waits."""
    if after == before:
        return ()
    return (Unschedule(DigestDue(key=order)) if after is None else Schedule(DigestDue(key=order), after),)


def digest_due(policy: Policy) -> Handler[State]:
    """The handler of DigestDue: gathers what is due into one mail and waits for the rest."""

    def handle(state: State, message: DigestDue, context: Context) -> Iterable[Effect]:
        order, contact = message.key, state.contacts[message.key]
        gathered = due(state.all_of(order), context.now)
        if gathered:
            identity = mail_id(order, context.number)
            text = rendering.render(order, contact, gathered, context.now)
            state.mails[identity] = Mail(
                identity, context.number, order, contact.email, text.subject, text.body,
                f"<{identity}@{policy.mail_domain}>", context.now, _lines(gathered),
            )  # fmt: skip
            state.new_mails.add(identity)
            state.put(order, (replace(notice, mail_id=identity) for notice in gathered))
        return _reschedule(order, None, next_due(state.all_of(order)))

    return handle


def _lines(notices: Iterable[Notice]) -> tuple[NoticedLine, ...]:
    """What the shop is told of a mail."""
    return tuple(NoticedLine(line=key.line, kind=key.kind, promise_version=key.version) for key in (notice.key for notice in notices))


def mail_sent(state: State, message: MailSent, context: Context) -> Iterable[Effect]:
    """The mail is out; a second word of the same mail (it was sent again after a crash) is no news."""
    mail = state.mails[message.mail]
    if mail.status != "queued":
        return ()
    state.put_mail(replace(mail, status="sent", attempts=mail.attempts + 1, sent_at=context.now, last_error=""))
    told = NoticeSent(order=mail.order, mail=str(mail.mail_id), at=context.now, notices=mail.notices)
    return (Send(told, cause=str(mail.mail_id)),)


def mail_failed(state: State, message: MailFailed, context: Context) -> Iterable[Effect]:
    """The mail waits for another attempt, or has failed for good."""
    mail = state.mails[message.mail]
    if mail.status != "queued":
        return ()
    status = "failed" if message.permanent else "queued"
    state.put_mail(replace(mail, status=status, attempts=mail.attempts + 1, last_error=message.reason))
    if not message.permanent:
        return ()
    told = NoticeFailed(order=mail.order, mail=str(mail.mail_id), at=context.now, reason=message.reason, notices=mail.notices)
    return (Send(told, cause=str(mail.mail_id)),)
