"""The places of a message's data, each with what the published schema says of it."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from shared.contracts.base import MessageType

Path = tuple[str | int, ...]
Schema = dict[str, Any]
DROPPED = object()
"""Put in a place, it takes the place away."""


@dataclass(frozen=True)
class Site:
    """A place: its path, its schema without null, its value in the example, whether it must be there and may be null."""

    path: Path
    schema: Schema
    value: Any
    required: bool
    nullable: bool

    @property
    def field(self) -> str:
        """The path as errors name it."""
        return ".".join(map(str, self.path))

    @property
    def type(self) -> str:
        """`integer`, `string`, `instant`, `day`, `choice`, `price`, `boolean`, `array` or `object`."""
        if "enum" in self.schema:
            return "choice"
        if "anyOf" in self.schema:
            return "price"
        return {"date-time": "instant", "date": "day"}.get(self.schema.get("format", ""), str(self.schema["type"]))


def sites(contract: MessageType, data: Any) -> Iterator[Site]:
    """Every place in the data of one message, from the outside in."""
    schema = contract.model_json_schema()
    yield from _within((), schema, data, schema.get("$defs", {}), required=True)


def put(data: Any, path: Path, value: Any) -> Any:
    """A copy of the data with another value in a place."""
    if not path:
        return value
    changed = deepcopy(data)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is DROPPED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def _within(path: Path, schema: Schema, data: Any, definitions: dict[str, Schema], *, required: bool) -> Iterator[Site]:
    schema = _resolved(schema, definitions)
    options = schema.get("anyOf", [])
    nullable = {"type": "null"} in options
    if nullable:
        [schema] = [_resolved(option, definitions) for option in options if option != {"type": "null"}]
    yield Site(path, schema, data, required, nullable)
    if isinstance(data, dict):
        for name, value in data.items():
            inner = schema["properties"][name]
            yield from _within((*path, name), inner, value, definitions, required=name in schema.get("required", ()))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _within((*path, number), schema["items"], value, definitions, required=False)


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    reference = schema.get("$ref", "")
    return definitions[reference.rpartition("/")[2]] if reference else schema
