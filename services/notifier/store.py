"""The notifier's SQL: everything in sets, a constant number of statements per transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter

from services.notifier.domain import Contact, Correspondence, MailKey, Notice, Sending, Told, ToldOfLine, Waiting, about, pause
from services.notifier.handlers import DigestDue, MailFailed, MailSent, State
from shared.contracts.notifier import NoticedLine, NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import CancelReason, LineEvent, OrderAccepted
from shared.service import Applicable, Connection, Context, Repair

if TYPE_CHECKING:
    import asyncpg

_ORDERS = """
SELECT order_id, name, email, language, time_zone, waiting FROM correspondence WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE
"""

# The latest comes last.
_TOLD = """
SELECT order_id, line, kind, version, total, ship_by
FROM unnest($1::text[], $2::int[]) AS touched (order_id, line) JOIN notice USING (order_id, line) ORDER BY version, total
"""

_SENDINGS = """
SELECT order_id, number, mail_id, lines, status, attempts, sent_at, last_error
FROM unnest($1::text[], $2::bigint[]) AS touched (order_id, number) JOIN mail USING (order_id, number)
ORDER BY order_id, number FOR UPDATE OF mail
"""

_SAVE_ORDERS = """
INSERT INTO correspondence SELECT * FROM unnest($1::correspondence[])
ON CONFLICT (order_id) DO UPDATE
SET name = excluded.name, email = excluded.email, language = excluded.language, time_zone = excluded.time_zone, waiting = excluded.waiting
"""

_SAVE_SENDINGS = """
UPDATE mail SET status = c.status, attempts = c.attempts, sent_at = c.sent_at, last_error = c.last_error,
    next_attempt_at = now() + c.pause
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::timestamptz[], $6::text[], $7::interval[])
    AS c (order_id, number, status, attempts, sent_at, last_error, pause)
WHERE mail.order_id = c.order_id AND mail.number = c.number
"""

_MAIL_COLUMNS = ("order_id", "number", "mail_id", "recipient", "subject", "body", "message_id", "created_at", "lines")
_NOTICE_COLUMNS = (
    "order_id", "number", "line", "kind", "version", "total", "sku", "units", "ordered", "since",
    "at", "carrier", "tracking", "reason", "ship_by", "was",
)  # fmt: skip

# The oldest queued mail of each order, so that a later one never overtakes it; in the order in which they were written.
# A mail whose outcome could not be recorded waits for an operator: it would go out again and again. So do those of what is broken.
_QUEUED = """
SELECT order_id, number, recipient, subject, body, message_id, created_at FROM mail
WHERE status = 'queued' AND next_attempt_at <= now()
    AND number = (SELECT min(number) FROM mail AS oldest WHERE oldest.order_id = mail.order_id AND oldest.status = 'queued')
    AND NOT EXISTS (SELECT FROM runtime.dead_letter WHERE aggregate = format('mail:%s/%s', order_id, number) AND state = 'parked')
    AND NOT EXISTS (SELECT FROM runtime.quarantine WHERE aggregate = 'order:' || order_id AND released_at IS NULL)
ORDER BY number, order_id LIMIT $1
"""


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks the touched orders, then the touched mails, and loads them. Only news of lines, and a repair,
    need what lines were told."""
    ill = {message.key for message in messages if isinstance(message, Repair)}
    orders: set[str] = set(ill)
    lines: set[tuple[str, int]] = set()
    mails: set[MailKey] = set()
    for message in messages:
        match message:
            case LineEvent():
                orders.add(message.order)
                lines.update((message.order, change.line) for change in message.lines)
            case OrderAccepted():
                orders.add(message.order)
            case DigestDue():
                orders.add(message.key)
            case MailSent() | MailFailed():
                mails.add(MailKey(message.order, message.number))
            case NoticeSent() | NoticeFailed():
                orders.add(message.order)
                lines.update((message.order, notice.line) for notice in message.notices)
                mails.add(MailKey(message.order, message.number))
    return await _loaded(tx, orders, lines, mails, ill)


async def _loaded(tx: Connection, orders: set[str], lines: set[tuple[str, int]], mails: set[MailKey], ill: set[str]) -> State:
    state = State()
    if orders:
        for order, name, email, language, time_zone, waiting in await tx.fetch(_ORDERS, sorted(orders)):
            state.orders[order] = Correspondence(Contact(name, email, language, time_zone), _waiting(waiting))
    lines |= {(order, line) for order in ill & state.orders.keys() for line in state.orders[order].waiting}
    if lines:
        state.told = await _told(tx, sorted(lines))
    if mails:
        state.sendings = await _sendings(tx, sorted(mails))
    return state


