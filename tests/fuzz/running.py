"""Bad messages through a running system: whatever is sent, nothing crashes, nothing is held up, and every refusal is explained.

Topics that outsiders write come first, and then the whole audit must be clean. Then those that only our services write: what is
valid there makes services believe what none of them said, so the audit must only be clean of what one service sees alone.
"""

import asyncio
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import httpx
import orjson
import psutil
from aiokafka import AIOKafkaProducer

from deploy.local import processes, system
from deploy.local.agreement import AGREEMENTS, SUMS
from deploy.local.audit import audit
from deploy.local.home import Home
from deploy.local.settled import wait_settled
from shared.batches import MAX_UNPACKED
from shared.contracts import REGISTRY, TOPICS
from shared.contracts.base import JsonObject
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined
from shared.settings import SERVICES
from tests.flows.outside import Outside, eventually, outside
from tests.fuzz.cases import World, cases
from tests.fuzz.draft import Case, refused
from tests.fuzz.loop import PREFIX, loop
from tests.fuzz.verdicts import Letter, wrong
from tests.fuzz.wire import CODECS, Wire, batched, client, send

_DOCUMENTS = Path(__file__).parents[2] / "docs" / "contracts" / "asyncapi"
READERS = {
    operation.removeprefix("receive."): name
    for name in SERVICES
    for operation in json.loads((_DOCUMENTS / f"{name}.json").read_text(encoding="utf-8"))["operations"]
    if operation.startswith("receive.")
}
"""Topic → the service that reads it."""
OUTSIDE = {contract.TOPIC.name for type_, contract in REGISTRY.items() if type_.split(".")[1] not in SERVICES}
"""Topics that others than our services write."""
ROUND = 1_000
"""Cases per topic between two good stories."""
FAST = {
    # Windows of seconds instead of hours: the rules are the same.
    "BACKORDER_CONSOLIDATION_HOURS": "0.0003",
    "BACKORDER_DIGEST_MINUTES": "0.01",
    "BACKORDER_PARTITIONS": "4",
}
_LETTERS = 'SELECT id, topic, partition, "offset", index, reason, detail, state FROM runtime.dead_letter WHERE id > $1 ORDER BY id'
_ISSUED = """
    SELECT purchase_order, supplier, line, sku FROM purchase_line JOIN purchase_order USING (purchase_order)
    WHERE status = 'issued' AND sku = ANY($1)"""
_TOGETHER = {*AGREEMENTS, *SUMS}
"""Checks that compare what services told one another."""

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass
class Topic:
    """What was sent to a topic, and what became of it: refusals by reason, cases by kind."""

    sent: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass
class Health:
    """What the services answered when asked whether they live, and what memory they took, in MiB."""

    asked: int = 0
    slowest_ms: float = 0.0
    before: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """The outcome. `texts`: one of each kind and reason, to be read by people."""

    seed: int
    count: int
    topics: dict[str, Topic]
    loops: int = 0
    seconds: float = 0.0
    health: Health = field(default_factory=Health)
    violations: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def json(self) -> JsonObject:
        """All of it."""
        found: JsonObject = orjson.loads(orjson.dumps(self))
        return found


@asynccontextmanager
async def started(home: Home) -> AsyncIterator[Home]:
    """A system of the fuzzer's own, gone afterwards."""
    await asyncio.to_thread(system.up, home, namespace=f"z{secrets.token_hex(3)}", extra_env=FAST)
    try:
        yield home
    finally:
        await asyncio.to_thread(system.down, home)


async def fuzz(home: Home, seed: int, count: int, topics: Sequence[str], say: Callable[[str], None]) -> Report:
    """Sends so many cases to each of the topics of a running system."""
    report, begun = Report(seed, count, {topic: Topic() for topic in topics}), monotonic()
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(outside(home))
        bootstrap = world.settings.kafka_bootstrap_servers
        kafka = {codec: await stack.enter_async_context(client(bootstrap, codec)) for codec in CODECS}
        watch = asyncio.create_task(_watch(world, report))
        run = _Run(world, kafka, report, say, patience=60 + count / 50)
        for phase in (OUTSIDE, READERS.keys() - OUTSIDE):
            chosen = [topic for topic in topics if topic in phase]
            if chosen:
                await run.phase(chosen, whole_audit=phase is OUTSIDE)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        report.health.after = _memory(home)
    report.seconds = round(monotonic() - begun, 1)
    return report


