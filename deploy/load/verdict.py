"""Whether a system under load was as it must be. Pure functions of what was seen."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, linear_regression
from typing import TypeAlias

from deploy.chaos.violation import Violation
from deploy.load.result import DeadRows, Footprint, Group, Growth, Latency, Limits, Memory, Settled
from deploy.load.seen import Database, Membership, Sample

Points: TypeAlias = Sequence[tuple[float, float]]
"""Where (seconds, or lines ordered), and what was seen there; in order, at least one."""
Measures: TypeAlias = Mapping[tuple[str, str], float]
"""(Name of a series, its unit) → what a sample says of it."""

WARM_UP = 0.5
"""This share of a run comes before what is judged: caches fill, tables get their first pages, the first parcels leave."""
SHARE = 0.10
"""What may be gained after the warm-up, of the mean level."""
SLACK = {"MB": 8.0, "files": 8.0, "threads": 2.0, "connections": 4.0, "rows": 5_000.0, "dead rows": 20_000.0}
"""What may be gained however low the level is."""
MARGIN = 1.15
"""So many times the bytes per line of the time before may be those of the time that is judged."""
DEAD_SHARE, DEAD_ROWS = 0.3, 50_000
"""Of a history's rows so large a share may be dead, or so many: autovacuum comes when it is a fifth, but looks only once a minute."""
STILL = frozenset(
    {f"runtime.{name}" for name in ("fixed", "partition", "outbox", "timer", "dead_letter", "dead_letter_request", "quarantine", "repair", "round")}
    | {f"public.{name}" for name in ("sku", "supplier", "offer", "exception")}
)  # fmt: skip
"""Tables that have no more rows however much is ordered. All others keep a history, and are judged per line."""
READS = ("order", "sku", "queue")
"""What people ask. The other questions are probes, whose answer has to be yes."""
SERVERS = ("kafka", "postgres")
"""How the names of those begin that are not ours."""
OK = "200"
MEGABYTE = 1_000_000


# trends


def judged(points: Points) -> Points:
    """What comes after the warm-up."""
    begin, end = points[0][0], points[-1][0]
    return [point for point in points if point[0] >= begin + WARM_UP * (end - begin)]


def slope(points: Points) -> float:
    """By how much the value rises per step to the right (least squares); 0 where there is no trend to see."""
    if len({at for at, _ in points}) < 2:
        return 0.0
    return linear_regression([at for at, _ in points], [value for _, value in points]).slope


def over_time(points: Points, unit: str) -> Growth:
    """Whether a series is flat: what it gains after the warm-up by its trend is little beside its level."""
    seen = judged(points)
    level = fmean(value for _, value in seen)
    gained = slope(seen) * (seen[-1][0] - seen[0][0])
    allowed = max(SHARE * level, SLACK[unit])
    return Growth(unit=unit, level=round(level, 2), gained=round(gained, 2), allowed=round(allowed, 2), flat=gained <= allowed)


def over_lines(points: Points, unit: str) -> Growth:
    """Whether what grows with every line grows no faster with later ones: per line after the warm-up, beside the second half of the
    warm-up. `level` = per line then, `gained` = how much more it is later."""
    later = judged(points)
    before = judged([point for point in points if point[0] <= later[0][0]])
    level, gained = slope(before), slope(later) - slope(before)
    allowed = (MARGIN - 1) * level
    return Growth(unit=unit, level=round(level, 2), gained=round(gained, 2), allowed=round(allowed, 2), flat=gained <= allowed)


# a soak


def series(samples: Sequence[Sample]) -> dict[str, Growth]:
    """What has to be flat over time, of each process and of each service's database."""
    return _trends([(sample.at, still(sample)) for sample in samples], over_time)


def per_line(samples: Sequence[Sample]) -> dict[str, Growth]:
    """What may grow with the lines ordered, and with nothing else."""
    return _trends([(sample.lines, history(sample)) for sample in samples], over_lines)


def _trends(measured: Sequence[tuple[float, Measures]], rule: Callable[[Points, str], Growth]) -> dict[str, Growth]:
    """Each series that every sample has."""
    common = set[tuple[str, str]].intersection(*(set(measures) for _, measures in measured))
    return {f"{name}, {unit}": rule([(at, measures[name, unit]) for at, measures in measured], unit) for name, unit in sorted(common)}


def still(sample: Sample) -> Measures:
    """What does not grow with what is ordered."""
    found: dict[tuple[str, str], float] = {}
    for name, process in sample.processes.items():
        found |= {(name, "MB"): process.memory_mb, (name, "files"): process.fds}
        found |= {(name, "threads"): process.threads}
    for service, database in sample.databases.items():
        tables = [table for name, table in database.tables.items() if name in STILL]
        found[f"{service}: tables without history", "MB"] = sum(table.table_bytes + table.index_bytes for table in tables) / MEGABYTE
        found[f"{service}: tables without history", "dead rows"] = sum(table.dead for table in tables)
        found[service, "connections"] = database.connections
        found |= {(f"{service}: {name}", "rows"): count for name, count in database.rows.items()}
    return found


