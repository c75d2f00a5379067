"""What is true of every order's notices and mails that a transaction touched, looked at before it is saved.

A second opinion: nothing here uses the rules that it checks. The same invariants over whole tables are in `audit.py`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from services.notifier.domain import Notice
from services.notifier.handlers import State
from shared.contracts.base import Message
from shared.contracts.notifier import NoticeFailed, NoticeKind, NoticeSent
from shared.service import Broken, Check, Context

_PROMISE = NoticeKind.BACKORDERED


def one_word(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Of what waits: one notice per promise version, line version and fact, and one word of how things stand."""
    for order in state.changed_orders:
        for what in _twice(map(_subject, chain.from_iterable(state.orders[order].waiting.values()))):
            yield Broken(f"order:{order}", f"several notices wait about {what}")


def newer(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """What waits of the touched lines has not been told."""
    for (order, line), told in state.told.items():
        if order not in state.changed_orders:
            continue
        for notice in state.orders[order].waiting.get(line, ()):
            last = told.get(_about(notice.kind))
            if last is not None and (notice.version, notice.total) <= (last.version, last.total):
                yield Broken(f"order:{order}", f"{notice} waits, and {last} was told")


def gathered(state: State, _told: Sequence[Message], context: Context) -> Iterator[Broken]:
    """A mail has something to tell, once, and leaves nothing behind that is due."""
    for key, mail in state.mails.items():
        twice = _twice((_about(n.kind), n.line, n.version, n.total) for n in mail.notices)
        left = [notice for notice in chain.from_iterable(state.orders[key.order].waiting.values()) if notice.due_at <= context.now]
        if not mail.notices or twice or left:
            yield Broken(f"order:{key.order}", f"a mail of {len(mail.notices)} notices tells {twice} twice and leaves {left} behind")


def outcomes(state: State, told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """What became of a mail for good is told once, with what the mail tells."""
    said: list[Any] = [
        (type(message), message.order, message.mail, message.notices) for message in told if isinstance(message, NoticeSent | NoticeFailed)
    ]
    expected = [
        (NoticeSent if sending.status == "sent" else NoticeFailed, key.order, str(sending.mail_id), sending.lines)
        for key, sending in state.sendings.items()
        if key in state.changed_sendings and sending.status != "queued"
    ]
    if said == expected:  # in the same order, as they are almost always: comparing what mails tell by hashes costs more than all else here
        return
    for outcome, times in ((Counter(said) - Counter(expected)) + (Counter(expected) - Counter(said))).items():
        yield Broken(f"order:{outcome[1]}", f"{outcome[0].__name__} of mail {outcome[2]} was told {times} times too often, or not at all")


CHECKS: dict[str, Check[State]] = {
    "one_word_of_a_level_waits": one_word,
    "what_waits_is_newer_than_what_was_told": newer,
    "gathering_took_all_that_was_due": gathered,
    "outcomes_are_told_once": outcomes,
}

WHILE_READING_BACK = {invariant: look for invariant, look in CHECKS.items() if look not in {gathered, outcomes}}
"""Then mails are known by what was told of them (`read_back`)."""


def _twice(subjects: Iterable[Any]) -> list[Any]:
    """Those that are there more than once."""
    found = list(subjects)
    return [] if len(set(found)) == len(found) else [subject for subject, times in Counter(found).items() if times > 1]


def _about(kind: NoticeKind) -> NoticeKind:
    return _PROMISE if kind is NoticeKind.DATE_CHANGED else kind


def _subject(notice: Notice) -> tuple[Any, ...]:
    """What there is one notice about: a level of a line, or a fact."""
    about = _about(notice.kind)
    level = about in {_PROMISE, NoticeKind.ALLOCATED}
    return (notice.line, about) if level else (notice.line, about, notice.version, notice.total)
