"""What senders get wrong is kept with its reason, and holds nobody up, not even the rest of its batch."""

import json

from shared.codec import encode
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandServed
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import Raw, append, bookmark, publish, raw
from tests.integration.runtime.observe import becomes, letters, query, units

GOOD = toy.order("A", 1)
BODY = encode(GOOD)
LETTERS = "SELECT message_id, reason, detail, body FROM runtime.dead_letter ORDER BY id"


def quantity(amount: object) -> bytes:
    """The good order with another quantity."""
    order = json.loads(BODY)
    order["lines"][0]["quantity"] = amount
    return json.dumps(order).encode()


def without(field: str) -> bytes:
    """The good order without a field."""
    return json.dumps({name: value for name, value in json.loads(BODY).items() if name != field}).encode()


BAD: dict[str, tuple[Raw, str, str]] = {
    # what is wrong: the record, the reason given, a part of the sentence for the sender
    "id not UTF-8": (raw(GOOD, "x", headers={"ce_id": b"\xff\xfe"}), "bad_header", "not UTF-8"),
    "type null": (raw(GOOD, "null-type", headers={"ce_type": None}), "bad_header", "'ce_type' is null"),
    "type missing": (Raw("A", BODY, [("ce_id", b"no-type")]), "missing_attribute", "ce_type, ce_source, ce_specversion"),
    "no header at all": (Raw("A", BODY, []), "missing_attribute", "ce_type"),
    "time without zone": (raw(GOOD, "no-zone", headers={"ce_time": b"2026-01-01T00:00:00"}), "bad_header", "no time zone"),
    "time is no time": (raw(GOOD, "no-time", headers={"ce_time": b"yesterday"}), "bad_header", "yesterday"),
    "id too long": (raw(GOOD, "x" * 301), "bad_header", "at most 300"),
    "other CloudEvents": (raw(GOOD, "old", headers={"ce_specversion": b"0.3"}), "unknown_version", "'0.3'"),
    "unknown type": (raw(GOOD, "odd", headers={"ce_type": b"acme.Odd.v1"}), "unknown_type", "it takes"),
    "unknown version": (raw(GOOD, "v9", headers={"ce_type": b"backorder.commerce.OrderPlaced.v9"}), "unknown_version", "OrderPlaced.v1"),
    "null value": (Raw("A", None, raw(GOOD, "null").headers), "no_data", "no value"),
    "empty value": (Raw("A", b"", raw(GOOD, "empty").headers), "no_data", "no value"),
    "not JSON": (raw(GOOD, "text", value=b"hello"), "not_json", "JSON"),
    "not text": (raw(GOOD, "binary", value=b"\x00\xff\xfe\x80"), "not_json", "JSON"),
    "truncated": (raw(GOOD, "cut", value=BODY[:-20]), "not_json", "EOF"),
    "no object": (raw(GOOD, "list", value=b"[1]"), "invalid", "object"),
    "field missing": (raw(GOOD, "no-currency", value=without("currency")), "invalid", "currency"),
    "quantity 0": (raw(GOOD, "zero", value=quantity(0)), "invalid", "lines.0.quantity"),
    "quantity -1": (raw(GOOD, "minus", value=quantity(-1)), "invalid", "lines.0.quantity"),
    "quantity 10^9": (raw(GOOD, "billion", value=quantity(10**9)), "invalid", "lines.0.quantity"),
    "quantity text": (raw(GOOD, "word", value=quantity("many")), "invalid", "lines.0.quantity"),
    "nested deeply": (raw(GOOD, "deep", value=b'{"items":' + b"[" * 100_000), "not_json", "JSON"),
    "structured, no data": (
        Raw("A", b'{"id":"s1"}', [("content-type", b"application/cloudevents+json")]), "no_data", "'data'",
    ),
    "structured, not JSON": (Raw("A", b"{", [("content-type", b"application/cloudevents+json")]), "not_json", "EOF"),
}  # fmt: skip


