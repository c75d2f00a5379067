"""The rules of telling customers: which notices a line's change makes, changes and makes obsolete, and when a mail is due.

Two sorts of notices. *Levels* say how things stand (so many units wait until that date, so many are being prepared): a newer
word replaces an older one that has not left yet, and nothing is said of what is over. *Facts* say what happened (shipped,
cancelled): each is told, none is replaced.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from shared.contracts.base import Contract, Count, Identifier, Instant, Text
from shared.contracts.notifier import NoticedLine, NoticeKind
from shared.contracts.orders import Amounts, CancelReason, LineChange

PROMISES = frozenset({NoticeKind.BACKORDERED, NoticeKind.DATE_CHANGED})
"""Kinds that tell a promise: one notice per line and promise version, whichever of them it is."""

SPEAKS_OF = {NoticeKind.BACKORDERED: "backordered", NoticeKind.DATE_CHANGED: "backordered", NoticeKind.ALLOCATED: "allocated"}
"""The levels, and the amount of the line that each is about."""

WITHOUT_DATE = timedelta(days=1)
"""A backorder without a date is not told before this has passed (design.md section 5): a date may still come."""

LONGEST_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long an order's notices wait for one another (business time), and the domain that Message-IDs are made under."""

    digest: timedelta
    mail_domain: str


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to write about an order. `time_zone` is an IANA name."""

    name: str
    email: str
    language: str
    time_zone: str


class Facts(Contract):
    """What a notice is rendered from, as the event told it. `quantity` changed with the event; the `amounts` of a level
    follow its line until the mail is written. `was` = the date that the customer knows; the rest as its event has it."""

    at: Instant
    sku: Identifier
    quantity: Count
    amounts: Amounts
    ship_by: date | None = None
    was: date | None = None
    carrier: Text = ""
    tracking: Text = ""
    reason: CancelReason | None = None


class Key(NamedTuple):
    """What a notice is unique by within its order. `version` is the promise's or else the line's. One transaction of orders
    may ship or cancel units of a line several times under one version: `total`, the line's units of the kind, tells them
    apart (0 for promises)."""

    line: int
    kind: NoticeKind
    version: int
    total: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell about one line. `since` is the business time from which the customer has gone without it."""

    key: Key
    facts: Facts
    since: datetime
    due_at: datetime
    superseded: bool = False
    mail_id: UUID | None = None

    @property
    def waiting(self) -> bool:
        """Neither in a mail nor made obsolete."""
        return self.mail_id is None and not self.superseded


Notices: TypeAlias = Mapping[Key, Notice]


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it is sent, and what became of it: status queued, sent or failed. `number` = the journal number it was
    written under: an order's mails leave in this order."""

    mail_id: UUID
    number: int
    order: str
    recipient: str
    subject: str
    body: str
    message_id: str
    created_at: datetime
    notices: tuple[NoticedLine, ...]
    status: str = "queued"
    attempts: int = 0
    sent_at: datetime | None = None
    last_error: str = ""


def mail_id(order: str, number: int) -> UUID:
    """The id of the mail that the journal's transaction `number` writes about an order: the same when it is replayed."""
    return uuid5(NAMESPACE_URL, f"mail:{number}:{order}")


def pause(attempts: int) -> timedelta:
    """How long to wait (wall time) after the given number of failed attempts: 1, 2, 4 … s, at most 5 minutes."""
    return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(attempts - 1, 20)))


def next_due(notices: Iterable[Notice]) -> datetime | None:
    """When the order's next mail is due; None when there is nothing to tell."""
    return min((notice.due_at for notice in notices if notice.waiting), default=None)


def due(notices: Iterable[Notice], now: datetime) -> list[Notice]:
    """The notices that go into the mail written now, in the order of lines."""
    return sorted((notice for notice in notices if notice.waiting and notice.due_at <= now), key=lambda notice: notice.key)


def told_promise(known: Iterable[Notice]) -> Notice | None:
    """The line's promise that the customer knows: the latest that went into a mail."""
    told = (notice for notice in known if notice.mail_id is not None and notice.key.kind in PROMISES)
    return max(told, key=lambda notice: notice.key.version, default=None)


def key_of(kind: NoticeKind, change: LineChange) -> Key:
    """The key of the notice of a line's change."""
    if kind in PROMISES:
        return Key(change.line, kind, change.promise_version, 0)
    return Key(change.line, kind, change.version, getattr(change.amounts, kind.value))


def noted(known: Notices, kind: NoticeKind, change: LineChange, facts: Facts, *, now: datetime, closes: datetime) -> list[Notice]:
    """The notices of one line that are new or differ after its event.

    `known` = the line's notices so far; `kind` BACKORDERED stands for any news of a promise; `closes` = when the order's
    digest window closes (business time).
    """
    changed = [_standing(notice, change.amounts) for notice in known.values() if notice.waiting]
    if kind in PROMISES:
        new = _promised(known, change, facts, now=now, closes=closes)
    else:
        new = _happened(known, kind, change, facts, now=now, closes=closes)
    if new is not None:
        changed = [_replaced(notice, new) for notice in changed if notice.key != new.key] + [new]
    return [notice for notice in changed if known.get(notice.key) != notice]


def _standing(notice: Notice, amounts: Amounts) -> Notice:
    """A waiting notice after its line changed: a level follows the line, and is over when none of its units are left."""
    if notice.key.kind not in SPEAKS_OF:
        return notice
    return replace(notice, facts=notice.facts.model_copy(update={"amounts": amounts}), superseded=_left(notice.key.kind, amounts) == 0)


def _left(kind: NoticeKind, amounts: Amounts) -> int:
    """Units of the line that a level of this kind speaks of."""
    return int(getattr(amounts, SPEAKS_OF[kind]))


def _replaced(notice: Notice, new: Notice) -> Notice:
    """A waiting notice when `new` comes: superseded if both tell the same level."""
    same = notice.key.kind in SPEAKS_OF and SPEAKS_OF[notice.key.kind] == SPEAKS_OF.get(new.key.kind)
    return replace(notice, superseded=True) if same else notice


def _happened(known: Notices, kind: NoticeKind, change: LineChange, facts: Facts, *, now: datetime, closes: datetime) -> Notice | None:
    """The notice of units allocated, shipped or cancelled; None when it has been told, or nothing of the level is left."""
    key = key_of(kind, change)
    if (key in known and known[key].mail_id is not None) or (kind in SPEAKS_OF and not _left(kind, change.amounts)):
        return None
    return Notice(key, facts, now, closes)


def _promised(known: Notices, change: LineChange, facts: Facts, *, now: datetime, closes: datetime) -> Notice | None:
    """The notice of a promise for units that wait; None when none wait or this version has been told.

    What the customer knows already is recorded as superseded. A first word without a date is held for WITHOUT_DATE.
    """
    told = told_promise(known.values())
    if not change.amounts.backordered or (told is not None and change.promise_version <= told.key.version):
        return None
    if told is not None:
        key = key_of(NoticeKind.DATE_CHANGED, change)
        news = facts.model_copy(update={"was": told.facts.ship_by})
        return Notice(key, news, now, closes, superseded=told.facts.ship_by == change.ship_by)
    since = min((notice.since for notice in known.values() if notice.waiting and notice.key.kind in PROMISES), default=now)
    return Notice(key_of(NoticeKind.BACKORDERED, change), facts, since, closes if change.ship_by else since + WITHOUT_DATE)
