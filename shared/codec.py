"""CloudEvents 1.0 over Kafka: what a record says, and what is wrong with it. Binary mode out; binary and structured in.

`read` never raises for what a sender did: a record that is no message becomes a `Flaw` with a reason in plain words.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Any, NamedTuple

import uuid_utils
from aiokafka import ConsumerRecord
from aiokafka.partitioner import murmur2
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from shared import batches
from shared.contracts.base import (
    FIRST_INSTANT,
    LAST_INSTANT,
    MAX_ITEMS,
    MAX_MESSAGE_BYTES,
    REGISTRY,
    JsonObject,
    ListedMessage,
    Message,
)
from shared.contracts.orders import FieldError
from shared.explained import field_errors, not_json, sentence, shown

OUR_SOURCE = "/backorder/"
"""Sources that begin so are our own services: their ids are UUIDv7."""
MAX_ATTRIBUTE = 300
"""Characters of a CloudEvents attribute: they are indexed."""
MAX_HEADERS = 64
"""Headers of a bad record that are kept, and with MAX_ATTRIBUTE characters each: a record may carry thousands."""


@functools.lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """Kafka's own default partitioner (murmur2 of the UTF-8 key), so that any client's records of a key meet ours."""
    return int(murmur2(key.encode()) & 0x7FFF_FFFF) % partitions


def new_id() -> uuid.UUID:
    """A UUIDv7: ids of one process rise with time, so that old ones are a range."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a record, or one item of it, is no message. `reason` is a code, `detail` a sentence for the sender's engineer."""

    reason: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    data: JsonObject | None = None
    body: bytes | None = None
    """The flawed item alone, as a record of its own, when the rest of its list is good."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an item stands in the log; also what identifies one that has no readable id."""

    topic: str
    partition: int
    offset: int
    index: int = 0


class Envelope(NamedTuple):
    """A record's CloudEvents attributes (empty where unreadable) and the broker's time of it."""

    type: str
    source: str
    id: str
    time: datetime
    appended: datetime
    actor: str
    headers: tuple[tuple[str, str], ...]

    @property
    def internal(self) -> uuid.UUID | None:
        """The id as a UUID if one of our services sent this, else None."""
        if not self.source.startswith(OUR_SOURCE):
            return None
        try:
            return uuid.UUID(self.id)
        except ValueError:
            return None


class Delivery(NamedTuple):
    """One record from the log, read: its messages, each with its index, or what is wrong with it as a whole or in parts."""

    topic: str
    partition: int
    offset: int
    envelope: Envelope
    body: bytes | None
    messages: tuple[tuple[int, Message], ...]
    flaws: tuple[tuple[int, Flaw], ...]

    def content_hash(self) -> bytes:
        """A hash over the data alone: field order, white space and headers do not matter, unreadable data counts as it is."""
        content = self.messages[0][1].model_dump_json().encode() if self.messages else (self.body or b"")
        return hashlib.blake2b(content, digest_size=16).digest()


_LIST_OPENS, _LIST_CLOSES = b'{"items":', b"}"
_ATTRIBUTES = {name: f"ce_{name}" for name in ("type", "source", "id", "time", "specversion", "actor")}
"""Of a CloudEvent, each with its Kafka header."""
_LAST_MILLISECOND = int(LAST_INSTANT.timestamp() * 1000)


class _RefusedError(Exception):
    """The record as a whole is no message."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.flaw = Flaw(reason, detail)


@functools.cache
def _list_adapter(contract: type[ListedMessage]) -> TypeAdapter[Any]:
    items: Any = Annotated[list[contract], Field(max_length=MAX_ITEMS, fail_fast=True)]  # type: ignore[valid-type]
    return TypeAdapter(items)


@functools.cache
def _known_topics() -> Mapping[str, frozenset[str]]:
    accepted: dict[str, set[str]] = {}
    for name, message in REGISTRY.items():
        accepted.setdefault(message.TOPIC.name, set()).add(name)
    return {topic: frozenset(names) for topic, names in accepted.items()}


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    """A header's text; empty when it is missing. Raises _RefusedError for what is no text."""
    value = headers.get(name, b"")
    if value is None:
        raise _RefusedError("bad_header", f"header {name!r} is null; leave it out or give it a value")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _RefusedError("bad_header", f"header {name!r} is not UTF-8 text") from None


def _time(text: str, otherwise: datetime) -> datetime:
    """When it happened. Raises _RefusedError for what is no time that can be calculated with."""
    if not text:
        return otherwise
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _RefusedError("bad_header", f"ce_time is no time: write it as 2026-11-22T10:00:00Z (found {shown(text)})") from None
    if moment.tzinfo is None:
        raise _RefusedError("bad_header", f"ce_time has no time zone: end it with Z or an offset such as +01:00 (found {shown(text)})")
    if not FIRST_INSTANT <= moment <= LAST_INSTANT:
        raise _RefusedError("bad_header", f"ce_time must lie between {FIRST_INSTANT.year} and {LAST_INSTANT.year} (found {shown(text)})")
    return moment.astimezone(UTC)


