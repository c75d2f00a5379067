"""What the programs beside ours have in common: how the bench starts them, and where they stand in the log.

    python -m tests.bench.<rival> prepare    makes tables and topics for the opening stock on stdin (JSON: SKU → units), and says,
                                             as JSON, which services there are and which topics each consumer group reads
    python -m tests.bench.<rival> SERVICE    says `ready` when it has its partitions, then works until it is ended

Whoever has acknowledged the ends of all that its groups read is done: a message is acknowledged after what follows is published.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
DATABASE = os.environ.get("DATABASE_URL", "")
NAMESPACE = os.environ.get("BENCH_NAMESPACE", "")
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "12"))

ORDERS, EVENTS, RECEIPTS = "commerce.orders", "orders.events", "suppliers.messages"
"""The topics that the bench writes or reads, named as ours."""

Stock = Mapping[str, int]
"""SKU → units on hand."""


def topic(name: str) -> str:
    """A topic's name on the broker."""
    return f"{NAMESPACE}.{name}"


def main(
    services: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    tables: Callable[[Stock], Awaitable[None]],
    serve: Callable[[str], Awaitable[None]],
    run: Any,
) -> None:
    """The command line of a rival. `groups` = consumer group → its topics, both as the rival names them; `run` runs a coroutine."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # topics that are seconds old are found at the second try
    if sys.argv[1] in services:
        run(serve(sys.argv[1]))
        return
    run(_prepare(groups, tables, orjson.loads(sys.stdin.buffer.read())))
    named = {topic(group): [topic(name) for name in names] for group, names in groups.items()}
    print(orjson.dumps({"services": list(services), "groups": named}).decode())


async def ready(consumers: Sequence[AIOKafkaConsumer]) -> None:
    """Says so when all of them have their partitions."""
    while not all(consumer.assignment() for consumer in consumers):
        await asyncio.sleep(0.01)
    print("ready", flush=True)


async def _prepare(groups: Mapping[str, Sequence[str]], tables: Callable[[Stock], Awaitable[None]], stock: Stock) -> None:
    await tables(stock)
    admin = AIOKafkaAdminClient(bootstrap_servers=KAFKA)
    await admin.start()
    names = sorted({name for every in groups.values() for name in every} | {ORDERS, EVENTS, RECEIPTS})
    stamp = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(topic(name), PARTITIONS, 1, topic_configs=stamp) for name in names])
    while any(not _usable(found) for found in await admin.describe_topics([topic(name) for name in names])):
        await asyncio.sleep(0.05)
    await admin.close()


def _usable(found: Mapping[str, Any]) -> bool:
    """Whether a topic that has just been made can be written to: its partitions have leaders."""
    partitions = found["partitions"]
    return (
        not found["error_code"]
        and len(partitions) == PARTITIONS
        and all(part["leader"] >= 0 and not part["error_code"] for part in partitions)
    )


async def connected() -> "asyncpg.Connection[Any]":
    """A connection to the rival's database."""
    return await asyncpg.connect(DATABASE)
