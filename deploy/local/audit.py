"""The invariants of the system, checked in the databases: each service's own, and that the services agree (design.md section 8)."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import import_module
from time import monotonic
from typing import Any, Self

import orjson

from deploy.local.agreement import AGREEMENTS, FACTS, SUMS, Facts, Found
from deploy.local.databases import Connection, snapshot
from deploy.local.fairness import ENTRIES, unfair
from deploy.local.settled import Look, Unsettled, at_rest, business_clock, watching
from shared.contracts.base import JsonObject
from shared.settings import SERVICES, Settings


@dataclass(frozen=True, slots=True)
class Check:
    """How many things were looked at, and those that are not as they must be: service, offending row, what was expected.

    `checked` of a service's own checks is the number of rows in the table that it goes through.
    """

    checked: int
    violations: list[JsonObject]


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome. `settled` says whether nothing was under way: some checks can be made only then. `counts` by service: what it has."""

    ok: bool
    settled: bool
    counts: dict[str, dict[str, int]]
    checks: dict[str, Check]

    def violations(self) -> list[JsonObject]:
        """All of them, each naming its check."""
        return [{"check": name, **violation} for name, check in self.checks.items() for violation in check.violations]

    def including(self, more: Mapping[str, Check]) -> Self:
        """The outcome with these checks as well."""
        ok = self.ok and not any(check.violations for check in more.values())
        return replace(self, ok=ok, checks={**self.checks, **more})


Parked = frozenset[tuple[str, Any]]
"""What parked messages are about, or is quarantined, as (column, value): rows about it are left out, and it is listed itself."""

_AGGREGATES = {"order": "order_id", "sku": "sku", "purchase_order": "purchase_order", "supplier": "supplier"}
"""Kind of an aggregate, and field of a message → the column that names it in tables."""

_PARKED = (
    "SELECT id, aggregate, type, message_id, reason, detail, at, convert_from(body, 'UTF8') AS body"
    " FROM runtime.dead_letter WHERE state = 'parked' ORDER BY id"
)
_HISTORY: dict[str, dict[str, tuple[str, Callable[[Sequence[Any]], Iterable[Mapping[str, Any]]]]]] = {
    "inventory": {"first come, first served, at every commit": (ENTRIES, unfair)}
}
"""Service → name of a check that needs more than SQL → the rows it goes through, and the function that finds those which violate it."""
_QUARANTINED = (
    "SELECT aggregate, invariant, detail, since, right_until, number, message FROM runtime.quarantine WHERE released_at IS NULL ORDER BY id"
)
_REFUSED = "SELECT count(*) FROM runtime.dead_letter WHERE state = 'refused'"


@dataclass(frozen=True, slots=True)
class _Reading:
    """One service's database at one moment."""

    parked: list[Mapping[str, Any]]
    quarantined: list[Mapping[str, Any]]
    refused: int
    counts: dict[str, int]
    checked: dict[str, int]
    violations: dict[str, list[Mapping[str, Any]]]
    late: list[Mapping[str, Any]]
    facts: dict[str, list[Mapping[str, Any]]]


async def audit(settings: Settings, wait: float | None = None, today: date | None = None) -> Audit:
    """Checks everything. With `wait` it first awaits, so many seconds, that everything has settled: if it has not, that is a violation.

    What services tell one another can be compared as a whole only once messages have settled; else only what has a version.
    `today` is the warehouse's calendar day (by the system's clock unless given): no promise may lie before it.
    """
    if today is None:
        async with business_clock(settings) as now:
            today = now().astimezone(settings.zone).date()
    async with watching(settings) as look:
        before, readings, after = await _readings(settings, today, look, monotonic() + (wait or 0.0))
    settled = before == after and not before
    parked = _parked(readings.values())
    checks = {
        **({} if wait is None else {"everything has settled": _settled_check(before, after)}),
        "nothing is parked": _parked_check(readings),
        "nothing is quarantined": _quarantined_check(readings),
        "refused messages": Check(sum(reading.refused for reading in readings.values()), []),
        **_own_checks(readings, parked),
        **_cross_checks(readings, parked, settled=settled, today=today),
    }
    counts = {name: reading.counts for name, reading in readings.items()}
    return Audit(not any(check.violations for check in checks.values()), settled, counts, checks)


async def _readings(settings: Settings, today: date, look: Look, deadline: float) -> tuple[Unsettled, dict[str, _Reading], Unsettled]:
    """The databases, and what was under way before and after they were read: at rest if that can be had until the deadline. A system
    may go on of its own accord while it is read, since a timer falls due or a supplier says something."""
    while True:
        before = await at_rest(look, deadline)
        readings = dict(zip(SERVICES, await asyncio.gather(*(_read(settings, name, today) for name in SERVICES)), strict=True))
        after = await look()
        if before == after or monotonic() >= deadline:
            return before, readings, after


