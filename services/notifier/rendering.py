"""From recorded facts to the text of a mail: subject and body, plain text, from `templates/`. Pure but for reading those once."""

import unicodedata
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.notifier.domain import Contact, Notice
from shared.contracts.notifier import NoticeKind
from shared.contracts.orders import CancelReason

SUBJECTS = {
    NoticeKind.SHIPPED: "has shipped",
    NoticeKind.ALLOCATED: "is being prepared",
    NoticeKind.BACKORDERED: "is partly on backorder",
    NoticeKind.DATE_CHANGED: "has a new shipping date",
    NoticeKind.CANCELLED: "was changed: items cancelled",
}
"""What the subject says when the mail has only this kind of news; also the order of a mail's sections."""

REASONS = {
    CancelReason.CUSTOMER: "as you asked",
    CancelReason.UNKNOWN_SKU: "we do not know this article",
    CancelReason.NOT_BACKORDERABLE: "it is not in stock, and cannot be ordered in advance",
}

_SECTIONS = list(SUBJECTS)
_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's controls, lone surrogates, and separators of lines and paragraphs."""


class Text(NamedTuple):
    """What a mail says."""

    subject: str
    body: str


def one_line(value: object) -> str:
    """Text from outside as one line without control characters, so that it can neither break a header nor fake a paragraph."""
    text = str(value)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char) in _BREAKING else char for char in text)
    return " ".join(text.split())


@lru_cache(maxsize=1_024)
def day(value: date) -> str:
    """`Friday, 4 December 2026`. Kept, since `strftime` costs more than all else in a mail and most mails tell the same days."""
    return f"{value:%A}, {value.day} {value:%B} {value.year}"


def moment(value: datetime, zone: str) -> str:
    """`Friday, 4 December 2026, 14:05 (Europe/London)`."""
    local = value.astimezone(ZoneInfo(zone))
    return f"{day(local.date())}, {local.hour:02}:{local.minute:02} ({zone})"


def local_day(value: datetime, zone: str) -> str:
    """The day of a moment where the customer is."""
    return day(value.astimezone(ZoneInfo(zone)).date())


def units(quantity: int, ordered: int) -> str:
    """`1 unit`, `3 units`, `3 of 5 units`: a quantity of those ordered."""
    count = f"{quantity} of {ordered}" if quantity < ordered else f"{quantity}"
    return f"{count} {'unit' if ordered == 1 else 'units'}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=False,  # noqa: S701  (plain text)
    undefined=StrictUndefined,
    finalize=one_line,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
_ENVIRONMENT.filters |= {"day": day, "local_day": local_day, "moment": moment, "units": units}
_ENVIRONMENT.globals |= {"REASONS": REASONS}
_MAIL = _ENVIRONMENT.get_template("mail.txt")


def render(order: str, contact: Contact, notices: Sequence[Notice], now: datetime) -> Text:
    """The mail that tells these notices, of which there is at least one. `now` is business time."""
    ordered = sorted(notices, key=lambda notice: (_SECTIONS.index(notice.kind), notice))
    sections = [(kind.value, list(group)) for kind, group in groupby(ordered, key=attrgetter("kind"))]
    news = SUBJECTS[ordered[0].kind] if len(sections) == 1 else "has news"
    body = _MAIL.render(order=order, contact=contact, sections=sections, now=now)
    return Text(f"Your order {one_line(order)} {news}", body)
