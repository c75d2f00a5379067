"""What suppliers and the dock may say, and what it does: by example."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from services.purchasing.domain import ExceptionReason, Line
from shared.contracts.base import LAST_DAY
from shared.contracts.suppliers import GoodsReceived, ShipmentNotified
from tests.unit.purchasing.world import World, after, arrived, overdue, refusals, stock, supply

DAY = date(2026, 3, 9)


@pytest.fixture
def world() -> World:
    """Ten units of X issued to S on S-1, expected on DAY; T would be dearer."""
    world = World()
    world.offer("S", lead_days=7)
    world.offer("T", price=Decimal(2), lead_days=9)
    world.short(10)
    world.close_windows()
    return world


def amounts(line: Line) -> tuple[int, int, int, int]:
    """Outstanding, received, declined, closed short."""
    return line.outstanding, line.received, line.declined, line.closed_short


def test_accepting_changes_nothing(world):
    assert world.answer("S-1", "accepted") == []


def test_a_changed_day_is_told_and_moves_the_timer(world):
    assert supply(world.answer("S-1", "changed", expected_on=date(2026, 3, 12))) == [("S-1", 1, 10, 10, date(2026, 3, 12))]
    assert world.due(overdue("S-1")) == datetime(2026, 3, 13, tzinfo=UTC)


def test_a_smaller_quantity_declines_the_rest_which_the_next_supplier_gets(world):
    effects = world.answer("S-1", "changed", quantity=4, expected_on=date(2026, 3, 10))
    assert supply(effects) == [("S-1", 1, 4, 4, date(2026, 3, 10)), ("T-1", 1, 6, 6, date(2026, 3, 11))]
    assert amounts(world.line("S-1")) == (4, 0, 6, 0)
    assert world.state.skus["X"].declined_by == ("S",)


def test_a_larger_quantity_is_refused_for_the_surplus(world):
    effects = world.answer("S-1", "changed", quantity=12)
    assert refusals(effects) == ["more_than_outstanding"]
    assert supply(effects) == []


def test_rejecting_declines_what_is_outstanding_and_no_more(world):
    world.receive("S-1", arrived(good=3))
    effects = world.answer("S-1", "rejected")
    assert amounts(world.line("S-1")) == (0, 3, 7, 0)
    assert supply(effects) == [("S-1", 1, 3, 0, None), ("T-1", 1, 7, 7, date(2026, 3, 11))]
    assert world.due(overdue("S-1")) is None
    assert world.answer("S-1", "rejected") == []


def test_the_last_day_of_all_says_that_nobody_knows_when(world):
    """Many systems write 9999-12-31 for it; the contract makes that its last day."""
    notice = ShipmentNotified.model_validate(
        {"notice": "N", "purchase_order": "S-1", "supplier": "S", "expected_on": "9999-12-31", "lines": [{"line": 1, "quantity": 1}]}
    )
    assert supply(world.apply(notice)) == [("S-1", 1, 10, 10, None)]
    assert world.due(overdue("S-1")) is None
    world.notice("S-1", date(2026, 3, 20))
    assert supply(world.answer("S-1", "changed", expected_on=LAST_DAY)) == [("S-1", 1, 10, 10, None)]


def test_when_every_supplier_declines_it_is_an_operators(world):
    world.answer("S-1", "rejected")
    world.close_windows()
    effects = world.answer("T-1", "rejected")
    assert supply(effects) == [("T-1", 1, 0, 0, None)]
    shortfall = world.state.shortfalls["X"]
    assert (shortfall.reason, shortfall.quantity) == (ExceptionReason.EVERY_SUPPLIER_DECLINED, 10)


def test_who_sends_a_new_offer_is_asked_again(world):
    world.answer("S-1", "rejected")
    world.close_windows()
    world.answer("T-1", "rejected")
    assert supply(world.offer("S", lead_days=7)) == [("S-2", 1, 10, 10, date(2026, 3, 9))]
    assert world.state.skus["X"].declined_by == ("T",)
    assert world.state.shortfalls.get("X") is None


def test_declines_are_forgotten_when_nothing_waits(world):
    world.answer("S-1", "rejected")
    world.short(0)
    assert world.state.skus["X"].declined_by == ()
    world.short(10)
    assert world.line("S-2").ordered == 10


def test_declining_what_nobody_waits_for_is_not_held_against_a_supplier(world):
    world.short(0)
    world.answer("S-1", "rejected")
    assert world.state.skus["X"].declined_by == ()


def test_who_declines_loses_what_is_planned_with_it_too(world):
    world.short(12)
    assert world.line("S-2").ordered == 2
    effects = world.answer("S-1", "rejected")
    assert supply(effects) == [("S-1", 1, 0, 0, None), ("S-2", 1, 0, 0, None), ("T-1", 1, 12, 12, date(2026, 3, 11))]


def test_the_same_acknowledgement_counts_once(world):
    world.answer("S-1", "changed", quantity=4, id="A")
    assert world.answer("S-1", "changed", quantity=2, id="A") == []
    assert amounts(world.line("S-1")) == (4, 0, 6, 0)


def test_answers_that_name_nothing_of_the_suppliers_are_refused(world):
    assert refusals(world.answer("S-9", "rejected")) == ["unknown_purchase_order"]
    assert refusals(world.answer("S-1", "rejected", supplier="T")) == ["not_your_order"]
    assert refusals(world.answer("S-1", "rejected", line=2)) == ["unknown_line"]
    world.short(12)
    assert refusals(world.answer("S-2", "rejected")) == ["not_issued"]
    assert amounts(world.line("S-1")) == (10, 0, 0, 0)


def test_a_shipping_notice_moves_the_day(world):
    assert supply(world.notice("S-1", date(2026, 3, 5))) == [("S-1", 1, 10, 10, date(2026, 3, 5))]
    assert world.due(overdue("S-1")) == datetime(2026, 3, 6, tzinfo=UTC)
    assert refusals(world.notice("S-1", DAY, supplier="T")) == ["not_your_order"]
    assert refusals(world.notice("S-1", DAY, line=7)) == ["unknown_line"]


def test_a_day_that_passed_without_the_units_is_no_day(world):
    effects = world.advance(after(days=8))
    assert supply(effects) == [("S-1", 1, 10, 10, None)]
    assert world.due(overdue("S-1")) is None
    assert supply(world.notice("S-1", date(2026, 3, 20))) == [("S-1", 1, 10, 10, date(2026, 3, 20))]


def test_a_timer_that_was_overtaken_by_a_new_day_does_nothing(world):
    world.answer("S-1", "changed", expected_on=date(2026, 3, 12))
    assert world.apply(overdue("S-1")) == []
    assert world.apply(overdue("S-9")) == []


def test_good_units_go_to_stock_and_the_rest_stays_open(world):
    effects = world.receive("S-1", arrived(good=4))
    assert stock(effects) == [("S-1", 1, 4)]
    assert supply(effects) == [("S-1", 1, 10, 6, DAY)]
    effects = world.receive("S-1", arrived(good=6))
    assert supply(effects) == [("S-1", 1, 10, 0, None)]
    assert world.due(overdue("S-1")) is None


def test_damaged_units_are_closed_short_and_bought_again(world):
    effects = world.receive("S-1", arrived(good=7, damaged=3))
    assert stock(effects) == [("S-1", 1, 7)]
    assert amounts(world.line("S-1")) == (0, 7, 0, 3)
    assert supply(effects) == [("S-1", 1, 7, 0, None), ("S-2", 1, 3, 3, DAY)]


def test_a_closed_balance_is_bought_again(world):
    effects = world.receive("S-1", arrived(good=7, balance="closed"))
    assert amounts(world.line("S-1")) == (0, 7, 0, 3)
    assert supply(effects) == [("S-1", 1, 7, 0, None), ("S-2", 1, 3, 3, DAY)]


def test_units_above_outstanding_are_refused_and_the_others_booked(world):
    effects = world.receive("S-1", arrived(good=13, damaged=2))
    assert stock(effects) == [("S-1", 1, 10)]
    assert refusals(effects) == ["more_than_outstanding"]
    assert amounts(world.line("S-1")) == (0, 10, 0, 0)


def test_the_same_receipt_counts_once_and_another_under_its_id_is_refused(world):
    world.receive("S-1", arrived(good=4), receipt="R")
    assert world.receive("S-1", arrived(good=4), receipt="R") == []
    assert refusals(world.receive("S-1", arrived(good=5), receipt="R")) == ["receipt_exists"]
    assert amounts(world.line("S-1")) == (6, 4, 0, 0)


def test_the_same_receipt_twice_in_one_transaction_counts_once(world):
    receipt = GoodsReceived(receipt="R", purchase_order="S-1", received_at=world.now, lines=(arrived(good=4),))
    assert stock(world.apply(receipt, receipt)) == [("S-1", 1, 4)]


def test_what_is_wrong_with_a_line_of_a_receipt_holds_up_no_other(world):
    effects = world.receive("S-1", arrived("X", 1, good=4), arrived("X", 2, good=1))
    assert (stock(effects), refusals(effects)) == ([("S-1", 1, 4)], ["unknown_line"])
    assert refusals(world.receive("S-1", arrived("Y", 1, good=1))) == ["sku_mismatch"]
    assert refusals(world.receive("S-9", arrived(good=1))) == ["unknown_purchase_order"]


def test_a_receipt_that_came_before_the_order_was_issued_counts_when_it_is_sent_again(world):
    world.short(12)
    assert refusals(world.receive("S-2", arrived(good=2), receipt="R")) == ["not_issued"]
    world.close_windows()
    assert stock(world.receive("S-2", arrived(good=2), receipt="R")) == [("S-2", 1, 2)]


def test_a_cancelled_sale_and_a_rejected_order_end_the_same_in_either_order(world):
    """domain.md section 3, property 11."""
    other = World()
    other.offer("S", lead_days=7)
    other.offer("T", price=Decimal(2), lead_days=9)
    other.short(10)
    other.close_windows()
    world.answer("S-1", "rejected")
    world.short(4)
    other.short(4)
    other.answer("S-1", "rejected")
    for outcome in (world, other):
        assert [(line.sku, line.outstanding) for line in outcome.state.lines.all() if line.outstanding] == [("X", 4)]
        assert outcome.state.skus["X"].need == 0
