"""Contracts only grow: those of now break nothing that was released, and what would break something is found and named."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError, create_model

from shared.codec import decode
from shared.contracts import REGISTRY
from shared.contracts.base import Contract
from tests.contract import compatibility, release

KEPT = release.kept()


def test_nothing_that_was_released_is_broken() -> None:
    assert compatibility.breaks(KEPT, release.now()) == []


@pytest.mark.parametrize("name", KEPT)
def test_what_was_sent_then_is_read_now(name: str) -> None:
    messages, flaws = decode(name, KEPT[name]["topic"], KEPT[name]["example"].encode())
    assert (len(messages), flaws) == (1, ())


def test_every_contract_has_been_released() -> None:
    """A version that was never released could be changed without a word."""
    assert KEPT.keys() == REGISTRY.keys(), "run 'python -m tests.contract.release'"


ORDER, OFFER, NOTICE = (f"backorder.{name}.v1" for name in ("commerce.OrderPlaced", "suppliers.OfferChanged", "suppliers.ShipmentNotified"))
ALLOCATED, CANCELLED, DEMAND = (f"backorder.orders.{name}.v1" for name in ("LineAllocated", "LineCancelled", "DemandSet"))
SHORTAGE = "backorder.inventory.ShortageChanged.v1"


def part(what: dict[str, Any], *path: str) -> Any:
    """A part of the schema: fields by their path; of lists the items."""
    schema = what["schema"]
    for step in path:
        schema = schema["properties"][step]
        schema = schema.get("items", schema)
        if "$ref" in schema:
            schema = what["schema"]["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def fields(what: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    """The path of every field within a part."""
    for name in part(what, *path).get("properties", ()):
        yield (*path, name)
        yield from fields(what, *path, name)


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> list[str]:
    """What breaks when this is done to a released contract."""
    now = deepcopy(KEPT)
    change(now[name])
    return compatibility.breaks(KEPT, now)


LINE = ("lines",)
BREAKING: dict[str, tuple[str, Callable[[dict[str, Any]], object], tuple[str, ...]]] = {
    # what is done: to which contract, how, and words of the complaint
    "a field is removed": (ORDER, lambda what: part(what, *LINE)["properties"].pop("unit_price"), ("lines[].unit_price is gone",)),
    "a field becomes required": (OFFER, lambda what: part(what)["required"].append("pack"), ("refused: pack: may be left out, and is required",)),
    "a new field is required": (
        ORDER,
        lambda what: (part(what)["properties"].update(channel={"type": "string"}), part(what)["required"].append("channel")),
        ("channel: may be left out",),
    ),
    "a type is narrowed": (ORDER, lambda what: part(what, *LINE, "sku").update(type="integer"), ("lines[].sku: may be string", "integer")),
    "entries are of another type": (
        ORDER, lambda what: what["schema"]["properties"].update(lines={"type": "array", "items": {"type": "string"}}),
        ("lines[]: may be object, and only string is read",),
    ),
    "null is no longer taken": (
        SHORTAGE, lambda what: part(what, "items", "needed_by").update(anyOf=part(what, "items", "needed_by")["anyOf"][:1]),
        ("needed_by: may be null",),
    ),
    "a value is removed": (ORDER, lambda what: part(what, "currency")["enum"].remove("EUR"), ("currency: may be EUR",)),
    "only some values are left": (ORDER, lambda what: part(what, *LINE, "sku").update(enum=["A", "B"]), ("lines[].sku: may be anything",)),
    "less is taken": (ORDER, lambda what: part(what, *LINE, "quantity").update(maximum=1000), ("maximum is 1000000 as sent and 1000 as read",)),
    "more is needed": (ORDER, lambda what: part(what, *LINE, "quantity").update(minimum=2), ("minimum is 1 as sent and 2 as read",)),
    "a bound is new": (
        ORDER, lambda what: part(what, "customer", "language").update(minLength=2), ("customer.language: minLength is none as sent and 2",),
    ),
    "days end earlier": (NOTICE, lambda what: part(what, "expected_on").update(formatMaximum="2050-01-01"), ("expected_on: formatMaximum",)),
    "days begin later": (NOTICE, lambda what: part(what, "expected_on").update(formatMinimum="2020-01-01"), ("expected_on: formatMinimum",)),
    "texts are shorter": (ORDER, lambda what: part(what, "order").update(maxLength=20), ("order: maxLength is 64 as sent and 20 as read",)),
    "texts are longer": (ORDER, lambda what: part(what, "order").update(minLength=3), ("order: minLength",)),
    "fewer entries": (ORDER, lambda what: what["schema"]["properties"]["lines"].update(maxItems=10), ("lines: maxItems is 1000",)),
    "more entries": (ORDER, lambda what: what["schema"]["properties"]["lines"].update(minItems=2), ("lines: minItems is 1",)),
    "a pattern is another": (ORDER, lambda what: part(what, "order").update(pattern="^[a-z]+$"), ("order: pattern",)),
    "a format is another": (ORDER, lambda what: part(what, "placed_at").update(format="date"), ("placed_at: format is date-time",)),
    "a rule that this check does not know": (
        ORDER, lambda what: part(what, *LINE, "quantity").update(multipleOf=2), ("lines[].quantity: multipleOf is none as sent and 2",),
    ),
    "what is left out means something else": (
        ORDER, lambda what: part(what, "customer", "language").update(default="de"),
        ("customer.language: left out, it meant 'en' and would mean 'de'",),
    ),
    "the topic is another": (ORDER, lambda what: what.update(topic="orders"), ("its topic was 'commerce.orders' and is 'orders'",)),
    "the key is another": (ORDER, lambda what: what.update(key="sku"), ("its key was 'order' and is 'sku'",)),
    "the level is another": (SHORTAGE, lambda what: what.update(level=["version"]), ("its level was ['sku']",)),
    # what we send
    "we send a new value": (
        CANCELLED, lambda what: part(what, "reason")["enum"].append("whim"), ("by who reads as before", "reason: may be whim"),
    ),
    "we may leave out a field": (ALLOCATED, lambda what: part(what)["required"].remove("at"), ("by who reads as before", "at: may be left out")),
    "we send larger numbers": (DEMAND, lambda what: part(what, "items", "wanted").update(maximum=10**7), ("by who reads as before", "wanted")),
    "we send null": (
        ALLOCATED, lambda what: part(what)["properties"].update(at={"anyOf": [part(what, "at"), {"type": "null"}]}), ("at: may be null",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BREAKING)
def test_a_break_is_found_and_named(case: str) -> None:
    name, change, words = BREAKING[case]
    broken = changed(name, change)
    assert broken
    assert all(complaint.startswith(f"{name}: ") for complaint in broken)
    assert all(word in " ".join(broken) for word in words), broken


@pytest.mark.parametrize("name", KEPT)
def test_no_field_of_any_contract_goes_or_changes_unnoticed(name: str) -> None:
    for *within, field in fields(KEPT[name]):
        complaints = " ".join(changed(name, lambda what: part(what, *within)["properties"].pop(field)))  # noqa: B023  (called at once)
        assert f"{field} is gone" in complaints
        complaints = " ".join(changed(name, lambda what: part(what, *within)["properties"].update({field: {"type": "tea"}})))  # noqa: B023
        assert f"{field}: may be " in complaints
        assert "only tea is read" in complaints


def test_a_version_that_is_gone_is_named() -> None:
    now = {name: what for name, what in KEPT.items() if name != ORDER}
    [complaint] = compatibility.breaks(KEPT, now)
    assert complaint.startswith(f"{ORDER}: this version is gone")


GROWING: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "an optional field": (ORDER, lambda what: part(what)["properties"].update(channel={"type": "string", "default": ""})),
    "an optional field of what we send": (ALLOCATED, lambda what: part(what)["properties"].update(wave={"type": "string", "default": ""})),
    "an optional part of a line": (ORDER, lambda what: part(what, *LINE)["properties"].update(note={"type": "string"})),
    "wider bounds of what we take": (ORDER, lambda what: part(what, *LINE, "quantity").update(maximum=10**7, minimum=0)),
    "a further value of what we take": (OFFER, lambda what: part(what, "currency")["enum"].append("XEU")),
    "a field may be left out of what we take": (ORDER, lambda what: part(what)["required"].remove("placed_at")),
    "no bound any more of what we take": (ORDER, lambda what: part(what, "order").pop("maxLength")),
    "another description": (ORDER, lambda what: what["schema"].update(description="An order.")),
}


@pytest.mark.parametrize("case", GROWING)
def test_growing_breaks_nothing(case: str) -> None:
    assert changed(*GROWING[case]) == []


def test_a_new_message_breaks_nothing() -> None:
    assert compatibility.breaks(KEPT, {**KEPT, "backorder.commerce.OrderAmended.v1": KEPT[ORDER]}) == []


def test_a_release_keeps_what_breaks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([], tmp_path) == 0
    assert release.kept(tmp_path) == release.now()
    file = tmp_path / f"{ORDER}.json"
    before = json.loads(file.read_text())
    before["schema"]["properties"]["placed_by"] = {"type": "string"}
    file.write_text(json.dumps(before))
    for arguments in ([], ["--check"]):
        assert release.main(arguments, tmp_path) == 1
        assert f"{ORDER}: placed_by is gone" in capsys.readouterr().err
        assert json.loads(file.read_text()) == before


def test_checking_keeps_nothing(tmp_path: Path) -> None:
    assert release.main(["--check"], tmp_path) == 0
    assert release.kept(tmp_path) == {}


# What is said to break nothing breaks nothing: on models made at random, pydantic itself being the judge.

types: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda low, span: Annotated[int, Field(strict=True, ge=low, le=low + span)], st.integers(-3, 3), st.integers(0, 6)),
    st.builds(lambda low, span: Annotated[str, Field(min_length=low, max_length=low + span)], st.integers(0, 2), st.integers(0, 3)),
    st.builds(lambda values: Literal[tuple(sorted(values))], st.sets(st.sampled_from(["a", "b", "c"]), min_size=1)),
    st.just(bool),
).flatmap(lambda plain: st.sampled_from([plain, plain | None, Annotated[list[plain], Field(max_length=2)]]))  # type: ignore[valid-type]
defaults = st.sampled_from([..., None])
models = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.tuples(types, defaults), max_size=3).map(
    lambda fields: create_model("Model", __base__=Contract, **fields)  # type: ignore[call-overload]
)
plain = st.none() | st.booleans() | st.integers(-5, 10) | st.text("abc", max_size=5)
said = st.dictionaries(st.sampled_from(["x", "y", "z"]), plain | st.lists(plain, max_size=3), max_size=3)


def as_released(model: type[Contract]) -> dict[str, Any]:
    return {"topic": "t", "key": "x", "level": [], "schema": TypeAdapter(model).json_schema()}


def accepts(model: type[Contract], data: Any) -> bool:
    try:
        model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError:
        return False
    return True


@settings(deadline=None, max_examples=300)
@given(models, models, st.lists(said, min_size=1, max_size=20))
def test_what_breaks_nothing_is_read_as_before(old: Any, new: Any, messages: list[Any]) -> None:
    outside = compatibility.breaks({"backorder.commerce.M.v1": as_released(old)}, {"backorder.commerce.M.v1": as_released(new)})
    inside = compatibility.breaks({"backorder.orders.M.v1": as_released(old)}, {"backorder.orders.M.v1": as_released(new)})
    assert set(map(str, inside)) >= {complaint.replace(".commerce.", ".orders.") for complaint in outside}
    for data in messages:
        if data.keys() <= old.model_fields.keys():  # what nobody knew was ignored, and may mean something now
            assert outside or not accepts(old, data) or accepts(new, data), (data, outside)
            assert inside or accepts(old, data) == accepts(new, data), (data, inside)