def _readable_headers(record: ConsumerRecord[Any, Any]) -> tuple[tuple[str, str], ...]:
    def readable(text: bytes | str) -> str:
        if isinstance(text, str):
            text = text.encode(errors="replace")
        return text[: 4 * MAX_ATTRIBUTE].decode(errors="replace").replace("\x00", "?")[:MAX_ATTRIBUTE]

    return tuple((readable(key), readable(value or b"")) for key, value in record.headers[:MAX_HEADERS])


def _structured(value: bytes) -> tuple[dict[str, str], bytes]:
    """Attributes and data of a structured-mode event. Raises _RefusedError for what is none."""
    if not value:
        raise _RefusedError("no_data", "the record has no value; a structured CloudEvent is a JSON object")
    if len(value) > MAX_MESSAGE_BYTES:
        raise _RefusedError("too_large", _too_large(value))
    try:
        event = from_json(value)
    except ValueError as error:
        raise _RefusedError("not_json", not_json(value, str(error))) from None
    if not isinstance(event, dict):
        raise _RefusedError("invalid", f"a structured CloudEvent is a JSON object (found {shown(event)})")
    if "data" not in event:
        raise _RefusedError("no_data", "a structured CloudEvent for us carries its payload as JSON in 'data'")
    return {name: content for name, content in event.items() if isinstance(content, str)}, to_json(event["data"], inf_nan_mode="constants")


def _event(record: ConsumerRecord[Any, Any]) -> tuple[dict[str, str], bytes | None]:
    """A record's CloudEvents attributes and data. Raises _RefusedError for what is no event."""
    if unreadable := batches.problem(record.headers):
        raise _RefusedError("unreadable", unreadable)
    headers = dict(reversed(record.headers))  # of several the first counts
    if _text(headers, "content-type").lower().startswith("application/cloudevents"):
        return _structured(record.value or b"")
    return {name: _text(headers, header) for name, header in _ATTRIBUTES.items()}, record.value


def read(record: ConsumerRecord[Any, Any], topic: str) -> Delivery:
    """A record of the topic (its name without namespace) as messages and flaws. Never raises for what the sender did."""
    appended = datetime.fromtimestamp(min(max(0, record.timestamp), _LAST_MILLISECOND) / 1000, UTC)
    attributes: dict[str, str] = {}
    body: bytes | None = record.value
    time, flaw = appended, None
    try:
        attributes, body = _event(record)
        time = _time(attributes.get("time", ""), appended)
    except _RefusedError as error:
        flaw = error.flaw
    type_, source, id_, actor = (attributes.get(name, "").replace("\x00", "?") for name in ("type", "source", "id", "actor"))
    # A header may be as long as its record: what we index is bounded.
    if flaw is None and max(len(type_), len(source), len(id_), len(actor)) > MAX_ATTRIBUTE:
        flaw = Flaw("bad_header", _too_long({"ce_type": type_, "ce_source": source, "ce_id": id_, "ce_actor": actor}))
    headers = _readable_headers(record) if flaw or source[: len(OUR_SOURCE)] != OUR_SOURCE else ()
    envelope = Envelope(type_[:MAX_ATTRIBUTE], source[:MAX_ATTRIBUTE], "" if flaw else id_, time, appended, actor[:MAX_ATTRIBUTE], headers)
    messages: tuple[tuple[int, Message], ...] = ()
    flaws: tuple[tuple[int, Flaw], ...] = ()
    flaw = flaw or _missing(attributes, body)
    if flaw is not None:
        flaws = ((0, flaw),)
    elif body is not None:
        messages, flaws = decode(type_, topic, body)
    return Delivery(topic, record.partition, record.offset, envelope, body, messages, flaws)


def decode(type_: str, topic: str, body: bytes) -> tuple[tuple[tuple[int, Message], ...], tuple[tuple[int, Flaw], ...]]:
    """The data of a record as indexed messages and flaws."""
    contract = REGISTRY.get(type_)
    if contract is None or contract.TOPIC.name != topic:
        return (), ((0, _unknown(type_, topic)),)
    if len(body) > MAX_MESSAGE_BYTES:
        return (), ((0, Flaw("too_large", _too_large(body))),)
    if issubclass(contract, ListedMessage):
        return _items(contract, body)
    try:
        return ((0, contract.model_validate_json(body)),), ()
    except ValidationError as error:
        return (), ((0, _invalid(error, body)),)