@dataclass
class _Run:
    world: Outside
    kafka: dict[str | None, AIOKafkaProducer]
    report: Report
    say: Callable[[str], None]
    patience: float
    """Seconds that anything may take."""
    sent: dict[Place, Case] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0))
    """Per service the last dead letter that has been looked at."""

    async def phase(self, topics: Sequence[str], *, whole_audit: bool) -> None:
        """All cases for these topics, in rounds; after each, good stories, and a look at what became of the cases."""
        partitions = self.world.settings.partitions
        known = World(partitions, purchases=await self._purchases()) if whole_audit else World(partitions, await self._claims())
        streams = {topic: cases(self.report.seed, topic, self.report.count, known) for topic in topics}
        rng = Random(self.report.seed)
        for start in range(0, self.report.count, ROUND):
            for topic, stream in streams.items():
                await self._send(rng, topic, list(islice(stream, ROUND)))
                await self._bomb(rng, topic)
            await self._in_transactions(topics)
            try:
                await asyncio.gather(*(loop(self.world, partition, self.patience) for partition in range(partitions)))
                self.report.loops += partitions
            except AssertionError as error:
                self._violated(f"held up: {error}")
                return
            await self._judge()
            self.say(
                f"{', '.join(topics)}: {min(start + ROUND, self.report.count)} of {self.report.count}, {len(self.report.violations)} violations"
            )
        await self._audit(whole=whole_audit)

    async def _send(self, rng: Random, topic: str, chosen: Iterable[Case]) -> None:
        places: dict[int, list[Case]] = defaultdict(list)
        for case in chosen:
            places[case.wire.partition].append(case)
            self.report.topics[topic].sent += 1
            self.report.topics[topic].kinds[case.kind] += 1
        for partition, those in places.items():
            left = iter(those)
            for batch in batched(case.wire for case in those):
                first = await send(self.kafka[rng.choice(CODECS)], self.world.settings.topic(topic), batch)
                for offset, case in enumerate(islice(left, len(batch)), first):
                    self.sent[topic, partition, offset] = case

    async def _bomb(self, rng: Random, topic: str) -> None:
        """A batch that unpacks to more than a batch may."""
        contract = next(contract for contract in REGISTRY.values() if contract.TOPIC.name == topic)
        bomb = Wire(rng.randrange(self.world.settings.partitions), None, bytes(MAX_UNPACKED * rng.choice((1, 4))), ())
        codec = rng.choice(("gzip", "lz4", "zstd"))
        offset = await send(self.kafka[codec], self.world.settings.topic(topic), [bomb])
        self.sent[topic, bomb.partition, offset] = Case(f"bomb, {codec}", contract, bomb, refused("unreadable", str(MAX_UNPACKED)))

    async def _in_transactions(self, topics: Sequence[str]) -> None:
        """Records of Kafka transactions, ended and given up: their markers are records that nobody ever sees."""
        kafka = AIOKafkaProducer(
            bootstrap_servers=self.world.settings.kafka_bootstrap_servers, transactional_id=f"fuzz-{secrets.token_hex(3)}"
        )
        async with kafka:
            for topic in topics:
                contract = next(contract for contract in REGISTRY.values() if contract.TOPIC.name == topic)
                for ends in (kafka.commit_transaction, kafka.abort_transaction):
                    wire = Wire(0, None, b"x", [("ce_specversion", b"1.0")])
                    await kafka.begin_transaction()
                    where: Any = await kafka.send_and_wait(
                        self.world.settings.topic(topic), wire.value, partition=wire.partition, headers=wire.headers
                    )
                    await ends()
                    verdict = refused("missing_attribute", "ce_type")
                    self.sent[topic, where.partition, where.offset] = Case("in a transaction", contract, wire, verdict)

    async def _judge(self) -> None:
        """Compares the new dead letters with what must have come of the cases, once everything has been read."""
        under_way = await wait_settled(self.world.settings, self.patience)
        if under_way:
            self._violated(f"not settled after {self.patience:.0f} s: {under_way}")
        letters: dict[Place, list[Letter]] = defaultdict(list)
        for service in SERVICES:
            for row in await self.world.rows(service, _LETTERS, self.read[service]):
                self.read[service] = row["id"]
                place = (row["topic"], row["partition"], row["offset"])
                letters[place].append(Letter(row["index"], row["reason"], row["detail"], row["state"]))
        for place, case in self.sent.items():
            found = sorted(letters.pop(place, []), key=lambda letter: letter.index)
            self._count(place[0], case, found)
            if problem := wrong(case, found):
                self._violated(f"{'/'.join(map(str, place))}: {problem}")
        for place, found in letters.items():
            self._violated(f"{'/'.join(map(str, place))}: a good message was refused: {found[0]}")
        self.sent.clear()

    def _count(self, topic: str, case: Case, found: Sequence[Letter]) -> None:
        self.report.topics[topic].refused += bool(found)
        for letter in found:
            self.report.topics[topic].reasons[letter.reason] += 1
            self.report.texts.setdefault(f"{case.kind} / {letter.reason}", letter.detail)

    async def _audit(self, *, whole: bool) -> None:
        found = await audit(self.world.settings, wait=self.patience)
        for violation in found.violations():
            concerns_us = whole or violation["check"] not in _TOGETHER or PREFIX in str(violation)
            if concerns_us:
                self._violated(f"audit: {violation}")

    async def _claims(self) -> list[tuple[str, int, int]]:
        """Lines that wait, for inventory's answers to be about."""
        sku = self.world.name("fuzz-sku")
        orders = [self.world.order((sku, 5), order=f"fuzz-claim-{number}") for number in range(20)]
        await self.world.publish(SkuDefined(sku=sku, backorder=BackorderPolicy.ALLOW), *orders)
        waiting = "SELECT order_id, line, demand_version FROM line WHERE sku = $1 AND answered"

        async def answered() -> list[dict[str, Any]] | None:
            rows = await self.world.rows("orders", waiting, sku)
            return rows if len(rows) == len(orders) else None

        return [tuple(row.values()) for row in await eventually(answered, f"claims on {sku}", self.patience)]

    async def _purchases(self) -> list[tuple[str, str, int, str]]:
        """Lines of issued purchase orders, for suppliers and the dock to be wrong about."""
        skus = [self.world.name("fuzz-sku") for _ in range(20)]
        for number, sku in enumerate(skus):
            offer = OfferChanged(supplier=f"fuzz-supplier-{number % 10}", sku=sku, price=Decimal(1), currency="EUR", lead_days=3)
            order = self.world.order((sku, 100), order=f"fuzz-wants-{number}")
            await self.world.publish(offer, SkuDefined(sku=sku, backorder=BackorderPolicy.ALLOW), order)

        async def issued() -> list[dict[str, Any]] | None:
            rows = await self.world.rows("purchasing", _ISSUED, skus)
            return rows if len(rows) == len(skus) else None

        return [tuple(row.values()) for row in await eventually(issued, "purchase orders", self.patience)]

    def _violated(self, what: str) -> None:
        self.report.violations.append(what)
        self.say(what)


async def _watch(world: Outside, report: Report) -> None:
    """Asks every service again and again whether it lives, and what memory it takes."""
    health = report.health
    health.before = health.peak = _memory(world.home)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        while True:
            for service in SERVICES:
                asked = monotonic()
                try:
                    answer = (await http.get(f"{world.url(service)}/health/live")).status_code
                except httpx.HTTPError as error:
                    answer = repr(error)  # type: ignore[assignment]
                health.asked += 1
                health.slowest_ms = max(health.slowest_ms, round((monotonic() - asked) * 1000, 1))
                if answer != 200:
                    report.violations.append(f"{service} does not live: {answer}")
            now = _memory(world.home)
            health.peak = {name: max(now.get(name, 0), mib) for name, mib in health.peak.items()}
            await asyncio.sleep(0.5)


def _memory(home: Home) -> dict[str, int]:
    """Resident memory of each service, in MiB."""
    pids = {name: processes.pid_of(home, f"{name}-1") for name in SERVICES}
    return {name: psutil.Process(pid).memory_info().rss >> 20 for name, pid in pids.items() if pid}


def topics_read() -> list[str]:
    """Every topic that a service reads, in the order in which the contracts declare them."""
    return [topic.name for topic in TOPICS if topic.name in READERS]
