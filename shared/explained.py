"""What is wrong with a message, in words that its sender's engineer can act on: which field, what was expected, what was found.

The texts stay short whatever comes in, and repeat nothing of a person's data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.contracts.base import PATTERNS
from shared.contracts.orders import MAX_ERROR, MAX_ERRORS, MAX_FIELD, FieldError

_SHOWN = 40
_PERSONAL = frozenset({"customer"})
"""Fields whose content is not repeated, only measured."""

_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "date_from_datetime_parsing": lambda context: f"Input should be a day such as 2026-11-22: {context['error']}",
    "datetime_from_date_parsing": lambda context: f"Input should be a date and time such as 2026-11-22T10:00:00Z: {context['error']}",
    "decimal_parsing": lambda _: "Input should be a number, or a number as text such as '2.50'",
    "decimal_type": lambda _: "Input should be a number, or a number as text such as '2.50'",
    "string_pattern_mismatch": lambda context: f"Input should be {PATTERNS[context['pattern']]}",
    "timezone_aware": lambda _: "Input should have timezone info: end it with Z or an offset such as +01:00",
    "too_long": lambda context: f"Input should have at most {context['max_length']} entries",
    "too_short": lambda context: f"Input should have at least {context['min_length']} entries",
    "value_error": lambda context: str(context["error"]),
}
"""Where pydantic's own words do not say what to do."""

_PARSER: Mapping[str, str] = {
    "recursion limit": "nest at most 200 levels",
    "number out of range": "give numbers at most 4,300 digits",
    "hex escape": "write a character beyond \\uffff as both halves of its surrogate pair, or as itself",
    "EOF": "the message is cut off",
    "control character": "escape line breaks and other control characters in texts",
    "trailing characters": "send one JSON object and nothing after it",
}
"""What the JSON parser says → what to do."""

_NOT_JSON: Sequence[tuple[bytes, str]] = (
    (b"\xef\xbb\xbf", "it begins with a byte order mark; send UTF-8 without one"),
    (b"\xff\xfe", "it looks like UTF-16; send UTF-8"),
    (b"\xfe\xff", "it looks like UTF-16; send UTF-8"),
    (b"{\x00", "it looks like UTF-16; send UTF-8"),
    (b"\x00{", "it looks like UTF-16; send UTF-8"),
    (b"\x00", "it begins as a schema registry's Avro or Protobuf does; send plain JSON"),
    (b"\x1f\x8b", "it looks like gzip; send plain JSON and set the producer's compression.type instead"),
    (b"\x28\xb5\x2f\xfd", "it looks like zstd; send plain JSON and set the producer's compression.type instead"),
)


def field_errors(error: ValidationError) -> tuple[FieldError, ...]:
    """What pydantic found: see `explained`."""
    return explained(error.errors(include_url=False))


def explained(found: Sequence[Mapping[str, Any]]) -> tuple[FieldError, ...]:
    """One entry per field, at most MAX_ERRORS. What a field's parts are blamed for it is not blamed for again."""
    blamed = {each["loc"][:depth] for each in found for depth in range(len(each["loc"]))}
    return tuple(
        FieldError(field=(".".join(map(str, each["loc"])) or "(whole message)")[:MAX_FIELD], error=_said(each)[:MAX_ERROR])
        for each in found
        if each["loc"] not in blamed
    )[:MAX_ERRORS]


def sentence(errors: Iterable[FieldError]) -> str:
    """The errors in one line."""
    return "; ".join(f"{error.field}: {error.error}" for error in errors)


def not_json(body: bytes, error: str) -> str:
    """What to say of a body that is no JSON, as the parser's `error` says."""
    hints = [words for beginning, words in _NOT_JSON if body.startswith(beginning)]
    hints += [words for said, words in _PARSER.items() if said in error]
    return "; ".join([f"the message is not JSON in UTF-8: {error}", *hints[:1]])


def shown(value: Any) -> str:
    """A value that came in, short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r} and {len(value) - _SHOWN} more characters"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 10 * _SHOWN else f"a number of {len(text)} digits"


def _said(found: Mapping[str, Any]) -> str:
    words = _WORDS.get(found["type"])
    text = words(found.get("ctx", {})) if words else found["msg"]
    if found["type"] in {"missing", "json_invalid", "value_error"}:
        return text
    value = found["input"]
    if isinstance(value, str) and not _PERSONAL.isdisjoint(found["loc"]):
        return f"{text} (found a text of {len(value)} characters)"
    return f"{text} (found {shown(value)})"
