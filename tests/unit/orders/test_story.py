"""How line changes become messages: few of them, and never out of a line's order."""

from hypothesis import given
from hypothesis import strategies as st

from services.orders.domain import Line
from services.orders.state import State, messages
from shared.contracts.orders import CancelRefused, LineAllocated, LineBackordered, LineEvent, LinePromised
from shared.service import Context
from tests.unit.orders.desk import NOON, Desk, changes, of, placed

KINDS: tuple[type[LineEvent], ...] = (LineAllocated, LineBackordered, LinePromised)


def test_lines_of_one_kind_share_a_message() -> None:
    desk = Desk()
    desk.tell(placed("A", 5, 5, 5), placed("B", 5))
    told = desk.tell(
        desk.served(2, line=1), desk.served(5, line=2), desk.served(0, line=3), desk.served(1, order="B")
    )  # fmt: skip
    stories = [(type(event).__name__, event.order, [change.line for change in event.lines]) for event in of(LineEvent, told)]
    assert stories == [
        ("LineAllocated", "A", [1, 2]),
        ("LineBackordered", "A", [1, 3]),
        ("LineAllocated", "B", [1]),
        ("LineBackordered", "B", [1]),
    ]


def test_a_line_stands_once_in_a_message() -> None:
    desk = Desk()
    desk.tell(placed("A", 5))
    told = desk.tell(desk.served(1), desk.served(3))
    assert list(changes(told)) == [("LineAllocated", 1, 1), ("LineBackordered", 1, 4), ("LineAllocated", 1, 2)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=40))
def test_each_lines_events_keep_their_order_and_none_is_lost(steps: list[tuple[int, int]]) -> None:
    state, context, versions = State(), Context(NOON, 1, "c", "", NOON, NOON), dict.fromkeys(range(1, 5), 0)
    for kind, number in steps:
        if kind == len(KINDS):
            state.tell("A", CancelRefused(order="A", at=NOON, request="r", reason=""), context)
            continue
        versions[number] += 1
        line = Line("A", number, "S", ordered=9, unit_price=None, version=versions[number])  # type: ignore[arg-type]
        state.tell_line(line, 1, KINDS[kind], {"at": NOON}, context)
    published = [send.message for send in messages("A", state.stories.get("A", []))]
    seen: dict[int, list[int]] = {number: [] for number in versions}
    for event in of(LineEvent, published):
        assert len({change.line for change in event.lines}) == len(event.lines) > 0
        for change in event.lines:
            seen[change.line].append(change.version)
    assert seen == {number: list(range(1, last + 1)) for number, last in versions.items()}
    assert len(of(CancelRefused, published)) == sum(kind == len(KINDS) for kind, _ in steps)
