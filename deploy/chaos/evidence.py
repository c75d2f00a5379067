"""What is left after a run, read from the log, the databases and the mailbox: what the verdict is spoken on."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from deploy.chaos.doors import MARK
from deploy.local.databases import snapshot
from deploy.local.records import records
from shared.codec import read
from shared.contracts import TOPICS
from shared.contracts.system import SYSTEM_CLOCK
from shared.settings import SERVICES, Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the log. `source` and `id` are empty where it has none that can be read; `mark` is the one that we gave it."""

    topic: str
    partition: int
    offset: int
    appended: datetime
    source: str
    id: str
    mark: str
    type: str
    value: bytes | None

    def __str__(self) -> str:
        text = (self.value or b"").decode(errors="replace")
        return f"{self.appended:%H:%M:%S.%f} {self.topic}/{self.partition}@{self.offset} {self.type} {self.source} {self.id}: {text[:600]}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A dead letter that holds nobody up."""

    service: str
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    type: str
    source: str
    id: str
    mark: str
    body: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order's line; `version` counts its events."""

    sku: str
    ordered: int
    shipped: int
    cancelled: int
    version: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A mail that reached the mailbox: its Message-ID, and when (wall time)."""

    message_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. `inbox`: service → the outsiders' (source, id)s that it has applied. `told` of orders, purchase orders and mails:
    those that the databases say were accepted, issued, sent."""

    log: Sequence[Entry]
    inbox: dict[str, frozenset[tuple[str, str]]]
    refusals: Sequence[Refusal]
    lines: dict[tuple[str, int], Outcome]
    told: dict[str, frozenset[str]]
    mails: Sequence[Arrival]


async def gather(settings: Settings, maildir: Path) -> Evidence:
    """Reads everything of a system that has settled."""
    log, refusals, inboxes, outcomes, told = await asyncio.gather(
        read_log(settings),
        asyncio.gather(*(_refusals(settings, service) for service in SERVICES)),
        asyncio.gather(*(_inbox(settings, service) for service in SERVICES)),
        lines(settings),
        _told(settings),
    )
    return Evidence(
        log=log,
        inbox=dict(zip(SERVICES, inboxes, strict=True)),
        refusals=[refusal for found in refusals for refusal in found],
        lines=outcomes,
        told=told,
        mails=read_arrivals(maildir),
    )


async def read_log(settings: Settings) -> list[Entry]:
    """Every record of every topic but the clock's, in the order of the broker's time."""
    places = {
        TopicPartition(settings.topic(topic.name), partition): topic.name
        for topic in TOPICS
        if topic != SYSTEM_CLOCK
        for partition in range(settings.partitions)
    }
    found = await records(settings.kafka_bootstrap_servers, places)
    entries = [_entry(record, places[TopicPartition(record.topic, record.partition)]) for record in found]
    return sorted(entries, key=lambda entry: (entry.appended, entry.topic, entry.partition, entry.offset))


def _entry(record: ConsumerRecord[Any, Any], topic: str) -> Entry:
    envelope = read(record, topic).envelope
    mark = next((value.decode() for name, value in record.headers if name == MARK), "")
    return Entry(topic, record.partition, record.offset, envelope.appended, envelope.source, envelope.id, mark, envelope.type, record.value)


async def _refusals(settings: Settings, service: str) -> list[Refusal]:
    async with snapshot(settings, service) as tx:
        rows = await tx.fetch(
            'SELECT reason, detail, topic, partition, "offset", type, source, message_id, headers, body FROM runtime.dead_letter'
            " WHERE state = 'refused' ORDER BY id"
        )
    return [
        Refusal(
            service, row["reason"], row["detail"], row["topic"], row["partition"], row["offset"], row["type"], row["source"], row["message_id"],
            mark=dict(json.loads(row["headers"])).get(MARK, ""), body=(row["body"] or b"").decode(errors="replace")[:2_000],
        )
        for row in rows
    ]  # fmt: skip


async def _inbox(settings: Settings, service: str) -> frozenset[tuple[str, str]]:
    """The outsiders' ids that a service has applied."""
    async with snapshot(settings, service) as tx:
        rows = await tx.fetch("SELECT source, id FROM runtime.inbox_external")
    return frozenset((row["source"], row["id"]) for row in rows)


async def lines(settings: Settings) -> dict[tuple[str, int], Outcome]:
    """What became of every line of every order."""
    async with snapshot(settings, "orders") as tx:
        rows = await tx.fetch("SELECT order_id, line, sku, ordered, shipped, cancelled, version FROM line")
    return {(row["order_id"], row["line"]): Outcome(*list(row.values())[2:]) for row in rows}


_TOLD = {
    "OrderAccepted": ("orders", "SELECT order_id FROM orders WHERE status = 'accepted'"),
    "PurchaseOrderIssued": ("purchasing", "SELECT purchase_order FROM purchase_order WHERE status = 'issued'"),
    "NoticeSent": ("notifier", "SELECT mail_id::text FROM mail WHERE status = 'sent'"),
}
"""Message → whose table says what there must be one of it for."""


async def _told(settings: Settings) -> dict[str, frozenset[str]]:
    found = {}
    for name, (service, query) in _TOLD.items():
        async with snapshot(settings, service) as tx:
            found[name] = frozenset(row[0] for row in await tx.fetch(query))
    return found


def read_arrivals(maildir: Path) -> list[Arrival]:
    """Every mail that the local mail server took, copies included, in the order of arrival."""
    return [
        Arrival(message_from_bytes(path.read_bytes())["Message-ID"] or path.name, datetime.fromtimestamp(path.stat().st_mtime, UTC))
        for path in sorted(maildir.glob("*.eml"))
    ]
