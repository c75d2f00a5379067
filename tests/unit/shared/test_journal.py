"""What the journal says was applied: all of it, in order, and nothing that was left out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from shared.codec import Delivery, Envelope, Flaw, Origin
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandRefused, DemandServed
from shared.contracts.orders import CancelReason
from shared.items import Item, of_records, of_the_service
from shared.journal import Own, Run, applied
from shared.service import Local, Service, Timer

TOPIC = INVENTORY_ALLOCATIONS.name
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Alarm(Timer):
    """A timer."""


class Answer(Local):
    """To a record that is no message."""

    about: str


def service(answers: bool = False) -> Service[Any]:
    """One that takes DemandServed, and has no use for DemandRefused."""
    invalid = (lambda found: Answer(about=found.data["order"])) if answers else (lambda _: None)
    return cast("Service[Any]", SimpleNamespace(name="s", routes={DemandServed: None}, invalid=invalid))


def message(kind: str, index: int) -> Any:
    if kind == "other":
        return DemandRefused(order="A", line=1, quantity=1, reason=CancelReason.UNKNOWN_SKU, demand_version=1)
    return DemandServed(order=f"A-{index}", line=1, served=1, demand_version=1, version=1)


def record(partition: int, offset: int, kinds: Sequence[str]) -> Delivery:
    """A list whose items are each taken, of another type ('other'), or no message ('flaw')."""
    return Delivery(
        TOPIC, partition, offset, Envelope("", "/backorder/x", f"{partition}-{offset}", NOON, NOON, "", ()), b"",
        tuple((index, message(kind, index)) for index, kind in enumerate(kinds) if kind != "flaw"),
        tuple((index, Flaw("invalid", "")) for index, kind in enumerate(kinds) if kind == "flaw"),
    )  # fmt: skip


def whole(run: Run, log: Sequence[Delivery]) -> list[Origin]:
    """Every item of the log within a run, read by code to which nothing is a flaw."""
    readable = [
        Delivery(
            each.topic, each.partition, each.offset, each.envelope, b"",
            tuple(sorted((*each.messages, *((index, message("taken", index)) for index, _ in each.flaws)), key=lambda pair: pair[0])), (),
        )
        for each in log
        if each.partition == run.partition
    ]  # fmt: skip
    origins = [item.origin for item in of_records(service(), readable)]
    return [each for each in origins if (run.first, run.first_index) <= (each.offset, each.index) <= (run.last, run.last_index)]


KINDS = st.lists(st.sampled_from(["taken", "taken", "taken", "other", "flaw"]), max_size=4)


@given(st.lists(st.tuples(KINDS, st.integers(1, 2), st.booleans()), max_size=12), st.data())
def test_runs_are_exactly_what_was_applied_in_order(records: list[tuple[list[str], int, bool]], data: st.DataObject) -> None:
    """Some records hold flaws or nothing for us, some offsets hold no record, some records were dropped, some items were held back."""
    log, fresh = [], []
    for partition in (0, 1):
        offset = partition
        for kinds, step, new in records:
            offset += step
            log.append(record(partition, offset, kinds))
            fresh += log[-1:] if new else []
    items = list(of_records(service(), fresh))
    held = data.draw(st.sets(st.sampled_from(items), max_size=3)) if items else set()
    ours = [item for item in items if item not in held]
    runs = applied(ours)
    assert [origin for run in runs if isinstance(run, Run) for origin in whole(run, log)] == [item.origin for item in ours]


def test_what_stands_together_is_one_run() -> None:
    log = [record(0, 5, ["taken", "taken"]), record(0, 6, ["other"]), record(0, 7, ["other", "taken"]), record(1, 8, ["taken"])]
    assert applied(of_records(service(), log)) == [Run(TOPIC, 0, 5, 0, 7, 1), Run(TOPIC, 1, 8, 0, 8, 0)]


def test_items_are_in_the_order_of_the_log_and_so_are_answers() -> None:
    flaw = Flaw("invalid", "", (), {"order": "A-1"})
    broken = Delivery(TOPIC, 0, 6, record(0, 6, []).envelope, b"", (), ((0, flaw),))
    found = list(of_records(service(answers=True), [record(0, 5, ["taken"]), broken, record(0, 7, ["taken"])]))
    assert [item.message for item in found] == [message("taken", 0), Answer(about="A-1"), message("taken", 0)]
    assert applied(found) == [Run(TOPIC, 0, 5, 0, 7, 0)]


def test_letters_stand_alone_even_when_they_were_neighbours() -> None:
    letters = [Item(message("taken", n), Origin(TOPIC, 0, n, 0), record(0, n, []).envelope) for n in (0, 1, 2)]
    assert applied(letters) == [Run(TOPIC, 0, n, 0, n, 0) for n in (0, 1, 2)]


def test_what_a_service_tells_itself_is_kept_with_its_identity() -> None:
    due = NOON + timedelta(microseconds=1)
    items = [of_the_service("s", Alarm(key="k"), "id-1", due), of_the_service("s", Answer(about="A"), "id-2", NOON)]
    assert applied(items) == [
        Own("Alarm", {"key": "k"}, "id-1", due.isoformat()),
        Own("Answer", {"about": "A"}, "id-2", NOON.isoformat()),
    ]
    assert [item.due for item in items] == [("Alarm", "k", due), None]
