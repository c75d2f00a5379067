"""Who is served, who is refused, and what is told: by example."""

import pytest

from services.inventory.domain import Demand, MovementKind, allocate
from shared.contracts.inventory import DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.warehouse import BackorderPolicy
from tests.unit.inventory.house import House, counted, defined, demand, moment, received, supply

ALLOW, DENY = BackorderPolicy.ALLOW, BackorderPolicy.DENY


def line(order: str, wanted: int, *, queue_class: int = 0, at: int = 0, number: int = 1) -> Demand:
    return Demand(order, number, "A", wanted, 0, 0, 0, queue_class, moment(at), moment(at), 1, 1)


@pytest.mark.parametrize(
    ("free", "waiting", "given"),
    [
        (0, [line("O1", 1)], []),
        (-2, [line("O1", 1)], []),
        (5, [], []),
        (5, [line("O2", 3, at=2), line("O1", 3, at=1)], [("O1", 1, 3), ("O2", 1, 2)]),  # by queue time, the last one partially
        (1, [line("O2", 1, number=1), line("O1", 1, number=2), line("O1", 1, number=1)], [("O1", 1, 1)]),  # ties: order, then line
        (1, [line("O1", 1, queue_class=1, at=1), line("O2", 1, queue_class=0, at=2)], [("O2", 1, 1)]),  # class before time
        (2, [line("O1", 9, at=1), line("O2", 1, at=2)], [("O1", 1, 2)]),  # a small later line does not slip past
    ],
)
def test_free_units_go_to_the_head_of_the_queue(free, waiting, given):
    assert [(line.order, line.line, units) for line, units in allocate(free, waiting)] == given


def test_stock_serves_at_once_and_the_rest_waits():
    house = House().apply(defined(), counted(5), demand("O1", 3), demand("O2", 3), demand("O3", 1))
    assert house.served() == {"O1": 3, "O2": 2, "O3": 0}
    assert [(each.order, each.open) for each in house.queue()] == [("O2", 1), ("O3", 1)]
    assert house.skus["A"].waiting == 2


def test_a_receipt_serves_who_waited_first_before_who_comes_with_it():
    house = House().apply(defined(), demand("O1", 2), demand("O2", 2))
    house.apply(received(3), demand("O3", 1), demand("O0", 1, at=99))
    assert house.served() == {"O1": 2, "O2": 1, "O3": 0, "O0": 0}


def test_an_earlier_place_in_the_queue_is_served_first_even_if_heard_of_later():
    house = House().apply(defined(), demand("O5", 2)).apply(demand("O1", 1), received(1))
    assert house.served() == {"O1": 1}


def test_cancelling_what_was_never_served_frees_nothing():
    """spree#7328: lowering a backordered order released a unit that another order took, though there was none."""
    house = House().apply(defined(), counted(1), demand("O1", 1), demand("O2", 4), demand("O3", 1))
    house.apply(demand("O2", 1, version=2))
    assert (house.skus["A"].free, house.skus["A"].allocated, house.skus["A"].waiting) == (0, 1, 2)
    assert house.served() == {"O2": 0}
    assert all(movement.kind is not MovementKind.WITHDRAWN for movement in house.ledger)


def test_cancelling_served_units_hands_them_to_the_next():
    house = House().apply(defined(), counted(3), demand("O1", 3), demand("O2", 5)).apply(demand("O1", 1, version=2))
    assert house.served() == {"O1": 1, "O2": 2}
    withdrawn, allocated = house.ledger[-2:]
    assert (withdrawn.kind, withdrawn.allocated, withdrawn.on_hand, withdrawn.undoes, withdrawn.order) == (
        "withdrawn",
        -2,
        0,
        "allocated",
        "O1",
    )
    assert (allocated.kind, allocated.allocated, allocated.order, allocated.cause) == ("allocated", 2, "O2", withdrawn.cause)


def test_a_cancellation_stops_at_what_has_shipped():
    house = House().apply(defined(), counted(5), demand("O1", 5)).apply(demand("O1", 5, version=2, shipped=2))
    house.apply(demand("O1", 1, version=3, shipped=2))
    assert (house.skus["A"].on_hand, house.skus["A"].allocated, house.demands["O1", 1].served) == (3, 0, 2)
    assert (house.skus["A"].waiting, house.queue()) == (0, [])


def test_shipping_takes_units_out_of_the_house():
    house = House().apply(defined(), counted(5), demand("O1", 4)).apply(demand("O1", 4, version=2, shipped=3))
    assert (house.skus["A"].on_hand, house.skus["A"].allocated, house.skus["A"].free) == (2, 1, 1)
    assert (house.ledger[-1].kind, house.ledger[-1].on_hand, house.ledger[-1].allocated) == ("shipped", -3, -3)
    assert not house.told(StockLevelChanged)


