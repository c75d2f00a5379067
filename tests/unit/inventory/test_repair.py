"""A SKU of which one number is wrong becomes what it would be if it had never been wrong, or it is said why it cannot."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inventory.domain import Demand, MovementKind, Sku
from shared.contracts.inventory import DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.warehouse import BackorderPolicy
from shared.service import IrreparableError
from tests.unit.inventory.house import House, counted, day, defined, demand, received, repair, supply
from tests.unit.inventory.test_properties import check_balances
from tests.unit.inventory.world import SKUS, World, batches


def lived(steps: Any) -> House:
    house = House()
    world = World(house)
    for batch in steps:
        house.apply(*world.messages(batch))
    return house


def busy() -> House:
    """O1 has shipped and holds, O2 holds a part, O3 waits; three units are on their way."""
    house = House().apply(defined(), counted(6))
    house.apply(demand("O1", 4), demand("O2", 3), demand("O3", 2), supply(3, day(5)))
    return house.apply(demand("O1", 4, 2, shipped=1, asks=1))


def spoil_sku(house: House, sku: str = "A", **changes: int) -> Any:
    stock = house.skus[sku]
    house.skus[sku] = stock._replace(**{name: getattr(stock, name) + change for name, change in changes.items()})


def spoil_line(house: House, key: tuple[str, int], **changes: int) -> None:
    line = house.demands[key]
    house.demands[key] = line._replace(**{name: getattr(line, name) + change for name, change in changes.items()})


def state_of(house: House) -> tuple[dict[str, Sku], dict[Any, Demand]]:
    return dict(house.skus), dict(house.demands)


@settings(max_examples=150, deadline=None)
@given(batches, st.data())
def test_one_wrong_number_leaves_no_trace(steps, data):
    house, twin = lived(steps), lived(steps)
    sku = data.draw(st.sampled_from(SKUS))
    if sku not in house.skus:
        return
    change = data.draw(st.integers(-3, 3).filter(bool))
    lines = sorted(key for key, line in house.demands.items() if line.sku == sku and not line.refused)
    names = ["on_hand", "allocated", "waiting", "received_total"]
    if lines and data.draw(st.booleans()):
        spoil_line(house, data.draw(st.sampled_from(lines)), **{data.draw(st.sampled_from(["served", "shipped", "wanted"])): change})
    else:
        spoil_sku(house, sku, **{data.draw(st.sampled_from(names)): change})
    house.apply(repair(sku))
    twin.apply(repair(sku))
    assert house.corrections
    assert twin.corrections == []
    assert state_of(house) == state_of(twin)
    assert house.ledger == twin.ledger
    assert house.sent == twin.sent
    check_balances(house)


@settings(max_examples=150, deadline=None)
@given(batches, st.data())
def test_an_entry_of_a_line_that_is_lost_or_changed_is_made_up_for(steps, data):
    house, twin = lived(steps), lived(steps)
    entries = [
        number for number, entry in enumerate(house.ledger) if entry.order and house.skus[entry.sku].backorder is BackorderPolicy.ALLOW
    ]
    if not entries:
        return
    number = data.draw(st.sampled_from(entries))
    entry = house.ledger[number]
    house.ledger[number] = entry._replace(
        allocated=data.draw(st.integers(-2, 2)),
        waiting=data.draw(st.integers(-2, 2)),
        on_hand=data.draw(st.sampled_from([entry.on_hand, 0])),
    )
    house.apply(repair(entry.sku))
    twin.apply(repair(entry.sku))
    assert state_of(house) == state_of(twin)
    assert house.sent == twin.sent
    assert bool(house.corrections) == (house.ledger != twin.ledger)
    check_balances(house)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_the_repair_of_what_is_right_only_tells_it_again(steps):
    house = lived(steps)
    for sku in sorted(house.skus):
        ledger, (skus, demands) = list(house.ledger), state_of(house)
        house.apply(repair(sku))
        assert house.corrections == []
        assert house.ledger == ledger
        assert {key: (line.wanted, line.served, line.shipped) for key, line in house.demands.items()} == {
            key: (line.wanted, line.served, line.shipped) for key, line in demands.items()
        }  # fmt: skip
        assert house.skus[sku].shortage == skus[sku].shortage
        assert len(house.told(ShortageChanged)) == 1
        assert {message.order for message in house.told(DemandServed)} >= {
            line.order for line in house.demands.values() if line.sku == sku and line.wanted > line.shipped
        }


def test_what_was_served_from_units_that_are_not_there_is_taken_back_from_the_last_in_the_queue():
    """Somebody added four units by hand; they were set aside before anybody noticed, and one of them has shipped."""
    house = busy()
    spoil_sku(house, on_hand=4)
    house.apply(demand("O4", 1))
    assert house.served() == {"O2": 3, "O3": 2, "O4": 1}
    house.apply(repair())
    assert house.corrections == [
        "SKU A: on_hand 9 → 5",
        "line O4/1: 1 units that are not in the house were taken back",
        "line O3/1: 2 units that are not in the house were taken back",
        "line O2/1: 1 units that are not in the house were taken back",
    ]
    assert house.moved(house.number) == [
        ("withdrawn", "O4", -1, 0), ("withdrawn", "O3", -2, 0), ("withdrawn", "O2", -1, 0),
        ("backordered", "O2", 0, 1), ("backordered", "O3", 0, 2), ("backordered", "O4", 0, 1),
    ]  # fmt: skip
    assert house.served() == {"O1": 4, "O2": 2, "O3": 0, "O4": 0}
    assert house.promised()["O2"][0] == day(6)
    assert (house.skus["A"].on_hand, house.skus["A"].allocated, house.skus["A"].waiting) == (5, 5, 4)
    check_balances(house)


def test_units_that_were_missing_in_the_books_go_to_those_who_wait():
    house = busy()
    spoil_sku(house, on_hand=-3, allocated=-3)
    house.apply(repair())
    assert house.corrections == ["SKU A: on_hand 2 → 5", "SKU A: allocated 2 → 5"]
    assert house.served() == {"O1": 4, "O2": 2, "O3": 0}
    assert len(house.told(StockLevelChanged)) == 1
    check_balances(house)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda house: house.skus.pop("A"), "no such SKU"),
        (lambda house: house.demands.pop(("O2", 1)), "moves lines that are not there: [('O2', 1)]"),
        (lambda house: house.ledger.append(house.ledger[0]._replace(on_hand=-99)), "94 units more have left the house"),
        (lambda house: [spoil_sku(house, allocated=1), lose(house, "O1")], "entries of the ledger are missing or too many"),
        (lambda house: [lose(house, "O3"), spoil_sku(house, on_hand=1)], "the ledger has lost entries, and 6 units are on hand or 5"),
        (lambda house: spoil_line(house, ("O3", 1), refused=1), "line O3/1 wants 2, refused are 1"),
    ],
)
def test_what_cannot_be_told_is_said(spoil, why):
    house = busy()
    spoil(house)
    before = (state_of(house), list(house.ledger))
    with pytest.raises(IrreparableError) as error:
        house.apply(repair())
    assert why in str(error.value)
    assert (state_of(house), house.ledger) == before


def lose(house: House, order: str) -> Any:
    """The entry by which the line was given units, or else joined the queue."""
    kinds = (MovementKind.ALLOCATED, MovementKind.BACKORDERED)
    entry = next(each for kind in kinds for each in house.ledger if each.order == order and each.kind is kind)
    number = house.ledger.index(entry)
    del house.ledger[number], house.numbers[number]


def test_goods_that_come_with_the_repair_are_served_in_turn():
    house = busy()
    spoil_sku(house, waiting=5)
    house.apply(repair(), received(2))
    assert house.served() == {"O1": 4, "O2": 3, "O3": 1}
    check_balances(house)