def history(sample: Sample) -> Measures:
    """What keeps a history."""
    found: dict[tuple[str, str], float] = {}
    for service, database in sample.databases.items():
        kept = {name: table for name, table in database.tables.items() if name not in STILL}
        inbox = [table for name, table in kept.items() if name.startswith("runtime.inbox")]
        found |= {
            (f"{service}: tables", "bytes"): sum(table.table_bytes for table in kept.values()),
            (f"{service}: indexes", "bytes"): sum(table.index_bytes for table in kept.values()),
            (f"{service}: inbox", "bytes"): sum(table.table_bytes + table.index_bytes for table in inbox),
            (f"{service}: inbox", "rows"): sum(table.live for table in inbox),
        }
    return found


def dead_rows(samples: Sequence[Sample]) -> dict[str, DeadRows]:
    """The dead among the rows of each service's history, when they were most beside what is allowed, after the warm-up."""
    seen = [samples[round(at)] for at, _ in judged([(float(number), 0.0) for number in range(len(samples))])]
    return {
        service: max((_dead(sample.databases[service]) for sample in seen), key=lambda each: each.dead / each.allowed)
        for service in samples[0].databases
    }


def _dead(database: Database) -> DeadRows:
    kept = [table for name, table in database.tables.items() if name not in STILL]
    dead, rows = sum(table.dead for table in kept), sum(table.dead + table.live for table in kept)
    allowed = max(round(DEAD_SHARE * rows), DEAD_ROWS)
    return DeadRows(dead=dead, share=round(dead / rows, 4) if rows else 0.0, allowed=allowed, few=dead <= allowed)


def flatness(grown: Mapping[str, Growth], check: str) -> Iterator[Violation]:
    """The series that are not flat."""
    return (Violation(check, {"series": name, **growth.model_dump()}) for name, growth in grown.items() if not growth.flat)


def tidy(dead: Mapping[str, DeadRows]) -> Iterator[Violation]:
    """The services whose histories are full of dead rows."""
    return (Violation("few rows are dead", {"service": service, **each.model_dump()}) for service, each in dead.items() if not each.few)


# an overload


def memory(footprints: Sequence[tuple[float, Mapping[str, Footprint]]], limits: Limits) -> dict[str, Memory]:
    """The most that each process had, what it had first and last, and its limit."""
    found = {}
    for name in footprints[0][1]:
        seen = [processes[name] for _, processes in footprints if name in processes]
        found[name] = Memory(
            peak_mb=max(process.memory_mb for process in seen),
            begin_mb=seen[0].memory_mb,
            end_mb=seen[-1].memory_mb,
            limit_mb=limits.server_memory_mb if name.startswith(SERVERS) else limits.service_memory_mb,
            peak_fds=max(process.fds for process in seen),
            peak_threads=max(process.threads for process in seen),
        )
    return found


def bounded(found: Mapping[str, Memory]) -> Iterator[Violation]:
    """The processes that took more than their limit."""
    return (
        Violation("memory is bounded", {"process": name, **each.model_dump()})
        for name, each in found.items()
        if each.peak_mb > each.limit_mb
    )


# either


def groups(memberships: Mapping[str, Sequence[Membership]], assignments: Mapping[str, int]) -> dict[str, Group]:
    """What became of each consumer group. `assignments` = how often its members were given partitions while it was watched."""
    return {name: _group(memberships.get(name, ()), count) for name, count in assignments.items()}


def _group(seen: Sequence[Membership], assignments: int) -> Group:
    return Group(members=len(seen[0][1]) if seen else 0, changes=max(0, len(seen) - 1), assignments=assignments)


def steady(found: Mapping[str, Group]) -> Iterator[Violation]:
    """The groups that lost or changed a member, or dealt out their partitions anew, while every member was healthy; or that the broker
    does not know."""
    check = "no healthy member times out, and no group rebalances"
    for name, group in found.items():
        if group.changes or group.assignments or not group.members:
            yield Violation(check, {"group": name, **group.model_dump()})


def answered(reads: Mapping[str, Latency], limits: Limits) -> Iterator[Violation]:
    """Questions that were answered too late, not at all, or with anything but yes."""
    for kind, latency in reads.items():
        if failed := {status: count for status, count in latency.statuses.items() if status != OK}:
            yield Violation("every question is answered with 200", {"question": kind, "of": latency.count, **failed})
        if kind in READS and (latency.p99 is None or latency.p99 > limits.read_p99_ms):
            yield Violation("99 of 100 reads are answered in time", {"question": kind, "p99": latency.p99, "limit": limits.read_p99_ms})


def alive(died: Iterable[str]) -> Iterator[Violation]:
    """The processes that ended."""
    return (Violation("every process lives on", {"process": name}) for name in sorted(died))


def ended(end: Settled, limits: Limits) -> Iterator[Violation]:
    """Whether everything came to its end, in time and right."""
    if end.drained_seconds is None or end.drained_seconds > limits.drained_seconds:
        yield Violation("the lag drains", {"seconds": end.drained_seconds, "limit": limits.drained_seconds})
    if end.settled_seconds is None:
        yield Violation("everything ordered comes to its end", end.model_dump())
    if end.wrong:
        yield Violation("the audit is clean", end.model_dump())
