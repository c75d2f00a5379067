"""Every kind of change to a message that makes it wrong in one way, or right in an unusual one, with the verdict on it."""

import gzip
import json
import uuid
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from shared.contracts import REGISTRY
from shared.contracts.base import MAX_ITEMS, MAX_MESSAGE_BYTES
from tests.fuzz import fields
from tests.fuzz.draft import EITHER, FINE, Change, Draft, refused
from tests.fuzz.sites import Path, put, sites
from tests.fuzz.wire import NOT_TEXT, Headers

# One field


def _field(name: str) -> Change:
    kind = fields.KINDS[name]

    def change(draft: Draft) -> None:
        places = [site for site in sites(draft.contract, draft.data) if kind.applies(site)]
        if not places:
            return
        site = draft.rng.choice(places)
        draft.say(put(draft.data, site.path, kind.values(draft.rng, site)))
        draft.verdict = {True: refused("invalid", f"{site.field or '(whole message)'}: "), False: FINE, None: EITHER}[kind.refused]

    return change


def _edges(draft: Draft) -> None:
    """Several fields at their edges at once."""
    kind = fields.KINDS["at the edge"]
    data = draft.data
    for site in list(sites(draft.contract, data)):
        if kind.applies(site) and draft.rng.random() < 0.4:
            data = put(data, site.path, kind.values(draft.rng, site))
    draft.say(data)
    draft.verdict = FINE if _line_numbers_differ(data) else EITHER


def _line_numbers_differ(data: Any) -> bool:
    numbers = [line["line"] for line in data.get("lines", []) if isinstance(line, dict) and "line" in line]
    return len(set(numbers)) == len(numbers)


# Several fields: the rules of a model

RULE = "rule of the model"
MODEL_RULES: dict[str, tuple[Path, Any, str]] = {
    # contract: where, what, and the words of the answer
    "OrderPlaced": (("lines",), "twice", "line numbers must differ"),
    "OrderCancelRequested": (("line",), None, "'quantity' needs a 'line'"),
    "PurchaseOrderAcknowledged": (("lines", 0), {"line": 1, "answer": "changed"}, "say what changes"),
    "GoodsReceived": (("lines",), "twice", "may stand once in a receipt"),
}


def _rule(draft: Draft) -> None:
    path, value, words = MODEL_RULES[draft.contract.__name__]
    draft.say(put(draft.data, path, draft.data["lines"] * 2 if value == "twice" else value))
    draft.verdict = refused("invalid", words)


# The text


def _raw(reason: str, change: Callable[[Random, bytes], bytes | None], *words: str) -> Change:
    def apply(draft: Draft) -> None:
        assert draft.body is not None
        draft.body = change(draft.rng, draft.body)
        draft.verdict = refused(reason, *words) if reason else FINE

    return apply


def _with(extra: bytes) -> Callable[[Random, bytes], bytes]:
    """The object with one more field that nobody knows."""
    return lambda _, body: body[:-1] + b', "a_field_of_tomorrow": ' + extra + b"}"


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _duplicated(draft: Draft) -> None:
    """The same key twice: the last one counts."""
    good = json.dumps(draft.data)
    name = draft.rng.choice(sorted(draft.data))
    bad = json.dumps({name: {"no": "such"}})
    first = draft.rng.random() < 0.5
    text = f"{bad[:-1]}, {good[1:]}" if first else f"{good[:-1]}, {bad[1:]}"
    draft.body = (f'{{"items": [{text}]}}' if draft.listed else text).encode()
    draft.verdict = FINE if first else refused("invalid", name)


def _flipped(rng: Random, body: bytes) -> bytes:
    text = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text))
        match rng.randrange(4):
            case 0:
                text[place] ^= 1 << rng.randrange(8)
            case 1:
                del text[place : place + rng.randrange(1, 9)]
            case 2:
                text[place:place] = rng.randbytes(rng.randrange(1, 9))
            case _:
                text[place:place] = text[rng.randrange(len(text)) :][: rng.randrange(1, 40)]
        if not text:
            return b"0"
    return bytes(text)


