"""Whatever is wrong with a record, its sender gets a specific reason (section 7 of the specification), and reading never breaks."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec import read
from shared.contracts.base import MAX_ITEMS, MAX_MESSAGE_BYTES
from shared.contracts.orders import DemandSet
from tests.contract.examples import AT, ORDER, Headers, headers_of, record

GOOD = ORDER.model_dump_json().encode()
TOPIC = ORDER.TOPIC.name


def order_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(GOOD)
    change(data)
    return json.dumps(data).encode()


def line_with(**fields: Any) -> bytes:
    return order_with(lambda data: data["lines"][0].update(fields))


INVALID: dict[str, tuple[bytes, str]] = {
    "lacks a field": (order_with(lambda data: data.pop("customer")), "customer"),
    "lacks a field of a line": (order_with(lambda data: data["lines"][0].pop("sku")), "lines.0.sku"),
    "quantity 0": (line_with(quantity=0), "lines.0.quantity"),
    "quantity -1": (line_with(quantity=-1), "lines.0.quantity"),
    "quantity 10^9": (line_with(quantity=10**9), "lines.0.quantity"),
    "quantity as text": (line_with(quantity="3"), "lines.0.quantity"),
    "quantity of one and a half": (line_with(quantity=1.5), "lines.0.quantity"),
    "negative price": (line_with(unit_price="-1"), "lines.0.unit_price"),
    "unknown currency": (order_with(lambda data: data.update(currency="XXY")), "currency"),
    "no lines": (order_with(lambda data: data.update(lines=[])), "lines"),
    "1,001 lines": (order_with(lambda data: data.update(lines=[{**data["lines"][0], "line": n} for n in range(1, 1002)])), "lines"),
    "line number twice": (order_with(lambda data: data.update(lines=data["lines"] * 2)), "(whole message)"),
    "time without a zone": (order_with(lambda data: data.update(placed_at="2025-01-02T10:00:00")), "placed_at"),
    "unknown time zone": (order_with(lambda data: data["customer"].update(time_zone="Mars/Base")), "customer.time_zone"),
    "two mail addresses": (order_with(lambda data: data["customer"].update(email="a@b.example, c@d.example")), "customer.email"),
    "a null character": (order_with(lambda data: data.update(order="A\x00")), "order"),
    "not an object": (b"[1, 2]", "(whole message)"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_wrong_field_is_named(case: str) -> None:
    value, field = INVALID[case]
    [(index, flaw)] = read(record(TOPIC, headers_of(ORDER), value), TOPIC).flaws
    assert (index, flaw.reason) == (0, "invalid")
    assert flaw.errors[0].field == field
    assert field in flaw.detail


def headers_with(name: str, value: bytes | None) -> Headers:
    return [(key, value if key == name else content) for key, content in headers_of(ORDER)]


def structured(text: bytes) -> tuple[Headers, bytes]:
    return [("content-type", b"application/cloudevents+json")], text


DEEP = b"[" * 100_000 + b"]" * 100_000
REFUSED: dict[str, tuple[Headers, bytes | None, str, str]] = {
    "not JSON": (headers_of(ORDER), b"hello", "not_json", "JSON"),
    "truncated": (headers_of(ORDER), GOOD[: len(GOOD) // 2], "not_json", "EOF"),
    "not UTF-8": (headers_of(ORDER), b'{"order": "\xff"}', "not_json", "JSON"),
    "deep nesting": (headers_of(ORDER), DEEP, "not_json", "recursion"),
    "deep nesting in a field that nobody knows": (headers_of(ORDER), GOOD[:-1] + b', "x": ' + DEEP + b"}", "not_json", "recursion"),
    "1 MiB": (headers_of(ORDER), b" " * (1024 * 1024), "too_large", str(MAX_MESSAGE_BYTES)),
    "a null value": (headers_of(ORDER), None, "no_data", "no value"),
    "an empty value": (headers_of(ORDER), b"", "no_data", "no value"),
    "an unknown type": (headers_with("ce_type", b"backorder.commerce.OrderEaten.v1"), GOOD, "unknown_type", "OrderEaten"),
    "a type of another topic": (headers_with("ce_type", b"backorder.warehouse.SkuDefined.v1"), GOOD, "unknown_type", "SkuDefined"),
    "an unknown version": (headers_with("ce_type", b"backorder.commerce.OrderPlaced.v9"), GOOD, "unknown_version", "OrderPlaced.v1"),
    "an unknown CloudEvents version": (headers_with("ce_specversion", b"0.3"), GOOD, "unknown_version", "0.3"),
    "no headers": ([], GOOD, "missing_attribute", "ce_type, ce_source, ce_id, ce_specversion"),
    "no id": (headers_with("ce_id", b""), GOOD, "missing_attribute", "ce_id"),
    "a header that is not text": (headers_with("ce_source", b"\xff\xfe"), GOOD, "bad_header", "UTF-8"),
    "a null header": (headers_with("ce_id", None), GOOD, "bad_header", "ce_id"),
    "a time that is none": (headers_with("ce_time", b"yesterday"), GOOD, "bad_header", "yesterday"),
    "a time without a zone": (headers_with("ce_time", b"2025-01-02T10:00:00"), GOOD, "bad_header", "no time zone"),
    "an endless id": (headers_with("ce_id", b"x" * 100_000), GOOD, "bad_header", "300"),
    "structured, not JSON": (*structured(b"hello"), "not_json", "line 1 column 1"),
    "structured, no object": (*structured(b"[]"), "invalid", "JSON object"),
    "structured, deep": (*structured(DEEP), "not_json", "200 levels"),
    "structured, no data": (*structured(b'{"specversion": "1.0"}'), "no_data", "'data'"),
    "structured, no value": (*structured(b""), "no_data", "no value"),
    "structured, 1 MiB": (*structured(b" " * (1024 * 1024)), "too_large", str(MAX_MESSAGE_BYTES)),
    "structured, half a character in the id": (*structured(b'{"id": "\\ud800", "data": 1}'), "not_json", "surrogate pair"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_record_gets_its_reason(case: str) -> None:
    headers, value, reason, said = REFUSED[case]
    delivery = read(record(TOPIC, headers, value), TOPIC)
    [(index, flaw)] = delivery.flaws
    assert (index, flaw.reason) == (0, reason)
    assert said in flaw.detail
    assert delivery.messages == ()


def test_good_items_of_a_list_count_and_bad_ones_are_kept_alone() -> None:
    good = DemandSet(order="A-1", line=1, sku="17", wanted=3, shipped=0, queued_at=AT, ordered_at=AT, demand_version=7, version=7)
    items = [json.loads(good.model_dump_json()), {"order": "A-2"}, json.loads(good.model_dump_json())]
    delivery = read(record("orders.demand", headers_of(good), json.dumps({"items": items}).encode()), "orders.demand")
    assert delivery.messages == ((0, good), (2, good))
    [(index, flaw)] = delivery.flaws
    assert (index, flaw.reason) == (1, "invalid")
    assert json.loads(flaw.body or b"") == {"items": [{"order": "A-2"}]}


NO_LISTS: dict[bytes, str] = {
    b"hello": "not_json", b'{"items":[': "not_json", b'{"items":' + DEEP + b"}": "not_json", b'{"items":[]]': "not_json",
    b"[]": "invalid", b"{}": "invalid", b'{"items": 3}': "invalid",
    b'{"items":[' + b"{}," * MAX_ITEMS + b"{}]}": "too_many_items",
}  # fmt: skip


@pytest.mark.parametrize("value", NO_LISTS, ids=lambda value: str(value[:12]))
def test_what_is_no_list_is_named(value: bytes) -> None:
    demand = DemandSet(order="A-1", line=1, sku="17", wanted=3, shipped=0, queued_at=AT, ordered_at=AT, demand_version=7, version=7)
    [(_, flaw)] = read(record("orders.demand", headers_of(demand), value), "orders.demand").flaws
    assert flaw.reason == NO_LISTS[value]


names = st.sampled_from(["ce_type", "ce_source", "ce_id", "ce_time", "ce_specversion", "content-type", "x"])
contents = (
    st.none()
    | st.binary(max_size=40)
    | st.sampled_from([ORDER.TYPE.encode(), b"1.0", b"application/cloudevents+json", b"2025-01-02T10:00:00Z"])
)
values = st.none() | st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["items", "data", "type", "id", "order", "lines"]), inner),
).map(lambda data: json.dumps(data).encode())  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(names, contents), max_size=8), values, st.sampled_from([TOPIC, "orders.demand"]))
def test_reading_never_breaks(headers: Headers, value: bytes | None, topic: str) -> None:
    delivery = read(record(topic, headers, value), topic)
    assert delivery.messages or delivery.flaws or topic == "orders.demand"
    assert all(flaw.detail for _, flaw in delivery.flaws)
    assert "\x00" not in delivery.envelope.id + delivery.envelope.source + delivery.envelope.type
