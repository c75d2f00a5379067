"""The verdict on a run: pure functions from what the world outside did, what the nemesis did and what is left, to violations."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from deploy.chaos.doors import Acceptance
from deploy.chaos.evidence import Arrival, Entry, Evidence, Outcome, Refusal
from deploy.chaos.violation import Violation
from deploy.chaos.witness import LineKey
from shared.contracts.base import Topic
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested, ShipmentConfirmed
from shared.contracts.suppliers import SUPPLIERS_MESSAGES, SUPPLIERS_OFFERS
from shared.contracts.warehouse import WAREHOUSE_EVENTS

READER: Mapping[Topic, str] = {
    COMMERCE_ORDERS: "orders",
    WAREHOUSE_EVENTS: "inventory",
    SUPPLIERS_OFFERS: "purchasing",
    SUPPLIERS_MESSAGES: "purchasing",
}
"""Who applies what outsiders write."""
MAILS_A_ROUND = 50
"""So many mails a kill between the mail server's answer and the commit may repeat (docs/how-it-works.md)."""


@dataclass(frozen=True, slots=True)
class Window:
    """A fault was at work, or the system had not yet got over it."""

    since: datetime
    until: datetime


def accepted_is_in_the_log(accepted: Iterable[Acceptance], log: Iterable[Entry]) -> Iterator[Violation]:
    """Whatever got a 202 or an acknowledgement stands in the log."""
    marks, identities = set[str](), set[tuple[str, str, str]]()
    for entry in log:
        marks.add(entry.mark)
        identities.add((entry.topic, entry.source, entry.id))
    for acceptance in accepted:
        topic = acceptance.said.message.TOPIC.name
        if acceptance.mark not in marks if acceptance.mark else (topic, *acceptance.identity) not in identities:
            yield Violation("what was accepted stands in the log", _named(acceptance))


def applied(inbox: Mapping[str, frozenset[tuple[str, str]]], refusals: Iterable[Refusal]) -> set[tuple[str, tuple[str, str]]]:
    """What has been dealt with, by service and identity: what is in its inbox and, of what was no valid message, what was refused (a
    corrected one may come under the same id)."""
    found = {(service, identity) for service, identities in inbox.items() for identity in identities}
    return found | {(refusal.service, (refusal.source, refusal.id)) for refusal in refusals}


def addressed(acceptance: Acceptance) -> tuple[str, tuple[str, str]]:
    """The service that a message is for, and its identity."""
    return READER[acceptance.said.message.TOPIC], acceptance.identity


def accepted_is_applied(
    accepted: Iterable[Acceptance], inbox: Mapping[str, frozenset[tuple[str, str]]], refusals: Iterable[Refusal]
) -> Iterator[Violation]:
    """Whatever was accepted has been dealt with by the service that it is for."""
    known = applied(inbox, refusals)
    for acceptance in accepted:
        if addressed(acceptance) not in known:
            yield Violation("what was accepted has been applied", _named(acceptance))


def refusals_are_right(
    refusals: Sequence[Refusal], accepted: Sequence[Acceptance], thrown: Mapping[str, frozenset[str]], log: Iterable[Entry]
) -> Iterator[Violation]:
    """Every dead letter was to be expected, and whatever was to be expected is there: once for each record in the log that has no id
    by which it could be known again."""
    expected = _Expected(accepted)
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for refusal in refusals:
        found[refusal.mark or f"{refusal.source} {refusal.id}"][refusal.reason] += 1
        allowed = thrown[refusal.mark] if refusal.mark in thrown else expected.reasons(refusal)
        if refusal.reason not in allowed:
            yield Violation("nothing is refused but what must be", {"refused": repr(refusal), "for": sorted(allowed) or "no reason"})
    copies = Counter(entry.mark for entry in log)
    for mark, reasons in thrown.items():
        kept = sum(found[mark].values())
        if not 1 <= kept <= copies[mark]:
            row = {"mark": mark, "reasons": sorted(reasons), "kept": kept, "records": copies[mark]}
            yield Violation("poison is kept among the dead letters, once a record at most", row)
    for acceptance in accepted:
        given = found[acceptance.mark] + found[" ".join(acceptance.identity)] if acceptance.expects else Counter[str]()
        if acceptance.expects and not acceptance.expects & given.keys():
            yield Violation(
                "what must be refused is", {**_named(acceptance), "expected": sorted(acceptance.expects), "refused for": dict(given)}
            )


class _Expected:
    """Why a message from outside may be refused: for what it was meant to be, or because it raced a cancellation."""

    def __init__(self, accepted: Sequence[Acceptance]) -> None:
        self._by_mark = {acceptance.mark: acceptance for acceptance in accepted if acceptance.mark}
        self._by_identity: defaultdict[tuple[str, str], list[Acceptance]] = defaultdict(list)
        for acceptance in accepted:
            self._by_identity[acceptance.identity].append(acceptance)
        self._cancelled = cancelled_orders(accepted)

    def reasons(self, refusal: Refusal) -> frozenset[str]:
        known = self._by_mark.get(refusal.mark)
        about = [known] if known else self._by_identity[refusal.source, refusal.id]
        reasons = {reason for acceptance in about for reason in acceptance.expects}
        if any(isinstance(each.said.message, ShipmentConfirmed) and each.said.message.order in self._cancelled for each in about):
            reasons.add("shipped_more_than_allocated")
        return frozenset(reasons)


