"""Messages from JSON lines: checked as the services check them, or, to see what they do with nonsense, as they stand."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from deploy.local.loading import Problem
from deploy.local.publisher import Publication
from shared.codec import Flaw, cloud_event_headers, decode, new_id, partition_of
from shared.contracts import REGISTRY
from shared.contracts.base import Message, MessageType
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.suppliers import GoodsReceived, PurchaseOrderAcknowledged
from shared.settings import SERVICES, Settings

SOURCE = "/clients/cli"
KINDS: dict[str, MessageType] = {"orders": OrderPlaced, "receipts": GoodsReceived}
"""What each line of a file is the data of; `messages` name their own type."""

OUTSIDE = {name: contract for name, contract in REGISTRY.items() if name.split(".")[1] not in SERVICES}
"""The messages that others than our services send."""

_IDS: dict[MessageType, Callable[[Any], str]] = {
    OrderPlaced: lambda message: message.order,
    OrderCancelRequested: lambda message: f"{message.order}/{message.request}",
    ShipmentConfirmed: lambda message: f"{message.order}/{message.shipment}",
    GoodsReceived: lambda message: message.receipt,
    PurchaseOrderAcknowledged: lambda message: f"{message.supplier}/{message.acknowledgement}",
}
"""The sender's own id of a fact is the message's id, as at the HTTP edges; other messages are new each time that they are said."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A record as it stands, whatever is wrong with it."""

    topic: str
    key: str
    type: str
    id: str
    source: str
    value: bytes


@dataclass(frozen=True, slots=True)
class _Said:
    """A line: which message it says it is, and its data."""

    type: str
    topic: str
    id: str
    source: str
    body: bytes


def read(kind: str, file: str, lines: Iterable[bytes], now: datetime) -> tuple[list[Publication], list[Problem]]:
    """The lines as messages said at `now`, and everything that is wrong with them. Blank lines do not count."""
    publications: list[Publication] = []
    problems: list[Problem] = []
    for number, line in _numbered(lines):
        said = _said(kind, line)
        if isinstance(said, _Said) and said.type not in OUTSIDE:
            said = Flaw("unknown_type", f"type: {said.type!r} is nothing that is sent from outside; expected one of {', '.join(OUTSIDE)}")
        if isinstance(said, Flaw):
            problems.append(Problem(file, number, "(whole line)", said.detail))
            continue
        messages, flaws = decode(said.type, said.topic, said.body)
        problems += [problem for _, flaw in flaws for problem in _problems(file, number, flaw)]
        publications += [Publication(now, message, said.id or id_of(message), said.source) for _, message in messages]
    return publications, problems


def read_unchecked(kind: str, file: str, lines: Iterable[bytes]) -> tuple[list[Raw], list[Problem]]:
    """The lines as records; only what names no topic is a problem."""
    records: list[Raw] = []
    problems: list[Problem] = []
    for number, line in _numbered(lines):
        said = _said(kind, line)
        if isinstance(said, Flaw):
            problems.append(Problem(file, number, "(whole line)", said.detail))
        elif not said.topic:
            problems.append(Problem(file, number, "topic", f"no topic is known for type {said.type!r}: name it"))
        else:
            key = _key(said)
            records.append(Raw(said.topic, key, said.type, said.id or key or str(new_id()), said.source, said.body))
    return records, problems


async def send_unchecked(settings: Settings, kafka: AIOKafkaProducer, records: Iterable[Raw], now: datetime) -> None:
    """Publishes records as they stand, in order."""
    for record in records:
        await kafka.send_and_wait(
            settings.topic(record.topic),
            record.value,
            key=record.key.encode(),
            partition=partition_of(record.key, settings.partitions),
            headers=cloud_event_headers(record.type, record.source, record.id, now),
        )


def id_of(message: Message) -> str:
    """The id under which a message is published: its sender's own id, else a new one."""
    own = _IDS.get(type(message))
    return own(message) if own else str(new_id())


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip())


def _said(kind: str, line: bytes) -> _Said | Flaw:
    if kind in KINDS:
        contract = KINDS[kind]
        return _Said(contract.TYPE, contract.TOPIC.name, "", SOURCE, line)
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Flaw("not_json", f"expected a JSON object: {error}")
    if not isinstance(event, dict) or not isinstance(event.get("type"), str) or "data" not in event:
        return Flaw("invalid", 'expected {"type": "…", "data": {…}}, and if you like "id", "source"')
    given = {name: str(event.get(name, "")) for name in ("id", "source", "topic")}
    topic = given["topic"] or _topic_of(event["type"])
    return _Said(event["type"], topic, given["id"], given["source"] or SOURCE, orjson.dumps(event["data"]))


def _topic_of(type_: str) -> str:
    """The topic of a type, also in a version that is not known; empty if there is none."""
    stem = type_.rpartition(".")[0]
    return next((contract.TOPIC.name for name, contract in REGISTRY.items() if name == type_ or name.rpartition(".")[0] == stem), "")


def _key(said: _Said) -> str:
    """What the record's key would be, as far as the data can be read."""
    contract = REGISTRY.get(said.type)
    try:
        data = orjson.loads(said.body)
    except orjson.JSONDecodeError:
        return ""
    return str(data.get(contract.KEY, "")) if contract and isinstance(data, dict) else ""


def _problems(file: str, number: int, flaw: Flaw) -> Iterator[Problem]:
    if not flaw.errors:
        yield Problem(file, number, "(whole line)", flaw.detail)
    yield from (Problem(file, number, wrong.field, wrong.error) for wrong in flaw.errors)