def _anything(draft: Draft) -> None:
    """A tree of anything, with the names of the contract here and there."""
    names = ["items", "data", *draft.data]

    def tree(depth: int) -> Any:
        leaf = draft.rng.choice((None, True, 0, -1, 1.5, 10**20, "", "x", "2026-01-01", "\U0001f4e6"))
        if depth == 0 or draft.rng.random() < 0.3:
            return leaf
        if draft.rng.random() < 0.4:
            return [tree(depth - 1) for _ in range(draft.rng.randrange(4))]
        return {draft.rng.choice(names): tree(depth - 1) for _ in range(draft.rng.randrange(5))}

    draft.body = json.dumps(tree(4)).encode()
    draft.verdict = EITHER


def _either(change: Callable[[Random, bytes], bytes]) -> Change:
    def apply(draft: Draft) -> None:
        assert draft.body is not None
        draft.body = change(draft.rng, draft.body)
        draft.verdict = EITHER

    return apply


# Headers

NEEDED = ("ce_specversion", "ce_id", "ce_source", "ce_type")


def _without_header(draft: Draft) -> None:
    name = draft.rng.choice(NEEDED)
    draft.headers = [(key, value) for key, value in draft.headers if key != name]
    draft.verdict = refused("missing_attribute", name)


def _no_headers(draft: Draft) -> None:
    draft.headers = []
    draft.verdict = refused("missing_attribute", *NEEDED)


def _longest(draft: Draft) -> None:
    """Attributes of as many characters as they may have; our own ids and types have their forms."""
    draft.header("ce_source", b"s" + draft.rng.choice((b"x" * 299, b"\xf0\x9f\x93\xa6" * 299, b"\x01" * 299, b'"' * 299)))
    draft.header("ce_actor", draft.rng.choice((b"a" * 300, b"\x00" * 300, b"")))
    draft.header("ce_id", draft.id.encode().ljust(300, draft.rng.choice((b"x", b"\x01", b"\\", b"\x00"))))
    draft.header("ce_time", draft.rng.choice((b"1970-01-01T00:00:00Z", b"2099-12-31T23:59:59.999999Z", b"20260101T100000+0530", b"")))


def _header(values: Sequence[bytes | None], reason: str, *words: str, names: Sequence[str] = (*NEEDED, "ce_actor", "ce_time")) -> Change:
    def apply(draft: Draft) -> None:
        name = draft.rng.choice(names)
        draft.header(name, draft.rng.choice(values))
        draft.verdict = refused(reason, name, *words)

    return apply


def _type(change: Callable[[Draft], str], reason: str) -> Change:
    def apply(draft: Draft) -> None:
        draft.header("ce_type", change(draft).encode())
        draft.verdict = refused(reason, draft.contract.TYPE)

    return apply


def _more_headers(make: Callable[[Random], Headers]) -> Change:
    def apply(draft: Draft) -> None:
        extra = list(make(draft.rng))
        draft.headers = [*extra, *draft.headers] if draft.rng.random() < 0.5 else [*draft.headers, *extra]

    return apply


def _internal(draft: Draft) -> None:
    """As if one of our services had sent it, with or without one of our ids."""
    draft.header("ce_source", b"/backorder/orders")
    draft.header("ce_id", str(uuid.UUID(int=draft.rng.getrandbits(128))).encode() if draft.rng.random() < 0.5 else draft.id.encode())


def _event(draft: Draft) -> dict[str, Any]:
    assert draft.body is not None
    text = {name.removeprefix("ce_"): value.decode() for name, value in draft.headers if name.startswith("ce_") and value is not None}
    return {**text, "data": json.loads(draft.body)}


