"""What holds whatever happens (docs: the properties 1, 3, 4, 5 of the domain)."""

import random
from collections import Counter, defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.inventory.app import service
from services.inventory.domain import Demand, MovementKind, promises
from shared.contracts.inventory import DemandRefused, DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.orders import DemandSet
from shared.contracts.purchasing import StockReceived
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted
from shared.settings import Settings
from tests.unit.inventory.house import TODAY, House, counted, day, defined, demand, received, supply
from tests.unit.inventory.world import SKUS, World, batches

SERVICE = service(Settings())


class Reference:
    """A second implementation that shares nothing with the first: every line in memory, no counters, unit by unit."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[str, Any]] = {}
        self.in_house: Counter[str] = Counter()
        self.policy: dict[str, BackorderPolicy] = {}

    def apply(self, messages: list[Any]) -> None:
        waited = {order: self.open(line) for order, line in self.lines.items()}
        for message in sorted(messages, key=lambda message: SERVICE.topics.index(message.TOPIC)):
            match message:
                case SkuDefined():
                    self.policy[message.sku] = message.backorder
                case StockCounted():
                    self.in_house[message.sku] += message.on_hand
                case StockReceived():
                    self.in_house[message.sku] += message.good
                case DemandSet():
                    self.claim(message)
        for sku in SKUS:
            self.serve(sku)
        for order, line in self.lines.items():
            if self.policy.get(line["sku"]) is not BackorderPolicy.ALLOW:
                line["refused"] += max(0, self.open(line) - waited.get(order, 0))

    def claim(self, message: DemandSet) -> None:
        new = {"served": 0, "shipped": 0, "refused": 0, "sku": message.sku, "at": message.queued_at}
        line = self.lines.setdefault(message.order, new)
        self.in_house[message.sku] -= message.shipped - line["shipped"]
        line["wanted"], line["shipped"] = message.wanted, message.shipped
        while line["served"] > max(line["wanted"], line["shipped"]):
            line["served"] -= 1
        while line["refused"] > line["wanted"] - line["served"]:
            line["refused"] -= 1

    def serve(self, sku: str) -> None:
        while self.in_house[sku] > sum(line["served"] - line["shipped"] for line in self.lines.values() if line["sku"] == sku):
            queue = [(line["at"], order) for order, line in self.lines.items() if line["sku"] == sku and self.open(line)]
            if not queue:
                return
            self.lines[min(queue)[1]]["served"] += 1

    @staticmethod
    def open(line: dict[str, Any]) -> int:
        return int(line["wanted"] - line["served"] - line["refused"])

    def result(self) -> dict[str, tuple[int, int]]:
        return {order: (line["served"], line["refused"]) for order, line in self.lines.items()}


def check_balances(house: House) -> None:
    """Conservation: what is counted twice agrees (domain property 1, and the audit's own checks)."""
    for sku, stock in house.skus.items():
        lines = [line for line in house.demands.values() if line.sku == sku]
        moved = [movement for movement in house.ledger if movement.sku == sku]
        assert stock.on_hand == sum(movement.on_hand for movement in moved)
        assert stock.allocated == sum(movement.allocated for movement in moved) == sum(line.served - line.shipped for line in lines)
        assert stock.waiting == sum(line.wanted - line.served - line.refused for line in lines) == sum(each.waiting for each in moved)
        assert all(line.open == sum(each.waiting for each in moved if each.order == line.order) for line in lines)
        assert stock.received_total == sum(movement.on_hand for movement in moved if movement.kind is MovementKind.RECEIVED)
        assert stock.free >= 0
        assert not (stock.free and stock.waiting)
        queue = house.queue(sku)
        assert stock.needed_by == (queue[0].ordered_at if queue else None)
        assert all(line.shipped <= line.served <= line.wanted for line in lines)
        assert all(line.ship_by is None for line in lines if not line.open)


def check_entries(house: House, waited: dict[str, int]) -> None:
    """What the last transaction wrote about who waits: net, at most one entry a line beside what it was given, and no entry
    for a line that was served at once or refused."""
    entries = [entry for entry, number in zip(house.ledger, house.numbers, strict=True) if number == house.number and entry.order]
    for order in {str(entry.order) for entry in entries}:
        own = [entry for entry in entries if entry.order == order]
        change = house.demands[order, 1].open - waited.get(order, 0)
        queued = [entry for entry in own if entry.kind in {MovementKind.BACKORDERED, MovementKind.CANCELLED}]
        assert sum(entry.waiting for entry in own) == change
        assert len(queued) <= 1
        assert all(entry.waiting > 0 for entry in queued if entry.kind is MovementKind.BACKORDERED)
        assert all(
            entry.waiting < 0 and entry.undoes is MovementKind.BACKORDERED for entry in queued if entry.kind is MovementKind.CANCELLED
        )
        assert all(-entry.allocated <= entry.waiting <= 0 for entry in own if entry.kind is MovementKind.ALLOCATED)
        assert all(entry.waiting == 0 for entry in own if entry.kind in {MovementKind.WITHDRAWN, MovementKind.SHIPPED})


def check_fifo(house: House, movements_before: int) -> None:
    """Nobody received units in this transaction while an earlier line goes on waiting (domain property 4)."""
    for movement in house.ledger[movements_before:]:
        if movement.kind is MovementKind.ALLOCATED:
            served = house.demands[str(movement.order), int(movement.line or 0)]
            assert all(served.place <= line.place for line in house.queue(movement.sku))


@settings(max_examples=100, deadline=None)
@given(batches)
def test_every_prefix_serves_as_the_second_implementation_does(steps):
    house, reference = House(), Reference()
    world = World(house)
    for batch in steps:
        messages, movements = world.messages(batch), len(house.ledger)
        waited = {line.order: line.open for line in house.demands.values()}
        house.apply(*messages)
        reference.apply(messages)
        assert house.refusals == []
        assert {order: (line.served, line.refused) for (order, _), line in house.demands.items()} == reference.result()
        check_balances(house)
        check_entries(house, waited)
        check_fifo(house, movements)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_what_was_told_last_is_what_is(steps):
    """Whoever keeps the newest of every level knows the whole state; every new demand version is answered, once, and nothing
    else is told without need."""
    house = House()
    world = World(house)
    answers: dict[str, tuple[Any, ...]] = {}
    asked: defaultdict[str, set[int]] = defaultdict(set)
    shortages: dict[str, tuple[Any, ...]] = {}
    shown: dict[str, tuple[Any, ...]] = {}
    for batch in steps:
        messages = world.messages(batch)
        house.apply(*messages)
        claims = {
            message.order for message in messages if isinstance(message, DemandSet) and message.demand_version not in asked[message.order]
        }
        for message in messages:
            if isinstance(message, DemandSet):
                asked[message.order].add(message.demand_version)
        told = {each.order: (each.served, each.ship_by, each.promise_version, each.demand_version) for each in house.told(DemandServed)}
        assert len(told) == len(house.told(DemandServed))
        assert claims <= told.keys()
        assert all(told[order] != answers.get(order) for order in told)
        answers |= told
        shortages |= {each.sku: (each.waiting, each.needed_by, each.received_total) for each in house.told(ShortageChanged)}
        shown |= {each.sku: (each.available, each.backorderable, each.next_date) for each in house.told(StockLevelChanged)}
        lines = {order: line for (order, _), line in house.demands.items()}
        assert answers == {
            order: (line.served, line.ship_by, line.promise_version, line.demand_version) for order, line in lines.items()
        }  # fmt: skip
        assert {each.order: (each.quantity, each.demand_version) for each in house.told(DemandRefused)} == {
            order: (lines[order].refused, lines[order].demand_version) for order in claims if lines[order].refused
        }  # fmt: skip
        assert all(shortages.get(sku, (0, None, 0)) == stock.shortage for sku, stock in house.skus.items())
        assert all(shown.get(sku) == stock.shown for sku, stock in house.skus.items())


@settings(max_examples=60, deadline=None)
@given(batches)
def test_after_supply_was_rescheduled_the_queue_has_the_promises_of_its_places(steps):
    house = House()
    world = World(house)
    for batch in steps:
        house.apply(*world.messages(batch))
        for sku, limit in house.reads.items():
            if limit is None:
                queue = house.queue(sku)
                supplies = [each for each in house.supplies.values() if each.sku == sku]
                assert [line.ship_by for line in queue] == promises(0, [line.open for line in queue], supplies, TODAY)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_the_head_of_the_queue_is_all_that_a_decision_needs(steps):
    """Reading whole queues instead of their heads decides the same (but for promises, which only a reschedule moves)."""

    class Thorough(House):
        def queue(self, sku: str = "A") -> list[Demand]:
            class All(list[Demand]):
                def __getitem__(self, _: Any) -> Any:
                    return list(self)

            return All(super().queue(sku))

    house, thorough = House(), Thorough()
    world = World(house)
    for batch in steps:
        messages = world.messages(batch)
        house.apply(*messages)
        thorough.apply(*messages)
        assert thorough.demands == house.demands
        assert thorough.skus == house.skus
        assert thorough.ledger == house.ledger


levels = st.permutations(
    [
        *(demand("O1", wanted, version) for version, wanted in enumerate((5, 3, 2), start=2)),
        *(demand("O2", 6 - version, version, shipped=version - 1) for version in (2, 3)),
        *(demand("O3", wanted, version, sku="B") for version, wanted in enumerate((7, 4), start=1)),
        *(supply(units, day(version), version) for version, units in ((1, 4), (2, 9), (3, 6))),
        *(supply(3, when, version, "P-2") for version, when in ((1, day(9)), (2, None))),
    ]
)


@settings(max_examples=100, deadline=None)
@given(levels, st.integers(0, 10**6))
def test_levels_converge_in_whatever_order_and_how_often_they_come(permuted, seed):
    """Domain property 5; the first claims are known, because who is heard of first is served first."""

    def house() -> House:
        return House().apply(defined(), counted(10), demand("O1", 6), demand("O2", 6), demand("O4", 3))

    in_order = house().apply(*sorted(permuted, key=lambda message: message.version))
    twice = permuted + random.Random(seed).choices(permuted, k=5)
    shuffled = house().apply(*twice)
    assert shuffled.demands == in_order.demands
    assert shuffled.supplies == in_order.supplies
    assert shuffled.skus == in_order.skus
    assert shuffled.refusals == in_order.refusals == []
    before = (dict(shuffled.demands), dict(shuffled.skus), dict(shuffled.supplies), list(shuffled.ledger))
    assert shuffled.apply(*twice).sent == []
    assert (shuffled.demands, shuffled.skus, shuffled.supplies, shuffled.ledger) == before
    check_balances(shuffled)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_receipts_and_counts_that_come_again_book_nothing(steps):
    house = House()
    world = World(house)
    facts: list[Any] = []
    for batch in steps:
        messages = world.messages(batch)
        house.apply(*messages)
        facts += [message for message in messages if isinstance(message, StockReceived | StockCounted)]
    booked = {sku: stock._replace(next_date=None) for sku, stock in house.skus.items()}
    house.apply(*facts)
    assert len(house.refusals) == sum(isinstance(fact, StockCounted) for fact in facts)
    assert house.sent == []
    assert {sku: stock._replace(next_date=None) for sku, stock in house.skus.items()} == booked


def test_one_sku_touched_a_hundred_times_in_a_batch_sends_each_level_once():
    house = House().apply(defined(), *(demand(f"O{number}", 2) for number in range(50)))
    cancels = [demand(f"O{number}", 1, 2) for number in range(0, 50, 2)]
    receipts = [received(1, f"R-{number}") for number in range(30)]
    newcomers = [demand(f"O{number}", 1) for number in range(50, 95)]
    house.apply(*cancels, *receipts, *newcomers)
    assert len(house.told(ShortageChanged)) == 1
    assert len({told.order for told in house.told(DemandServed)}) == len(house.told(DemandServed))
    check_balances(house)
    check_fifo(house, 0)
