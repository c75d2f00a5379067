"""The rules of telling customers: which notices a line's change makes, changes and makes obsolete, and when a mail is due.

Two sorts of notices. *Levels* say how things stand (so many units wait until that date, so many are being prepared): a newer
word replaces an older one that has not left yet, and nothing is said of what is over. *Facts* say what happened (shipped,
cancelled): each is told, none is replaced.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import NamedTuple, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from shared.contracts.notifier import NoticedLine, NoticeKind
from shared.contracts.orders import Amounts, CancelReason, LineChange

PROMISES = frozenset({NoticeKind.BACKORDERED, NoticeKind.DATE_CHANGED})
"""Kinds that tell a promise: one notice per line and promise version, whichever of them it is."""

LEVELS = PROMISES | {NoticeKind.ALLOCATED}

WITHOUT_DATE = timedelta(days=1)
"""A backorder without a date is not told before this has passed (design.md section 5): a date may still come."""

LONGEST_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long an order's notices wait for one another (business time), and the domain that Message-IDs are made under."""

    digest: timedelta
    mail_domain: str

    def message_id(self, mail: UUID) -> str:
        """The Message-ID of a mail."""
        return f"<{mail}@{self.mail_domain}>"


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to write about an order. `time_zone` is an IANA name."""

    name: str
    email: str
    language: str
    time_zone: str


class Circumstances(NamedTuple):
    """What an event says of all its lines. `at` = when it happened (business time)."""

    at: datetime
    carrier: str = ""
    tracking: str = ""
    reason: CancelReason | None = None


class Notice(NamedTuple):
    """One thing to tell about one line, unique within its order by line, `about(kind)`, `version` and `total`.

    `version` is the promise's or else the line's. One transaction of orders may ship or cancel units of a line several times
    under one version: `total`, the line's units of the kind, tells them apart (0 for promises). `units`, of those `ordered`, are
    the event's; those of a level follow their line until the mail is written. `since` is the business time from which the
    customer has gone without it, `due_at` that from which it may go into a mail; `was` = the date that the customer knows.
    """

    line: int
    kind: NoticeKind
    version: int
    total: int
    sku: str
    units: int
    ordered: int
    since: datetime
    due_at: datetime
    at: datetime
    carrier: str = ""
    tracking: str = ""
    reason: CancelReason | None = None
    ship_by: date | None = None
    was: date | None = None


class Told(NamedTuple):
    """The latest notice of a line, about one thing, that went into a mail."""

    version: int
    total: int
    ship_by: date | None = None


ToldOfLine: TypeAlias = Mapping[NoticeKind, Told]
"""What the customer was last told of a line, by what it was about."""

Waiting: TypeAlias = Mapping[int, tuple[Notice, ...]]
"""What an order's customer is still to be told, by line."""


@dataclass(frozen=True, slots=True)
class Correspondence:
    """An order as the notifier knows it: whom to write, and what waits to be told."""

    contact: Contact
    waiting: Waiting


class MailKey(NamedTuple):
    """What a mail is known by: its order and the number of the journal's transaction that wrote it."""

    order: str
    number: int


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it is sent, and what it tells. An order's mails leave in order of number. `mail_id` names it to the outside."""

    key: MailKey
    mail_id: UUID
    recipient: str
    subject: str
    body: str
    message_id: str
    created_at: datetime
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Sending:
    """What became of a mail so far: status queued, sent or failed. `lines` = what it tells, for the shop."""

    key: MailKey
    mail_id: UUID
    lines: tuple[NoticedLine, ...]
    status: str = "queued"
    attempts: int = 0
    sent_at: datetime | None = None
    last_error: str = ""


def mail_id(key: MailKey) -> UUID:
    """The name that a mail gets: the same when the transaction that wrote it is replayed."""
    return uuid5(NAMESPACE_URL, f"mail:{key.number}:{key.order}")


def pause(attempts: int) -> timedelta:
    """How long to wait (wall time) after the given number of failed attempts: 1, 2, 4 … s, at most 5 minutes."""
    return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(attempts - 1, 20)))


def next_due(waiting: Waiting) -> datetime | None:
    """When the order's next mail is due; None when there is nothing to tell."""
    return min((notice.due_at for notice in chain.from_iterable(waiting.values())), default=None)


def gathered(waiting: Waiting, now: datetime) -> tuple[tuple[Notice, ...], Waiting]:
    """The notices that go into the mail written now, in the order of lines; and what waits on."""
    due = sorted(notice for notice in chain.from_iterable(waiting.values()) if notice.due_at <= now)
    return tuple(due), {line: tuple(notice for notice in notices if notice.due_at > now) for line, notices in waiting.items()}


