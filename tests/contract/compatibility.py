"""Whether contracts are still those that were released: what a change breaks, in words.

What outsiders send must be taken as before: its schema may grow by optional fields and wider bounds. What our services send must be
readable as before as well, and what they sent before, since our services read one another, old messages by new ones and, while
instances are replaced one by one, the other way round: it may only grow by optional fields.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.asyncapi import schema
from shared.contracts.base import MessageType
from shared.settings import SERVICES

Schema = Mapping[str, Any]

_SHAPE = {"$defs", "$ref", "anyOf", "enum", "items", "properties", "required", "type"}
_SAYS_NOTHING = {"default", "deprecated", "description", "examples", "title"}
_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "formatMinimum"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "formatMaximum"}
"""Every other word of a schema, such as `pattern`, is a rule that has to stay what it is where it is read."""
_NONE = object()


def released(contract: MessageType) -> dict[str, Any]:
    """What a release keeps of a contract: its schema, and where its messages are found."""
    return {"topic": contract.TOPIC.name, "key": contract.KEY, "level": list(contract.LEVEL), "schema": schema(contract)}


def breaks(kept: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Everything by which the contracts of now (type name → what `released` says) break those that were kept, in words."""
    return [f"{name}: {words}" for name, old in kept.items() for words in _broken(name, old, now.get(name))]


def _broken(name: str, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Iterator[str]:
    if new is None:
        yield "this version is gone: keep it beside its successor until nobody sends it and no topic holds it"
        return
    for what in ("topic", "key", "level"):
        if old[what] != new[what]:
            yield f"its {what} was {old[what]!r} and is {new[what]!r}"
    before, after = _Whole(old["schema"]), _Whole(new["schema"])
    yield from _lost("", before.root, after.root, before, after)
    for words in _refused("", after.root, before.root, after, before):
        yield f"what was sent until now is refused: {words}"
    if name.split(".")[1] in SERVICES:
        for words in _refused("", before.root, after.root, before, after):
            yield f"what we send now is refused by who reads as before: {words}"


class _Whole:
    """A schema with its definitions."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self._definitions = root.get("$defs", {})

    def resolved(self, part: Schema) -> Schema:
        reference = part.get("$ref")
        return self._definitions[reference.rpartition("/")[2]] if reference else part

    def options(self, part: Schema) -> dict[str, Schema]:
        """The alternatives of a part, by type. Raises ValueError for two of one type, which this check cannot tell apart."""
        part = self.resolved(part)
        options = [self.resolved(option) for option in part.get("anyOf", [part])]
        found = {str(option.get("type", "anything")): option for option in options}
        if len(found) < len(options):
            raise ValueError(f"alternatives of one type cannot be compared: {part}")
        return found


def _lost(path: str, old: Schema, new: Schema, before: _Whole, after: _Whole) -> Iterator[str]:
    """Fields that are read no more, or that mean something else when they are left out: both go without a word."""
    old_options, new_options = before.options(old), after.options(new)
    if "object" in old_options and "object" in new_options:
        fields, left = old_options["object"].get("properties", {}), new_options["object"].get("properties", {})
        for name, part in fields.items():
            field = _field(path, name)
            if name not in left:
                yield f"{field} is gone: it would be ignored"
                continue
            meant, means = part.get("default", _NONE), left[name].get("default", _NONE)
            if meant is not _NONE and means is not _NONE and meant != means:
                yield f"{field}: left out, it meant {meant!r} and would mean {means!r}"
            yield from _lost(field, part, left[name], before, after)
    if "array" in old_options and "array" in new_options:
        yield from _lost(f"{path}[]", old_options["array"].get("items", {}), new_options["array"].get("items", {}), before, after)


def _refused(path: str, reader: Schema, writer: Schema, reads: _Whole, writes: _Whole) -> Iterator[str]:
    """What may be written and is not taken."""
    taken = reads.options(reader)
    for type_, written in writes.options(writer).items():
        accepts = taken.get(type_) or taken.get("anything") or (taken.get("number") if type_ == "integer" else None)
        if accepts is None:
            yield f"{path or 'the message'}: may be {type_}, and only {', '.join(sorted(taken))} is read"
            continue
        yield from (f"{path or 'the message'}: {words}" for words in _outside(accepts, written))
        if type_ == "object":
            yield from _fields(path, accepts, written, reads, writes)
        if type_ == "array":
            yield from _refused(f"{path}[]", accepts.get("items", {}), written.get("items", {}), reads, writes)


def _fields(path: str, accepts: Schema, written: Schema, reads: _Whole, writes: _Whole) -> Iterator[str]:
    needed, given = set(accepts.get("required", ())), set(written.get("required", ()))
    for name, part in accepts.get("properties", {}).items():
        if name in needed - given:
            yield f"{_field(path, name)}: may be left out, and is required"
        if name in written.get("properties", {}):
            yield from _refused(_field(path, name), part, written["properties"][name], reads, writes)


def _outside(accepts: Schema, written: Schema) -> Iterator[str]:
    """Values of one type that may be written and are not read."""
    if "enum" in accepts:
        unknown = sorted(set(written["enum"]) - set(accepts["enum"])) if "enum" in written else ["anything"]
        if unknown:
            yield f"may be {', '.join(map(str, unknown))}, which is not one of the values read"
    for name in sorted(accepts.keys() - _SHAPE - _SAYS_NOTHING):
        narrower = name not in written or _narrower(name, written[name], accepts[name])
        if narrower and "enum" not in written:
            yield f"{name} is {written.get(name, 'none')} as sent and {accepts[name]} as read"


def _narrower(name: str, written: Any, read: Any) -> bool:
    """Whether a rule of the reader is stricter than the writer's."""
    if name in _LOWER:
        return bool(written < read)
    return bool(written > read) if name in _UPPER else bool(written != read)


def _field(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