def _too_long(attributes: Mapping[str, str]) -> str:
    name, length = max(((name, len(text)) for name, text in attributes.items()), key=itemgetter(1))
    return f"{name} may have at most {MAX_ATTRIBUTE} characters (found {length})"


def _too_large(body: bytes) -> str:
    return f"the message has {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}: send less at once"


def _missing(attributes: Mapping[str, str], body: bytes | None) -> Flaw | None:
    missing = [f"ce_{name}" for name in ("type", "source", "id", "specversion") if not attributes.get(name)]
    if missing:
        return Flaw("missing_attribute", f"missing CloudEvents attributes: {', '.join(missing)} (in structured mode without the ce_)")
    if attributes["specversion"] != "1.0":
        return Flaw("unknown_version", f"ce_specversion {shown(attributes['specversion'])} is not known; send '1.0'")
    if not body:
        return Flaw("no_data", "the record has no value; a message carries its data as JSON")
    return None


def _unknown(type_: str, topic: str) -> Flaw:
    accepted = sorted(_known_topics().get(topic, frozenset()))
    stem = type_.rpartition(".")[0]
    same = [name for name in accepted if stem and name.rpartition(".")[0] == stem]
    if same:
        return Flaw("unknown_version", f"{type_!r} is not a version that this system knows; send one of {same}")
    return Flaw("unknown_type", f"{type_!r} is not known on topic {topic!r}; it takes {accepted}")


def _invalid(error: ValidationError, body: bytes) -> Flaw:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Flaw("not_json", not_json(body, first["ctx"]["error"]))
    errors = field_errors(error)
    data = from_json(body)
    return Flaw("invalid", sentence(errors), errors, data if isinstance(data, dict) else None)


def _items(contract: type[ListedMessage], body: bytes) -> tuple[tuple[tuple[int, Message], ...], tuple[tuple[int, Flaw], ...]]:
    """The items of a list record; when some are invalid the others still count."""
    if body.startswith(_LIST_OPENS) and body.endswith(_LIST_CLOSES):
        try:
            listed = _list_adapter(contract).validate_json(body[len(_LIST_OPENS) : -len(_LIST_CLOSES)])
        except ValidationError:
            pass  # find out below which items are to blame
        else:
            return tuple(enumerate(listed)), ()
    try:
        record = from_json(body)
    except ValueError as error:
        return (), ((0, Flaw("not_json", not_json(body, str(error)))),)
    items = record.get("items") if isinstance(record, dict) else None
    if not isinstance(items, list):
        return (), ((0, Flaw("invalid", 'items: expected a JSON object {"items": […]}')),)
    if len(items) > MAX_ITEMS:
        return (), ((0, Flaw("too_many_items", f"items: the list has {len(items)} entries, the limit is {MAX_ITEMS}: send several lists")),)
    messages: list[tuple[int, Message]] = []
    flaws: list[tuple[int, Flaw]] = []
    for index, item in enumerate(items):
        text = to_json(item, inf_nan_mode="constants")
        try:
            messages.append((index, contract.model_validate_json(text)))
        except ValidationError as error:
            errors = field_errors(error)
            flaws.append((index, Flaw("invalid", sentence(errors), errors, body=_LIST_OPENS + b"[" + text + b"]" + _LIST_CLOSES)))
    return tuple(messages), tuple(flaws)


class Record(NamedTuple):
    """A record to publish: where it goes, its identity and its data. `key` None for lists (their partition is explicit)."""

    topic: str
    partition: int
    key: bytes | None
    id: uuid.UUID
    type: str
    time: datetime
    causation: str
    actor: str
    value: bytes


class TooLargeError(Exception):
    """A message would not fit into a record."""


def encode(message: Message) -> bytes:
    """A message's data as a record carries it. Raises TooLargeError beyond MAX_MESSAGE_BYTES, so that the broker has nothing to refuse."""
    value = encode_items(type(message), [message]) if isinstance(message, ListedMessage) else message.model_dump_json().encode()
    if len(value) > MAX_MESSAGE_BYTES:
        raise TooLargeError(f"{type(message).__name__} for {message.key!r} has {len(value)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    return value


def encode_items(contract: type[ListedMessage], items: Sequence[ListedMessage]) -> bytes:
    """The data of a list record."""
    return _LIST_OPENS + _list_adapter(contract).dump_json(list(items)) + _LIST_CLOSES


def cloud_event_headers(type_: str, source: str, id_: str, time: datetime, causation: str = "", actor: str = "") -> list[tuple[str, bytes]]:
    """The Kafka headers of a binary-mode event."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type_.encode()),
        ("ce_time", time.astimezone(UTC).isoformat().encode()),
        ("content-type", b"application/json"),
    ]
    if causation:
        headers.append(("ce_causation", causation.encode()))
    if actor:
        headers.append(("ce_actor", actor.encode()))
    return headers
