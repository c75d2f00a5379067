"""The fuzzer's messages, and what must come of each: a function of the seed.

Each is made from a real message: an example of the contracts, under ids of the fuzzer's own.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

from shared.contracts import REGISTRY
from shared.contracts.base import ListedMessage, MessageType
from tests.contract.examples import EXAMPLES
from tests.fuzz.changes import CHANGES, HEAVY, MODEL_RULES, RULE
from tests.fuzz.draft import Case, Draft

IDS = {"order", "sku", "supplier", "purchase_order", "receipt", "shipment", "request", "acknowledgement", "notice", "mail", "count", "id"}


@dataclass(frozen=True)
class World:
    """What the fuzzer may refer to because it is really there: claims (order, line, demand version) and lines of issued purchase
    orders (purchase order, supplier, line, SKU)."""

    partitions: int
    claims: Sequence[tuple[str, int, int]] = ()
    purchases: Sequence[tuple[str, str, int, str]] = ()


def cases(seed: int, topic: str, count: int, world: World) -> Iterator[Case]:
    """So many cases for a topic; every kind comes up, the heavy ones rarely."""
    contracts = [contract for contract in REGISTRY.values() if contract.TOPIC.name == topic]
    examples = {type(example): json.loads(example.model_dump_json()) for example in EXAMPLES}
    rng = Random(f"{seed}/{topic}")
    for number, kind in zip(range(count), _deck(rng, contracts), strict=False):
        name, contract = kind
        data = _own(rng, examples[contract], str(number), world)
        draft = Draft(rng, contract, data, world.partitions, f"{topic}/{number}")
        CHANGES[name](draft)
        yield draft.finished(name)


def _deck(rng: Random, contracts: Sequence[MessageType]) -> Iterator[tuple[str, MessageType]]:
    """Kinds and contracts without end: each kind as often as any other, and with every contract; but three of the heavy ones in turn."""
    light = [name for name in CHANGES if name not in HEAVY]
    heavy = cycle(rng.sample(HEAVY, len(HEAVY)))
    while True:
        deck = [(name, contract) for name in light for contract in contracts] + [(next(heavy), rng.choice(contracts)) for _ in range(3)]
        rng.shuffle(deck)
        yield from (card for card in deck if _suits(*card))


def _suits(name: str, contract: MessageType) -> bool:
    if name.startswith("list: "):
        return issubclass(contract, ListedMessage)
    return name != RULE or contract.__name__ in MODEL_RULES


def _own(rng: Random, data: Any, number: str, world: World) -> Any:
    """The example under ids of the fuzzer's own, some of them new; its version rises."""
    if isinstance(data, list):
        return [_own(rng, each, number, world) for each in data]
    if not isinstance(data, dict):
        return data
    own = {name: _own(rng, value, number, world) for name, value in data.items()}
    for name in sorted(IDS & data.keys()):
        own[name] = f"fuzz-{name[:3]}-{number if rng.random() < 0.5 else rng.randrange(20)}"
    for name in sorted({"version", "promise_version", "demand_version"} & data.keys()):
        own[name] = rng.randrange(10**6)
    if {"demand_version", "order"} <= data.keys() and world.claims and rng.random() < 0.7:
        own["order"], own["line"], own["demand_version"] = rng.choice(world.claims)
    if {"purchase_order", "lines"} <= data.keys() and world.purchases and rng.random() < 0.7:
        own["purchase_order"], supplier, line, sku = rng.choice(world.purchases)
        own |= {"supplier": supplier} if "supplier" in data else {}
        own["lines"] = [{**each, "line": line, **({"sku": sku} if "sku" in each else {})} for each in own["lines"]]
    return own
