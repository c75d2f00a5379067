"""Records as they go over the wire, in batches of one partition: packed or not, and with what no client library would write."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
NOT_TEXT = "a-name-that-becomes-no-text"
"""A header of this name gets one that is not UTF-8, if its batch is not packed."""
BATCH_BYTES = 900_000

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Wire:
    """One record: whatever its key says, it goes to this partition."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None = None
    """Milliseconds since 1970; None = now."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 40 + len(self.value or b"") + sum(len(name) + len(value or b"") + 8 for name, value in self.headers)


def batched(records: Iterable[Wire]) -> Iterator[list[Wire]]:
    """Records of one partition in batches that a broker takes."""
    batch: list[Wire] = []
    size = 0
    for record in records:
        if batch and size + record.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += record.size
    if batch:
        yield batch


def client(bootstrap: str, codec: str | None) -> AIOKafkaProducer:
    """A producer that takes batches of any size."""
    return AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type=codec, max_batch_size=2**30, max_request_size=2**30)


async def send(kafka: AIOKafkaProducer, topic: str, records: Sequence[Wire]) -> int:
    """Appends records of one partition as one batch; answers the first one's offset."""
    batch = kafka.create_batch()
    for record in records:
        appended = batch.append(key=record.key, value=record.value, timestamp=record.timestamp, headers=list(record.headers))
        assert appended is not None
    built = bytearray(batch._build())
    packed = built[22] & 7
    if NOT_TEXT.encode() in built and not packed:
        built = built.replace(NOT_TEXT.encode(), b"\xff" * len(NOT_TEXT))
        struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
        batch._buffer = built
    sent: Any = await (await kafka.send_batch(batch, topic, partition=records[0].partition))
    return int(sent.offset)