def _structured(change: Callable[[dict[str, Any]], Any], reason: str = "", *words: str) -> Change:
    def apply(draft: Draft) -> None:
        event = change(_event(draft))
        draft.body = event if isinstance(event, bytes) else json.dumps(event).encode()
        draft.headers = [
            ("content-type", draft.rng.choice((b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=UTF-8")))
        ]
        draft.verdict = refused(reason, *words) if reason else FINE

    return apply


def _structured_field(draft: Draft) -> None:
    _field("wrong type")(draft)
    verdict = draft.verdict
    _structured(lambda event: event)(draft)
    draft.verdict = verdict


# The record around it


def _elsewhere(draft: Draft) -> None:
    draft.partition = draft.rng.randrange(draft.partitions)


def _key(values: Sequence[bytes | None]) -> Change:
    def apply(draft: Draft) -> None:
        draft.key = draft.rng.choice(values)

    return apply


def _long_ago(draft: Draft) -> None:
    draft.timestamp = draft.rng.choice((0, 1, 86_400_000))


# Lists


def _one_bad_among_many(draft: Draft) -> None:
    """One item is wrong, and only that one is refused."""
    places = [site for site in sites(draft.contract, draft.data) if fields.KINDS["wrong type"].applies(site)]
    site = draft.rng.choice(places)
    bad = put(draft.data, site.path, draft.rng.choice(fields.WRONG_TYPE[site.type]))
    index = draft.rng.randrange(500)
    items = [{**draft.data, "line": number} if "line" in draft.data else draft.data for number in range(1, 500)]
    draft.body = json.dumps({"items": [*items[:index], bad, *items[index:]]}).encode()
    draft.verdict = refused("invalid", f"{site.field or '(whole message)'}: ", index=index)


def _list(make: Callable[[Draft], Any], reason: str = "", *words: str) -> Change:
    def apply(draft: Draft) -> None:
        draft.body = json.dumps(make(draft), separators=(",", ":")).encode()
        draft.verdict = refused(reason, *words) if reason else FINE

    return apply


CHANGES: dict[str, Change] = {
    "untouched": lambda _draft: None,
    **{name: _field(name) for name in fields.KINDS},
    "several at their edges": _edges,
    RULE: _rule,
    # the text
    "no value": _raw("no_data", lambda rng, _: rng.choice((None, b"")), "no value"),
    "truncated": _raw("not_json", lambda rng, body: body[: rng.randrange(1, len(body))], "JSON"),
    "trailing garbage": _raw("not_json", lambda rng, body: body + rng.choice((b"x", b"{}", b"\x00", b"]", b"}", body)), "nothing after it"),
    "byte order mark": _raw("not_json", lambda _, body: b"\xef\xbb\xbf" + body, "byte order mark"),
    "UTF-16": _raw("not_json", lambda rng, body: body.decode().encode(rng.choice(("utf-16", "utf-16-le", "utf-16-be"))), "UTF-16"),
    "not UTF-8": _raw("not_json", _with(b'"\xff\xfe"'), "UTF-8"),
    "half a character": _raw("not_json", _with(b'"\\ud800"'), "surrogate pair"),
    "other half": _raw("not_json", _with(b'"\\udc00"'), "surrogate pair"),
    "control character": _raw("not_json", _with(b'"a\nb"'), "control character"),
    "deep": _raw("not_json", _with(_nested(100_000)), "200 levels"),
    "deep enough": _raw("not_json", lambda rng, body: _with(_nested(rng.randrange(201, 1_200)))(rng, body), "200 levels"),
    "less deep": _raw("", lambda rng, body: _with(_nested(rng.randrange(1, 190)))(rng, body)),
    "endless number": _raw("not_json", _with(b"9" * 5_000), "4,300 digits"),
    "long number": _raw("", _with(b"9" * 4_000)),
    "packed value": _raw("not_json", lambda _, body: gzip.compress(body, mtime=0), "gzip", "compression.type"),
    "schema registry": _raw("not_json", lambda _, body: b"\x00\x00\x00\x00\x01" + body, "Avro"),
    "single quotes": _raw("not_json", lambda _, body: body.replace(b'"', b"'"), "JSON"),
    "comment": _raw("not_json", lambda _, body: b"/* x */" + body, "JSON"),
    "another root": _raw("invalid", lambda rng, _: rng.choice((b"[]", b"null", b"1", b'"x"', b"true", b"[1]")), "object"),
    "too large": _raw("too_large", lambda _, body: body + b" " * (MAX_MESSAGE_BYTES + 1 - len(body)), str(MAX_MESSAGE_BYTES)),
    "just not too large": _raw("", lambda _, body: body + b" " * (MAX_MESSAGE_BYTES - len(body))),
    "unknown field": _raw("", _with(b'{"deep": [1, null, NaN, -Infinity, 1e400]}')),
    "white space": _raw("", lambda _, body: b" \n\t" + body.replace(b", ", b" ,\r\n\t ") + b" \n"),
    "duplicate key": _duplicated,
    "flipped": _either(_flipped),
    "noise": _either(lambda rng, _: rng.randbytes(rng.randrange(1, 200))),
    "anything": _anything,
    # headers
    "header missing": _without_header,
    "no headers": _no_headers,
    "header null": _header((None,), "bad_header", "null"),
    "header not UTF-8": _header((b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"), "bad_header", "UTF-8"),
    "header long": _header((b"x" * 301, b"\xf0\x9f\x93\xa6" * 301, b"x" * 65_536), "bad_header", "300 characters", names=("ce_id", "ce_source", "ce_type", "ce_actor")),
    "headers at their edges": _longest,
    "time": _header((b"yesterday", b"2026-01-01T00:00:00", b"1735689600", b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-12:00",
                     b"2026-13-01T00:00:00Z", b"\x00", b"x" * 65_536), "bad_header", names=("ce_time",)),
    "other CloudEvents": _header((b"0.3", b"1", b"2.0", b"x" * 65_536), "unknown_version", "1.0", names=("ce_specversion",)),
    "unknown type": _type(lambda draft: draft.rng.choice(("acme.Odd.v1", "x", "backorder.commerce.OrderEaten.v1", "\u202e")), "unknown_type"),
    "type of another topic": _type(lambda draft: next(name for name, other in REGISTRY.items() if other.TOPIC is not draft.contract.TOPIC), "unknown_type"),
    "unknown version": _type(lambda draft: draft.contract.TYPE[:-1] + draft.rng.choice(("0", "9", "x", "")), "unknown_version"),
    "many headers": _more_headers(lambda rng: [(f"x{number}", rng.randbytes(8)) for number in range(2_000)]),
    "huge header": _more_headers(lambda rng: [("x" * rng.choice((1, 30_000)), rng.randbytes(65_536))]),
    "odd headers": _more_headers(lambda rng: [(rng.choice((NOT_TEXT, "", "ce_type ", "reply_to", "\u202e", "CE_ID")), rng.choice((None, b"", b"\xff\xfe")))]),
    "as from inside": _internal,
    "structured": _structured(lambda event: event),
    "structured, wrong field": _structured_field,
    "structured, no JSON": _structured(lambda _: b"hello", "not_json", "JSON"),
    "structured, no object": _structured(lambda event: [event], "invalid", "JSON object"),
    "structured, no data": _structured(lambda event: {name: value for name, value in event.items() if name != "data"}, "no_data", "'data'"),
    "structured, half a character": _structured(lambda event: {**event, "id": "\ud800"}, "not_json", "surrogate pair"),
    "structured, no text": _structured(lambda event: {**event, "id": 7, "type": None}, "missing_attribute", "ce_type", "ce_id"),
    "structured, endless number": _structured(lambda event: json.dumps(event).encode()[:-1] + b', "x": ' + b"9" * 5_000 + b"}", "not_json", "4,300 digits"),
    "structured, deep": _structured(lambda event: json.dumps(event).encode()[:-1] + b', "x": ' + _nested(994) + b"}", "not_json", "200 levels"),
    # the record around it
    "another partition": _elsewhere,
    "another key": _key((None, b"", b"another", b"\xff\xfe", b"k" * 65_536)),
    "long ago": _long_ago,
    # lists
    "list: one bad among 500": _one_bad_among_many,
    "list: none": _list(lambda _: {"items": []}),
    "list: most": _list(lambda draft: {"items": [{**draft.data, "line": number} if "line" in draft.data else draft.data for number in range(1, MAX_ITEMS + 1)]}),
    "list: one too many": _list(lambda draft: {"items": [draft.data] * (MAX_ITEMS + 1)}, "too_many_items", "items: ", str(MAX_ITEMS)),
    "list: a hundred thousand": _list(lambda _: {"items": [{}] * 100_000}, "too_many_items", "100000", str(MAX_ITEMS)),
    "list: no list": _list(lambda draft: draft.rng.choice(({}, {"items": {}}, {"items": None}, {"item": []})), "invalid", "items: "),
    "list: lists": _list(lambda draft: {"items": [[draft.data]]}, "invalid", "object"),
}  # fmt: skip

HEAVY = (
    "too many entries", "most entries", "deep", "too large", "just not too large", "many headers", "huge header",
    "list: one bad among 500", "list: most", "list: one too many", "list: a hundred thousand",
)  # fmt: skip
