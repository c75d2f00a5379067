"""When those who wait can ship."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inventory.domain import HANDLING_DAYS, Policy, Supply, promises
from shared.contracts.inventory import DemandServed, StockLevelChanged
from tests.unit.inventory.house import NOON, TODAY, House, counted, day, defined, demand, received, supply


def coming(*schedule: tuple[int, date | None]) -> list[Supply]:
    return [Supply(f"P-{number}", 1, "A", units, units, when, 1) for number, (units, when) in enumerate(schedule)]


def promise(position: int, supplies: list[Supply], today: date) -> date | None:
    """That of the unit at this place of the queue (1 = head) alone."""
    return promises(position - 1, [1], supplies, today)[0]


@pytest.mark.parametrize(
    ("position", "supplies", "expected"),
    [
        (1, [], None),
        (1, coming((5, day(3))), day(4)),
        (5, coming((5, day(3))), day(4)),
        (6, coming((5, day(3))), None),
        (6, coming((5, day(9)), (5, day(3))), day(10)),  # the earlier supply covers the earlier places, in whatever order it was told
        (1, coming((5, None)), None),
        (1, coming((5, day(-1))), None),  # its day has passed: nobody knows any more
        (1, coming((5, day(0))), day(1)),
        (1, coming((5, date.max)), None),  # some write "nobody knows" like this
        (1, coming((0, day(1)), (1, day(2))), day(3)),
    ],
)
def test_the_supply_that_covers_a_place_gives_its_date(position, supplies, expected):
    assert promise(position, supplies, TODAY) == expected


schedules = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(-3, 20).map(day)), max_size=6).map(lambda rows: coming(*rows))


@given(ahead=st.integers(0, 20), units=st.lists(st.integers(1, 6), max_size=8), supplies=schedules)
def test_a_queue_in_one_pass_agrees_with_each_place_alone(ahead, units, supplies):
    """The second implementation hands out the units one by one."""
    units_by_day = sorted(each.expected_on for each in supplies if each.expected_on and each.expected_on >= TODAY for _ in range(each.open))
    days = promises(ahead, units, supplies, TODAY)
    position = ahead
    for open_units, told in zip(units, days, strict=True):
        position += open_units
        covering = units_by_day[position - 1] if position <= len(units_by_day) else None
        assert told == promise(position, supplies, TODAY) == (covering and covering.fromordinal(covering.toordinal() + HANDLING_DAYS))
        assert told is None or told > TODAY
    dated = [told for told in days if told]
    assert dated == sorted(dated)
    assert days[len(dated) :] == [None] * (len(days) - len(dated))


def test_today_is_the_warehouse_s_day():
    late = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)
    assert Policy(ZoneInfo("Asia/Tokyo")).today(late) == date(2026, 3, 3)
    assert Policy(ZoneInfo("America/New_York")).today(late) == date(2026, 3, 2)


def test_a_new_line_gets_its_date_from_the_tail():
    house = House().apply(defined(), supply(4, day(3)), supply(4, day(8), purchase_order="P-2"))
    house.apply(demand("O1", 3), demand("O2", 3), demand("O3", 9))
    assert house.promised() == {"O1": (day(4), 1), "O2": (day(9), 1), "O3": (None, 0)}
    assert house.apply(demand("O4", 1)).promised() == {"O4": (None, 0)}


def test_several_new_lines_of_one_batch_queue_behind_one_another_in_queue_order():
    house = House().apply(defined(), supply(2, day(3)), supply(2, day(8), purchase_order="P-2"), demand("O1", 1))
    assert house.apply(demand("O9", 1), demand("O5", 1)).promised() == {"O5": (day(4), 1), "O9": (day(9), 1)}


def test_appearing_slipping_and_lost_supply_moves_promises_and_tells_only_those():
    house = House().apply(defined(), demand("O1", 2), demand("O2", 2), demand("O3", 2))
    assert house.apply(supply(4, day(3))).promised() == {"O1": (day(4), 1), "O2": (day(4), 1)}
    assert house.apply(supply(2, day(8), purchase_order="P-2")).promised() == {"O3": (day(9), 1)}
    assert house.apply(supply(3, day(3), version=2)).promised() == {"O2": (day(9), 2), "O3": (None, 2)}
    assert house.apply(supply(3, None, version=3)).promised() == {"O1": (day(9), 2), "O2": (None, 3)}
    assert house.apply(supply(3, None, version=3)).sent == []


def test_another_promise_names_the_outlook_that_moved_it():
    house = House().apply(defined(), demand("O1", 2)).apply(supply(2, day(3)), demand("O2", 1))
    assert [(told.order, told.causation) for told in house.told(DemandServed)] == [("O2", "m2#1"), ("O1", "m2#0")]


def test_an_older_outlook_changes_nothing():
    house = House().apply(defined(), demand("O1", 2), supply(2, day(3), version=5)).apply(supply(2, day(9), version=4))
    assert (house.sent, house.demands["O1", 1].ship_by) == ([], day(4))


def test_a_receipt_moves_no_promise_and_reads_no_queue():
    house = House().apply(defined(), demand("O1", 2), demand("O2", 2), demand("O3", 2), supply(6, day(3)))
    house.apply(received(3))
    assert house.reads == {"A": 4}
    assert house.promised() == {"O1": (None, 1), "O2": (day(4), 1)}  # served; half served, the rest as promised
    assert house.supplies["P-1", 1].open == 3
    house.apply(supply(3, day(3), version=2, committed=6))
    assert (house.reads, house.told(DemandServed), house.supplies["P-1", 1].open) == ({"A": 1}, [], 3)


def test_units_already_received_cover_nobody_before_purchasing_says_so():
    house = House().apply(defined(), counted(0), supply(4, day(3))).apply(received(4), demand("O1", 5))
    assert (house.served(), house.promised()) == ({"O1": 4}, {"O1": (None, 0)})


def test_a_served_or_cancelled_line_has_no_promise_and_is_not_told_that_it_lost_one():
    house = House().apply(defined(), supply(9, day(3)), demand("O1", 2), demand("O2", 2))
    assert house.apply(demand("O2", 0, version=2)).promised() == {"O2": (None, 1)}
    assert house.apply(received(2)).promised() == {"O1": (None, 1)}


def test_a_line_that_grows_at_its_old_place_moves_those_behind_it():
    house = House().apply(defined(), supply(4, day(3)), supply(4, day(8), purchase_order="P-2"), demand("O1", 2), demand("O2", 2))
    assert house.apply(demand("O1", 3, version=2)).promised() == {"O1": (day(4), 1), "O2": (day(9), 2)}


def test_a_supply_whose_day_has_passed_gives_no_new_promise():
    house = House().apply(defined(), supply(9, day(0)))
    assert house.apply(demand("O1", 1), now=NOON.replace(day=NOON.day + 1)).promised() == {"O1": (None, 0)}


def test_the_shop_hears_when_one_more_unit_could_ship():
    house = House().apply(defined(), supply(4, day(3)))
    assert [told.next_date for told in house.told(StockLevelChanged)] == [day(4)]
    assert [told.next_date for told in house.apply(demand("O1", 3)).told(StockLevelChanged)] == []
    assert [told.next_date for told in house.apply(demand("O2", 1)).told(StockLevelChanged)] == [None]
    assert [told.next_date for told in house.apply(supply(5, day(6), version=2)).told(StockLevelChanged)] == [day(7)]
