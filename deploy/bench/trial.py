"""One run of one workload by one system, whoever that is: what goes in, when all of it is done, what it took."""

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import NamedTuple, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from deploy.bench import log
from deploy.bench.loader import write
from deploy.bench.measure import Spent, metered
from deploy.bench.place import PARTITIONS, Place, go, loader
from deploy.bench.result import Sample
from deploy.bench.workloads import Case, identified, receipts
from deploy.local.records import records
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.contracts.orders import ORDERS_EVENTS
from shared.contracts.suppliers import SUPPLIERS_MESSAGES, ReceivedLine

MICROSECONDS, MILLISECONDS = 1_000_000, 1_000


class Contender(Protocol):
    """A running system that knows the SKUs and the stock of a case. The names of its topics begin with its namespace; those for
    orders, receipts and decisions are then named as ours."""

    place: Place
    namespace: str

    def pids(self) -> dict[str, int]:
        """Its processes."""
        ...

    async def done(self) -> None:
        """Returns when all that was published is applied, and all that followed from it is published and durable."""
        ...

    async def buy(self) -> Sequence[tuple[str, Sequence[ReceivedLine]]]:
        """The purchase orders for what waits, all of them issued: their names, and what is to come on each."""
        ...


class _Run(NamedTuple):
    """`began` = the broker's time of the first append (ms), `seconds` = from then to the end of it all."""

    began: int
    seconds: float
    spent: Spent
    appended: list[ConsumerRecord]


async def orders(who: Contender, case: Case, file: Path, lines_per_second: float = 0.0) -> Sample:
    """From the first order's append to the end of it all. The file holds the case's orders; no rate (0) = as fast as it goes."""
    run = await _measured(who, COMMERCE_ORDERS.name, file, lines_per_second)
    lines = {order.order: [line.line for line in order.lines] for order in case.orders}
    asked = {record.key.decode(): record.timestamp for record in run.appended}
    return _sample(case.lines, run, log.order_waits(asked, await _decided(who, run.began), lines))


async def restock(who: Contender, case: Case, file: Path) -> Sample:
    """Lets all lines of a case without stock wait, has their units bought, and measures from the first receipt's append until all
    is allocated and told."""
    async with loader(who.place, f"{who.namespace}.{COMMERCE_ORDERS.name}", file) as loading:
        await go(loading)
    await who.done()
    arriving = file.with_suffix(".receipts")
    write(arriving, identified(receipts(await who.buy())))
    run = await _measured(who, SUPPLIERS_MESSAGES.name, arriving)
    arrived = {sku: record.timestamp for record in run.appended for sku in log.skus(record)}
    asked = {(order.order, line.line): arrived[line.sku] for order in case.orders for line in order.lines}
    return _sample(case.lines, run, log.waits(asked, await _decided(who, run.began)))


async def _measured(who: Contender, topic: str, file: Path, lines_per_second: float = 0.0) -> _Run:
    name = f"{who.namespace}.{topic}"
    pids = {**who.pids(), **who.place.servers}
    async with (
        loader(who.place, name, file, lines_per_second) as loading,
        metered(pids, who.place.database_url, who.place.logs, f"{who.namespace}.") as spent,
    ):
        await go(loading)
        await who.done()
        ended = time()
    appended = await records(who.place.kafka, _places(name))
    began = min(record.timestamp for record in appended)
    return _Run(began, ended - began / MILLISECONDS, spent, appended)


async def _decided(who: Contender, since: int) -> dict[log.LineKey, int]:
    found = await records(who.place.kafka, _places(f"{who.namespace}.{ORDERS_EVENTS.name}"))
    return log.first_told(log.told(found), since)


def _sample(lines: int, run: _Run, waited: Sequence[int]) -> Sample:
    spent = run.spent
    return Sample(
        lines=lines,
        seconds=run.seconds,
        latency_ms=log.latency(waited),
        cpu_us_per_line={name: seconds / lines * MICROSECONDS for name, seconds in spent.cpu_seconds.items()},
        wal_bytes_per_line=spent.wal_bytes / lines,
        kafka_bytes_per_line=None if spent.kafka_bytes is None else spent.kafka_bytes / lines,
        memory_mb=spent.memory_mb,
    )


def _places(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
