"""An order of which one number is wrong becomes what it would be if it had never been wrong, or it is said why it cannot."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orders.state import Facts, Recorded, State
from shared.contracts.base import Message
from shared.contracts.orders import ORDERS_EVENTS, DemandSet, OrderCompleted
from shared.service import IrreparableError, Repair
from tests.unit.orders.desk import NOON, Desk, cancel, of, placed, shipped

STEPS = st.lists(st.tuples(st.sampled_from(["serve", "ship", "cancel", "refuse"]), st.integers(1, 2), st.integers(1, 4)), max_size=8)


def lived(steps: list[tuple[str, int, int]]) -> Desk:
    desk = Desk()
    desk.tell(placed("A", 5, 3), placed("B", 1))
    for number, (step, line, units) in enumerate(steps):
        match step:
            case "serve":
                desk.tell(desk.served(max(units, desk.state.lines["A"][line].shipped), line=line))
            case "ship":
                desk.tell(shipped(f"p{number}", (line, units)))
            case "cancel":
                desk.tell(cancel(f"r{number}", "A", line, units))
            case "refuse":
                desk.tell(desk.unavailable(units, line=line))
    return desk


def timeline(desk: Desk, order: str = "A") -> list[Recorded]:
    messages: list[Any] = [send.message for send in desk.sent if send.message.TOPIC is ORDERS_EVENTS]
    return [
        Recorded(type(message).__name__, message.model_dump(mode="json", exclude={"order"}))
        for message in messages
        if message.order == order
    ]


def repaired(desk: Desk, story: list[Recorded] | None = None) -> list[Message]:
    """One transaction; the desk's corrections are what it put right."""
    kept = desk.state
    state = State(orders=dict(kept.orders), lines={order: dict(lines) for order, lines in kept.lines.items()}, cancellations=Facts())
    state.recorded = {"A": timeline(desk) if story is None else story}
    return desk.apply(state, [Repair(aggregate="order:A", actor="ann", reason="somebody looked")])


def spoil(desk: Desk, number: int = 1, **fields: Any) -> Any:
    lines = desk.state.lines["A"]
    lines[number] = lines[number]._replace(**fields)


def test_a_lost_line_is_served_what_has_shipped():
    desk = lived([("serve", 1, 1), ("ship", 1, 1)])
    del desk.state.lines["A"][1]
    repaired(desk)
    assert (desk.state.lines["A"][1].served, desk.state.lines["A"][1].shipped) == (1, 1)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.data())
def test_one_wrong_number_leaves_no_trace(steps, data):
    desk, twin = lived(steps), lived(steps)
    number = data.draw(st.integers(1, 2))
    what = data.draw(st.sampled_from(["ordered", "cancelled", "shipped", "served", "version", "open_lines", "completed", "lost", "new"]))
    change = data.draw(st.integers(-2, 2).filter(bool))
    order, line = desk.state.orders["A"], desk.state.lines["A"][number]
    match what:
        case "open_lines":
            desk.state.orders["A"] = order._replace(open_lines=order.open_lines + change)
        case "completed":
            desk.state.orders["A"] = order._replace(completed_at=None if order.completed else NOON)
        case "lost":
            if line.answered and line.open:  # of what no event tells, only inventory's next answer can tell
                del desk.state.lines["A"][number]
        case "new":
            desk.state.lines["A"][9] = line._replace(line=9)
        case _:
            spoil(desk, number, **{what: getattr(line, what) + change})
    if what == "served" and desk.state.lines["A"][number].allocated == line.allocated:
        return  # says the same
    told, as_told = repaired(desk), repaired(twin)
    assert twin.corrections == []
    assert desk.state.orders == twin.state.orders
    lines, right = desk.state.lines["A"], twin.state.lines["A"]
    if what == "lost":
        untold = ("served_version", "ship_by", "promise_version")
        lines = {key: each._replace(**{name: getattr(right[key], name) for name in untold}) for key, each in lines.items()}
    assert lines == right
    assert [message.key for message in told] == [message.key for message in as_told]
    assert {claim.line for claim in of(DemandSet, told)} == set(right)


def test_inventory_hears_every_claim_anew_and_its_answers_count():
    desk = lived([("serve", 1, 2), ("ship", 1, 1)])
    spoil(desk, served=5, shipped=0)
    told = repaired(desk)
    assert desk.corrections == ["line 1: shipped 0 → 1", "line 1: served 5 → 2"]
    assert [(claim.line, claim.wanted, claim.shipped, claim.demand_version) for claim in of(DemandSet, told)] == [
        (1, 5, 1, desk.number), (2, 3, 0, desk.number),
    ]  # fmt: skip
    desk.tell(desk.served(4))
    assert desk.amounts() == (0, 3, 1, 1, 0)


def test_an_order_that_was_never_told_to_be_completed_is_told_so():
    desk = lived([("cancel", 1, 5), ("cancel", 2, 3)])
    story = [told for told in timeline(desk) if told.type != "OrderCompleted"]
    assert len(story) < len(timeline(desk))
    desk.state.orders["A"] = desk.state.orders["A"]._replace(completed_at=None)
    assert of(OrderCompleted, repaired(desk, story))
    assert desk.state.orders["A"].completed


Story = list[Recorded]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda story: story[1:], "its story has 0 times OrderAccepted"),
        (lambda story: [story[0], *story], "its story has 2 times OrderAccepted"),
        (lambda story: [told for told in story if told.type != "LineShipped"], "events of line 1 are missing or too many: [1, 2, 4]"),
        (lambda story: [*story, Recorded("OrderCompleted", {})], "told as completed, and by its story 2 lines are open"),
    ],
)
def test_a_story_that_is_broken_itself_is_said_to_be(change: Callable[[Story], Story], why: str):
    desk = lived([("serve", 1, 2), ("ship", 1, 1), ("cancel", 1, 1)])
    with pytest.raises(IrreparableError) as error:
        repaired(desk, change(timeline(desk)))
    assert why in str(error.value)


def test_the_order_itself_cannot_be_told_from_its_lines():
    desk = lived([])
    del desk.state.orders["A"]
    with pytest.raises(IrreparableError, match="the order itself is not there"):
        repaired(desk)
    del desk.state.lines["A"]
    repaired(desk, [])
    assert desk.corrections == ["a row that never became an order was removed"]
    assert desk.state.stubs == {"A"}