def _waiting(document: str) -> Waiting:
    """The notices of `correspondence.waiting`. Fields that the document of an older version lacks have their defaults."""
    waiting: dict[int, tuple[Notice, ...]] = {}
    for line, kind, version, total, sku, units, ordered, since, due_at, at, carrier, tracking, reason, ship_by, was in orjson.loads(
        document
    ):
        notice = Notice(
            line, _KINDS[kind], version, total, sku, units, ordered, _moment(since), _moment(due_at), _moment(at),
            carrier, tracking, reason and CancelReason(reason), ship_by and _date(ship_by), was and _date(was),
        )  # fmt: skip
        waiting[line] = (*waiting.get(line, ()), notice)
    return waiting


_moment, _date = datetime.fromisoformat, date.fromisoformat
_KINDS = {kind.value: kind for kind in NoticeKind}
_LINES = TypeAdapter(tuple[NoticedLine, ...])


def _document(waiting: Waiting) -> str:
    """The notices as `correspondence.waiting` keeps them."""
    return orjson.dumps([tuple(notice) for notice in chain.from_iterable(waiting.values())]).decode()


def _lines(notices: Sequence[Notice]) -> str:
    """What the shop is told of a mail, as `mail.lines` keeps it."""
    return orjson.dumps(
        [
            {
                "line": n.line, "kind": n.kind, "promise_version": n.version, "total": n.total,
                "sku": n.sku, "units": n.units, "ordered": n.ordered, "ship_by": n.ship_by,
            }
            for n in notices
        ]
    ).decode()  # fmt: skip


async def _told(tx: Connection, lines: Sequence[tuple[str, int]]) -> dict[tuple[str, int], ToldOfLine]:
    """What was last told of each line."""
    told: dict[tuple[str, int], dict[NoticeKind, Told]] = {}
    for order, line, kind, version, total, ship_by in await tx.fetch(_TOLD, *_columns(lines, 2)):
        told.setdefault((order, line), {})[about(_KINDS[kind])] = Told(version, total, ship_by)
    return dict(told)


async def _sendings(tx: Connection, mails: Sequence[MailKey]) -> dict[MailKey, Sending]:
    sendings: dict[MailKey, Sending] = {}
    for order, number, identity, lines, *outcome in await tx.fetch(_SENDINGS, *_columns(mails, 2)):
        key = MailKey(order, number)
        sendings[key] = Sending(key, identity, _LINES.validate_json(lines), *outcome)
    return sendings


async def save(tx: Connection, state: State, _context: Context) -> None:
    """Writes what changed."""
    if state.changed_orders:
        orders = [(order, state.orders[order]) for order in sorted(state.changed_orders)]
        rows = [
            (order, known.contact.name, known.contact.email, known.contact.language, known.contact.time_zone, _document(known.waiting))
            for order, known in orders
        ]
        await tx.execute(_SAVE_ORDERS, rows)
    if state.mails:
        mails = [state.mails[key] for key in sorted(state.mails)]
        written = [(*m.key, m.mail_id, m.recipient, m.subject, m.body, m.message_id, m.created_at, _lines(m.notices)) for m in mails]
        await tx.copy_records_to_table("mail", columns=_MAIL_COLUMNS, records=written)
        told = [(*mail.key, *notice[:8], *notice[9:]) for mail in mails for notice in mail.notices]  # without due_at
        await tx.copy_records_to_table("notice", columns=_NOTICE_COLUMNS, records=told)
    if state.changed_sendings:
        changed = [state.sendings[key] for key in sorted(state.changed_sendings)]
        sent = [(*s.key, s.status, s.attempts, s.sent_at, s.last_error, pause(s.attempts)) for s in changed]
        await tx.execute(_SAVE_SENDINGS, *_columns(sent, 7))


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[tuple[Any, ...]]:
    """Rows as the columns that `unnest` takes."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


@dataclass(frozen=True, slots=True)
class Queued:
    """A mail that may be sent now."""

    order: str
    number: int
    recipient: str
    subject: str
    body: str
    message_id: str
    created_at: datetime


async def queued(pool: "asyncpg.Pool[Any]", limit: int) -> list[Queued]:
    """The mails to send next, at most one per order."""
    return [Queued(*row) for row in await pool.fetch(_QUEUED, limit)]
