"""The notifier's SQL: everything in sets, a constant number of statements per transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.notifier.domain import Contact, Facts, Key, Mail, Notice, pause
from services.notifier.handlers import DigestDue, MailFailed, MailSent, State
from shared.contracts.notifier import NoticedLine, NoticeKind
from shared.contracts.orders import LineEvent
from shared.service import Applicable, Connection, Context

if TYPE_CHECKING:
    import asyncpg

_CONTACTS = "SELECT order_id, name, email, language, time_zone FROM order_contact WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE"

# What waits of the touched orders (for their next mail), and all of the touched lines (what they were told).
_NOTICES = """
SELECT order_id, line, kind, version, total, facts::text, since, due_at, superseded, mail_id
FROM notice WHERE order_id = ANY($1) AND mail_id IS NULL AND NOT superseded
UNION ALL
SELECT n.order_id, n.line, n.kind, n.version, n.total, n.facts::text, n.since, n.due_at, n.superseded, n.mail_id
FROM unnest($2::text[], $3::int[]) AS touched (order_id, line) JOIN notice n USING (order_id, line)
WHERE n.mail_id IS NOT NULL OR n.superseded
"""

_MAILS = """
SELECT mail_id, number, order_id, recipient, subject, body, message_id, created_at, status, attempts, sent_at, last_error
FROM mail WHERE mail_id = ANY($1) ORDER BY mail_id FOR UPDATE
"""

_MAIL_LINES = "SELECT mail_id, line, kind, version FROM notice WHERE mail_id = ANY($1) ORDER BY mail_id, line, kind, version, total"

_SAVE_CONTACTS = """
INSERT INTO order_contact (order_id, name, email, language, time_zone)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (order_id) DO UPDATE
SET name = excluded.name, email = excluded.email, language = excluded.language, time_zone = excluded.time_zone
"""

_NEW_MAILS = """
INSERT INTO mail (mail_id, number, order_id, recipient, subject, body, message_id, created_at, status)
SELECT *, 'queued' FROM unnest
    ($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
"""

_CHANGED_MAILS = """
UPDATE mail SET status = c.status, attempts = c.attempts, sent_at = c.sent_at, last_error = c.last_error,
    next_attempt_at = now() + c.pause
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::timestamptz[], $5::text[], $6::interval[])
    AS c (mail_id, status, attempts, sent_at, last_error, pause)
WHERE mail.mail_id = c.mail_id
"""

_SAVE_NOTICES = """
INSERT INTO notice (order_id, line, kind, version, total, facts, since, due_at, superseded, mail_id)
SELECT order_id, line, kind, version, total, facts::jsonb, since, due_at, superseded, mail_id FROM unnest
    ($1::text[], $2::int[], $3::text[], $4::bigint[], $5::int[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::boolean[], $10::uuid[])
    AS n (order_id, line, kind, version, total, facts, since, due_at, superseded, mail_id)
ON CONFLICT (order_id, line, kind, version, total) DO UPDATE
SET facts = excluded.facts, since = excluded.since, due_at = excluded.due_at, superseded = excluded.superseded, mail_id = excluded.mail_id
"""

# The oldest queued mail of each order, so that a later one never overtakes it; in the order in which they were written.
# A mail whose outcome could not be recorded waits for an operator: it would go out again and again.
_QUEUED = """
SELECT mail_id, order_id, recipient, subject, body, message_id, created_at FROM mail
WHERE status = 'queued' AND next_attempt_at <= now() AND NOT EXISTS
    (SELECT FROM mail earlier WHERE earlier.order_id = mail.order_id AND earlier.number < mail.number AND earlier.status = 'queued')
    AND NOT EXISTS (SELECT FROM runtime.dead_letter WHERE aggregate = 'mail:' || mail.mail_id AND state = 'parked')
ORDER BY number, order_id LIMIT $1
"""


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks the touched orders, then the touched mails, and loads them. Only news of lines needs what lines were told."""
    lines = {(message.order, change.line) for message in messages if isinstance(message, LineEvent) for change in message.lines}
    orders = {message.order for message in messages if isinstance(message, LineEvent)}
    orders |= {message.key for message in messages if isinstance(message, DigestDue)}
    mails = {message.mail for message in messages if isinstance(message, MailSent | MailFailed)}
    state = State()
    if orders:
        for order, *contact in await tx.fetch(_CONTACTS, sorted(orders)):
            state.contacts[order] = Contact(*contact)
        for order, line, kind, version, total, facts, *rest in await tx.fetch(_NOTICES, sorted(orders), *_columns(sorted(lines), 2)):
            key = Key(line, NoticeKind(kind), version, total)
            state.line(order, line)[key] = Notice(key, Facts.model_validate_json(facts), *rest)
    if mails:
        await _load_mails(tx, state, sorted(mails))
    return state


async def _load_mails(tx: Connection, state: State, mails: Sequence[UUID]) -> None:
    rows = await tx.fetch(_MAILS, mails)
    told: dict[UUID, list[NoticedLine]] = {mail: [] for mail in mails}
    for mail, line, kind, version in await tx.fetch(_MAIL_LINES, mails):
        told[mail].append(NoticedLine(line=line, kind=kind, promise_version=version))
    for row in rows:
        values = {("order" if name == "order_id" else name): value for name, value in row.items()}
        state.mails[row["mail_id"]] = Mail(**values, notices=tuple(told[row["mail_id"]]))


async def save(tx: Connection, state: State, _context: Context) -> None:
    """Writes what changed; mails before the notices that refer to them."""
    if state.changed_contacts:
        contacts = [(order, state.contacts[order]) for order in sorted(state.changed_contacts)]
        rows = [(order, c.name, c.email, c.language, c.time_zone) for order, c in contacts]
        await tx.execute(_SAVE_CONTACTS, *_columns(rows, 5))
    if state.new_mails:
        new = [state.mails[mail] for mail in sorted(state.new_mails)]
        written = [(m.mail_id, m.number, m.order, m.recipient, m.subject, m.body, m.message_id, m.created_at) for m in new]
        await tx.execute(_NEW_MAILS, *_columns(written, 8))
    if state.changed_mails:
        changed = [state.mails[mail] for mail in sorted(state.changed_mails)]
        sent = [(m.mail_id, m.status, m.attempts, m.sent_at, m.last_error, pause(m.attempts)) for m in changed]
        await tx.execute(_CHANGED_MAILS, *_columns(sent, 6))
    if state.changed_notices:
        notices = [(order, state.notices[order][key.line][key]) for order, key in sorted(state.changed_notices)]
        told = [(o, *n.key, n.facts.model_dump_json(), n.since, n.due_at, n.superseded, n.mail_id) for o, n in notices]
        await tx.execute(_SAVE_NOTICES, *_columns(told, 10))


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[tuple[Any, ...]]:
    """Rows as the columns that `unnest` takes."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


@dataclass(frozen=True, slots=True)
class Queued:
    """A mail that may be sent now."""

    mail_id: UUID
    order: str
    recipient: str
    subject: str
    body: str
    message_id: str
    created_at: datetime


async def queued(pool: "asyncpg.Pool[Any]", limit: int) -> list[Queued]:
    """The mails to send next, at most one per order."""
    return [Queued(*row) for row in await pool.fetch(_QUEUED, limit)]
