"""What can be wrong, or just right, with one field: values that the schema forbids, and those at its very edge."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any
from zoneinfo import available_timezones

from shared.contracts.base import LAST_DAY, MAX_LINES
from tests.fuzz.sites import DROPPED, Site

WRONG_TYPE: dict[str, Sequence[Any]] = {
    "integer": ("3", 1.5, 3.0, True, [], {}, "many", "", "0x3"),
    "string": (7, 0.5, True, [], {}, ["a"]),
    "instant": (1735689600, "1735689600", True, [], {}, "", "yesterday", "22.11.2026 10:00", "2026-W01-1T00:00Z"),
    "day": (20260101, "20260101", True, [], {}, "", "2026-1-1", "01.01.2026", "2026-01-01T00:00:00Z", "tomorrow"),
    "choice": (7, True, [], {}, "", "zzz", "Ärger", "\u202eabc"),
    "price": ([], {}, "much", "1,50", "", "0x10", "1 2"),
    "boolean": ("perhaps", 7, [], {}, ""),
    "array": ({}, "x", 7, True, {"0": {}}),
    "object": ([], "x", 7, True, [{}]),
}
MALFORMED = {
    "instant": ("2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z",
                "2026-01-01T10:00:00+25:00", "2026-01-01T10:00:60Z", "2026-01-01T10:00Z garbage"),
    "day": ("2026-02-30", "2026-13-01", "2026-00-10", "9999-99-99", "2025-02-29"),
}  # fmt: skip
BEFORE = {
    "instant": ("0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+00:01"),
    "day": ("0001-01-01", "1969-12-31", "1066-10-14"),
}
AFTER = {
    "instant": ("9999-12-31T23:59:59-12:00", "2100-01-01T00:00:00Z", "2099-12-31T23:59:59-00:01", "9999-12-31T23:59:59.999999Z"),
    "day": ("2100-01-01", "9999-12-30", "2206-01-01"),
}
EDGE: dict[str, Sequence[Any]] = {
    "instant": ("1970-01-01T00:00:00Z", "1970-01-01T14:00:00+14:00", "2099-12-31T23:59:59.999999Z", "2099-12-31T12:59:59-11:00",
                "2024-02-29T23:59:59.123456789+05:45", "2026-01-01 10:00:00+00:00"),
    "day": ("1970-01-01", LAST_DAY.isoformat(), "9999-12-31", "2024-02-29", "2099-12-30"),
    "price": (0, "0", "0.0001", 0.0001, "9999999999.9999", 9999999999.9999, 1e3, "1E+2", -0.0, "000.10"),
    "boolean": (True, False),
}  # fmt: skip
HUGE = (2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 10**300)
LONG = ("x", "é", "\U0001f4e6", '"', "\\", "'", "\u2028", "%", "'; DROP TABLE line; --", "{{x}}", "a b")
_EMAILS = ("a@b", "a" * 242 + "@example.com", "\U0001f4e6" * 10 + "@\U0001f4e6.example", "o'brien+tag@sub.example.co.uk")
_LANGUAGES = ("en", "sgn", "pt-BR", "de-CH-1996", "ab-" + "-".join(["12345678"] * 3) + "-1234")
_ZONES = tuple(sorted(available_timezones()))


@dataclass(frozen=True)
class FieldKind:
    """A way to change a field: where it applies, the values it may get, and whether the message is then refused.

    `refused` None: that depends on what else the message says.
    """

    applies: Callable[[Site], bool]
    values: Callable[[Random, Site], Any]
    refused: bool | None = True


def _one_of(table: Mapping[str, Sequence[Any]]) -> FieldKind:
    return FieldKind(lambda site: site.type in table, lambda rng, site: rng.choice(table[site.type]))


def _below(rng: Random, site: Site) -> Any:
    if site.type in BEFORE:
        return rng.choice(BEFORE[site.type])
    if site.type == "integer":
        return rng.choice((site.schema["minimum"] - 1, -1, *(-huge for huge in HUGE)))
    return {"price": "-0.01", "array": [], "string": "  "}[site.type]


def _above(rng: Random, site: Site) -> Any:
    if site.type in AFTER:
        return rng.choice(AFTER[site.type])
    if site.type == "integer":
        return rng.choice([number for number in (site.schema["maximum"] + 1, *HUGE) if number > site.schema["maximum"]])
    if site.type == "string":
        return rng.choice(("x", "\U0001f4e6")) * (site.schema["maxLength"] + rng.choice((1, 2, 1_000)))
    return rng.choice((10**10, 1e300, "1.00001", 12345678901234.5))


def _edge(rng: Random, site: Site) -> Any:
    if site.type == "integer":
        return rng.choice((site.schema["minimum"], site.schema["maximum"]))
    if site.type == "choice":
        return rng.choice(site.schema["enum"])
    if site.type in EDGE:
        return rng.choice(EDGE[site.type])
    special = {"email": _EMAILS, "language": _LANGUAGES, "time_zone": _ZONES}.get(str(site.path[-1]))
    if special:
        return rng.choice(special)
    longest = site.schema.get("maxLength", 100)
    if site.path[-1] == "supplier":
        longest = 52  # the rest is room for the number in the ids of its purchase orders
    text = rng.choice(LONG)
    return rng.choice((text, (text * longest)[:longest])).strip() or "x"


def entries(count: int, site: Site) -> list[Any]:
    """The first entry of the array so many times, with line numbers that differ."""
    return [
        {**deepcopy(site.value[0]), **({"line": number} if "line" in site.value[0] else {})} if isinstance(site.value[0], dict) else "x"
        for number in range(1, count + 1)
    ]


KINDS: dict[str, FieldKind] = {
    "field dropped": FieldKind(lambda site: bool(site.path) and site.required, lambda _rng, _site: DROPPED),
    "field null": FieldKind(lambda site: bool(site.path) and not site.nullable, lambda _rng, _site: None),
    "wrong type": _one_of(WRONG_TYPE),
    "malformed": _one_of(MALFORMED),
    "below": FieldKind(
        lambda site: site.type in {"integer", "price", *BEFORE}
        or (site.type == "array" and "minItems" in site.schema)
        or (site.type == "string" and "minLength" in site.schema),
        _below,
    ),
    "above": FieldKind(
        lambda site: site.type in {"integer", "price", *AFTER} or (site.type == "string" and "maxLength" in site.schema), _above
    ),
    "not finite": FieldKind(
        lambda site: site.type in {"integer", "price"}, lambda rng, _: rng.choice((float("nan"), float("inf"), float("-inf")))
    ),
    "wrong characters": FieldKind(
        lambda site: site.type == "string" and "pattern" in site.schema, lambda rng, _: rng.choice(("a\x00b", "\x00", "a\x00" * 9))
    ),
    "no id": FieldKind(
        lambda site: site.type == "string" and site.schema.get("minLength") == 1, lambda rng, _: rng.choice(("a/b", "/", "a\nb", "\x07x"))
    ),
    "too many entries": FieldKind(lambda site: site.type == "array" and bool(site.value), lambda _, site: entries(site.schema.get("maxItems", MAX_LINES) + 1, site)),
    "at the edge": FieldKind(
        lambda site: bool(site.path) and site.type not in {"array", "object"}, _edge, refused=False
    ),
    "most entries": FieldKind(
        lambda site: site.type == "array" and isinstance((site.value or [0])[0], dict), lambda _, site: entries(site.schema.get("maxItems", MAX_LINES), site), refused=False
    ),
    "optional": FieldKind(
        lambda site: bool(site.path) and (site.nullable or not site.required) and isinstance(site.path[-1], str),
        lambda rng, site: rng.choice([DROPPED] * (not site.required) + [None] * site.nullable),
        refused=None,
    ),
}  # fmt: skip
