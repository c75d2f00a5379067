"""A database that was restored from a backup is, once it has read back, where the story ends that was told of its orders, and
goes on telling it there: each event once, in order."""

from collections import Counter, defaultdict, deque
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.orders.handlers import OrderInvalid
from services.orders.state import State
from shared.contracts.base import Message
from shared.contracts.orders import (
    CancelRefused,
    DemandSet,
    FieldError,
    LineCancelled,
    LineEvent,
    LineShipped,
    OrderCompleted,
    OrderRejected,
)
from shared.service import Send
from tests.unit.orders.desk import SERVICE, Desk, cancel, kept, of, placed, shipped
from tests.unit.orders.test_properties import Inventory, check, check_settled, check_story

assert SERVICE.read_back
READ_BACK = SERVICE.read_back


def restored(backup: State, lost: Desk, heard: list[Message], told: list[Message], at_once: int = 3) -> Desk:
    """The backup, once it has read back what was told, and heard again what was heard since."""
    desk = Desk()
    desk.state, desk.number = kept(backup), lost.number + 1_000_000
    for topic in READ_BACK.topics:
        messages = [message for message in (*told, *heard) if message.TOPIC is topic and type(message) in READ_BACK.routes]
        for start in range(0, len(messages), at_once):
            desk.tell(*messages[start : start + at_once], service=READ_BACK)
    return desk


def go_on(desk: Desk) -> list[Message]:
    """What has waited is done; answers what is told then."""
    timers, desk.timers = list(desk.timers.values()), {}
    return desk.tell(*timers)


