"""What was measured, for programs; and what follows from several rounds of it."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from pydantic import BaseModel

OURS, NAIVE, LIMIT = "ours", "naive", "limit"
SYSTEMS = (OURS, NAIVE, LIMIT)


class Latency(BaseModel):
    """Milliseconds from the append of what was published to the record of its decision."""

    p50: float
    p99: float


class Sample(BaseModel):
    """One system's run of one workload. `lines_per_second` counts until everything is published and durable everywhere;
    `memory_mb` is the peak of each process; `kafka_bytes_per_line` and the shares of broker and database are None or missing where
    these run elsewhere. `mails_per_second`: sent afterwards."""

    lines: int
    seconds: float
    latency_ms: Latency
    cpu_us_per_line: dict[str, float]
    wal_bytes_per_line: float
    kafka_bytes_per_line: float | None
    memory_mb: dict[str, float]
    mails_per_second: float | None = None

    @property
    def lines_per_second(self) -> float:
        """Lines from the first append to the end of it all."""
        return self.lines / self.seconds


Round = Mapping[str, Sample]
"""System → what it did in this round."""


class Rival(BaseModel):
    """What another system did of the same, medians of all rounds."""

    lines: int
    lines_per_second: float
    latency_ms: Latency
    cpu_us_per_line: dict[str, float]
    wal_bytes_per_line: float
    settings: dict[str, str] = {}


class Workload(BaseModel):
    """Medians over the rounds. `lines` are those of a run of ours. Ratios are medians of the ratios of each round, whose runs followed each other at once.
    None: not measured. `lines_per_second_by_round`: system → the rate of each round."""

    lines: int
    lines_per_second: float | None = None
    naive_lines_per_second: float | None = None
    limit_lines_per_second: float | None = None
    ratio_naive: float | None = None
    fraction_of_limit: float | None = None
    latency_ms: Latency | None = None
    cpu_us_per_line: dict[str, float] = {}
    wal_bytes_per_line: float | None = None
    kafka_bytes_per_line: float | None = None
    mails_per_second: float | None = None
    rivals: dict[str, Rival] = {}
    lines_per_second_by_round: dict[str, list[float]] = {}


class Machine(BaseModel):
    """Where it was measured."""

    system: str
    processor: str
    cpus: int
    memory_gb: float
    versions: dict[str, str]
    postgresql: dict[str, str]


class Result(BaseModel):
    """All of a run."""

    machine: Machine
    rounds: int
    workloads: dict[str, Workload]
    memory_mb: dict[str, float]


def workload(rounds: Sequence[Round], settings: Mapping[str, str] | None = None) -> Workload:
    """What the rounds of one workload come to. `settings` are those of the limit."""
    by_system = {system: [round_[system] for round_ in rounds if system in round_] for system in SYSTEMS}
    ours = by_system[OURS]
    rates = {system: median(sample.lines_per_second for sample in samples) for system, samples in by_system.items() if samples}
    return Workload(
        lines=max((sample.lines for sample in ours), default=0),
        lines_per_second=rates.get(OURS),
        naive_lines_per_second=rates.get(NAIVE),
        limit_lines_per_second=rates.get(LIMIT),
        ratio_naive=_ratio(rounds, NAIVE),
        fraction_of_limit=_ratio(rounds, LIMIT),
        latency_ms=_latency(ours) if ours else None,
        cpu_us_per_line=_medians(sample.cpu_us_per_line for sample in ours),
        wal_bytes_per_line=_median(sample.wal_bytes_per_line for sample in ours),
        kafka_bytes_per_line=_median(sample.kafka_bytes_per_line for sample in ours),
        mails_per_second=_median(sample.mails_per_second for sample in ours),
        rivals={
            system: _rival(samples, settings if system == LIMIT else None)
            for system, samples in by_system.items()
            if samples and system != OURS
        },
        lines_per_second_by_round={
            system: [round(sample.lines_per_second, 1) for sample in samples] for system, samples in by_system.items() if samples
        },
    )


def peaks(rounds: Iterable[Round]) -> dict[str, float]:
    """The most memory (MB) that each process of ours took in any round."""
    found: dict[str, float] = {}
    for round_ in rounds:
        for process, megabytes in (round_[OURS].memory_mb if OURS in round_ else {}).items():
            found[process] = max(found.get(process, 0.0), megabytes)
    return found


def _rival(samples: Sequence[Sample], settings: Mapping[str, str] | None) -> Rival:
    return Rival(
        lines=max(sample.lines for sample in samples),
        lines_per_second=median(sample.lines_per_second for sample in samples),
        latency_ms=_latency(samples),
        cpu_us_per_line=_medians(sample.cpu_us_per_line for sample in samples),
        wal_bytes_per_line=median(sample.wal_bytes_per_line for sample in samples),
        settings=dict(settings or {}),
    )


def _ratio(rounds: Sequence[Round], rival: str) -> float | None:
    return _median(round_[OURS].lines_per_second / round_[rival].lines_per_second for round_ in rounds if {OURS, rival} <= round_.keys())


def _latency(samples: Sequence[Sample]) -> Latency:
    return Latency(p50=median(sample.latency_ms.p50 for sample in samples), p99=median(sample.latency_ms.p99 for sample in samples))


def _medians(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Per key the median of those that have it."""
    every: dict[str, list[float]] = {}
    for part in parts:
        for key, value in part.items():
            every.setdefault(key, []).append(value)
    return {key: round(median(values), 1) for key, values in every.items()}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