def untold(waiting: Waiting, told: Mapping[int, ToldOfLine]) -> Waiting:
    """What still waits when lines have been told this much: nothing that is as old as what was told, or older."""
    return {
        line: tuple(notice for notice in notices if not covers(told.get(line, {}).get(about(notice.kind)), notice.version, notice.total))
        for line, notices in waiting.items()
    }


def covers(told: Told | None, version: int, total: int) -> bool:
    """Whether what was told last of the same is as new as this, or newer."""
    return told is not None and (version, total) <= (told.version, told.total)


def about(kind: NoticeKind) -> NoticeKind:
    """What a notice speaks of: notices of promises speak of the same, whatever they are called."""
    return NoticeKind.BACKORDERED if kind in PROMISES else kind


def told_too(told: ToldOfLine, notice: Notice) -> ToldOfLine:
    """What the customer was last told of a line when this notice has gone into a mail as well."""
    return {**told, about(notice.kind): Told(notice.version, notice.total, notice.ship_by)}


def noted(
    waiting: Iterable[Notice],
    told: ToldOfLine,
    kind: NoticeKind,
    change: LineChange,
    circumstances: Circumstances,
    *,
    now: datetime,
    closes: datetime,
) -> tuple[Notice, ...]:
    """What waits to be told of a line after its event.

    `kind` BACKORDERED stands for any news of a promise; `closes` = when the order's digest window closes (business time).
    """
    standing = tuple(stands for notice in waiting if (stands := _standing(notice, change.amounts)))
    if kind in PROMISES:
        news = _promised(standing, told.get(NoticeKind.BACKORDERED), change, circumstances, now=now, closes=closes)
    else:
        news = _happened(told.get(kind), kind, change, circumstances, now=now, closes=closes)
    if news is None:
        return standing
    kept = tuple(notice for notice in standing if not _replaces(news, notice))
    known = news.kind is NoticeKind.DATE_CHANGED and news.ship_by == news.was
    return kept if known else (*kept, news)


def _standing(notice: Notice, amounts: Amounts) -> Notice | None:
    """A waiting notice after its line changed: a level follows the line, and is over when none of its units are left."""
    if notice.kind not in LEVELS:
        return notice
    left = _units(notice.kind, amounts)
    return notice._replace(units=left) if left else None


def _units(kind: NoticeKind, amounts: Amounts) -> int:
    """The line's units that notices of this kind speak of."""
    return int(getattr(amounts, about(kind)))


def _replaces(news: Notice, notice: Notice) -> bool:
    """Whether a waiting notice is obsolete by newer ones: they tell the same level, or the same fact once more."""
    return about(notice.kind) == about(news.kind) and (news.kind in LEVELS or (notice.version, notice.total) == (news.version, news.total))


def _happened(
    told: Told | None, kind: NoticeKind, change: LineChange, circumstances: Circumstances, *, now: datetime, closes: datetime
) -> Notice | None:
    """The notice of units allocated, shipped or cancelled; None when it has been told, or nothing of the level is left."""
    total = _units(kind, change.amounts)
    if covers(told, change.version, total) or (kind in LEVELS and not total):
        return None
    units = total if kind in LEVELS else change.quantity
    return Notice(change.line, kind, change.version, total, change.sku, units, change.amounts.ordered, now, closes, *circumstances)


def _promised(
    waiting: Iterable[Notice], told: Told | None, change: LineChange, circumstances: Circumstances, *, now: datetime, closes: datetime
) -> Notice | None:
    """The notice of a promise for units that wait; None when none wait or this version has been told.

    A first word without a date is held for WITHOUT_DATE.
    """
    units, version = change.amounts.backordered, change.promise_version
    if not units or (told is not None and version <= told.version):
        return None
    if told is not None:
        kind, since, due_at, was = NoticeKind.DATE_CHANGED, now, closes, told.ship_by
    else:
        since = min((notice.since for notice in waiting if notice.kind in PROMISES), default=now)
        kind, due_at, was = NoticeKind.BACKORDERED, closes if change.ship_by else since + WITHOUT_DATE, None
    return Notice(
        change.line, kind, version, 0, change.sku, units, change.amounts.ordered, since, due_at, *circumstances,
        ship_by=change.ship_by, was=was,
    )  # fmt: skip
