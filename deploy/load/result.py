"""What was measured under load, for programs: figures, the limits that they were held against, and what was not as it must be."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, RootModel

from deploy.local.ranked import ranked


class Answers(BaseModel):
    """How long each answer to one kind of question took, and how many there were of each status (or error)."""

    milliseconds: list[float] = []
    statuses: dict[str, int] = {}


class Reading(RootModel[dict[str, Answers]]):
    """Kind of question → its answers: `order`, `sku`, `queue`; `live`, `ready` of every instance."""


class Latency(BaseModel):
    """Milliseconds from question to answer; percentiles by nearest rank. None: nothing was asked."""

    count: int
    p50: float | None
    p99: float | None
    max: float | None
    statuses: dict[str, int]


class Footprint(BaseModel):
    """What a process has at a moment; of PostgreSQL all its processes together, what they share counted once."""

    memory_mb: float
    fds: int
    threads: int


class Memory(BaseModel):
    """What a process had over the run: the most, at its begin, at its end, and what it may have."""

    peak_mb: float
    begin_mb: float
    end_mb: float
    limit_mb: float
    peak_fds: int
    peak_threads: int


class Group(BaseModel):
    """A consumer group as the broker has it: `members`, and how often that, or its state, was not what it was at the look before;
    `assignments` = how often its members were given partitions anew."""

    members: int
    changes: int
    assignments: int


class Growth(BaseModel):
    """How a series went after the warm-up: its level, what it gained by its trend, and how much it may gain."""

    unit: str
    level: float
    gained: float
    allowed: float
    flat: bool


class DeadRows(BaseModel):
    """The most dead rows in tables that keep a history, their share then, and how many they may be."""

    dead: int
    share: float
    allowed: int
    few: bool


class Limits(BaseModel):
    """What the figures are held against. `drained_seconds`: twice as long as what came in excess takes at the sustainable rate, and
    half a minute."""

    drained_seconds: float
    read_p99_ms: float = 500.0
    service_memory_mb: float = 512.0
    server_memory_mb: float = 1_024.0


class Settled(BaseModel):
    """How it ended: seconds from the last order until all that stood in the log then was applied, and until all had been bought,
    received, shipped and told (None: not within the limit); things that the audit looked at, and how many of them were wrong."""

    drained_seconds: float | None
    settled_seconds: float | None
    audited: int
    wrong: int


class Run(BaseModel):
    """What a run under load comes to. `sustainable`: lines per second, from order to shipment, when as much as can be is under way;
    `times`: what was ordered is to be so many times of it, `ordered_lines_per_second` is what was. `groups`, `failed_batches` (each was
    read again) and `died` (processes) are of the time from the first order until the lag had drained; so are `reads` and `memory`."""

    minutes: float
    times: float
    sustainable_lines_per_second: float
    ordered_lines_per_second: float
    lines: int
    peak_lag_records: int
    peak_mails_queued: int
    reads: dict[str, Latency]
    memory: dict[str, Memory]
    groups: dict[str, Group]
    failed_batches: int
    died: list[str]
    end: Settled
    limits: Limits
    violations: list[dict[str, Any]]


class Soak(Run):
    """`series` are judged over time, `per_line` over the lines ordered."""

    series: dict[str, Growth]
    per_line: dict[str, Growth]
    dead_rows: dict[str, DeadRows]


def latencies(reading: Mapping[str, Answers]) -> dict[str, Latency]:
    """The percentiles of each kind of question."""
    return {kind: _latency(answers) for kind, answers in reading.items()}


def _latency(answers: Answers) -> Latency:
    p50, p99, most = (ranked(answers.milliseconds, share) for share in (0.5, 0.99, 1.0))
    return Latency(count=len(answers.milliseconds), p50=p50, p99=p99, max=most, statuses=answers.statuses)
