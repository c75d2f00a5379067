"""The published language: every message has its place, and says the same after a journey as before it."""

import json
from decimal import Decimal

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.asyncapi import schema
from shared.codec import cloud_event_headers, encode_items, partition_of, read
from shared.contracts import REGISTRY, TOPICS
from shared.contracts.base import MAX_QUANTITY, ListedMessage, Message
from shared.contracts.commerce import Customer, OrderedLine, OrderPlaced
from shared.contracts.orders import DemandSet
from tests.contract.examples import AT, EXAMPLES, ORDER, carried, headers_of, record

calm = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that says nothing about the code."""

identifiers = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=64).filter(
    lambda text: text.strip() == text
)
orders = st.builds(
    OrderPlaced,
    order=identifiers,
    placed_at=st.just(AT),
    customer=st.builds(
        Customer, id=identifiers, name=st.text(st.characters(exclude_categories=["C"]), max_size=50), email=st.just("a@b.example")
    ),
    currency=st.sampled_from(["EUR", "GBP", "JPY"]),
    lines=st.lists(
        st.builds(
            OrderedLine,
            line=st.integers(1, 1_000_000),
            sku=identifiers,
            quantity=st.integers(1, MAX_QUANTITY),
            unit_price=st.decimals(0, Decimal(10) ** 9, places=4),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda line: line.line,
    ).map(tuple),
)


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(REGISTRY.values())


def test_every_message_has_a_topic_of_the_system_and_every_topic_a_message() -> None:
    assert {message.TOPIC for message in REGISTRY.values()} == set(TOPICS)


def test_topic_names_are_unique() -> None:
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_a_message_arrives_as_it_was_sent(example: Message) -> None:
    delivery = read(carried(example), example.TOPIC.name)
    assert (delivery.messages, delivery.flaws) == (((0, example),), ())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_a_message_is_keyed_by_what_its_topic_keeps_in_order(example: Message) -> None:
    assert example.key == str(getattr(example, example.TOPIC.key))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_a_contract_grows_unknown_fields_are_ignored(example: Message) -> None:
    data = json.loads(example.model_dump_json()) | {"a_field_of_tomorrow": {"deep": [1]}}
    assert type(example).model_validate_json(json.dumps(data)) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_only_internal_messages_travel_in_lists(example: Message) -> None:
    assert isinstance(example, ListedMessage) is not example.TOPIC.public
    assert ("items" in schema(type(example))["properties"]) is isinstance(example, ListedMessage)


def test_levels_carry_a_version() -> None:
    assert all("version" in message.model_fields for message in REGISTRY.values() if message.LEVEL)


@calm
@given(orders)
def test_any_order_arrives_as_it_was_sent(order: OrderPlaced) -> None:
    delivery = read(carried(order), order.TOPIC.name)
    assert (delivery.messages, delivery.flaws) == (((0, order),), ())


@calm
@given(orders)
def test_binary_and_structured_mode_read_the_same(order: OrderPlaced) -> None:
    event = {
        "specversion": "1.0", "id": "m-1", "source": "/clients/test", "type": order.TYPE, "time": AT.isoformat(),
        "actor": "shop:test", "data": json.loads(order.model_dump_json()),
    }  # fmt: skip
    structured = record(order.TOPIC.name, [("content-type", b"application/cloudevents+json; charset=UTF-8")], json.dumps(event).encode())
    ours, theirs = read(carried(order), order.TOPIC.name), read(structured, order.TOPIC.name)
    assert theirs.messages == ours.messages == ((0, order),)
    assert theirs.content_hash() == ours.content_hash()
    for name in ("type", "source", "id", "time", "appended", "actor"):
        assert getattr(theirs.envelope, name) == getattr(ours.envelope, name)


@calm
@given(st.text(max_size=100), st.integers(1, 50))
def test_keys_go_where_any_kafka_client_sends_them(key: str, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key.encode(), everywhere, everywhere)


def test_a_list_keeps_order_and_index() -> None:
    items = [
        DemandSet(order="A-1", line=line, sku="17", wanted=1, shipped=0, queued_at=AT, ordered_at=AT, demand_version=7, version=7)
        for line in range(1, 500)
    ]
    headers = cloud_event_headers(DemandSet.TYPE, "/backorder/orders", "0", AT)
    delivery = read(record("orders.demand", list(headers), encode_items(DemandSet, items)), "orders.demand")
    assert delivery.messages == tuple(enumerate(items))


def test_the_same_data_counts_as_the_same_however_it_is_written() -> None:
    data = json.loads(ORDER.model_dump_json())
    shuffled = json.dumps(dict(reversed(data.items())), indent=3).encode()
    assert (
        read(record("commerce.orders", headers_of(ORDER), shuffled), "commerce.orders").content_hash()
        == read(carried(ORDER), "commerce.orders").content_hash()
    )


def test_other_data_counts_as_other() -> None:
    other = ORDER.model_copy(update={"currency": "GBP"})
    assert read(carried(other), "commerce.orders").content_hash() != read(carried(ORDER), "commerce.orders").content_hash()


def test_a_message_without_a_time_happened_when_the_broker_got_it() -> None:
    headers = [(name, value) for name, value in headers_of(ORDER) if name != "ce_time"]
    assert read(record("commerce.orders", headers, ORDER.model_dump_json().encode()), "commerce.orders").envelope.time == AT
