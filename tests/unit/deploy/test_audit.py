"""The audit's comparisons, each of them broken once."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

from deploy.local.agreement import AGREEMENTS, FACTS, SUMS, Row
from deploy.local.audit import _about, _concerns, table
from deploy.local.settled import Unsettled, Waiting, _waiting

DAY = date(2025, 1, 9)
LINE = {"order_id": "A-1", "line": 1, "sku": "17"}
BOUGHT = {"purchase_order": "acme-1", "line": 1, "sku": "17"}

Rows = dict[str, list[dict[str, Any]]]


def facts() -> Rows:
    """A system at rest: 5 on hand at the start, 12 ordered, 8 received, 6 shipped, 1 cancelled; 5 wait for the rest of 20."""
    claim = {**LINE, "wanted": 18, "shipped": 6, "served": 13, "demand_version": 7}
    return {
        "orders' lines": [claim],
        "inventory's lines": [claim],
        "orders' promises": [{"order_id": "A-1", "line": 1, "ship_by": DAY}],
        "noticed promises": [{"order_id": "A-1", "line": 1, "ship_by": DAY}, {"order_id": "A-0", "line": 1, "ship_by": None}],
        "orders' outcomes": [{"order_id": "A-1", "line": 1, "shipped": 6, "cancelled": 1}],
        "noticed outcomes": [{"order_id": "A-1", "line": 1, "shipped": 6, "cancelled": 1}],
        "accepted orders": [{"order_id": "A-1", "address": "x", "language": "en", "time_zone": "UTC"}],
        "contacts": [{"order_id": "A-1", "address": "x", "language": "en", "time_zone": "UTC"}],
        "booked receipts": [{"receipt": "W-1", **BOUGHT, "units": 8}],
        "ledger's receipts": [{"receipt": "W-1", **BOUGHT, "units": 8}],
        "purchasing's SKUs": [{"sku": "17", "waiting": 5, "needed_by": None, "received_total": 8}],
        "inventory's SKUs": [
            {"sku": "17", "on_hand": 7, "waiting": 5, "needed_by": None, "received_total": 8},
            {"sku": "18", "on_hand": 0, "waiting": 0, "needed_by": None, "received_total": 0},
        ],
        "purchase lines": [{**BOUGHT, "received": 8, "committed": 13, "open": 5, "expected_on": DAY}],
        "inventory's supply": [
            {**BOUGHT, "committed": 13, "open": 5, "expected_on": DAY},
            {**BOUGHT, "line": 2, "committed": 0, "open": 0, "expected_on": None},
        ],
        "opening counts": [{"sku": "17", "units": 5}],
        "open exceptions": [],
    }


def violations(name: str, rows: Rows, *, settled: bool = True) -> list[tuple[str, dict[str, Any], str]]:
    check: Callable[[Any], Iterator[Any]] = (
        SUMS[name][1] if name in SUMS else lambda known: AGREEMENTS[name].violations(known, settled=settled)
    )
    return list(check(rows))


def broken(title: str, **fields: Any) -> Rows:
    """The example with other fields in the first row of one query, or without any row of it."""
    rows = facts()
    rows[title][:1] = [{**rows[title][0], **fields}]
    return rows if fields else {**rows, title: []}


BREAKS: list[tuple[str, str, dict[str, Any]]] = [
    ("orders and inventory agree on every claim", "inventory's lines", {"wanted": 19}),
    ("orders and inventory agree on what has shipped", "inventory's lines", {"shipped": 5}),
    ("orders and inventory agree on every claim", "inventory's lines", {"demand_version": 6}),
    ("orders and inventory agree on every claim", "inventory's lines", {}),
    ("orders and inventory agree on every claim", "orders' lines", {}),
    ("orders and inventory agree on what is served", "orders' lines", {"served": 12}),
    ("inventory booked what purchasing received, receipt by receipt", "ledger's receipts", {"units": 9}),
    ("inventory booked what purchasing received, receipt by receipt", "ledger's receipts", {"sku": "18"}),
    ("inventory booked what purchasing received, receipt by receipt", "ledger's receipts", {}),
    ("inventory booked what purchasing received, receipt by receipt", "booked receipts", {}),
    ("purchasing knows what is short", "purchasing's SKUs", {"waiting": 4}),
    ("purchasing knows what is short", "purchasing's SKUs", {"received_total": 0}),
    ("purchasing knows what is short", "purchasing's SKUs", {}),
    ("inventory knows what is coming", "inventory's supply", {"open": 8}),
    ("inventory knows what is coming", "inventory's supply", {"expected_on": None}),
    ("inventory knows what is coming", "inventory's supply", {}),
    ("inventory knows what is coming", "purchase lines", {}),
    ("the notifier knows whom to write to about every order", "contacts", {}),
    ("the notifier knows whom to write to about every order", "contacts", {"address": "y"}),
    ("every promise has its notice", "noticed promises", {}),
    ("every promise has its notice", "noticed promises", {"ship_by": None}),
    ("everything shipped or cancelled has its notice", "noticed outcomes", {}),
    ("everything shipped or cancelled has its notice", "noticed outcomes", {"cancelled": 0}),
    ("opening + received - shipped = on hand, per SKU", "inventory's SKUs", {"on_hand": 8}),
    ("opening + received - shipped = on hand, per SKU", "purchase lines", {"received": 9}),
    ("opening + received - shipped = on hand, per SKU", "orders' lines", {"shipped": 7}),
    ("opening + received - shipped = on hand, per SKU", "opening counts", {}),
    ("every waiting unit is covered by supply or an exception", "purchase lines", {"open": 4}),
]


def test_the_example_has_every_fact() -> None:
    assert set(facts()) == {title for queries in FACTS.values() for title in queries}


@pytest.mark.parametrize("name", [*AGREEMENTS, *SUMS])
def test_a_system_at_rest_is_as_it_must_be(name: str) -> None:
    assert violations(name, facts()) == []


@pytest.mark.parametrize(("name", "title", "fields"), BREAKS, ids=str)
def test_what_is_broken_is_found_and_named(name: str, title: str, fields: dict[str, Any]) -> None:
    found = violations(name, broken(title, **fields))
    assert found
    for service, row, expected in found:
        assert service in FACTS
        assert {"order_id": "A-1"}.items() <= row.items() or row["sku"] in {"17", "18"}
        assert expected


def test_every_check_can_fail() -> None:
    assert {name for name, _, _ in BREAKS} == {*AGREEMENTS, *SUMS}


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT a FROM line WHERE NOT EXISTS (SELECT FROM orders)", "line"),
        ("SELECT a FROM (SELECT b\n FROM demand) AS d JOIN sku USING (sku)", "demand"),
    ],
)
def test_a_check_goes_through_the_first_table_that_it_reads(sql: str, name: str) -> None:
    assert table(sql) == name


def test_an_exception_covers_what_supply_does_not() -> None:
    rows = broken("purchase lines", open=4)
    rows["open exceptions"] = [{"sku": "17", "quantity": 1}]
    assert violations("every waiting unit is covered by supply or an exception", rows) == []


def test_while_messages_are_under_way_only_the_same_version_is_compared() -> None:
    name = "orders and inventory agree on every claim"
    assert violations(name, broken("inventory's lines", demand_version=6, wanted=19), settled=False) == []
    assert violations(name, broken("inventory's lines", demand_version=7, wanted=19), settled=False)


def test_a_parked_message_speaks_for_everything_that_it_names() -> None:
    body = '{"items": [{"order": "A-1", "line": 2, "sku": "17", "wanted": 3}]}'
    about = frozenset(_about({"aggregate": "line:A-1/2", "body": body}))
    assert about == {("order_id", "A-1"), ("sku", "17")}
    rows: list[Row] = [{"order_id": "A-1", "line": 1}, {"sku": "17", "open": 3}]
    assert all(_concerns(row, about) for row in rows)
    assert not _concerns({"order_id": "A-2", "sku": "18"}, about)
    assert not _concerns(rows[0], frozenset())


def test_a_parked_timer_speaks_for_its_aggregate() -> None:
    assert set(_about({"aggregate": "supplier:acme", "body": '{"key": "acme"}'})) == {("supplier", "acme")}


def test_lag_counts_from_where_the_database_stands_or_the_log_begins() -> None:
    row = {"stands": '[["orders.events", 0, 5]]', "outbox": 0, "timers": 0, "requests": 0, "mails": 0, "number": 9}
    span = {("orders.events", 0): (0, 7), ("orders.events", 1): (100, 103), ("orders.events", 2): (9, 9), ("orders.demand", 0): (0, 50)}
    waiting = _waiting(row, ["orders.events"], span)
    assert waiting.lag == {"orders.events": 2 + 3}
    assert str(waiting) == "5 unread of orders.events"


def test_nothing_under_way_is_false_and_anything_is_true() -> None:
    assert not Unsettled({"orders": Waiting(number=7), "inventory": Waiting()})
    for one in (Waiting({"orders.events": 1}), Waiting(outbox=1), Waiting(timers=1), Waiting(requests=1), Waiting(mails=1)):
        under_way = Unsettled({"orders": Waiting(), "inventory": one})
        assert under_way
        assert str(under_way).startswith("inventory: 1 ")
