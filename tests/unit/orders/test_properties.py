"""What holds for orders under every schedule: the numbered properties of the domain (2, 3, 5, 11, 13), against a small inventory.

The inventory here is the other side of the contract, as simple as can be: one stock per SKU, first come first served, every
claim answered. Messages wait in two queues, as topics do; a schedule decides who is next and where a transaction is cut.
"""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shared.contracts.base import Message
from shared.contracts.inventory import DemandRefused, DemandServed
from shared.contracts.orders import (
    CancelReason,
    DemandSet,
    LineAllocated,
    LineCancelled,
    LineEvent,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
)
from tests.unit.orders.desk import Desk, cancel, of, placed, shipped


@dataclass
class Claim:
    sku: str
    wanted: int
    shipped: int
    version: int
    demand_version: int
    served: int = 0


@dataclass
class Inventory:
    """Who gets what; `denied` SKUs may not wait."""

    stock: dict[str, int]
    denied: frozenset[str]
    claims: dict[tuple[str, int], Claim] = field(default_factory=dict)
    number: int = 0

    def take(self, demand: DemandSet) -> list[Message]:
        """Takes a level and answers it."""
        key = (demand.order, demand.line)
        claim = self.claims.setdefault(key, Claim(demand.sku, 0, 0, 0, -1))
        if demand.version < claim.version:
            return []
        asks = demand.demand_version > claim.demand_version
        claim.wanted, claim.shipped, claim.version, claim.demand_version = (
            demand.wanted, demand.shipped, demand.version, demand.demand_version,
        )  # fmt: skip
        claim.served = min(claim.served, claim.wanted)
        return self.allocate(demand.sku, key if asks else None)

    def receive(self, sku: str, units: int) -> list[Message]:
        """Books a receipt."""
        self.stock[sku] = self.stock.get(sku, 0) + units
        return self.allocate(sku, None)

    def allocate(self, sku: str, asking: tuple[str, int] | None) -> list[Message]:
        self.number += 1
        mine = {key: claim for key, claim in self.claims.items() if claim.sku == sku}
        free = self.stock.get(sku, 0) - sum(claim.served for claim in mine.values())
        answers: list[Message] = []
        for (order, line), claim in mine.items():
            units = min(free, claim.wanted - claim.served)
            claim.served += units
            free -= units
            short = claim.wanted - claim.served
            if sku in self.denied and short:
                answers.append(
                    DemandRefused(
                        order=order, line=line, quantity=short, reason=CancelReason.NOT_BACKORDERABLE, demand_version=claim.demand_version
                    )
                )
            if units or (order, line) == asking:
                answers.append(
                    DemandServed(order=order, line=line, served=claim.served, demand_version=claim.demand_version, version=self.number)
                )
        return answers


def check(desk: Desk, inventory: Inventory) -> None:
    """What holds at every commit."""
    for order in desk.state.orders.values():
        lines = desk.state.lines[order.order].values()
        assert order.open_lines == sum(line.open > 0 for line in lines)
        assert (order.completed_at is not None) == (order.open_lines == 0)
        for line in lines:
            five = (line.pending, line.allocated, line.backordered, line.shipped, line.cancelled)
            assert min(five) >= 0, five
            assert sum(five) == line.ordered, five
            assert line.served <= line.wanted
            claim = inventory.claims.get((order.order, line.line))
            assert max(line.served, line.shipped) <= (claim.served if claim else 0), "orders calls allocated what inventory does not hold"


def check_settled(desk: Desk, inventory: Inventory) -> None:
    """What holds when nothing is under way: both sides agree."""
    for order, lines in desk.state.lines.items():
        for line in lines.values():
            claim = inventory.claims[order, line.line]
            assert (line.wanted, line.shipped, line.served) == (claim.wanted, claim.shipped, claim.served), "not settled"
            assert line.pending == 0
            assert not (line.sku in inventory.denied and line.backordered)


def check_story(desk: Desk) -> None:
    """What was told is complete, once, and in order."""
    told: dict[tuple[str, int], list[tuple[LineEvent, int]]] = {}
    for send in desk.sent:
        assert send.cause
        if isinstance(send.message, LineEvent):
            for change in send.message.lines:
                assert sum(change.amounts.model_dump(exclude={"ordered"}).values()) == change.amounts.ordered
                told.setdefault((send.message.order, change.line), []).append((send.message, change.quantity))
                assert change.version == len(told[send.message.order, change.line])
    for order, lines in desk.state.lines.items():
        for line in lines.values():
            events = told.get((order, line.line), [])
            assert line.version == len(events)
            assert sum(units for event, units in events if isinstance(event, LineShipped)) == line.shipped
            assert sum(units for event, units in events if isinstance(event, LineCancelled)) == line.cancelled
    completed = [event.order for event in desk.sent_of(OrderCompleted)]
    assert sorted(completed) == sorted(order.order for order in desk.state.orders.values() if order.completed_at)
    accepted = [event.order for event in desk.sent_of(OrderAccepted)]
    assert sorted(accepted) == sorted(desk.state.orders)