class Disaster:
    """A run in which the database is lost and restored as it was; events that had not been published by then were never told. The
    warehouse ships what it was told to pick."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.desk, self.inventory = Desk(), Inventory({"S1": random.randint(0, 6)}, frozenset({"S2"} if random.random() < 0.3 else ()))
        self.commerce: deque[Message] = deque()
        self.demands: deque[DemandSet] = deque()
        self.answers: deque[Message] = deque()
        self.heard: list[Message] = []
        self.confirmed: Counter[tuple[str, int]] = Counter()
        self.published = self.facts = 0
        self.back_up()

    def run(self, steps: int, backed_up: int, struck: int) -> None:
        """So many steps, with a backup before one and a disaster before another; then everything settles."""
        acts = [self.place, self.cancel, self.pick, self.pick, self.receive, self.claim, self.claim, self.commit, self.commit, self.publish]
        for step in range(steps):
            if step == backed_up:
                self.back_up()
            if step == struck:
                self.strike()
            self.random.choice(acts)()
        while self.demands or self.answers or self.commerce:
            self.claim()
            self.commit()

    def story(self) -> list[Send]:
        """What was told of orders, or is to be."""
        return [send for send in self.desk.sent if not isinstance(send.message, DemandSet)]

    def place(self) -> None:
        self.commerce.append(placed(self.random.choice("ABC"), 4, 3))

    def cancel(self) -> None:
        self.facts += 1
        part = self.random.choice([(), (1,), (2,), (1, 2), (2, 1)])
        self.commerce.append(cancel(f"r{self.facts}", self.random.choice("ABC"), *part))

    def pick(self) -> None:
        order, line = self.random.choice("ABC"), self.random.randint(1, 2)
        told = [send.message for send in self.story()[: self.published] if send.message.key == order]
        amounts = [change.amounts for event in of(LineEvent, told) for change in event.lines if change.line == line]
        ready = amounts[-1].allocated + amounts[-1].shipped - self.confirmed[order, line] if amounts else 0
        if ready > 0:
            self.facts += 1
            units = self.random.randint(1, ready)
            self.confirmed[order, line] += units
            self.commerce.append(shipped(f"p{self.facts}", (line, units), order=order))

    def receive(self) -> None:
        self.answers.extend(self.inventory.receive(f"S{self.random.randint(1, 2)}", self.random.randint(1, 4)))

    def claim(self) -> None:
        while self.demands:
            self.answers.extend(self.inventory.take(self.demands.popleft()))

    def commit(self) -> None:
        batch = [self.answers.popleft() for _ in range(self.random.randint(0, len(self.answers)))]
        batch += [self.commerce.popleft() for _ in range(self.random.randint(0, len(self.commerce)))]
        self.heard += batch
        self.demands.extend(of(DemandSet, self.desk.tell(*batch)))

    def publish(self) -> None:
        self.published = self.random.randint(self.published, len(self.story()))

    def back_up(self) -> None:
        self.backup, self.heard_before, self.told_before = kept(self.desk.state), len(self.heard), len(self.story())

    def strike(self) -> None:
        # What stood in the outbox of the backup is published by the restored one.
        self.published = max(self.published, self.told_before)
        told = self.story()[: self.published]
        since = [send.message for send in told[self.told_before :]]
        self.desk = restored(self.backup, self.desk, self.heard[self.heard_before :], since, self.random.randint(1, 4))
        for event in of(LineEvent, since):
            for change in event.lines:
                line = self.desk.state.lines[event.order][change.line]
                assert (line.version, line.shipped, line.cancelled) >= (change.version, change.amounts.shipped, change.amounts.cancelled)
        go_on(self.desk)
        self.demands.extend(of(DemandSet, [send.message for send in self.desk.sent]))
        self.desk.sent = told + self.desk.sent


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40))
def test_whatever_is_lost_the_story_is_told_to_its_end_once(seed: int, backed_up: int, lost: int) -> None:
    disaster = Disaster(Random(seed))
    disaster.run(100, backed_up, backed_up + lost)
    check(disaster.desk, disaster.inventory)
    check_settled(disaster.desk, disaster.inventory)
    check_story(disaster.desk)
    check_told_once(disaster.story())


def check_told_once(story: list[Send]) -> None:
    """Each parcel and wish counted once, and each event tells what changed since the one before it."""
    facts = Counter(
        (type(event), event.order, event.shipment if isinstance(event, LineShipped) else event.request)
        for event in of(LineEvent, [send.message for send in story])
        if isinstance(event, LineShipped) or (isinstance(event, LineCancelled) and event.request)
    )
    assert set(facts.values()) <= {1}
    before: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for event in of(LineEvent, [send.message for send in story]):
        for change in event.lines:
            was, now = before[event.order, change.line], Counter(change.amounts.model_dump())
            rose = {"LineAllocated": "allocated", "LineShipped": "shipped", "LineCancelled": "cancelled"}.get(type(event).__name__)
            for amount in ("shipped", "cancelled"):
                assert now[amount] - was[amount] == (change.quantity if amount == rose else 0)
            if rose == "allocated":
                assert now["allocated"] - was["allocated"] == change.quantity
            before[event.order, change.line] = now


def lost_and_restored(*transactions: list[Message], backed_up: int = 0) -> tuple[Desk, Desk, list[Message]]:
    """A desk that lost all but the first transactions, the one restored in its place, and what that one tells when it has read back."""
    lost, backup, told = Desk(), State(), 0
    for number, messages in enumerate(transactions):
        if number == backed_up:
            backup, told = kept(lost.state), len(lost.sent)
        lost.tell(*messages)
    heard = [message for messages in transactions[backed_up:] for message in messages]
    desk = restored(backup, lost, heard, [send.message for send in lost.sent[told:]])
    assert desk.sent == []
    return lost, desk, go_on(desk)


def test_an_order_is_known_as_it_was_accepted() -> None:
    lost, desk, told = lost_and_restored([placed("A", 5, 2)])
    assert desk.state.orders == lost.state.orders
    assert [type(message) for message in told] == [DemandSet, DemandSet]
    assert desk.tell(placed("A", 5, 2)) == []
    desk.tell(placed("A", 5, 3))
    assert [refused.reason for refused in desk.refused] == ["order_exists"]


def test_parcels_and_wishes_that_were_answered_are_known() -> None:
    start = Desk()
    start.tell(placed("A", 5))
    answer = start.served(3)
    wish, parcel = cancel("r1", "A", 1, 1), shipped("p1", (1, 2))
    lost, desk, told = lost_and_restored([placed("A", 5)], [answer], [wish, parcel])
    assert lost.amounts() == desk.amounts() == (0, 1, 1, 2, 1)
    assert [(type(message), message.wanted, message.shipped) for message in of(DemandSet, told)] == [(DemandSet, 4, 2)]
    assert len(told) == 1
    assert desk.tell(wish, parcel) == []
    desk.tell(shipped("p1", (1, 1)))
    assert [refused.reason for refused in desk.refused] == ["shipment_exists"]


def test_answers_behind_what_was_told_tell_nothing_and_take_nothing_back() -> None:
    start = Desk()
    start.tell(placed("A", 5))
    answers: list[Message] = [start.served(2), start.served(5)]
    lost, desk, _ = lost_and_restored([placed("A", 5)], answers[:1], answers[1:], backed_up=1)
    assert lost.amounts() == desk.amounts() == (0, 5, 0, 0, 0)
    for answer in answers:
        assert desk.tell(answer) == []
        assert desk.amounts() == (0, 5, 0, 0, 0)


def test_a_parcel_is_known_by_its_units_however_they_were_listed() -> None:
    start = Desk()
    start.tell(placed("A", 5, 5))
    answers: list[Message] = [start.served(5), start.served(5, line=2)]
    parcel = shipped("p1", (2, 1), (1, 2), (2, 3))
    _, desk, _ = lost_and_restored([placed("A", 5, 5)], answers, [parcel])
    assert desk.tell(parcel) == []
    assert desk.refused == []
    desk.tell(shipped("p1", (2, 4), (1, 1)))
    assert [refused.reason for refused in desk.refused] == ["shipment_exists"]


def test_a_parcel_of_which_a_part_was_refused_is_reported_again() -> None:
    start = Desk()
    start.tell(placed("A", 5))
    lost, desk, _ = lost_and_restored([placed("A", 5)], [start.served(1)], [shipped("p1", (1, 2))])
    assert [refused.reason for refused in lost.refused] == ["shipped_more_than_allocated"]
    assert [refused.reason for refused in desk.refused] == ["shipment_exists"]
    assert desk.amounts() == lost.amounts()


def test_a_wish_that_came_too_late_is_not_answered_twice() -> None:
    lost, desk, told = lost_and_restored([placed("A", 1)], [cancel("r1")], [cancel("r2")])
    assert isinstance(lost.sent[-1].message, CancelRefused)
    assert {type(message) for message in told} == {DemandSet}
    assert desk.tell(cancel("r1"), cancel("r2")) == []


def test_what_is_wrong_with_an_order_is_said_once() -> None:
    wrong = OrderInvalid(order="A", errors=(FieldError(field="lines", error="missing"),))
    lost = Desk()
    lost.tell(wrong)
    desk = restored(State(), lost, [], [send.message for send in lost.sent])
    assert desk.tell(wrong, service=READ_BACK) == []
    assert [type(message) for message in Desk().tell(wrong, service=READ_BACK)] == [OrderRejected]


def test_an_order_that_was_completed_when_the_rest_of_its_story_was_cut_off_is_completed() -> None:
    lost = Desk()
    lost.tell(placed("A", 1))
    lost.tell(cancel("r1"))
    assert isinstance(lost.sent.pop(-2).message, OrderCompleted)
    desk = restored(State(), lost, [placed("A", 1), cancel("r1")], [send.message for send in lost.sent])
    assert [type(message) for message in go_on(desk)] == [OrderCompleted, DemandSet]
