"""What the topics say of how long things took: read after a measurement, not during it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import orjson
from aiokafka import ConsumerRecord

from deploy.bench.result import Latency
from shared.contracts.orders import LineAllocated, LineBackordered

DECISIONS = (LineBackordered.TYPE.encode(), LineAllocated.TYPE.encode())
LineKey: TypeAlias = tuple[str, int]
"""Order and line number."""


class Told(NamedTuple):
    """A record of `orders.events` that decides lines. `at` = the broker's time (ms)."""

    at: int
    lines: tuple[LineKey, ...]


def told(found: Iterable[ConsumerRecord]) -> Iterator[Told]:
    """The records that decide lines: by their type where they have one, else all of them."""
    for record in found:
        if dict(record.headers).get("ce_type", DECISIONS[0]) in DECISIONS:
            body = orjson.loads(record.value)
            yield Told(record.timestamp, tuple((body["order"], line["line"]) for line in body["lines"]))


def skus(receipt: ConsumerRecord) -> list[str]:
    """What arrived."""
    return [line["sku"] for line in orjson.loads(receipt.value)["lines"]]


def first_told(decisions: Iterable[Told], since: int = 0) -> dict[LineKey, int]:
    """When each line was first decided, not before `since` (both ms)."""
    first: dict[LineKey, int] = {}
    for at, lines in decisions:
        if at >= since:
            for line in lines:
                first[line] = min(at, first.get(line, at))
    return first


def waits(asked: Mapping[LineKey, int], answered: Mapping[LineKey, int]) -> list[int]:
    """How long each line waited for its answer (ms). Raises ValueError when one has none."""
    if missing := asked.keys() - answered.keys():
        raise ValueError(f"{len(missing):,} of {len(asked):,} lines were never decided, such as {min(missing)}")
    return [answered[line] - at for line, at in asked.items()]


def order_waits(asked: Mapping[str, int], answered: Mapping[LineKey, int], lines: Mapping[str, Iterable[int]]) -> list[int]:
    """How long each order waited until the last of its lines was decided (ms). Raises ValueError when one never was."""
    wanted = {(order, line): asked[order] for order, numbers in lines.items() for line in numbers}
    latest: dict[str, int] = {}
    for (order, _), wait in zip(wanted, waits(wanted, answered), strict=True):
        latest[order] = max(wait, latest.get(order, wait))
    return list(latest.values())


def latency(milliseconds: Sequence[int]) -> Latency:
    """The percentiles of some waits (at least one): the smallest value that so many percent do not exceed."""
    ordered = sorted(milliseconds)
    at = [float(ordered[-(-len(ordered) * percent // 100) - 1]) for percent in (50, 99)]
    return Latency(p50=at[0], p99=at[1])
