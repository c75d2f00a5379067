"""The verdict finds what was planted, names it, and is silent about a run in which nothing is wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.chaos import verdict
from deploy.chaos.doors import Acceptance
from deploy.chaos.evidence import Arrival, Entry, Evidence, Outcome, Refusal
from deploy.chaos.hostile import Said
from deploy.chaos.verdict import Window
from shared.contracts.commerce import OrderCancelRequested, ShipmentConfirmed, ShippedLine

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
SHOP = "/clients/shop/hostile"


def cancel(order: str, line: int | None = None, id_: str = "", expects: frozenset[str] = frozenset(), mark: str = "") -> Acceptance:
    message = OrderCancelRequested(request=f"X-{order}", order=order, line=line, requested_at=AT)
    return Acceptance(Said(AT, message, id_ or f"{order}/X-{order}", SHOP, expects=expects), mark)


def parcel(order: str, mark: str = "") -> Acceptance:
    message = ShipmentConfirmed(shipment="P-1", order=order, shipped_at=AT, lines=(ShippedLine(line=1, quantity=1),))
    return Acceptance(Said(AT, message, f"{order}/P-1", "/clients/warehouse/shipping"), mark)


def entry(acceptance: Acceptance, offset: int = 0) -> Entry:
    said = acceptance.said
    return Entry(said.message.TOPIC.name, 0, offset, AT, said.source, said.id, acceptance.mark, said.message.TYPE, b"{}")


def thrown_entry(mark: str, offset: int = 0) -> Entry:
    return Entry("commerce.orders", 0, offset, AT, "", "", mark, "", b"{")


def refusal(reason: str, acceptance: Acceptance | None = None, mark: str = "") -> Refusal:
    source, id_ = acceptance.identity if acceptance else ("", "")
    return Refusal("orders", reason, "", "commerce.orders", 0, 0, "", source, id_, mark or (acceptance.mark if acceptance else ""), "")


def checks(found: Any) -> list[str]:
    return [violation.check for violation in found]


def test_what_was_accepted_is_looked_for_by_its_mark_or_by_its_id() -> None:
    by_http, by_kafka = cancel("A-1"), cancel("A-2", mark="k1")
    log = [entry(by_http), entry(by_kafka)]
    assert not checks(verdict.accepted_is_in_the_log([by_http, by_kafka], log))
    [missing] = verdict.accepted_is_in_the_log([by_http, by_kafka], log[:1])
    assert missing.row["key"] == "A-2"
    [missing] = verdict.accepted_is_in_the_log([by_http, by_kafka], log[1:])
    assert missing.row["key"] == "A-1"
    assert missing.row["accepted by"] == "202"


def test_what_was_accepted_is_in_its_readers_inbox() -> None:
    said = cancel("A-1", mark="k1")
    nobody: dict[str, frozenset[tuple[str, str]]] = {"orders": frozenset(), "inventory": frozenset({said.identity})}
    assert checks(verdict.accepted_is_applied([said], nobody, [])) == ["what was accepted has been applied"]
    assert not checks(verdict.accepted_is_applied([said], {"orders": frozenset({said.identity})}, []))
    refused = Refusal("orders", "invalid", "", "commerce.orders", 0, 0, "", *said.identity, "", "")
    assert not checks(verdict.accepted_is_applied([said], nobody, [refused]))


def right(
    refusals: list[Refusal], accepted: list[Acceptance], thrown: dict[str, frozenset[str]] | None = None, log: list[Entry] | None = None
) -> list[str]:
    return checks(verdict.refusals_are_right(refusals, accepted, thrown or {}, log or []))


def test_a_refusal_that_nobody_asked_for_is_found() -> None:
    said = cancel("A-1", mark="k1")
    assert right([refusal("unknown_order", said)], [said]) == ["nothing is refused but what must be"]
    assert right([refusal("impossible_shipped")], [said]) == ["nothing is refused but what must be"]
    said = cancel("A-1", mark="k1", expects=frozenset({"unknown_order"}))
    assert right([refusal("unknown_order", said)], [said]) == []
    assert right([refusal("invalid", said)], [said]) == ["nothing is refused but what must be", "what must be refused is"]


def test_what_must_be_refused_and_is_not_is_found() -> None:
    said = cancel("A-1", mark="k1", expects=frozenset({"unknown_order"}))
    assert right([], [said]) == ["what must be refused is"]
    # Another copy of it came through by HTTP first, and was refused there.
    assert right([refusal("unknown_order", Acceptance(said.said))], [said]) == []


def test_a_parcel_may_race_a_cancellation_and_nothing_else() -> None:
    said = parcel("A-1", mark="k1")
    assert right([refusal("shipped_more_than_allocated", said)], [said]) == ["nothing is refused but what must be"]
    assert right([refusal("shipped_more_than_allocated", said)], [said, cancel("A-1")]) == []
    assert right([refusal("unknown_order", said)], [said, cancel("A-1")]) == ["nothing is refused but what must be"]


def test_poison_is_kept_once_a_record_and_for_its_reason() -> None:
    thrown = {"p1": frozenset({"not_json"})}
    assert right([refusal("not_json", mark="p1")], [], thrown, [thrown_entry("p1")]) == []
    assert right([refusal("not_json", mark="p1")] * 2, [], thrown, [thrown_entry("p1"), thrown_entry("p1", 1)]) == []
    lost = "poison is kept among the dead letters, once a record at most"
    assert right([], [], thrown, [thrown_entry("p1")]) == [lost]
    assert right([refusal("not_json", mark="p1")] * 2, [], thrown, [thrown_entry("p1")]) == [lost]
    assert right([refusal("invalid", mark="p1")], [], thrown, [thrown_entry("p1")]) == ["nothing is refused but what must be"]


OPEN = Outcome("sku-01", ordered=3, shipped=1, cancelled=1, version=4)
SHIPPED = Outcome("sku-01", ordered=3, shipped=3, cancelled=0, version=4)
DIVIDED = Outcome("sku-01", ordered=3, shipped=2, cancelled=1, version=7)
LINE = ("A-1", 1)


@pytest.mark.parametrize(
    ("stormy", "expected"),
    [
        ({LINE: SHIPPED}, []),
        ({LINE: OPEN}, ["in the end every unit is shipped or cancelled"]),
        ({LINE: DIVIDED}, ["a line is shipped and cancelled as without faults"]),
        ({}, ["the same lines were ordered"]),
        ({LINE: SHIPPED, ("A-2", 1): SHIPPED}, ["the same lines were ordered"]),
        ({LINE: Outcome("sku-01", 4, 4, 0, 4)}, ["the same lines were ordered"]),
        ({LINE: Outcome("sku-02", 3, 3, 0, 4)}, ["the same lines were ordered"]),
    ],
)
def test_a_line_that_differs_from_the_calm_run_is_found(stormy: dict[tuple[str, int], Outcome], expected: list[str]) -> None:
    assert checks(verdict.compared(stormy, {LINE: SHIPPED}, frozenset(), frozenset()).violations) == expected


def test_lines_that_raced_or_are_scarce_may_be_divided_otherwise_and_are_counted() -> None:
    found = verdict.compared({LINE: DIVIDED}, {LINE: SHIPPED}, frozenset({LINE}), frozenset())
    assert (found.raced, found.scarce, found.violations) == (1, 0, [])
    found = verdict.compared({LINE: DIVIDED}, {LINE: SHIPPED}, frozenset(), frozenset({"sku-01"}))
    assert (found.raced, found.scarce, found.violations) == (0, 1, [])
    assert verdict.compared({LINE: OPEN}, {LINE: SHIPPED}, frozenset({LINE}), frozenset({"sku-01"})).violations


def test_which_lines_a_cancellation_is_about() -> None:
    lines = [("A-1", 1), ("A-1", 2), ("A-2", 1), ("A-3", 1)]
    assert verdict.cancelled_lines([cancel("A-1", 2), cancel("A-2")], lines) == {("A-1", 2), ("A-2", 1)}


def test_a_mail_may_come_again_only_across_a_fault() -> None:
    def at(seconds: float) -> datetime:
        return AT + timedelta(seconds=seconds)

    mails = [Arrival("m1", at(0)), Arrival("m2", at(0)), Arrival("m1", at(30))]
    assert not checks(verdict.mails_came_once(mails, [Window(at(-5), at(3))], sent=2))
    assert checks(verdict.mails_came_once(mails, [Window(at(-9), at(-4))], sent=2)) == ["a mail comes twice only where a fault lay between"]
    assert checks(verdict.mails_came_once(mails, [Window(at(31), at(32))], sent=2)) == ["a mail comes twice only where a fault lay between"]
    assert checks(verdict.mails_came_once(mails[:2], [], sent=3)) == ["every mail that was sent arrived, and no other"]
    many = [Arrival(f"m{number}", at(seconds)) for number in range(51) for seconds in (0, 10)]
    assert checks(verdict.mails_came_once(many, [Window(at(0), at(3))], sent=51)) == ["a fault repeats at most a round of mails"]
    assert verdict.repeated_mails(many) == 51


def test_what_happened_and_was_not_told_is_found() -> None:
    def evidence(**told: frozenset[str]) -> Evidence:
        return Evidence([], {}, [], {LINE: SHIPPED}, told, [])

    both = {"OrderAccepted": frozenset({"A-1"})}
    assert not checks(verdict.everything_was_told(evidence(OrderAccepted=frozenset({"A-1"})), both, {LINE: 4}))
    assert checks(verdict.everything_was_told(evidence(OrderAccepted=frozenset()), both, {LINE: 3})) == [
        "what happened was told, and what was told happened",
        "every event of a line was told",
    ]


def test_duplicates_are_counted_by_topic_and_id() -> None:
    log = [entry(cancel("A-1"), 0), entry(cancel("A-1"), 1), entry(cancel("A-2"), 2), thrown_entry("p1", 3), thrown_entry("p1", 4)]
    assert verdict.duplicates(log) == 1
