"""The world around a running system, as the flow tests play it: a shop, a supplier, a dock, over the public contracts only."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.local import system
from deploy.local.home import Home
from shared.auth import Role, key_for
from shared.codec import cloud_event_headers, encode, read
from shared.contracts.base import Message
from shared.contracts.commerce import Customer, OrderedLine, OrderPlaced
from shared.contracts.purchasing import PURCHASING_ORDERS, PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived, OfferChanged, ReceivedLine
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted
from shared.relay import producer
from shared.settings import Settings

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str = "", seconds: float = 60) -> T:
    """The answer, as soon as there is one; fails, saying what was awaited, when there is none in time."""
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await ask()):
                await asyncio.sleep(0.05)
            return answer
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s in vain for {what or ask}") from None


@dataclass(frozen=True)
class Outside:
    """Whoever stands outside of the system `home`."""

    home: Home
    settings: Settings
    kafka: AIOKafkaProducer
    http: httpx.AsyncClient

    def name(self, stem: str) -> str:
        """An id that no other test uses."""
        return f"{stem}-{secrets.token_hex(3)}"

    def key(self, role: Role, name: str) -> dict[str, str]:
        """The header by which a client shows its key."""
        return {"Authorization": f"Bearer {key_for(self.settings.api_secret, role, name)}"}

    def url(self, service: str) -> str:
        """Where a service's first instance answers."""
        return f"http://127.0.0.1:{self.home.port(f'{service}-1')}"

    async def publish(self, *messages: Message, ids: Iterable[str] | None = None, source: str = "/clients/test") -> None:
        """Appends the messages in this order, each under the given or a new id."""
        for message, id_ in zip(messages, ids or (secrets.token_hex(8) for _ in messages), strict=True):
            headers = cloud_event_headers(message.TYPE, source, id_, datetime.now(UTC))
            await self.raw(message.TOPIC.name, message.key.encode(), encode(message), headers)

    async def raw(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, Any]]) -> tuple[int, int]:
        """Appends a record as it is; answers its partition and offset."""
        where = await self.kafka.send_and_wait(self.settings.topic(topic), value, key=key, headers=headers)
        return where.partition, where.offset

    async def stock(self, sku: str, on_hand: int, policy: BackorderPolicy = BackorderPolicy.ALLOW, **offers: int) -> None:
        """Defines and counts a SKU, with offers by supplier: their packs, delivery the same day."""
        now = datetime.now(UTC)
        terms = [
            OfferChanged(supplier=supplier, sku=sku, price=Decimal(number), currency="EUR", pack=pack, minimum=pack, lead_days=0)
            for number, (supplier, pack) in enumerate(offers.items(), 1)
        ]
        await self.publish(
            *terms, SkuDefined(sku=sku, backorder=policy), StockCounted(count=self.name("count"), sku=sku, on_hand=on_hand, counted_at=now)
        )

        async def known() -> bool:
            answer = await self.http.get(f"{self.url('inventory')}/skus/{sku}")
            return answer.status_code == 200 and answer.json()["on_hand"] == on_hand

        await eventually(known, f"SKU {sku}")

    def order(self, *lines: tuple[str, int], order: str | None = None) -> OrderPlaced:
        """An order of (SKU, quantity) lines."""
        return OrderPlaced(
            order=order or self.name("O"),
            placed_at=datetime.now(UTC),
            customer=Customer(id="C-1", name="Ann Lee", email="ann@example.com", time_zone="Europe/London"),
            currency="EUR",
            lines=tuple(
                OrderedLine(line=number, sku=sku, quantity=quantity, unit_price=Decimal("2.50"))
                for number, (sku, quantity) in enumerate(lines, 1)
            ),
        )

    async def line(self, order: str, line: int = 1, **amounts: int) -> dict[str, Any]:
        """The line, once its amounts are as given."""

        async def found() -> dict[str, Any] | None:
            answer = await self.http.get(f"{self.url('orders')}/orders/{order}")
            if answer.status_code != 200:
                return None
            lines = [each for each in answer.json()["lines"] if each["line"] == line]
            return lines[0] if lines and all(lines[0]["amounts"][name] == units for name, units in amounts.items()) else None

        return await eventually(found, f"line {order}/{line} with {amounts}")

    async def timeline(self, order: str) -> list[str]:
        """The names of what was told about an order, in order."""
        answer = await self.http.get(f"{self.url('orders')}/orders/{order}/timeline")
        return [entry["type"].split(".")[-2] if "." in entry["type"] else entry["type"] for entry in answer.json()]

    async def issued(self, sku: str, besides: Iterable[str] = ()) -> PurchaseOrderIssued:
        """The purchase order that was issued for a SKU, other than those given."""

        async def found() -> PurchaseOrderIssued | None:
            for message in await self.messages(PURCHASING_ORDERS.name):
                if (
                    isinstance(message, PurchaseOrderIssued)
                    and message.purchase_order not in besides
                    and any(line.sku == sku for line in message.lines)
                ):
                    return message
            return None

        return await eventually(found, f"a purchase order for {sku}")

    async def messages(self, topic: str) -> list[Message]:
        """Every message of a topic, partition by partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_bootstrap_servers, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [TopicPartition(self.settings.topic(topic), number) for number in range(self.settings.partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, 0)
            found: list[Message] = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [message for record in records for _, message in read(record, topic).messages]
            return found
        finally:
            await consumer.stop()

    def receipt(self, purchase: PurchaseOrderIssued, **good: int) -> GoodsReceived:
        """Everything of a purchase order arrives, or so many good units by SKU."""
        return GoodsReceived(
            receipt=self.name("R"),
            purchase_order=purchase.purchase_order,
            received_at=datetime.now(UTC),
            lines=tuple(
                ReceivedLine(line=line.line, sku=line.sku, good=good.get(line.sku, line.quantity) if good else line.quantity)
                for line in purchase.lines
                if not good or line.sku in good
            ),
        )

    async def rows(self, service: str, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """What a service's database answers."""
        connection = await asyncpg.connect(self.settings.dsn(service))
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def dead_letter(self, service: str, reason: str, **where: Any) -> dict[str, Any]:
        """The dead letter with this reason and these columns, once it is there."""
        conditions = "".join(f' AND "{column}" = ${number}' for number, column in enumerate(where, 2))

        async def found() -> dict[str, Any] | None:
            rows = await self.rows(service, f"SELECT * FROM runtime.dead_letter WHERE reason = $1{conditions}", reason, *where.values())
            return rows[0] if rows else None

        return await eventually(found, f"a dead letter {reason} with {where} in {service}")


@asynccontextmanager
async def outside(home: Home) -> AsyncIterator[Outside]:
    """Opens the doors of a running system."""
    settings = system.settings(home)
    kafka = producer(settings)
    await kafka.start()
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            yield Outside(home, settings, kafka, http)
    finally:
        await kafka.stop()


def mails(home: Home) -> Path:
    """Where the local mailbox keeps what was sent."""
    return home.mail
