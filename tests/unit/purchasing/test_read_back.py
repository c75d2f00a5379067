"""A database that was restored from a backup has, once it has read back, what it had, and tells no supplier anything twice."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchasing.domain import LineKey, Status, outlook
from services.purchasing.state import working_set
from shared.contracts.base import Message
from shared.contracts.purchasing import PurchaseOrderIssued, SupplyChanged
from shared.service import Effect
from tests.unit.purchasing.test_properties import Schedule
from tests.unit.purchasing.world import SERVICE, World, arrived, issued, rows_of, supply

assert SERVICE.read_back
READ_BACK = SERVICE.read_back


@dataclass(frozen=True)
class Backup:
    """The database as it was, and how much had been heard and told by then."""

    world: World
    heard: int
    sent: int

    @classmethod
    def of(cls, world: World) -> "Backup":
        return cls(copied(world), len(world.heard), len(world.sent))

    def begun(self, lost: World) -> World:
        """The backup, before it has read anything."""
        world = copied(self.world)
        world.now, world.number, world.ids = lost.now, lost.number + 1_000_000, lost.ids
        return world

    def restored(self, lost: World, random: Random) -> World:
        """The backup, once it has read again what was heard and told since, in transactions of any length."""
        world = self.begun(lost)
        effects: list[Effect] = []
        for messages in told_by_topic(lost, self):
            while messages:
                count = random.randint(1, 5)
                effects += world.apply(*messages[:count], service=READ_BACK)
                del messages[:count]
        assert not issued(effects)
        assert not supply(effects), "what stands in between is past"
        return world


def copied(world: World) -> World:
    return replace(world, state=working_set(**rows_of(world.state)), timers=dict(world.timers), heard=[], sent=[])


def told_by_topic(lost: World, backup: Backup) -> list[list[Message]]:
    """What was heard and told since the backup, as it is read back: topic by topic."""
    since = [*lost.sent[backup.sent :], *lost.heard[backup.heard :]]
    return [[message for message in since if message.TOPIC is topic and type(message) in READ_BACK.routes] for topic in READ_BACK.topics]


def ordered(world: World) -> dict[str, PurchaseOrderIssued]:
    """What suppliers have, by number."""
    found: dict[str, PurchaseOrderIssued] = {}
    for message in world.sent:
        if isinstance(message, PurchaseOrderIssued):
            assert message.purchase_order not in found, "one number, one order"
            found[message.purchase_order] = message
    return found


def told_inventory(*worlds: World) -> dict[LineKey, tuple[int, int, date | None]]:
    """What inventory knows of each line: the newest it was told."""
    told = [message for world in worlds for message in world.sent if isinstance(message, SupplyChanged)]
    return {(m.purchase_order, m.line): (m.committed, m.open, m.expected_on) for m in sorted(told, key=lambda m: m.version)}


class Disaster(Schedule):
    """A schedule whose database is lost at one step and restored as it was at an earlier one."""

    def __init__(self, random: Random, orders: list[int], *, pack: int, cancels: bool, backed_up: int, struck: int) -> None:
        super().__init__(random, orders, pack=pack, cancels=cancels)
        self.backed_up, self.struck = backed_up, struck
        self.lost: World | None = None

    def run(self) -> None:
        backup = Backup.of(self.world)
        for step in range(1_000):
            if step == self.backed_up:
                backup = Backup.of(self.world)
            if step == self.struck:
                self.strike(backup)
            steps = [step for step, can in self.steps() if can]
            if not steps and step > self.struck:
                return
            if steps:
                self.random.choice(steps)()

    def strike(self, backup: Backup) -> None:
        lost, self.world = self.world, backup.restored(self.world, self.random)
        for number, order in ordered(lost).items():
            assert self.world.order(number).status is Status.ISSUED
            for line in order.lines:
                had, has = lost.line(number, line.line), self.world.line(number, line.line)
                assert (has.sku, has.ordered, has.unit_price, has.lead_days) == (had.sku, had.ordered, had.unit_price, had.lead_days)
                assert (has.declined, has.closed_short, has.received) == (had.declined, had.closed_short, had.received)
        self.world.advance(self.world.now)
        lines = self.world.state.lines
        for key, told in told_inventory(lost, self.world).items():
            assert told == outlook(lines.get(key))
        used = {purchase_order for purchase_order, _ in told_inventory(lost)} - ordered(lost).keys()
        for number in ordered(self.world):
            assert number not in ordered(lost), "no supplier is told twice"
            assert number not in used or number in {order.purchase_order for order in backup.world.state.orders.all()}
        self.lost = lost


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pack=st.sampled_from([1, 3]),
    orders=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    cancels=st.booleans(),
    backed_up=st.integers(0, 25),
    lost=st.integers(0, 25),
)
def test_whatever_is_lost_everything_settles_as_if_nothing_had_been(seed, pack, orders, cancels, backed_up, lost):
    disaster = Disaster(Random(seed), orders, pack=pack, cancels=cancels, backed_up=backed_up, struck=backed_up + lost)
    disaster.run()
    assert disaster.lost is not None
    state, lines = disaster.world.state, disaster.world.state.lines.all()
    shortfall = state.shortfalls.get("X")
    assert disaster.waiting == (shortfall.quantity if shortfall else 0), "who waits is served, or an operator's"
    assert disaster.booked == sum(line.received for line in lines)
    for sku in state.skus.all():
        assert sku.committed == sum(line.committed for line in state.lines.of(sku.sku))
    if not cancels:
        supplied = disaster.booked + disaster.waiting
        assert disaster.asked <= supplied < disaster.asked + pack * max(1, len(lines))
        assert pack > 1 or supplied == disaster.asked


def test_a_plan_that_only_inventory_heard_of_is_void_and_made_anew_under_another_number() -> None:
    world = World()
    world.offer("A")
    backup = Backup.of(world)
    world.short(5)
    assert world.order("A-1").status is Status.PLANNED
    restored = backup.restored(world, Random(1))
    effects = restored.advance(restored.now)
    assert ("A-1", 1, 0, 0, None) in supply(effects)
    [order] = restored.state.orders.all()
    assert (order.purchase_order, order.status) == ("A-2", Status.PLANNED)
    assert [line.quantity for message in issued(restored.close_windows()) for line in message.lines] == [5]


def test_a_window_that_closed_meanwhile_finds_its_order_gone() -> None:
    world = World()
    world.offer("A")
    world.short(5)
    backup = Backup.of(world)
    world.close_windows()
    world.receive("A-1", arrived(good=5))
    restored = backup.restored(world, Random(1))
    assert issued(restored.advance(restored.now + timedelta(days=30))) == []
    assert restored.line("A-1") == world.line("A-1")


def test_a_need_that_is_over_by_now_is_not_bought() -> None:
    """The window in the backup is due, but the customer has cancelled since."""
    world = World()
    world.offer("A")
    world.short(5)
    backup = Backup.of(world)
    world.short(0)
    world.now += timedelta(days=1)
    restored = backup.restored(world, Random(1))
    assert issued(restored.advance(restored.now)) == []
    assert restored.state.lines.all() == []


def test_an_order_that_was_issued_has_exactly_its_lines_and_they_become_overdue() -> None:
    world = World()
    for sku in ("X", "Y", "Z"):
        world.offer("A", sku)
    world.short(5, sku="X")
    world.short(3, sku="Y")
    backup = Backup.of(world)
    world.short(0, sku="Y")
    world.short(2, sku="Z")
    world.close_windows()
    restored = backup.restored(world, Random(1))
    [order] = ordered(world).values()
    assert [(line.line, line.sku, line.quantity) for line in order.lines] == [(1, "X", 5), (3, "Z", 2)]
    assert [line.line for line in restored.state.lines_on("A-1")] == [1, 3]
    assert [restored.state.skus[sku].committed for sku in ("X", "Y", "Z")] == [5, 0, 2]
    overdue_timers = {key: due for key, due in world.timers.items() if key[0] == "SupplyOverdue"}
    assert overdue_timers.items() <= restored.timers.items()
    assert issued(restored.close_windows()) == []


def test_a_line_that_was_planned_on_an_order_in_the_backup_gets_another_number() -> None:
    """Inventory would take the first one's date for the second's SKU."""
    world = World()
    for sku in ("X", "Y", "Z"):
        world.offer("A", sku)
    world.short(5, sku="X")
    backup = Backup.of(world)
    world.short(3, sku="Y")
    world.short(0, sku="Y")
    world.short(2, sku="Z")
    restored = backup.restored(world, Random(1))
    restored.advance(restored.now)
    told = told_inventory(world, restored)
    assert told["A-1", 2] == told["A-1", 3] == (0, 0, None)
    [line] = restored.state.lines.of("Z")
    assert line.purchase_order == "A-1"
    assert line.line > 3
    assert told[line.key] == outlook(line) == (2, 2, line.expected_on)
