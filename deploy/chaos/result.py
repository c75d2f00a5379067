"""What came of a run, for programs and for people."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from deploy.chaos.evidence import Entry
from deploy.chaos.violation import Violation
from deploy.local.ranked import ranked

_NAMES = ("key", "order", "order_id", "purchase_order", "sku", "mail", "about", "id")
"""The columns by which a violation says what it is about, the most telling first."""
SHOWN = 20


class Recovery(BaseModel):
    """Seconds from a fault's heal until everything that stood in the log then was applied and every process was ready; None: it was
    never measured, for nothing struck, or the next fault always came first."""

    p50: float | None
    p99: float | None
    max: float | None


class Details(BaseModel):
    """`settling`: seconds from the last heal until everything had come to its end; `missed`: faults that could not strike, because
    another had struck what they needed; `raced`, `scarce`: lines that were allowed to differ from the calm run's and did;
    `refused`: dead letters by reason; `mails_repeated`: across a fault, as SMTP must; `audits`: while faults struck."""

    settling_seconds: float | None
    recoveries: int
    missed: int
    lines: int
    raced: int
    scarce: int
    refused: dict[str, int]
    poison: int
    replayed: int
    http: dict[str, int]
    mails: int
    mails_repeated: int
    audits: int
    events_told: int


class Result(BaseModel):
    """`accepted`: different messages that got a 202 or an acknowledgement; `applied`: those of them that the services applied;
    `duplicates_dropped`: records in the log that had come before. `state_hash_equal`: the topics, replayed by the journal into empty
    databases, give the same state (None: not asked, since the run did not settle)."""

    seed: int
    minutes: float
    faults: dict[str, int]
    faults_total: int
    accepted: int
    applied: int
    duplicates_dropped: int
    recovery_seconds: Recovery
    state_hash_equal: bool | None
    violations: list[dict[str, Any]]
    details: Details

    @property
    def ok(self) -> bool:
        """Whether all was as it must be."""
        return not self.violations and self.state_hash_equal is True


def recovery(seconds: Sequence[float]) -> Recovery:
    """The percentiles (nearest rank) of the recoveries."""
    rounded = [round(each, 2) for each in seconds]
    return Recovery(p50=ranked(rounded, 0.5), p99=ranked(rounded, 0.99), max=ranked(rounded, 1.0))


def history(violation: Violation, log: Iterable[Entry]) -> Iterator[Entry]:
    """The records of the log that are about what the violation is about, in the order of time."""
    name = next((str(violation.row[column]) for column in _NAMES if violation.row.get(column)), None)
    if name is None:
        return
    word = f'"{name}"'.encode()
    for entry in log:
        if entry.id == name or word in (entry.value or b""):
            yield entry


def told(violations: Sequence[Violation], timeline: Iterable[object], log: Sequence[Entry], repeat: str) -> Iterator[str]:
    """The report of a failure: the time line of the faults, the first offending message, the violations, how to repeat it: what matters
    most comes last, where a long log is read first."""
    yield "Faults:"
    yield from (f"  {struck}" for struck in timeline)
    messages = list(history(violations[0], log)) if violations else []
    if messages:
        yield f"The first message about the first violation:\n  {messages[0]}"
        yield from (f"  then {entry}" for entry in messages[1:SHOWN])
    yield f"{len(violations)} violations:"
    yield from (f"  {violation}" for violation in violations[:SHOWN])
    if len(violations) > SHOWN:
        yield f"  … and {len(violations) - SHOWN} more (--json shows all)"
    yield f"To repeat it: {repeat}"
