"""Batches that a broker takes without a look: packed, packed too well, with headers whose names are no text."""

import json
from collections.abc import Sequence
from typing import Any

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from deploy.local.from_log import check
from shared import batches
from shared.codec import encode, partition_of
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.settings import Settings
from tests.fuzz import wire
from tests.integration.runtime import toy
from tests.integration.runtime.broker import Raw, publish, raw
from tests.integration.runtime.observe import becomes, query, units

CODECS = ("gzip", "snappy", "lz4", "zstd")
LETTERS = "SELECT reason, detail, body FROM runtime.dead_letter ORDER BY id"


async def append_batch(settings: Settings, records: Sequence[Raw], codec: str | None = None) -> None:
    """Appends records of one key in one batch."""
    place = partition_of("A", settings.partitions)
    async with wire.client(settings.kafka_bootstrap_servers, codec) as kafka:
        wired = [wire.Wire(place, record.key.encode(), record.value, record.headers) for record in records]
        await wire.send(kafka, settings.topic(COMMERCE_ORDERS.name), wired)


def order(units: int, id_: str, **headers: Any) -> Raw:
    return raw(toy.order("A", units), id_, headers=headers)


@pytest.mark.parametrize("codec", CODECS)
async def test_packed_batches_are_read(settings: Settings, codec: str) -> None:
    await toy.prepare(settings)
    await append_batch(settings, [order(1, "1"), order(2, "2"), order(4, "3")], codec)
    await publish(settings, (toy.order("A", 8), "4"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 15})
        assert await query(settings, toy.TOY, LETTERS) == []


async def test_a_header_whose_name_is_no_text_costs_nothing(settings: Settings) -> None:
    """aiokafka alone fails at it for ever, with everything else that it polls."""
    await toy.prepare(settings)
    await append_batch(settings, [order(1, "1"), order(2, "2", **{wire.NOT_TEXT: b"x"}), order(4, "3")])
    await publish(settings, (toy.order("A", 8), "4"), (toy.order("B", 1), "5"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 15, "B": 1})
        assert await query(settings, toy.TOY, LETTERS) == []


async def test_what_a_service_could_read_its_journal_can_be_replayed_from(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process replays it, in which no service has guarded the reading of batches."""
    await toy.prepare(settings)
    await append_batch(settings, [order(1, "1"), order(2, "2", **{wire.NOT_TEXT: b"x"}), order(4, "3")])
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 7})
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    found = await check(settings, toy.TOY, toy.STATE)
    assert found.violations == []
    assert found.checked > 0


@pytest.mark.parametrize("codec", CODECS)
async def test_a_batch_that_unpacks_to_too_much_is_refused_and_holds_nobody_up(settings: Settings, codec: str) -> None:
    await toy.prepare(settings)
    bomb = Raw("A", b"0" * (batches.MAX_UNPACKED + 1), order(1, "bomb").headers)
    await append_batch(settings, [order(1, "1")])
    await append_batch(settings, [order(2, "2"), bomb, order(4, "3")], codec)
    await publish(settings, (toy.order("A", 8), "4"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 9})
        [(reason, detail, body)] = await query(settings, toy.TOY, LETTERS)
        assert (reason, body) == ("unreadable", None)
        assert "offsets 1 to 3" in detail
        assert str(batches.MAX_UNPACKED) in detail
    # It is known by its place: another reader of the same log does not keep it again.
    await publish(settings, (toy.order("A", 16), "5"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 25})
        assert len(await query(settings, toy.TOY, LETTERS)) == 1


async def test_a_poll_is_bounded_by_size_as_well(settings: Settings) -> None:
    await toy.prepare(settings)
    value = json.dumps({**json.loads(encode(toy.order("A", 1))), "x": " " * 900_000}).encode()
    await append_batch(settings, [Raw("A", value, order(1, str(n)).headers) for n in range(15)], "zstd")
    batches.guard()
    place = TopicPartition(settings.topic(COMMERCE_ORDERS.name), partition_of("A", settings.partitions))
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers) as consumer:
        consumer.assign([place])
        consumer.seek(place, 0)
        polled = []
        while await consumer.position(place) < 15:
            polled += [len(records) for records in (await consumer.getmany(timeout_ms=200, max_records=2_000)).values()]
        assert polled == [5, 5, 5]
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 15})


def test_snappy_is_read_in_both_its_forms() -> None:
    packed = bytes(cramjam.snappy.compress_raw(b"x" * 1_000))
    assert batches._unpack_snappy(packed) == 1_000
    block = len(packed).to_bytes(4) + packed
    assert batches._unpack_snappy(b"\x82SNAPPY\x00" + bytes(8) + block + block) == 2_000
    with pytest.raises(cramjam.DecompressionError):
        batches._unpack_snappy(b"\x82SNAPPY\x00" + bytes(8) + (len(packed).to_bytes(4) + packed) * (batches.MAX_UNPACKED // 1_000 + 1))