@pytest.mark.parametrize("shipped", [0, 4])
def test_a_claim_to_have_shipped_what_was_not_set_aside_is_refused(shipped):
    house = House().apply(defined(), counted(3), demand("O1", 5)).apply(demand("O1", 5, version=2, shipped=1))
    house.apply(demand("O1", 5, version=3, shipped=shipped))
    assert house.refusals == ["impossible_shipped"]
    assert (house.skus["A"].on_hand, house.demands["O1", 1].demand_version, house.sent) == (2, 2, [])


def test_a_line_stays_with_its_sku():
    house = House().apply(defined(), defined("B"), counted(1), demand("O1", 1)).apply(demand("O1", 1, version=2, sku="B"))
    assert house.refusals == ["other_sku"]
    assert house.demands["O1", 1].sku == "A"


def test_only_the_newest_demand_version_is_answered_once():
    house = House().apply(defined(), counted(9), demand("O1", 5, version=7), demand("O1", 2, version=9), demand("O1", 4, version=8))
    [answer] = house.told(DemandServed)
    assert (answer.served, answer.demand_version, answer.version) == (2, 9, house.number)
    assert house.apply(demand("O1", 5, version=7)).sent == []


def test_that_units_have_shipped_is_not_answered():
    house = House().apply(defined(), counted(5), demand("O1", 4)).apply(demand("O1", 4, version=2, shipped=3, asks=1))
    assert (house.demands["O1", 1].shipped, house.demands["O1", 1].version) == (3, 2)
    assert house.sent == []


def test_every_new_version_is_answered_even_if_nothing_changes():
    house = House().apply(defined(), demand("O1", 5)).apply(demand("O1", 5, version=2))
    assert [(each.served, each.demand_version) for each in house.told(DemandServed)] == [(0, 2)]
    assert len(house.sent) == 1


def test_answers_levels_and_movements_name_their_cause():
    """A line's own claim, or else what freed the units that it got."""
    house = House().apply(defined(), demand("O1", 5)).apply(received(9), demand("O2", 1), demand("O3", 1))
    caused = [(getattr(each, "order", type(each).__name__), cause) for each, cause in zip(house.sent, house.causes, strict=True)]
    assert sorted(caused) == [
        ("O1", "m2#0"), ("O2", "m2#1"), ("O3", "m2#2"), ("ShortageChanged", "m2#2"), ("StockLevelChanged", "m2#2"),
    ]  # fmt: skip
    assert all(each.causation == cause for each, cause in zip(house.sent, house.causes, strict=True) if hasattr(each, "causation"))
    assert [(each.kind, each.order, each.cause) for each in house.ledger] == [
        ("backordered", "O1", "m1#1"),
        ("received", None, "m2#0"), ("allocated", "O1", "m2#0"), ("allocated", "O2", "m2#1"), ("allocated", "O3", "m2#2"),
    ]  # fmt: skip


def test_the_ledger_says_who_joined_the_queue_and_how_they_left_it():
    house = House().apply(defined(), counted(3), demand("O1", 2), demand("O2", 4), demand("O3", 6))
    assert house.moved(1) == [
        ("counted", None, 0, 0), ("allocated", "O1", 2, 0),  # served at once: never in the queue, no entry more
        ("allocated", "O2", 1, 0), ("backordered", "O2", 0, 3), ("backordered", "O3", 0, 6),
    ]  # fmt: skip
    house.apply(received(4), demand("O3", 5, version=2))
    assert house.moved(2) == [
        ("received", None, 0, 0), ("allocated", "O2", 3, -3), ("allocated", "O3", 1, -1), ("cancelled", "O3", 0, -1),
    ]  # fmt: skip
    assert (house.ledger[-1].undoes, house.ledger[-1].cause, house.ledger[-2].cause) == ("backordered", "m2#1", "m2#1")


def test_only_units_that_had_waited_leave_the_queue_when_a_line_is_served():
    house = House().apply(defined(), demand("O1", 2)).apply(received(4), demand("O1", 7, version=2))
    assert house.moved(2)[1:] == [("allocated", "O1", 4, 0), ("backordered", "O1", 0, 1)]  # of 2 that waited and 5 that came, 3 wait
    house.apply(received(5, "R-2"), demand("O1", 9, version=3))
    assert house.moved(3)[1:] == [("allocated", "O1", 5, -3)]


def test_a_cancellation_of_served_units_takes_those_that_wait_first():
    house = House().apply(defined(), counted(3), demand("O1", 5)).apply(demand("O1", 1, version=2))
    assert house.moved(2) == [("withdrawn", "O1", -2, 0), ("cancelled", "O1", 0, -2)]


def test_what_is_refused_has_never_waited():
    house = House().apply(defined(), demand("O1", 2), demand("O2", 5, sku="B")).apply(defined(backorder=DENY), demand("O1", 4, version=2))
    assert (house.moved(1), house.moved(2)) == ([("backordered", "O1", 0, 2)], [])