def cancelled_orders(accepted: Iterable[Acceptance]) -> frozenset[str]:
    """Orders of which a cancellation was accepted."""
    return frozenset(each.said.message.order for each in accepted if isinstance(each.said.message, OrderCancelRequested))


def cancelled_lines(accepted: Iterable[Acceptance], lines: Iterable[LineKey]) -> frozenset[LineKey]:
    """Lines that a cancellation which was accepted is about."""
    wishes = [each.said.message for each in accepted if isinstance(each.said.message, OrderCancelRequested)]
    whole = {wish.order for wish in wishes if wish.line is None}
    single = {(wish.order, wish.line) for wish in wishes}
    return frozenset(line for line in lines if line[0] in whole or line in single)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The run against the calm one. `raced` and `scarce` count the lines that were allowed to differ and did."""

    lines: int
    raced: int
    scarce: int
    violations: list[Violation]


def compared(
    stormy: Mapping[LineKey, Outcome], calm: Mapping[LineKey, Outcome], racing: frozenset[LineKey], scarce: frozenset[str]
) -> Comparison:
    """Per line, what was ordered, shipped and cancelled is what it is without faults and hostility. Only `racing` lines and those of
    `scarce` SKUs (that may not wait: who comes first matters) may divide what was ordered in another way; nothing may be left open."""
    violations, raced, short = [], 0, 0
    for line in sorted(stormy.keys() | calm.keys()):
        ours, theirs = stormy.get(line), calm.get(line)
        row = {"order": line[0], "line": line[1], "with faults": str(ours), "without": str(theirs)}
        if ours is None or theirs is None or (ours.sku, ours.ordered) != (theirs.sku, theirs.ordered):
            violations.append(Violation("the same lines were ordered", row))
        elif ours.shipped + ours.cancelled != ours.ordered or theirs.shipped + theirs.cancelled != theirs.ordered:
            violations.append(Violation("in the end every unit is shipped or cancelled", row))
        elif ours.shipped == theirs.shipped:
            continue
        elif ours.sku in scarce:
            short += 1
        elif line in racing:
            raced += 1
        else:
            violations.append(Violation("a line is shipped and cancelled as without faults", row))
    return Comparison(len(calm), raced, short, violations)


def everything_was_told(evidence: Evidence, told: Mapping[str, frozenset[str]], versions: Mapping[LineKey, int]) -> Iterator[Violation]:
    """What the databases say has happened was told to the world: `told` by message, `versions` = events told of each line."""
    for name, expected in evidence.told.items():
        for missing in sorted(expected ^ told[name]):
            yield Violation("what happened was told, and what was told happened", {"message": name, "about": missing})
    for line, outcome in sorted(evidence.lines.items()):
        if versions.get(line, 0) != outcome.version:
            row = {"order": line[0], "line": line[1], "events": outcome.version, "told": versions.get(line, 0)}
            yield Violation("every event of a line was told", row)


def mails_came_once(arrivals: Sequence[Arrival], windows: Sequence[Window], sent: int) -> Iterator[Violation]:
    """A mail comes once; again only where a fault lay between (SMTP has no transactions), and at most a round for each fault."""
    copies: defaultdict[str, list[datetime]] = defaultdict(list)
    for arrival in arrivals:
        copies[arrival.message_id].append(arrival.at)
    blame: Counter[Window] = Counter()
    for message_id, times in copies.items():
        for before, again in pairwise(sorted(times)):
            between = [window for window in windows if window.since <= again and window.until >= before - timedelta(seconds=1)]
            if between:
                blame[between[0]] += 1
            else:
                yield Violation(
                    "a mail comes twice only where a fault lay between", {"mail": message_id, "at": str(before), "again": str(again)}
                )
    if sum(blame.values()) > MAILS_A_ROUND * len(windows):
        yield Violation("a fault repeats at most a round of mails", {"repeats": sum(blame.values()), "faults": len(windows)})
    if len(copies) != sent:
        yield Violation("every mail that was sent arrived, and no other", {"sent": sent, "arrived": len(copies)})


def repeated_mails(arrivals: Sequence[Arrival]) -> int:
    """How many mails came once more."""
    return len(arrivals) - len({arrival.message_id for arrival in arrivals})


def duplicates(log: Iterable[Entry]) -> int:
    """Records in the log whose id had come before in their topic: what the inboxes had to drop."""
    seen = Counter((entry.topic, entry.source, entry.id) for entry in log if entry.source and entry.id)
    return sum(count - 1 for count in seen.values())


def _named(acceptance: Acceptance) -> dict[str, str]:
    said = acceptance.said
    return {
        "message": type(said.message).__name__,
        "key": said.message.key,
        "source": said.source,
        "id": said.id,
        "accepted by": f"acknowledgement of record {acceptance.mark}" if acceptance.mark else "202",
        "content": said.message.model_dump_json(),
    }
