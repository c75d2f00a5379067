"""Batches as the broker hands them out, read so that no sender can exhaust this process or stop a partition.

A broker bounds a batch as it is sent, packed, and looks neither at what it unpacks to nor at the names of headers. aiokafka
unpacks it whole (32 kB of zstd may be 1 GB), hands over records by number, not by size, and fails for ever at a header name
that is not UTF-8, with the whole poll. `guard` puts the classes of this module in place of those that its fetcher uses.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

MAX_UNPACKED = 16 * 1024 * 1024
"""Bytes that a batch may unpack to: sixteen times what the broker takes of a batch that is not packed."""
MAX_POLLED = 4 * 1024 * 1024
"""Bytes of one partition after which a poll takes no further record of it."""

_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_CODEC_MASK = 0x07
_FULL = "buffer"
"""What every codec speaks of when there is no more room."""
_XERIAL = b"\x82SNAPPY\x00"
_LENGTH_AT, _ATTRIBUTES_AT, _HEAD = 8, 21, 61
_BEFORE_LENGTH = 12
"""Base offset and the length itself, which does not count them."""
_UNPACKERS = {_GZIP: cramjam.gzip.decompress_into, _LZ4: cramjam.lz4.decompress_into, _ZSTD: cramjam.zstd.decompress_into}

_room = memoryview(mmap.mmap(-1, MAX_UNPACKED))
"""Where batches are unpacked, one after the other; only what was ever used of it takes memory."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for all records of a batch that cannot be read. The only header says why: its value is text, as no header of a
    record is (see `problem`)."""

    offset: int
    timestamp: int
    timestamp_type: int
    headers: tuple[tuple[str, Any], ...]
    key: bytes | None = None
    value: bytes | None = None
    checksum: int | None = None


def problem(headers: tuple[tuple[str, Any], ...]) -> str | None:
    """Why the record is unreadable, if it is."""
    return headers[0][1] if headers and isinstance(headers[0][1], str) else None


def guard() -> None:
    """Makes every consumer of this process read batches in this way."""
    fetcher.MemoryRecords = _Records
    fetcher.FetchResult = _Result


class _Records:
    """The batches of a fetched chunk."""

    def __init__(self, chunk: bytes) -> None:
        self._chunk = memoryview(chunk)
        self._records = MemoryRecords(chunk)
        self._at = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        begins = self._at
        (length,) = struct.unpack_from(">i", self._chunk, begins + _LENGTH_AT)
        self._at = begins + _BEFORE_LENGTH + length
        return _Batch(batch, self._chunk[begins : self._at]) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch:
    """One batch: what aiokafka says of it, and its records, unpacked here."""

    def __init__(self, batch: DefaultRecordBatch, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        batch, raw = self._batch, self._raw
        if batch.compression_type:
            try:
                raw = memoryview(_plain(raw, batch.compression_type))
            except cramjam.DecompressionError as error:
                yield self._unreadable(str(error))
                return
            batch = DefaultRecordBatch(bytes(raw))
        done = 0
        try:
            for record in batch:
                yield record
                done += 1
        except (UnicodeDecodeError, CorruptRecordException):
            # Perhaps only a header's name: read again, with names that may be anything.
            yield from islice(_leniently(raw), done, None)

    def _unreadable(self, error: str) -> Unreadable:
        first, last = self._batch.base_offset, self._batch.next_offset - 1
        why = f"unpacks to more than {MAX_UNPACKED} bytes; send less at once" if _FULL in error else f"cannot be unpacked: {error}"
        said = f"the batch of offsets {first} to {last} {why}"
        return Unreadable(last, self._batch.max_timestamp, self._batch.timestamp_type, (("unreadable", said),))


class _Result(fetcher.FetchResult):  # type: ignore[misc]
    """What was fetched of one partition, handed over by size as well."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        taken: list[Any] = []
        size = 0
        for record in self._partition_records:
            taken.append(record)
            size += len(record.value or b"")
            if len(taken) == max_records or size >= MAX_POLLED:
                self._update_position()
                return taken
        self._update_position()
        self._partition_records = None
        return taken


def _plain(raw: memoryview, codec: int) -> bytes:
    """The batch as it would be if it had not been packed. Raises DecompressionError if it is too large, or no such thing."""
    packed = bytes(raw[_HEAD:])
    size = _unpack_snappy(packed) if codec == _SNAPPY else _UNPACKERS[codec](packed, _room)
    head = bytearray(raw[:_HEAD])
    struct.pack_into(">i", head, _LENGTH_AT, _HEAD - _BEFORE_LENGTH + size)
    (attributes,) = struct.unpack_from(">h", head, _ATTRIBUTES_AT)
    struct.pack_into(">h", head, _ATTRIBUTES_AT, attributes & ~_CODEC_MASK)
    return bytes(head) + bytes(_room[:size])


def _unpack_snappy(packed: bytes) -> int:
    """Snappy as Java writes it, in blocks with a header each, or as a whole; answers the size."""
    if not packed.startswith(_XERIAL):
        return int(cramjam.snappy.decompress_raw_into(packed, _room))
    at, size = 16, 0
    while at < len(packed):
        ends = at + 4 + int.from_bytes(packed[at : at + 4])
        size += int(cramjam.snappy.decompress_raw_into(packed[at + 4 : ends], _room[size:]))
        at = ends
    return size


class _AnyText(bytearray):
    """Bytes whose parts decode whatever they are."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _AnyText(found) if isinstance(place, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  (that is the point)
        return super().decode(encoding, "replace")


def _leniently(raw: memoryview) -> Iterator[Any]:
    """The records of a batch that is not packed; names of headers that are no text are made some."""
    batch = _DefaultRecordBatchPy(raw)
    batch._buffer = _AnyText(raw)  # noqa: SLF001  (aiokafka offers no other way)
    return iter(batch)