def test_an_unknown_sku_is_refused_and_said_again_with_each_new_version():
    house = House().apply(demand("O1", 5))
    assert house.refused() == {"O1": (5, "unknown_sku", 1)}
    assert (house.served(), house.skus["A"].waiting, house.told(ShortageChanged), house.told(StockLevelChanged)) == ({"O1": 0}, 0, [], [])
    house.apply(demand("O1", 3, version=2))
    assert house.refused() == {"O1": (3, "unknown_sku", 2)}
    house.apply(demand("O1", 0, version=3))
    assert (house.refused(), house.served()) == ({}, {"O1": 0})


def test_what_denies_backorders_serves_from_stock_and_refuses_the_rest_for_good():
    house = House().apply(defined(backorder=DENY), counted(2), demand("O1", 5), demand("O2", 1))
    assert (house.served(), house.refused()) == ({"O1": 2, "O2": 0}, {"O1": (3, "not_backorderable", 1), "O2": (1, "not_backorderable", 1)})
    house.apply(received(10), defined(backorder=ALLOW))
    assert (house.served(), house.skus["A"].free, house.skus["A"].waiting) == ({}, 10, 0)


def test_a_refused_part_shrinks_with_a_cancellation_that_crosses_it():
    house = House().apply(defined(backorder=DENY), counted(2), demand("O1", 5)).apply(demand("O1", 3, version=2))
    assert (house.served(), house.refused()) == ({"O1": 2}, {"O1": (1, "not_backorderable", 2)})


def test_a_refusal_is_not_repeated_for_a_version_that_was_answered():
    house = House().apply(defined(backorder=DENY), demand("O1", 5)).apply(demand("O1", 5), demand("O2", 1))
    assert house.refused() == {"O2": (1, "not_backorderable", 1)}


def test_a_new_policy_holds_for_what_is_ordered_after_it():
    house = House().apply(defined(), demand("O1", 5)).apply(defined(backorder=DENY), demand("O1", 4, version=2), demand("O2", 1))
    assert house.refused() == {"O2": (1, "not_backorderable", 1)}
    assert [(each.order, each.open) for each in house.queue()] == [("O1", 4)]
    assert house.apply(received(4)).served() == {"O1": 4}


def test_a_second_count_is_refused():
    house = House().apply(counted(5), counted(7))
    assert (house.refusals, house.skus["A"].on_hand) == (["already_counted"], 5)
    assert house.apply(counted(7)).refusals == ["already_counted"]


def test_a_count_of_nothing_is_a_count():
    assert House().apply(counted(0)).apply(counted(7)).refusals == ["already_counted"]


def test_a_receipt_line_is_booked_once():
    house = House().apply(defined(), received(5), received(5)).apply(received(4), received(1, receipt="R-2"))
    assert (house.refusals, house.skus["A"].on_hand, house.skus["A"].received_total) == (["already_received"], 6, 6)


def test_purchasing_hears_what_waits_since_when_and_what_was_received():
    house = House().apply(defined(), counted(1), demand("O1", 2), demand("O2", 3))
    [told] = house.told(ShortageChanged)
    assert (told.waiting, told.needed_by, told.received_total, told.version) == (4, moment(1), 0, 1)
    [told] = house.apply(received(1)).told(ShortageChanged)
    assert (told.waiting, told.needed_by, told.received_total) == (3, moment(2), 1)
    [told] = house.apply(demand("O2", 0, version=2)).told(ShortageChanged)
    assert (told.waiting, told.needed_by, told.received_total) == (0, None, 1)
    assert house.apply(demand("O2", 0, version=3)).told(ShortageChanged) == []


def test_the_head_of_the_queue_is_known_after_it_leaves():
    house = House().apply(defined(), *(demand(f"O{number}", 1) for number in range(1, 9)))
    house.apply(demand("O1", 0, version=2), demand("O2", 0, version=2), received(2))
    assert house.skus["A"].needed_by == moment(5) == house.queue()[0].ordered_at


def test_the_shop_hears_what_it_may_sell():
    house = House().apply(counted(3))
    assert house.told(StockLevelChanged) == []  # the catalogue does not know it yet
    [told] = house.apply(defined()).told(StockLevelChanged)
    assert (told.available, told.backorderable, told.next_date, told.at.tzinfo is not None) == (3, True, None, True)
    [told] = house.apply(demand("O1", 5)).told(StockLevelChanged)
    assert (told.available, told.waiting) == (0, 2)
    assert house.apply(demand("O2", 5)).told(StockLevelChanged) == []  # that more wait is no reason to write
    [told] = house.apply(defined(backorder=DENY)).told(StockLevelChanged)
    assert (told.backorderable, told.waiting) == (False, 7)


def test_of_a_long_queue_only_the_head_is_read():
    house = House().apply(defined(), *(demand(f"O{number}", 2) for number in range(1, 200)))
    assert house.apply(received(3)).reads == {"A": 4}
    assert house.apply(demand("O500", 1)).reads == {"A": 1}
    assert house.apply(demand("O100", 1, version=2)).reads == {"A": 2}
    assert house.apply(supply(5)).reads == {"A": None}
