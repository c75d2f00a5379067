"""What is seen of a system under load, to be judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deploy.load.result import Footprint

Membership = tuple[str, tuple[str, ...]]
"""A group's state and the ids that the broker has given to its members."""


class Lag(NamedTuple):
    """Records that a service reads and has not applied, over all services; mails that wait to be sent."""

    records: int
    mails: int


@dataclass(frozen=True, slots=True)
class Table:
    """Bytes and rows of a table, as PostgreSQL counts them."""

    table_bytes: int
    index_bytes: int
    live: int
    dead: int


@dataclass(frozen=True, slots=True)
class Database:
    """A service's database: tables by name, rows of the runtime's tables by name, connections."""

    tables: Mapping[str, Table]
    rows: Mapping[str, int]
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at everything. `at` = seconds since the load began; `lines` = those that orders has taken in since ever."""

    at: float
    lines: int
    processes: Mapping[str, Footprint]
    databases: Mapping[str, Database]


@dataclass
class Seen:
    """What was seen. `lags` look by look; `memberships` by group, a new one whenever it
    is another than before; `died` = processes that were gone or others."""

    footprints: list[tuple[float, dict[str, Footprint]]] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    memberships: dict[str, list[Membership]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    died: set[str] = field(default_factory=set)
