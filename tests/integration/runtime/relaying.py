"""Transactions and relay taken step by step, without the loops around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer

from shared import db
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.relay import Relay, producer
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import deliveries


@asynccontextmanager
async def relaying(settings: Settings) -> AsyncIterator[tuple[Relay, "asyncpg.Connection[Any]", AIOKafkaProducer]]:
    """A relay of the toy's outbox, to be taken step by step."""
    connection = await db.session(settings, "toy", "relay")
    kafka = producer(settings)
    await kafka.start()
    try:
        yield Relay(settings, "toy"), connection, kafka
    finally:
        await kafka.stop()
        await connection.close()


async def apply_all(settings: Settings) -> None:
    """The toy applies its whole topic, record by record: one transaction and one outbox row each."""
    async with toy.transactions(settings) as transactions:
        for delivery in await deliveries(settings, COMMERCE_ORDERS):
            await transactions.batch([delivery], {})