ORDERS, LINES, UNITS = st.sampled_from(["A", "B", "C"]), st.integers(1, 2), st.integers(1, 4)


class Schedule(RuleBasedStateMachine):
    """Facts and answers come in any order, and transactions take any part of what waits."""

    @initialize(stock=st.integers(0, 6), deny=st.booleans())
    def begin(self, stock: int, deny: bool) -> None:
        self.desk = Desk()
        self.inventory = Inventory({"S1": stock}, frozenset({"S2"} if deny else ()))
        self.commerce: deque[Message] = deque()
        self.demands: deque[DemandSet] = deque()
        self.answers: deque[Message] = deque()

    @rule(order=ORDERS)
    def place(self, order: str) -> None:
        self.commerce.append(placed(order, 4, 3))

    @rule(request=st.integers(0, 9), order=ORDERS, part=st.none() | st.tuples(LINES, UNITS | st.none()))
    def cancel(self, request: int, order: str, part: tuple[int, int | None] | None) -> None:
        self.commerce.append(cancel(f"r{request}", order, *(part or ())))

    @rule(parcel=st.integers(0, 9), order=ORDERS, line=LINES, units=UNITS)
    def ship(self, parcel: int, order: str, line: int, units: int) -> None:
        self.commerce.append(shipped(f"p{parcel}", (line, units), order=order))

    @rule(line=LINES, units=UNITS)
    def receive(self, line: int, units: int) -> None:
        self.answers.extend(self.inventory.receive(f"S{line}", units))

    @precondition(lambda self: self.demands)
    @rule(count=st.integers(1, 3))
    def claim(self, count: int) -> None:
        for _ in range(min(count, len(self.demands))):
            self.answers.extend(self.inventory.take(self.demands.popleft()))

    @rule(answers=st.integers(0, 5), facts=st.integers(0, 5))
    def commit(self, answers: int, facts: int) -> None:
        batch = [self.answers.popleft() for _ in range(min(answers, len(self.answers)))]
        batch += [self.commerce.popleft() for _ in range(min(facts, len(self.commerce)))]
        self.demands.extend(of(DemandSet, self.desk.tell(*batch)))
        check(self.desk, self.inventory)

    def teardown(self) -> None:
        """Lets everything settle: then both sides agree, and the whole story has been told."""
        if not hasattr(self, "desk"):
            return
        while self.demands or self.answers or self.commerce:
            self.commit(len(self.answers), len(self.commerce))
            while self.demands:
                self.answers.extend(self.inventory.take(self.demands.popleft()))
        check_settled(self.desk, self.inventory)
        check_story(self.desk)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@given(st.lists(st.sampled_from(["order", "cancel", "some", "ship", "answer"]), max_size=8), st.integers(1, 3))
def test_the_same_facts_under_new_ids_change_nothing(steps: list[str], repeats: int) -> None:
    facts = {
        "order": placed("A", 4, 3),
        "cancel": cancel("r1", "A", 1),
        "some": cancel("r2", "A", 2, 2),
        "ship": shipped("p1", (1, 1), (2, 1)),
    }
    once, often = Desk(), Desk()
    for desk, times in ((once, 1), (often, repeats)):
        desk.tell(facts["order"])
        for step in dict.fromkeys(steps):
            messages = [desk.served(2, line=1)] if step == "answer" else [facts[step]]
            desk.tell(*messages * times)
            if step != "answer":
                for _ in range(times - 1):
                    desk.number -= 1  # the same journal numbers, so that the states can be compared
                    desk.tell(*messages)
    assert often.state.lines == once.state.lines
    assert [send.message for send in often.sent] == [send.message for send in once.sent]


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_large_quantities_and_zero_shares_obey_the_same_rules(ordered: int, served: int, units: int) -> None:
    desk = Desk()
    desk.tell(placed("A", ordered))
    desk.tell(desk.served(served))
    before = desk.amounts()
    desk.tell(cancel("r1", "A", 1, units))
    after = desk.amounts()
    assert sum(before) == sum(after) == ordered
    assert after[4] == min(units, ordered)
    # Property 3: what was not set aside is given up first; set-aside units only beyond that.
    assert before[1] - after[1] == max(0, after[4] - before[2])
    allocated = sum(change.quantity for event in desk.sent_of(LineAllocated) for change in event.lines)
    assert allocated == min(served, ordered)
