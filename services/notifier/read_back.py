"""After a restore: what the notifier told when its database was already backed up. Whoever has had the mail is not written again.

The text of such a mail is lost, and what the event does not say of it; which mail told what stands.
"""

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from services.notifier.domain import Mail, MailKey, Notice, Policy, Sending, about, covers, next_due, untold
from services.notifier.handlers import State, reschedule
from shared.contracts.notifier import NoticedLine, NoticeFailed, NoticeSent
from shared.service import Context, Effect, Handler


def told(policy: Policy) -> Handler[State]:
    """The handler of what became of a mail: nothing that was in it waits to be told any more, nor does the mail itself."""

    def handle(state: State, message: NoticeSent | NoticeFailed, _context: Context) -> Iterable[Effect]:
        key = MailKey(message.order, message.number)
        if key not in state.sendings:
            _write(policy, state, key, message)
        sending = state.sendings.get(key)
        if sending is not None and sending.status == "queued":
            state.put_sending(_over(sending, message))
        known = state.orders.get(message.order)
        if known is None:
            return ()
        waiting = untold(known.waiting, {notice.line: state.told_of(message.order, notice.line) for notice in message.notices})
        state.put(message.order, replace(known, waiting=waiting))
        return reschedule(message.order, next_due(known.waiting), next_due(waiting))

    return handle


def _over(sending: Sending, message: NoticeSent | NoticeFailed) -> Sending:
    attempts = sending.attempts + 1
    if isinstance(message, NoticeFailed):
        return replace(sending, status="failed", attempts=attempts, last_error=message.reason)
    return replace(sending, status="sent", attempts=attempts, sent_at=message.at, last_error="")


def _write(policy: Policy, state: State, key: MailKey, message: NoticeSent | NoticeFailed) -> None:
    """The mail as far as it is known, with the notices that only it told (a mail that went out twice told nothing the second time)."""
    told = {line.line: state.told_of(key.order, line.line) for line in message.notices}
    lines = tuple(line for line in message.notices if not covers(told[line.line].get(about(line.kind)), line.promise_version, line.total))
    if not lines:
        return
    known, identity = state.orders.get(key.order), UUID(message.mail)
    recipient = known.contact.email if known else ""
    notices = tuple(_notice(line, message) for line in lines)
    state.write(Mail(key, identity, recipient, "", "", policy.message_id(identity), message.at, notices))
    state.sendings[key] = Sending(key, identity, lines)


def _notice(line: NoticedLine, message: NoticeSent | NoticeFailed) -> Notice:
    """The notice, as if there had been something to tell only when it was told."""
    return Notice(
        line.line, line.kind, line.promise_version, line.total, line.sku or "", line.units, line.ordered,
        since=message.at, due_at=message.at, at=message.at, ship_by=line.ship_by,
    )  # fmt: skip