async def _read(settings: Settings, name: str, today: date) -> _Reading:
    module = import_module(f"services.{name}.audit")
    late: str | None = getattr(module, "PROMISE_IN_THE_PAST", None)
    async with snapshot(settings, name) as tx:
        history = {title: (await tx.fetch(sql), check) for title, (sql, check) in _HISTORY.get(name, {}).items()}
        return _Reading(
            parked=await tx.fetch(_PARKED),
            quarantined=await tx.fetch(_QUARANTINED),
            refused=int(await tx.fetchval(_REFUSED)),
            checked=await _checked(tx, module.CHECKS) | {title: len(rows) for title, (rows, _) in history.items()},
            counts={title: int(await tx.fetchval(sql)) for title, sql in module.COUNTS.items()},
            violations={title: await tx.fetch(sql) for title, sql in module.CHECKS.items()}
            | {title: list(check(rows)) for title, (rows, check) in history.items()},
            late=await tx.fetch(late, today) if late else [],
            facts=await _facts(tx, name),
        )


def table(sql: str) -> str:
    """The table that a query goes through: the first that it reads from."""
    [name] = re.findall(r"\bFROM\s+(\w+)", sql)[:1]
    return str(name)


async def _checked(tx: Connection, checks: Mapping[str, str]) -> dict[str, int]:
    """Per check the rows of the table that it goes through."""
    rows = {name: int(await tx.fetchval(f"SELECT count(*) FROM {name}")) for name in sorted(set(map(table, checks.values())))}  # noqa: S608  (our own names)
    return {title: rows[table(sql)] for title, sql in checks.items()}


async def _facts(tx: Connection, service: str) -> dict[str, list[Mapping[str, Any]]]:
    return {title: await tx.fetch(sql) for title, sql in FACTS[service].items()}


def _settled_check(before: Unsettled, after: Unsettled) -> Check:
    waiting = {
        name: str(what or after.services[name]) or "it went on while it was looked at"
        for name, what in before.services.items()
        if what or what != after.services[name]
    }
    return Check(len(SERVICES), [_violation((name, {"under way": what}, "nothing under way")) for name, what in waiting.items()])


def _parked_check(readings: Mapping[str, _Reading]) -> Check:
    letters = [(name, letter) for name, reading in readings.items() for letter in reading.parked]
    found = [
        (name, {"dead_letter": f"{name}/{letter['id']}", **{key: letter[key] for key in ("aggregate", "type", "reason", "detail")}})
        for name, letter in letters
    ]
    return Check(len(letters), [_violation((name, row, "replayed or discarded by an operator")) for name, row in found])


def _quarantined_check(readings: Mapping[str, _Reading]) -> Check:
    found = [(name, dict(row), "repaired by an operator") for name, reading in readings.items() for row in reading.quarantined]
    return Check(len(found), [_violation(each) for each in found])


def _own_checks(readings: Mapping[str, _Reading], parked: Parked) -> dict[str, Check]:
    return {
        f"{name}: {title}": Check(
            reading.checked[title],
            [_violation((name, dict(row), title)) for row in rows if not _concerns(row, parked)],
        )
        for name, reading in readings.items()
        for title, rows in reading.violations.items()
    }


def _cross_checks(readings: Mapping[str, _Reading], parked: Parked, *, settled: bool, today: date) -> dict[str, Check]:
    """The checks over several databases; those that hold only once messages have settled are left out until then."""
    facts: Facts = {title: rows for reading in readings.values() for title, rows in reading.facts.items()}
    found: dict[str, tuple[int, Iterable[Found]]] = {
        title: (len(facts[pair.left]), pair.violations(facts, settled=settled))
        for title, pair in AGREEMENTS.items()
        if settled or pair.moving
    }
    if settled:
        found |= {title: (len(facts[counted]), check(facts)) for title, (counted, check) in SUMS.items()}
        late = ((name, dict(row), f"no day before {today}") for name, reading in readings.items() for row in reading.late)
        found["no promise lies in the past"] = (len(facts["inventory's lines"]), late)
    return {
        title: Check(checked, [_violation(violation) for violation in violations if not _concerns(violation[1], parked)])
        for title, (checked, violations) in found.items()
    }


def _violation(found: Found) -> JsonObject:
    service, row, expected = found
    return {"service": service, "row": row, "expected": expected}


def _parked(readings: Iterable[_Reading]) -> Parked:
    return frozenset(about for reading in readings for held in (*reading.parked, *reading.quarantined) for about in _about(held))


def _about(held: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """What is quarantined, or a parked message is about: its aggregate, and the order, SKU or purchase order that it names."""
    kind, _, key = held["aggregate"].partition(":")
    if kind in _AGGREGATES:
        yield _AGGREGATES[kind], key
    content = orjson.loads(held.get("body") or b"null")
    items: Sequence[Any] = content.get("items", [content]) if isinstance(content, dict) else []
    for item in items:
        for field, column in _AGGREGATES.items():
            if field in item:
                yield column, str(item[field])


def _concerns(row: Mapping[str, Any], parked: Parked) -> bool:
    return bool(parked) and any((column, str(value)) in parked for column, value in row.items())
