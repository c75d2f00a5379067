"""What is bought, from whom and on which order: by example."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from services.purchasing.domain import ExceptionReason, Offer, Status, least, most, units
from services.purchasing.planning import LINES_AT_ONCE
from services.purchasing.timers import WindowClosed
from shared.contracts.base import MAX_LINES, MAX_QUANTITY, MAX_TOTAL
from shared.contracts.inventory import ShortageChanged
from shared.contracts.suppliers import OfferChanged
from tests.unit.purchasing.world import World, after, arrived, issued, overdue, refusals, supply


@pytest.fixture
def world() -> World:
    return World()


def terms(pack: int = 1, minimum: int = 1) -> Offer:
    return Offer("S", "X", Decimal(1), "EUR", pack, minimum, 7)


@pytest.mark.parametrize(
    ("wanted", "pack", "minimum", "ordered"),
    [(0, 1, 1, 0), (-3, 6, 10, 0), (1, 1, 1, 1), (1, 6, 1, 6), (6, 6, 1, 6), (7, 6, 1, 12), (1, 6, 10, 12), (13, 6, 10, 18)],
)
def test_units_come_in_packs_and_at_least_the_minimum_which_is_itself_whole_packs(wanted, pack, minimum, ordered):
    assert units(wanted, terms(pack, minimum)) == ordered


def test_a_line_carries_whole_packs_up_to_the_contracts_limit():
    assert units(10**9, terms(pack=7)) == most(terms(pack=7)) == MAX_QUANTITY // 7 * 7
    assert least(terms(pack=6, minimum=10)) == 12


def test_a_shortage_opens_a_planned_order_and_its_window_and_tells_a_date_at_once(world):
    world.offer("S", lead_days=7)
    effects = world.short(5)
    assert supply(effects) == [("S-1", 1, 5, 5, date(2026, 3, 9))]
    assert world.order("S-1").status is Status.PLANNED
    assert world.due(WindowClosed(key="S")) == after(hours=4)
    assert world.due(overdue("S-1")) is None


def test_the_cheapest_offer_wins_then_the_shorter_lead_time_then_the_suppliers_id(world):
    world.offer("C", price=Decimal(2), lead_days=1)
    world.offer("B", price=Decimal(1), lead_days=3)
    world.offer("A", price=Decimal(1), lead_days=9)
    world.short(1)
    assert [order.supplier for order in world.state.orders.all()] == ["B"]


def test_only_what_is_not_on_its_way_is_bought(world):
    world.offer("S")
    world.short(5)
    assert supply(world.short(8)) == [("S-1", 1, 8, 8, date(2026, 3, 9))]
    world.close_windows()
    assert supply(world.short(8)) == []
    assert supply(world.short(9)) == [("S-2", 1, 1, 1, date(2026, 3, 9))]


def test_between_a_receipt_and_its_booking_nothing_is_bought_twice(world):
    world.offer("S")
    world.short(5)
    world.close_windows()
    world.receive("S-1", arrived(good=5))
    assert supply(world.short(5, received=0)) == []  # inventory has not heard of the receipt
    assert supply(world.short(0, received=5)) == []
    assert world.state.skus["X"].need == 0


def test_rounding_happens_once_for_the_whole_line(world):
    world.offer("S", pack=6, minimum=10)
    for waiting in (1, 2, 12):
        world.short(waiting)
        assert world.line("S-1").ordered == 12
    world.short(13)
    assert world.line("S-1").ordered == 18
    assert len(world.state.lines.all()) == 1


def test_a_planned_line_shrinks_in_packs_keeps_the_minimum_and_then_disappears_with_its_order(world):
    world.offer("S", pack=6, minimum=10)
    world.short(20)
    assert world.line("S-1").ordered == 24
    assert supply(world.short(13)) == [("S-1", 1, 18, 18, date(2026, 3, 9))]
    assert supply(world.short(1)) == [("S-1", 1, 12, 12, date(2026, 3, 9))]
    assert supply(world.short(0)) == [("S-1", 1, 0, 0, None)]
    assert issued(world.close_windows()) == []
    assert world.state.orders.all() == world.state.lines.all() == []


def test_an_issued_line_does_not_shrink_and_its_surplus_serves_later_needs(world):
    world.offer("S")
    world.short(5)
    world.close_windows()
    assert supply(world.short(2)) == []
    assert supply(world.short(5)) == []
    assert supply(world.short(6)) == [("S-2", 1, 1, 1, date(2026, 3, 9))]


def test_orders_are_issued_when_the_window_closes_from_that_day_on(world):
    world.offer("S", "X", price=Decimal("1.25"), lead_days=2)
    world.offer("S", "Y", lead_days=3)
    world.now = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)
    world.short(5, sku="X")
    world.short(7, sku="Y")
    [order] = issued(world.advance(datetime(2026, 3, 3, 12, 0, tzinfo=UTC)))
    assert (order.purchase_order, order.supplier, order.currency) == ("S-1", "S", "EUR")
    assert order.issued_at == datetime(2026, 3, 3, 1, 30, tzinfo=UTC)
    assert [(line.sku, line.quantity, line.unit_price, line.expected_on) for line in order.lines] == [
        ("X", 5, Decimal("1.25"), date(2026, 3, 5)),
        ("Y", 7, Decimal(1), date(2026, 3, 6)),
    ]


def test_the_expected_day_ends_at_midnight_in_the_warehouse_also_in_summer_time(world):
    world.offer("S", lead_days=28)  # from 2 March, across the change of clocks, to 30 March in London
    world.short(5)
    world.close_windows()
    assert world.due(overdue("S-1")) == datetime(2026, 3, 30, 23, 0, tzinfo=UTC)


def test_a_second_currency_is_a_second_order_in_the_same_window(world):
    world.offer("S", "X", currency="EUR")
    world.offer("S", "Y", currency="USD")
    world.short(5, sku="X")
    world.now = after(hours=1)
    world.short(7, sku="Y")
    assert world.due(WindowClosed(key="S")) == after(hours=4)
    assert [(order.purchase_order, order.currency) for order in issued(world.close_windows())] == [("S-1", "EUR"), ("S-2", "USD")]


def test_empty_lines_are_left_out_when_an_order_is_issued(world):
    world.offer("S", "X")
    world.offer("S", "Y")
    world.short(5, sku="X")
    world.short(7, sku="Y")
    world.short(0, sku="X")
    [order] = issued(world.close_windows())
    assert [(line.line, line.sku) for line in order.lines] == [(2, "Y")]
    assert refusals(world.receive("S-1", arrived("X", 1, good=1))) == ["unknown_line"]


def test_an_empty_planned_line_is_used_again(world):
    world.offer("S")
    world.short(5)
    world.short(0)
    world.short(3)
    assert [(line.key, line.ordered) for line in world.state.lines.all()] == [(("S-1", 1), 3)]


def test_an_older_shortage_is_ignored(world):
    world.offer("S")
    world.short(5, version=100)
    assert world.short(50, version=99) == []
    assert world.short(50, version=100) == []
    assert world.line("S-1").ordered == 5


def test_without_an_offer_a_need_is_an_operators_until_it_is_covered_or_gone(world):
    world.short(5)
    shortfall = world.state.shortfalls["X"]
    assert (shortfall.reason, shortfall.quantity, shortfall.opened_at) == (ExceptionReason.NO_OFFER, 5, after())
    world.now = after(hours=1)
    world.short(7)
    assert (world.state.shortfalls["X"].quantity, world.state.shortfalls["X"].opened_at) == (7, after())
    world.short(0)
    assert world.state.shortfalls.get("X") is None
    world.short(2)
    world.offer("S")
    assert world.state.shortfalls.get("X") is None
    assert world.line("S-1").ordered == 2


def test_an_absurd_need_is_planned_in_part_and_the_rest_is_an_operators_until_the_next_news(world):
    """A level may say whatever fits into a number: planning all of it at once would never end."""
    world.offer("S")
    world.short(MAX_TOTAL)
    assert len(world.state.lines.all()) == LINES_AT_ONCE
    shortfall = world.state.shortfalls["X"]
    assert (shortfall.reason, shortfall.quantity) == (ExceptionReason.TOO_MUCH_AT_ONCE, MAX_TOTAL - LINES_AT_ONCE * MAX_QUANTITY)
    world.short((LINES_AT_ONCE + 1) * MAX_QUANTITY)
    assert len(world.state.lines.all()) == LINES_AT_ONCE + 1
    assert world.state.shortfalls.get("X") is None


def test_new_terms_plan_anew_what_is_not_issued_and_leave_what_is(world):
    world.offer("S", price=Decimal(1), pack=1)
    world.short(5)
    world.close_windows()
    world.short(8)
    effects = world.offer("S", price=Decimal(2), pack=6, lead_days=9)
    assert supply(effects) == [("S-2", 1, 6, 6, date(2026, 3, 11))]
    assert world.line("S-2").unit_price == Decimal(2)
    assert (world.line("S-1").ordered, world.line("S-1").unit_price) == (5, Decimal(1))


def test_a_dearer_offer_moves_what_is_planned_to_the_next_supplier(world):
    world.offer("A", price=Decimal(2))
    world.offer("B", price=Decimal(3))
    world.short(5)
    assert supply(world.offer("A", price=Decimal(4))) == [("A-1", 1, 0, 0, None), ("B-1", 1, 5, 5, date(2026, 3, 9))]


def test_a_pack_that_holds_what_is_planned_with_another_supplier_takes_its_place(world):
    world.offer("A", price=Decimal(3))
    world.short(1)
    world.offer("B", price=Decimal(2))
    world.short(3)
    effects = world.offer("A", price=Decimal(1), pack=4)
    assert supply(effects) == [("A-1", 1, 4, 4, date(2026, 3, 9)), ("B-1", 1, 0, 0, None)]


def test_another_currency_moves_what_is_planned_to_an_order_in_that_currency(world):
    world.offer("S", currency="EUR")
    world.short(5)
    world.offer("S", currency="USD")
    assert [(order.purchase_order, order.currency) for order in issued(world.close_windows())] == [("S-2", "USD")]


def test_an_offer_that_no_line_can_carry_is_refused(world):
    assert refusals(world.offer("S", pack=MAX_QUANTITY - 1, minimum=MAX_QUANTITY)) == ["not_orderable"]
    assert refusals(world.offer("S" * 60)) == ["supplier_id_too_long"]
    assert world.state.offers.all() == []


def test_more_than_a_line_may_carry_takes_several_orders_lines(world):
    world.offer("S", pack=7)
    world.short(2_500_000)
    assert sum(line.ordered for line in world.state.lines.all()) == units(2_500_000 - 2 * most(terms(7)), terms(7)) + 2 * most(terms(7))
    assert {line.key for line in world.state.lines.all()} == {("S-1", 1), ("S-2", 1), ("S-3", 1)}
    assert world.short(2_500_000) == []
    assert len(issued(world.close_windows())) == 3


def test_an_order_has_no_more_lines_than_one_message_may_answer(world):
    names = [f"X{number:04}" for number in range(MAX_LINES + 1)]
    terms: dict[str, Any] = {"price": Decimal(1), "currency": "EUR", "lead_days": 1}
    world.apply(*(OfferChanged(supplier="S", sku=sku, **terms) for sku in names))
    world.apply(*(ShortageChanged(sku=sku, waiting=1, needed_by=world.now, received_total=0, version=1) for sku in names))
    assert [len(order.lines) for order in issued(world.close_windows())] == [MAX_LINES, 1]


def test_one_change_per_line_and_transaction_is_told(world):
    world.offer("S")
    shortages = [ShortageChanged(sku="X", waiting=n, needed_by=world.now, received_total=0, version=n) for n in (1, 2, 3)]
    assert supply(world.apply(*shortages)) == [("S-1", 1, 3, 3, date(2026, 3, 9))]
