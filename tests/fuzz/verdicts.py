"""Whether what became of a case is what must become of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.fuzz.draft import PARSED, Case


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of a record: of which item, why, in which words, and whether it holds others up (`parked`)."""

    index: int
    reason: str
    detail: str
    state: str


def wrong(case: Case, letters: Sequence[Letter]) -> str | None:
    """What is not as it must be; None if all is."""
    verdict = case.verdict
    if any(letter.state == "parked" for letter in letters):
        return f"{case.kind}: a message broke its handler: {letters[0].detail}"
    if any(not letter.detail or len(letter.detail) > 4_000 for letter in letters):
        return f"{case.kind}: not explained, or too long: {letters}"
    unread = [letter for letter in letters if letter.reason in PARSED]
    if verdict.fine:
        return f"{case.kind}: should be fine, but: {unread[0]}" if unread else None
    if not verdict.reason:
        return None
    if [(letter.index, letter.reason) for letter in unread] != [(verdict.index, verdict.reason)]:
        return f"{case.kind}: should be refused once as {verdict.reason} at item {verdict.index}, but: {letters or 'nothing'}"
    missing = [word for word in verdict.words if word not in unread[0].detail]
    return f"{case.kind}: {missing} is not in {unread[0].detail!r}" if missing else None
