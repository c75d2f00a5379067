"""A SKU or purchase order of which one number is wrong becomes what it would be if it had never been wrong, or it is said why not."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchasing.timers import WindowClosed
from shared.contracts.purchasing import SupplyChanged
from shared.service import Corrected, IrreparableError, Repair
from tests.unit.purchasing.world import World, arrived, overdue, rows_of

STEPS = st.lists(st.sampled_from(["short X", "short Y", "fewer X", "window", "decline", "receive", "damaged", "late"]), max_size=10)


def lived(steps: list[str]) -> World:
    world = World()
    world.offer("A", "X", pack=2)
    world.offer("A", "Y")
    world.offer("B", "X", price=2)
    for number, step in enumerate(steps):
        issued = [line for line in world.state.lines.all() if world.order(line.purchase_order).issued_at and line.outstanding]
        line = issued[number % len(issued)] if issued else None
        match step.split():
            case "short", sku:
                world.short(3 + number, sku=sku)
            case "fewer", sku:
                world.short(1, sku=sku)
            case ["window"] if world.timers:
                world.advance(max(due for _, due in world.timers.values()))
            case ["decline"] if line:
                world.answer(line.purchase_order, "changed", line.line, quantity=1)
            case ["receive"] if line:
                world.receive(line.purchase_order, arrived(line.sku, line.line, good=1))
            case ["damaged"] if line:
                world.receive(line.purchase_order, arrived(line.sku, line.line, damaged=1))
    return world


def repair(world: World, aggregate: str) -> tuple[list[str], list[Any]]:
    """What was corrected, and what was told."""
    before = len(world.sent)
    effects = world.apply(Repair(aggregate=aggregate, actor="ann", reason="somebody counted"))
    return [effect.detail for effect in effects if isinstance(effect, Corrected)], world.sent[before:]


@settings(max_examples=150, deadline=None)
@given(STEPS, st.data())
def test_one_wrong_number_leaves_no_trace(steps, data):
    world, twin = lived(steps), lived(steps)
    what = data.draw(st.sampled_from(["committed", "received", "closed_short", "timers"]))
    lines = sorted(line.key for line in world.state.lines.all() if line.ordered)
    if not lines:
        return
    key = data.draw(st.sampled_from(lines))
    line = world.state.lines[key]
    change = data.draw(st.integers(-2, 2).filter(bool))
    aggregates = [f"purchase_order:{key[0]}", f"sku:{line.sku}"]
    match what:
        case "committed":
            sku = world.state.skus[line.sku]
            world.state.skus.put(replace(sku, committed=sku.committed + change))
        case "timers":
            world.timers.clear()
            aggregates = [f"purchase_order:{order.purchase_order}" for order in world.state.orders.all()]
        case _:
            world.state.lines.put(replace(line, **{what: getattr(line, what) + change}))
            aggregates = aggregates if data.draw(st.booleans()) else aggregates[1:]
    corrections, told = [], []
    for aggregate in aggregates:
        done, sent = repair(world, aggregate)
        corrections += done
        told += sent
        assert repair(twin, aggregate)[0] == []
        world.number, twin.number = 0, 0
    assert bool(corrections) == (what != "timers")
    assert rows_of(world.state) == rows_of(twin.state)
    assert world.timers == twin.timers
    assert {(message.purchase_order, message.line) for message in told if isinstance(message, SupplyChanged)} >= {key}


def test_a_purchase_order_that_was_never_received_so_much_is_still_to_come():
    world = lived(["short X", "window", "receive"])
    world.state.lines.put(replace(world.line("A-1"), received=4))
    corrections, told = repair(world, "purchase_order:A-1")
    assert corrections == ["line 1 of A-1: received 4 → 1"]
    assert [(each.committed, each.open) for each in told] == [(4, 3)]
    assert world.due(overdue("A-1")) is not None


def test_a_planned_order_gets_its_window_back():
    world = lived(["short X"])
    due = world.due(WindowClosed(key="A"))
    world.timers.clear()
    assert repair(world, "purchase_order:A-1")[0] == []
    assert due is not None
    assert world.due(WindowClosed(key="A")) == due


@pytest.mark.parametrize("fields", [{"ordered": 0}, {"declined": 9}, {"ordered": -1}])
def test_what_was_ordered_and_declined_nobody_here_can_tell(fields):
    world = lived(["short X", "window", "receive"])
    world.state.lines.put(replace(world.line("A-1"), **fields))
    with pytest.raises(IrreparableError, match="stands in the topics alone"):
        repair(world, "purchase_order:A-1")
