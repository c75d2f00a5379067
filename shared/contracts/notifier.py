"""What the service notifier tells: which notices reached whom (`notices.events`). No names, no addresses."""

from enum import StrEnum

from shared.contracts.base import Contract, Count, Day, Identifier, Instant, LineNumber, Message, Text, Topic, Version, contract

NOTICES_EVENTS = Topic("notices.events", key="order", public=True)


class NoticeKind(StrEnum):
    """What a notice says."""

    BACKORDERED = "backordered"
    DATE_CHANGED = "date_changed"
    ALLOCATED = "allocated"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class NoticedLine(Contract):
    """One line in a mail: what it was told (so many `units` of those `ordered`, by `ship_by` if it is a promise with a date), of which
    version of the promise, or else of the line. `total` = units of the kind altogether, which tells facts of one version apart."""

    line: LineNumber
    kind: NoticeKind
    promise_version: Version
    total: Count = 0
    sku: Identifier | None = None
    units: Count = 0
    ordered: Count = 0
    ship_by: Day | None = None


@contract(NOTICES_EVENTS, key="order")
class NoticeSent(Message):
    """The mail server took the mail. An order's mails leave in the order of their `number`s."""

    order: Identifier
    mail: Identifier
    number: Version = 0
    at: Instant
    notices: tuple[NoticedLine, ...]


@contract(NOTICES_EVENTS, key="order")
class NoticeFailed(Message):
    """The mail server refused the mail for good."""

    order: Identifier
    mail: Identifier
    number: Version = 0
    at: Instant
    reason: Text
    notices: tuple[NoticedLine, ...]
