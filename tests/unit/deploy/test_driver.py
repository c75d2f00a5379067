"""How far the business clock may go: never more than a day ahead of what is unapplied anywhere."""

from collections import deque
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.coverage import Snapshot, Standing, covered, idle, snapshot
from deploy.local.driver import AHEAD, FOREVER, SLICE_LINES, Hold, take_due
from deploy.local.publisher import Publication
from deploy.local.simulator import Simulator
from deploy.local.suppliers import Conduct
from shared.contracts.commerce import OrderCancelRequested
from shared.contracts.orders import Amounts, LineAllocated, LineChange

T = datetime(2011, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return T + hours * HOUR


def orders(position: int, **more) -> Standing:
    return Standing("orders", frozenset({"commerce.orders"}), {("commerce.orders", 0): position}, **more)


def ends(commerce: int, demand: int = 0) -> dict[tuple[str, int], int]:
    return {("commerce.orders", 0): commerce, ("commerce.orders", 1): 0, ("orders.demand", 0): demand}


def test_a_reader_has_passed_what_it_reads_and_does_not_mind_the_rest():
    assert orders(5).passed(ends(5, demand=99))
    assert not orders(4).passed(ends(5))
    assert not Standing("orders", frozenset({"commerce.orders"}), {}).passed(ends(1))
    assert Standing("orders", frozenset({"commerce.orders"}), {}).passed(ends(0))


@pytest.mark.parametrize(
    ("standing", "business"),
    [
        (orders(0), at(10)),
        (orders(0, unpublished=at(8)), at(8)),
        (orders(0, timer=at(9)), at(9)),
        (orders(0, timer=at(11)), at(10)),
        (orders(0, unpublished=at(7), timer=at(6)), at(6)),
    ],
)
def test_a_snapshot_is_as_old_as_what_was_not_in_the_log(standing, business):
    assert snapshot(at(10), [standing], ends(5)) == Snapshot(business, ends(5))


def test_snapshots_are_covered_in_their_order():
    taken = [Snapshot(at(hour), ends(hour)) for hour in (1, 2, 3)]
    other = Standing("inventory", frozenset({"orders.demand"}), {})
    assert [covered(taken, [orders(position), other]) for position in (0, 1, 2, 9)] == [0, 1, 2, 3]


def test_nothing_is_under_way_only_when_all_is_read_published_and_sent():
    assert idle([orders(5)], ends(5))
    assert idle([orders(5, timer=at(3))], ends(5))
    assert not idle([orders(4)], ends(5))
    assert not idle([orders(5, unpublished=at(3))], ends(5))
    assert not idle([orders(5, busy=True)], ends(5))


def test_the_clock_stands_while_something_is_a_day_old():
    hold = Hold(at(0))
    assert hold.limit == at(24)
    for hours in (10, 20, 24):
        hold.look(at(hours), [orders(0)], ends(hours))
        assert hold.limit == at(24)
    hold.look(at(24), [orders(10)], ends(30))
    assert hold.limit == at(34)
    hold.look(at(34), [orders(29)], ends(40))
    assert hold.limit == at(48)


def test_a_timer_that_has_not_fired_holds_the_clock():
    hold = Hold(at(0))
    waiting = orders(1, timer=at(2))
    hold.look(at(20), [waiting], ends(2))
    hold.look(at(20), [orders(2, timer=at(2))], ends(3))
    assert hold.limit == at(2) + AHEAD


def test_a_quiet_system_jumps_to_its_next_timer():
    hold = Hold(at(0))
    hold.look(at(1), [orders(5, timer=at(200))], ends(5))
    assert hold.limit == at(200) + AHEAD
    hold.look(at(1), [orders(5)], ends(5))
    assert hold.limit == FOREVER


def test_a_jump_is_over_as_soon_as_something_is_published():
    hold = Hold(at(0))
    hold.look(at(1), [orders(5)], ends(5))
    assert hold.limit == FOREVER
    hold.look(at(2), [orders(5)], ends(6))  # an order of hour 2 is in the log, unread
    assert hold.limit <= at(2) + AHEAD


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=60))
def test_nothing_unapplied_is_ever_a_day_behind_the_clock(steps):
    """A service reads one topic; records are written at the clock's time, applied late, and their effects published late."""
    hold = Hold(T)
    clock = T
    log: list[datetime] = []
    applied = 0
    outbox: list[datetime] = []
    for written, read, publish in steps:
        standing = orders(min(applied, len(log)), unpublished=min(outbox, default=None))
        hold.look(clock, [standing], ends(len(log)))
        assert hold.limit >= clock or hold.limit == hold.applied + AHEAD
        clock = max(clock, min(hold.limit, clock + 5 * HOUR))
        log += [clock] * written
        for _ in range(min(read, len(log) - applied)):
            applied += 1
            outbox.append(clock)
        if publish:
            # What the service said is in the log from now on; here nobody else has to read it.
            outbox.clear()
        oldest = min([*log[applied:], *outbox], default=clock)
        assert clock - oldest <= AHEAD


def events(*hours: float) -> deque[Publication]:
    return deque(
        Publication(at(hour), OrderCancelRequested(request=str(hour), order="o", requested_at=at(hour)), str(hour), "/clients/shop")
        for hour in hours
    )


def simulator(*shipping_hours: float) -> Simulator:
    made = Simulator(lambda _: Conduct(), ZoneInfo("UTC"))
    amounts = Amounts(ordered=9, pending=0, allocated=9, backordered=0, shipped=0, cancelled=0)
    for number, hour in enumerate(shipping_hours, start=1):
        lines = (LineChange(line=1, sku="s", quantity=1, amounts=amounts, version=number),)
        made.take(LineAllocated(order=f"o{number}", at=at(hour - 24), lines=lines))
    return made


def hours(publications: list[Publication]) -> list[float]:
    return [(publication.time - T) / HOUR for publication in publications]


def test_the_clock_reaches_its_limit_and_what_lies_before_it_is_published():
    queue = events(1, 2, 30)
    due, reached = take_due(queue, simulator(), at(24), AHEAD)
    assert (hours(due), reached, len(queue)) == ([1, 2], at(24), 1)
    assert take_due(events(), simulator(), at(24), AHEAD) == ([], at(24))


def test_the_clock_never_jumps_over_what_suppliers_and_warehouse_do():
    due, reached = take_due(events(1, 5), simulator(3, 6), at(5), AHEAD)
    assert (hours(due), reached) == ([1, 3, 5], at(5))


def test_a_jump_ends_a_day_after_the_first_thing_published():
    queue = events(100, 110, 130)
    due, reached = take_due(queue, simulator(), FOREVER, AHEAD)
    assert (hours(due), reached, len(queue)) == ([100, 110], at(124), 1)


def test_much_is_published_in_slices_and_one_moment_is_not_divided():
    queue = events(*[1] * (SLICE_LINES - 1), 2, 2, 3)
    due, reached = take_due(queue, simulator(), at(24), AHEAD)
    assert (len(due), reached, hours(list(queue))) == (SLICE_LINES + 1, at(2), [3])
