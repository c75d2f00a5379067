"""Any story of a line: at most one notice per promise version, no mail against what was known when it was written, nothing kept back."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from services.notifier.domain import LEVELS, PROMISES, WITHOUT_DATE, Mail
from shared.contracts.notifier import NoticeKind
from shared.contracts.orders import Amounts, CancelReason, LineChange
from tests.unit.notifier.world import World, december


@dataclass
class Line:
    """A line as orders would know it."""

    number: int
    ordered: int
    allocated: int = 0
    backordered: int = 0
    shipped: int = 0
    cancelled: int = 0
    version: int = 0
    ship_by: date | None = None
    promise: int = 0

    def change(self, quantity: int) -> LineChange:
        return LineChange(
            line=self.number, sku=f"SKU-{self.number}", quantity=quantity, amounts=self.amounts, version=self.version,
            ship_by=self.ship_by, promise_version=self.promise,
        )  # fmt: skip

    @property
    def amounts(self) -> Amounts:
        pending = self.ordered - self.allocated - self.backordered - self.shipped - self.cancelled
        return Amounts(
            ordered=self.ordered, pending=pending, allocated=self.allocated, backordered=self.backordered,
            shipped=self.shipped, cancelled=self.cancelled,
        )  # fmt: skip


STEPS = st.tuples(
    st.sampled_from(["answer", "promise", "promise", "allocate", "ship", "cancel", "wait", "wait"]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([None, 10, 11, 12]),
)


def promise(line: Line, day: int | None) -> None:
    line.ship_by, line.promise = (december(day) if day else None), line.promise + 1


def step(world: World, line: Line, action: str, amount: int, day: int | None) -> None:
    """Does what can be done of an action, as orders would tell it. `version` does not always rise: one transaction, several events."""
    line.version += amount % 2
    if action == "answer" and line.amounts.pending:
        quantity = line.amounts.pending
        line.backordered += quantity
        if day:
            promise(line, day)
        world.backordered(line.change(quantity))
    elif action == "promise" and line.backordered:
        promise(line, day)
        world.promised(line.change(line.backordered))
    elif action == "allocate" and (quantity := min(amount, line.backordered)):
        line.backordered, line.allocated, line.version = line.backordered - quantity, line.allocated + quantity, line.version + 1
        world.allocated(line.change(quantity))
    elif action == "ship" and (quantity := min(amount, line.allocated)):
        line.allocated, line.shipped = line.allocated - quantity, line.shipped + quantity
        world.shipped(line.change(quantity), shipment=f"P-{line.shipped}")
    elif action == "cancel" and (quantity := min(amount, line.backordered)):
        line.backordered, line.cancelled = line.backordered - quantity, line.cancelled + quantity
        world.cancelled(line.change(quantity), reason=CancelReason.CUSTOMER)


def agrees(mail: Mail, lines: dict[int, Line]) -> None:
    """The mail says of every line what is known now, and says it once."""
    assert mail.notices
    for notice in mail.notices:
        line = lines[notice.line]
        assert notice.ordered == line.ordered
        if notice.kind in PROMISES:
            assert line.backordered > 0
            assert (notice.units, notice.ship_by, notice.version) == (line.backordered, line.ship_by, line.promise)
        if notice.kind is NoticeKind.DATE_CHANGED:
            assert notice.was != notice.ship_by
        if notice.kind is NoticeKind.ALLOCATED:
            assert notice.units == line.allocated > 0
    levels = Counter((n.line, n.kind in PROMISES) for n in mail.notices if n.kind in LEVELS)
    assert all(count == 1 for count in levels.values())


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_story(steps):
    world = World()
    lines = {number: Line(number, ordered=6) for number in range(1, 4)}
    shipments = cancellations = 0
    for action, number, amount, day in steps:
        if action == "wait":
            # Nothing happens to the lines meanwhile, so every mail written on the way must agree with how they stand.
            for mail in world.passes(timedelta(minutes=4 * amount) if day else timedelta(hours=6 * amount)):
                agrees(mail, lines)
            continue
        before = lines[number].shipped, lines[number].cancelled
        step(world, lines[number], action, amount, day)
        shipments += lines[number].shipped > before[0]
        cancellations += lines[number].cancelled > before[1]
    for mail in world.passes(WITHOUT_DATE):
        agrees(mail, lines)
    event(f"{min(len(world.mails), 5)} mails")
    check_told(world, lines, shipments, cancellations)


def check_told(world: World, lines: dict[int, Line], shipments: int, cancellations: int) -> None:
    """A day later: nothing was kept back, and nothing told twice."""
    assert world.timer is None
    assert world.waiting == [], "everything was told or superseded within a day"
    promises = Counter((n.line, n.version) for n in world.told if n.kind in PROMISES)
    assert all(count == 1 for count in promises.values()), "one notice per line and promise version"
    told = Counter(notice.kind for notice in world.told)
    assert (told[NoticeKind.SHIPPED], told[NoticeKind.CANCELLED]) == (shipments, cancellations), "each fact once"
    for line in lines.values():
        if line.backordered:
            assert world.told_of(line.number)[NoticeKind.BACKORDERED].ship_by == line.ship_by, "the customer knows the date"
