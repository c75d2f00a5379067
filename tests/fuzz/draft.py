"""A message about to be changed, the record that it becomes, and what must come of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from shared.codec import cloud_event_headers, partition_of
from shared.contracts.base import ListedMessage, MessageType
from tests.contract.examples import AT
from tests.fuzz.wire import Headers, Wire

SOURCE = "/clients/fuzz"
PARSED = {"bad_header", "missing_attribute", "unknown_type", "unknown_version", "no_data", "not_json", "invalid", "too_large",
          "too_many_items", "unreadable", "id_reused"}  # fmt: skip
"""Reasons for which a record, or an item of it, is no message."""


@dataclass(frozen=True)
class Verdict:
    """What must come of a record. Refused: exactly one dead letter, of item `index`, with this reason, whose text has these
    words. Fine: nothing is wrong with it as a message (a rule may still refuse it). Neither: either, but never anything else."""

    fine: bool = False
    reason: str = ""
    words: tuple[str, ...] = ()
    index: int = 0


FINE, EITHER = Verdict(fine=True), Verdict()


def refused(reason: str, *words: str, index: int = 0) -> Verdict:
    """Must be refused for this reason, in these words."""
    return Verdict(reason=reason, words=words, index=index)


@dataclass(frozen=True)
class Case:
    """A record and what must come of it; `kind` is the class of its mutation."""

    kind: str
    contract: MessageType
    wire: Wire
    verdict: Verdict


@dataclass
class Draft:
    """A message about to be changed: its data (of one item, if it travels in lists), body, headers, key and partition."""

    rng: Random
    contract: MessageType
    data: Any
    partitions: int
    id: str
    headers: Headers = ()
    body: bytes | None = b""
    key: bytes | None = None
    partition: int = 0
    timestamp: int | None = None
    verdict: Verdict = FINE

    def __post_init__(self) -> None:
        self.headers = list(cloud_event_headers(self.contract.TYPE, SOURCE, self.id, AT, actor="fuzz"))
        key = str(self.data[self.contract.KEY])
        self.partition = partition_of(key, self.partitions)
        self.key = None if self.listed else key.encode()
        self.say(self.data)

    @property
    def listed(self) -> bool:
        """Whether it travels in lists."""
        return issubclass(self.contract, ListedMessage)

    def say(self, data: Any) -> None:
        """Sets the body to this data."""
        self.body = json.dumps({"items": [data]} if self.listed else data, ensure_ascii=self.rng.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )

    def header(self, name: str, value: bytes | None) -> None:
        """Replaces a header."""
        self.headers = [(key, value if key == name else content) for key, content in self.headers]

    def finished(self, kind: str) -> Case:
        """The case."""
        return Case(kind, self.contract, Wire(self.partition, self.key, self.body, self.headers, self.timestamp), self.verdict)


Change = Callable[[Draft], None]