async def test_bad_records_in_the_middle_of_a_batch_are_kept_with_their_reason_and_hold_nobody_up(settings: Settings) -> None:
    await toy.prepare(settings)
    numbered = [(raw(toy.order("A", 1), f"good-{n}"), bad) for n, (bad, _, _) in enumerate(BAD.values())]
    await append(settings, *(record for pair in numbered for record in pair), raw(toy.order("B", 7), "other-partition"))
    expected = [reason for _, reason, _ in BAD.values()]

    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": len(BAD), "B": 7})
        kept = await query(settings, toy.TOY, LETTERS)
        assert dict(zip(BAD, [reason for _, reason, _, _ in kept], strict=True)) == dict(zip(BAD, expected, strict=True))
        for (_, _, detail, _), (_, _, part) in zip(kept, BAD.values(), strict=True):
            assert part in detail
        await bookmark(runtime, 0)

    # Delivered again from the start, they are neither applied nor kept a second time.
    await publish(settings, (toy.order("A", 1), "last"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": len(BAD) + 1, "B": 7})
        assert await query(settings, toy.TOY, LETTERS) == kept


async def test_headers_that_are_nothing_to_us_may_be_anything(settings: Settings) -> None:
    """FastStream's own parser would lose the whole batch to any of these."""
    await toy.prepare(settings)
    odd = {"trace": b"\xff\xfe", "tenant": None, "reply_to": settings.topic("orders.events").encode(), "correlation_id": b"\xff"}
    await append(settings, raw(toy.order("A", 1), "1"), raw(toy.order("A", 2), "2", headers=odd), raw(toy.order("A", 4), "3"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 7})
        assert await query(settings, toy.TOY, LETTERS) == []


async def test_a_structured_event_is_as_good_as_a_binary_one(settings: Settings) -> None:
    await toy.prepare(settings)
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": GOOD.TYPE, "data": json.loads(BODY)}
    await append(settings, Raw("A", json.dumps(event).encode(), [("content-type", b"application/cloudevents+json; charset=utf-8")]))
    await append(settings, raw(GOOD, "1"), raw(toy.order("B", 1), "2"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 1, "B": 1})


async def test_one_bad_item_of_a_list_leaves_the_others_good(settings: Settings) -> None:
    await toy.prepare(settings)
    item = {"order": "A", "line": 1, "served": 1, "demand_version": 1, "version": 1}
    body = json.dumps({"items": [item, {**item, "served": -1}, {**item, "line": 2}]}).encode()
    record = raw(DemandServed.model_validate(item), "01900000-0000-7000-8000-000000000001", source="/backorder/inventory", value=body)
    await append(settings, Raw("A", record.value, record.headers, INVENTORY_ALLOCATIONS.name))
    async with toy.running(settings):
        await becomes(lambda: query(settings, toy.TOY, "SELECT name, heard FROM account"), [("A", '["served 1=1", "served 2=1"]')])
        [(index, reason, kept)] = await query(settings, toy.TOY, "SELECT index, reason, body FROM runtime.dead_letter")
        assert (index, reason) == (1, "invalid")
        assert json.loads(kept) == {"items": [{**item, "served": -1}]}


async def test_the_same_id_again_has_no_effect_and_with_other_content_is_reported(settings: Settings) -> None:
    await toy.prepare(settings)
    reformatted = json.dumps(json.loads(BODY), indent=3).encode()
    await append(
        settings,
        raw(GOOD, "1"),
        raw(GOOD, "1"),
        raw(GOOD, "1", value=reformatted, headers={"ce_time": b"2026-02-02T00:00:00Z"}),
        raw(toy.order("A", 5), "1"),
        raw(GOOD, "1", source="/another"),
    )
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 2})
        assert await letters(runtime, "refused") == [("1", "id_reused")]
        await append(settings, raw(toy.order("A", 6), "1"), raw(GOOD, "1"), raw(GOOD, "2"))
        await becomes(lambda: units(runtime), {"A": 3})
        assert await letters(runtime, "refused") == [("1", "id_reused")] * 2
        await bookmark(runtime, 0)
    await publish(settings, (toy.order("A", 1), "3"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 4})
        assert await letters(runtime, "refused") == [("1", "id_reused")] * 2, "the redelivered records were reported twice"
        assert await query(settings, toy.TOY, "SELECT max(next) FROM runtime.partition WHERE topic = 'commerce.orders'") == [(9,)]


async def test_a_corrected_message_may_come_under_the_id_of_the_refused_one(settings: Settings) -> None:
    await toy.prepare(settings)
    await append(settings, raw(GOOD, "1", value=quantity(0)), raw(GOOD, "1", value=quantity(0)), raw(GOOD, "1"), raw(GOOD, "1"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 1})
        assert await letters(runtime, "refused") == [("1", "invalid")]
        await append(settings, raw(GOOD, "1", value=quantity(-1)), raw(GOOD, "1", value=quantity(5)), raw(GOOD, "2"))
        await becomes(lambda: units(runtime), {"A": 2})
        assert await letters(runtime, "refused") == [("1", "invalid")] * 2 + [("1", "id_reused")]


async def test_a_refusal_by_a_rule_is_kept_and_holds_nobody_up(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 3), "1"), (toy.cancel("A", "R1", "refuse me"), "2"), (toy.cancel("A", "R2"), "3"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 2})
        assert await letters(runtime, "refused") == [("2", "not_wanted")]
