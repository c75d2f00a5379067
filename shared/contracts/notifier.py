"""What the service notifier tells: which notices reached whom (`notices.events`). No names, no addresses."""

from enum import StrEnum

from shared.contracts.base import Contract, Identifier, Instant, LineNumber, Message, Text, Topic, Version, contract

NOTICES_EVENTS = Topic("notices.events", key="order", public=True)


class NoticeKind(StrEnum):
    """What a notice says."""

    BACKORDERED = "backordered"
    DATE_CHANGED = "date_changed"
    ALLOCATED = "allocated"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class NoticedLine(Contract):
    """One line in a mail: what it was told, of which version."""

    line: LineNumber
    kind: NoticeKind
    promise_version: Version


@contract(NOTICES_EVENTS, key="order")
class NoticeSent(Message):
    """The mail server took the mail."""

    order: Identifier
    mail: Identifier
    at: Instant
    notices: tuple[NoticedLine, ...]


@contract(NOTICES_EVENTS, key="order")
class NoticeFailed(Message):
    """The mail server refused the mail for good."""

    order: Identifier
    mail: Identifier
    at: Instant
    reason: Text
    notices: tuple[NoticedLine, ...]
