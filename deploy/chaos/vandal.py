"""Throws rubbish into the public topics, and anything that was ever said into its topic once more. None of it may have any effect."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from deploy.chaos.doors import MARK
from deploy.local.publisher import Persistent
from shared.codec import cloud_event_headers
from shared.contracts import TOPICS
from shared.contracts.base import MAX_MESSAGE_BYTES, Message
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested
from shared.contracts.suppliers import SUPPLIERS_MESSAGES, SUPPLIERS_OFFERS, GoodsReceived, OfferChanged
from shared.contracts.system import SYSTEM_CLOCK
from shared.contracts.warehouse import WAREHOUSE_EVENTS, StockCounted
from shared.settings import Settings

Headers: TypeAlias = list[tuple[str, Any]]
SOURCE = "/clients/vandal"
PAUSE_SECONDS = (0.2, 1.2)
INPUTS: Mapping[str, type[Message]] = {
    COMMERCE_ORDERS.name: OrderCancelRequested,
    WAREHOUSE_EVENTS.name: StockCounted,
    SUPPLIERS_OFFERS.name: OfferChanged,
    SUPPLIERS_MESSAGES.name: GoodsReceived,
}
"""A topic that others write, and a message on it."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that is no message. `reasons`: why it must be refused."""

    value: bytes | None
    headers: Headers
    reasons: frozenset[str]


def _with(headers: Headers, name: str, value: bytes | None) -> Headers:
    """Sets one header."""
    return [(each, value if each == name else text) for each, text in headers]


def _poison(value: bytes | None, *reasons: str, name: str = "", header: bytes | None = None) -> Callable[[Headers], Poison]:
    return lambda headers: Poison(value, _with(headers, name, header) if name else headers, frozenset(reasons))


POISONS: Mapping[str, Callable[[Headers], Poison]] = {
    "bad JSON": _poison(b'{"order": "A-1", "placed', "not_json"),
    "no JSON at all": _poison(b"\x00\xff\xfehello", "not_json"),
    "a number": _poison(b"7", "invalid"),
    "deep JSON": _poison(b"[" * 60_000, "not_json", "invalid"),
    "missing fields": _poison(b"{}", "invalid"),
    "null fields": _poison(b'{"order": null, "sku": null, "request": null, "purchase_order": null, "receipt": null}', "invalid"),
    "header that is not UTF-8": _poison(b"{}", "bad_header", name="ce_id", header=b"\xff\xfe"),
    "null header": _poison(b"{}", "bad_header", name="ce_source", header=None),
    "no type": _poison(b"{}", "missing_attribute", name="ce_type", header=b""),
    "tombstone": _poison(None, "no_data"),
    "zero bytes": _poison(b"", "no_data"),
    "a megabyte": _poison(orjson.dumps({"order": "x" * MAX_MESSAGE_BYTES}), "too_large"),
    "unknown type": _poison(b"{}", "unknown_type", name="ce_type", header=b"backorder.commerce.OrderTeleported.v1"),
    "another topic's type": _poison(b"{}", "unknown_type", name="ce_type", header=b"backorder.orders.DemandSet.v1"),
    "CloudEvents of another age": _poison(b"{}", "unknown_version", name="ce_specversion", header=b"0.3"),
    "bad time": _poison(b"{}", "bad_header", name="ce_time", header=b"yesterday"),
    "long id": _poison(b"{}", "bad_header", name="ce_id", header=b"x" * 5_000),
}
"""Every kind of engineering's list that is refused; `unknown version` depends on the topic and is made below."""


def poison(kind: str, topic: str, mark: str) -> Poison:
    """One record of this kind for this topic."""
    type_ = INPUTS[topic].TYPE
    headers: Headers = [*cloud_event_headers(type_, SOURCE, mark, datetime.now(UTC)), (MARK, mark.encode())]
    if kind == "unknown version":
        return Poison(b"{}", _with(headers, "ce_type", type_.replace(".v1", ".v9").encode()), frozenset({"unknown_version"}))
    return POISONS[kind](headers)


KINDS = (*POISONS, "unknown version")


@dataclass
class Vandal:
    """`thrown`: mark → the reasons, one of which must be given. `replayed` counts what was said once more, by topic."""

    settings: Settings
    seed: int
    thrown: dict[str, frozenset[str]] = field(default_factory=dict)
    replayed: Counter[str] = field(default_factory=Counter)

    async def rage(self, until: asyncio.Event) -> None:
        """Throws poison and replays until told to stop; every kind of poison in turn, every topic."""
        chance = random.Random(f"vandal {self.seed}")  # noqa: S311  (to be had again, not to be kept secret)
        turns = [(kind, topic) for topic in INPUTS for kind in KINDS]
        chance.shuffle(turns)
        async with Persistent(self.settings) as kafka:
            number = 0
            while not until.is_set():
                if chance.random() < 0.5:
                    kind, topic = turns[number % len(turns)]
                    number += 1
                    mark = f"p{number}"
                    thrown = poison(kind, topic, mark)
                    partition = chance.randrange(self.settings.partitions)
                    await kafka.append(topic, thrown.value, key=mark.encode(), partition=partition, headers=thrown.headers)
                    self.thrown[mark] = thrown.reasons
                else:
                    await self._replay(kafka, chance)
                with suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), chance.uniform(*PAUSE_SECONDS))

    async def _replay(self, kafka: Persistent, chance: random.Random) -> None:
        """Appends any earlier record of any topic once more, as it was, where it was."""
        topic = chance.choice([topic.name for topic in TOPICS if topic != SYSTEM_CLOCK])
        partition, where = chance.randrange(self.settings.partitions), chance.random()
        with suppress(KafkaError, TimeoutError, OSError):
            for record in await _records(self.settings, topic, partition, where, chance.randint(1, 5)):
                await kafka.append(topic, record.value, key=record.key, partition=partition, headers=record.headers)
                self.replayed[topic] += 1


async def _records(settings: Settings, topic: str, partition: int, where: float, count: int) -> Sequence[Any]:
    """Some records in a row, `where` (0 to 1) between the beginning and the end of a partition."""
    place = TopicPartition(settings.topic(topic), partition)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([place])
        begin, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
        if begin == end:
            return ()
        consumer.seek(place, begin + int(where * (end - begin)))
        found: Sequence[Any] = (await consumer.getmany(place, timeout_ms=2000, max_records=count)).get(place, ())
        return found
    finally:
        await consumer.stop()
