"""The limits of docs/integrate.md: what is at a limit is taken, what is beyond it is refused, and the answer names the limit."""

import json
from typing import Any

import pytest

from shared.codec import MAX_ATTRIBUTE, read
from shared.contracts.base import MAX_ITEMS, MAX_LINES, MAX_MESSAGE_BYTES, MAX_QUANTITY, MAX_TOTAL
from shared.contracts.commerce import OrderPlaced
from shared.contracts.inventory import ShortageChanged
from shared.contracts.orders import DemandSet
from shared.contracts.suppliers import OfferChanged, ShipmentNotified
from shared.contracts.warehouse import MAX_ON_HAND, SkuDefined, StockCounted
from tests.contract.examples import EXAMPLES, Headers, headers_of, record

BY_TYPE = {type(example): example for example in EXAMPLES}


def answer(contract: type[Any], body: bytes, headers: Headers | None = None) -> list[tuple[str, str]]:
    """Reason and text of everything that is wrong with a record of this type."""
    topic = contract.TOPIC.name
    delivery = read(record(topic, headers_of(BY_TYPE[contract]) if headers is None else headers, body), topic)
    assert delivery.messages or delivery.flaws
    return [(flaw.reason, flaw.detail) for _, flaw in delivery.flaws]


def body(contract: type[Any], *path: str | int, value: Any) -> bytes:
    """An example with another value in a place."""
    data = json.loads(BY_TYPE[contract].model_dump_json())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps({"items": [data]} if contract.LISTED else data).encode()


def lines(count: int) -> list[dict[str, Any]]:
    return [{"line": number, "sku": "17", "quantity": 1, "unit_price": "2.50"} for number in range(1, count + 1)]


FIELDS: dict[str, tuple[type[Any], tuple[str | int, ...], Any, Any, str]] = {
    # where, a value at the limit, one beyond it, and what the answer says
    "lines of an order": (OrderPlaced, ("lines",), lines(MAX_LINES), lines(MAX_LINES + 1), "at most 1000 entries"),
    "an order has a line": (OrderPlaced, ("lines",), lines(1), [], "at least 1 entries"),
    "units of a line": (OrderPlaced, ("lines", 0, "quantity"), MAX_QUANTITY, MAX_QUANTITY + 1, "less than or equal to 1000000"),
    "a line has a unit": (OrderPlaced, ("lines", 0, "quantity"), 1, 0, "greater than or equal to 1"),
    "units counted": (StockCounted, ("on_hand",), MAX_ON_HAND, MAX_ON_HAND + 1, "less than or equal to 1000000000"),
    "totals": (ShortageChanged, ("waiting",), MAX_TOTAL, MAX_TOTAL + 1, "less than or equal to 9007199254740991"),
    "versions": (ShortageChanged, ("version",), MAX_TOTAL, MAX_TOTAL + 1, "less than or equal to 9007199254740991"),
    "the highest price": (OfferChanged, ("price",), "9999999999.9999", "10000000000", "less than or equal to 9999999999.9999"),
    "the lowest price": (OfferChanged, ("price",), 0, "-0.0001", "greater than or equal to 0"),
    "decimals of a price": (OfferChanged, ("price",), "0.0001", "0.00001", "no more than 4 decimal places"),
    "an id": (OrderPlaced, ("order",), "x" * 64, "x" * 65, "at most 64 characters"),
    "a text": (SkuDefined, ("description",), "é" * 500, "é" * 501, "at most 500 characters"),
    "the first instant": (OrderPlaced, ("placed_at",), "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "greater than or equal to 1970"),
    "the last instant": (OrderPlaced, ("placed_at",), "2099-12-31T23:59:59.999999Z", "2100-01-01T00:00:00Z", "less than or equal to 2099"),
    "the first day": (ShipmentNotified, ("expected_on",), "1970-01-01", "1969-12-31", "greater than or equal to 1970-01-01"),
    "the last day": (ShipmentNotified, ("expected_on",), "2099-12-31", "2100-01-01", "less than or equal to 2099-12-31"),
}  # fmt: skip


@pytest.mark.parametrize("limit", FIELDS)
def test_a_field_has_its_limit(limit: str) -> None:
    contract, path, at, beyond, words = FIELDS[limit]
    assert answer(contract, body(contract, *path, value=at)) == []
    [(reason, said)] = answer(contract, body(contract, *path, value=beyond))
    assert reason == "invalid"
    assert said.startswith(".".join(map(str, path)))
    assert words in said


GOOD = BY_TYPE[OrderPlaced].model_dump_json().encode()


def unknown(value: bytes) -> bytes:
    """The order with a field that nobody knows: what it holds is bounded all the same."""
    return GOOD[:-1] + b', "x": ' + value + b"}"


def nested(levels: int) -> bytes:
    """So many levels within the message's object."""
    return unknown(b"[" * levels + b"]" * levels)


def demands(count: int) -> bytes:
    return json.dumps({"items": [json.loads(BY_TYPE[DemandSet].model_dump_json())] * count}).encode()


TEXTS: dict[str, tuple[type[Any], bytes, bytes, str, str]] = {
    "bytes": (OrderPlaced, GOOD.ljust(MAX_MESSAGE_BYTES), GOOD.ljust(MAX_MESSAGE_BYTES + 1), "too_large", f"the limit is {MAX_MESSAGE_BYTES}"),
    "levels": (OrderPlaced, nested(200), nested(201), "not_json", "at most 200 levels"),
    "digits": (OrderPlaced, unknown(b"9" * 4_300), unknown(b"9" * 4_301), "not_json", "at most 4,300 digits"),
    "items": (DemandSet, demands(MAX_ITEMS), demands(MAX_ITEMS + 1), "too_many_items", f"the limit is {MAX_ITEMS}"),
}  # fmt: skip


@pytest.mark.parametrize("limit", TEXTS)
def test_a_message_has_its_limit(limit: str) -> None:
    contract, at, beyond, reason, words = TEXTS[limit]
    assert answer(contract, at) == []
    [(found, said)] = answer(contract, beyond)
    assert found == reason
    assert words in said


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_actor"])
def test_an_attribute_has_its_limit(name: str) -> None:
    def with_text(text: str) -> Headers:
        return [(key, text.encode() if key == name else value) for key, value in headers_of(BY_TYPE[OrderPlaced])]

    assert answer(OrderPlaced, GOOD, with_text("é" * MAX_ATTRIBUTE)) == []
    [(reason, said)] = answer(OrderPlaced, GOOD, with_text("é" * (MAX_ATTRIBUTE + 1)))
    assert (reason, said) == ("bad_header", f"{name} may have at most {MAX_ATTRIBUTE} characters (found {MAX_ATTRIBUTE + 1})")


@pytest.mark.parametrize(
    ("at", "beyond"), [("1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z"), ("2099-12-31T23:59:59Z", "2100-01-01T00:00:00Z")]
)
def test_the_time_of_an_event_has_its_limits(at: str, beyond: str) -> None:
    def with_time(text: str) -> Headers:
        return [(key, text.encode() if key == "ce_time" else value) for key, value in headers_of(BY_TYPE[OrderPlaced])]

    assert answer(OrderPlaced, GOOD, with_time(at)) == []
    [(reason, said)] = answer(OrderPlaced, GOOD, with_time(beyond))
    assert reason == "bad_header"
    assert "between 1970 and 2099" in said
