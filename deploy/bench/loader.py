"""Publishes what was encoded beforehand, in a process of its own: `python -m deploy.bench.loader FILE`.

It says `ready` on stdout, waits for a line on stdin, and appends at full speed or at a steady rate.
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from deploy.bench.workloads import BEGIN, SOURCE
from shared.codec import cloud_event_headers, encode, partition_of
from shared.contracts.base import Message
from shared.relay import producer
from shared.settings import Settings

AT_ONCE = 2_000
"""Records handed over in one go at full speed."""
TICK_SECONDS = 0.005
"""How evenly a steady rate comes."""


class Record(NamedTuple):
    """A record to append. `lines` counts for the rate."""

    key: bytes
    id: str
    type: str
    lines: int
    value: bytes


def write(file: Path, messages: Iterable[tuple[str, int, Message]]) -> None:
    """Encodes messages (id, lines, message) into a file."""
    with file.open("wb") as target:
        for id_, lines, message in messages:
            target.write(
                b"\t".join((message.key.encode(), id_.encode(), message.TYPE.encode(), str(lines).encode(), encode(message))) + b"\n"
            )


def read(file: Path) -> list[Record]:
    """What `write` wrote: JSON has neither tabs nor line breaks."""
    rows = (line.split(b"\t", 4) for line in file.read_bytes().splitlines())
    return [Record(key, id_.decode(), type_.decode(), int(lines), value) for key, id_, type_, lines, value in rows]


def slices(records: Sequence[Record], lines_per_second: float) -> Iterator[tuple[float, Sequence[Record]]]:
    """When to append what: seconds from the beginning, and records. No rate (0) = all at once, in bearable pieces."""
    if not lines_per_second:
        yield from ((0.0, records[start : start + AT_ONCE]) for start in range(0, len(records), AT_ONCE))
        return
    start, lines, due = 0, 0, 0.0
    for position, record in enumerate(records):
        if lines / lines_per_second >= due + TICK_SECONDS:
            yield due, records[start:position]
            start, due = position, lines / lines_per_second
        lines += record.lines
    yield due, records[start:]


async def append(settings: Settings, topic: str, records: Sequence[Record], lines_per_second: float) -> None:
    """Appends records to the topic (its name on the broker); returns when the broker has them all."""
    kafka = producer(settings)
    await kafka.start()
    try:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, sent = monotonic(), list[asyncio.Future[Any]]()
        for due, piece in slices(records, lines_per_second):
            if (pause := began + due - monotonic()) > 0:
                await asyncio.sleep(pause)
            sent += await _send(kafka, topic, piece, settings.partitions)
        await asyncio.gather(*sent)
    finally:
        await kafka.stop()


async def _send(kafka: AIOKafkaProducer, topic: str, records: Sequence[Record], partitions: int) -> list[asyncio.Future[Any]]:
    """Hands records over as batches: one by one would take a good part of the machine away from what is measured."""
    batches: dict[int, Any] = defaultdict(kafka.create_batch)
    sent: list[asyncio.Future[Any]] = []
    for record in records:
        partition = partition_of(record.key.decode(), partitions)
        headers = cloud_event_headers(record.type, SOURCE, record.id, BEGIN)
        if batches[partition].append(key=record.key, value=record.value, timestamp=None, headers=headers) is None:
            sent.append(await kafka.send_batch(batches.pop(partition), topic, partition=partition))
            batches[partition].append(key=record.key, value=record.value, timestamp=None, headers=headers)
    sent += [await kafka.send_batch(batch, topic, partition=partition) for partition, batch in batches.items()]
    return sent


def main() -> None:
    """Append a file to a topic."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--lines-per-second", type=float, default=0.0)
    given = parser.parse_args()
    settings = Settings(kafka_bootstrap_servers=given.kafka)
    asyncio.run(append(settings, given.topic, read(given.file), given.lines_per_second))


if __name__ == "__main__":
    main()
