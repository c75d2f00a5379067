"""The hostile world: a function of the seed; what it says must be refused for the reasons that it names, and nothing else is refusable."""

from collections import Counter
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from aiokafka import ConsumerRecord

from deploy.chaos import demand
from deploy.chaos.hostile import HostileSimulator, Said, hostile_shop
from deploy.chaos.vandal import INPUTS, KINDS, poison
from shared.codec import read
from shared.contracts.base import Currency
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived, PurchaseOrderAcknowledged


@pytest.mark.parametrize("topic", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_poison_is_no_message_and_says_why(kind: str, topic: str) -> None:
    thrown = poison(kind, topic, "p1")
    record = ConsumerRecord(topic, 0, 0, 0, 0, None, thrown.value, None, 0, len(thrown.value or b""), tuple(thrown.headers))
    delivery = read(record, topic)
    assert not delivery.messages
    [(_, flaw)] = delivery.flaws
    assert flaw.reason in thrown.reasons
    assert ("chaos", "p1") in delivery.envelope.headers


def test_the_same_seed_is_the_same_world_and_another_one_another() -> None:
    said = hostile_shop(5, demand.story(5, 10).events)
    assert said == hostile_shop(5, demand.story(5, 10).events)
    assert said != hostile_shop(6, demand.story(6, 10).events)


def test_a_longer_story_begins_like_a_shorter_one() -> None:
    short, long = demand.story(5, 5).events, demand.story(5, 10).events
    end = demand.START + timedelta(days=5)
    assert [event for event in long if event.time < end] == [event for event in short if event.time < end]


def test_the_shop_is_hostile_in_every_way_and_never_about_an_order_before_it_was_placed() -> None:
    events = demand.story(5, 30).events
    said = hostile_shop(5, events)
    expected = Counter(reason for each in said if isinstance(each, Said) for reason in each.expects)
    assert set(expected) == {"invalid", "unknown_order", "id_reused", "order_exists", "cancellation_exists"}
    assert len(said) > 1.15 * len(events)
    seen = set[str]()
    for each in said:
        if each.message.TYPE.endswith("OrderPlaced.v1"):
            seen.add(each.message.key)
        elif not each.message.key.startswith(("nobody", "sku")):
            assert each.message.key in seen


def purchase(number: int) -> PurchaseOrderIssued:
    day = (demand.START + timedelta(days=3)).date()
    lines = tuple(PurchaseLine(line=n, sku=f"sku-{n:02}", quantity=10, unit_price=4, expected_on=day) for n in range(1, 4))  # type: ignore[arg-type]
    return PurchaseOrderIssued(
        purchase_order=f"supplier-01-{number}", supplier="supplier-01", currency=Currency("EUR"), issued_at=demand.START, lines=lines
    )


def test_suppliers_and_dock_are_hostile_in_every_way_and_deliver_what_they_agreed_to() -> None:
    story = demand.story(5, 1)
    simulator = HostileSimulator(
        story.behaviour, ZoneInfo("Europe/London"), 5, dict.fromkeys((f"sku-{n:02}" for n in range(1, 3)), "supplier-02")
    )
    for number in range(300):
        simulator.take(purchase(number))
        simulator.take(purchase(number))
    said = list(simulator.due(demand.START + timedelta(days=90)))
    assert simulator.next_due is None
    expected = Counter(reason for each in said if isinstance(each, Said) for reason in each.expects)
    assert set(expected) == {
        "unknown_line", "more_than_outstanding", "not_your_order", "unknown_purchase_order", "sku_mismatch", "id_reused", "receipt_exists",
    }  # fmt: skip
    answers = {each.message.acknowledgement for each in said if isinstance(each.message, PurchaseOrderAcknowledged)}
    assert 250 < len(answers) < 300
    rejected = {
        (each.message.purchase_order, line.line)
        for each in said
        if isinstance(each.message, PurchaseOrderAcknowledged) and each.message.supplier == "supplier-01"
        for line in each.message.lines
        if line.answer == "rejected"
    }
    arrived: Counter[tuple[str, int]] = Counter()
    for each in {each.message.receipt: each for each in said if isinstance(each.message, GoodsReceived)}.values():
        assert isinstance(each.message, GoodsReceived)
        for line in each.message.lines:
            arrived[each.message.purchase_order, line.line] += line.good + line.damaged
    never = [(f"supplier-01-{number}", 3) for number in range(300) if not arrived[f"supplier-01-{number}", 3]]
    assert not set(never) - rejected, "what is not rejected arrives, in part at least"


def test_every_message_is_repeated_now_and_then() -> None:
    said = hostile_shop(5, demand.story(5, 30).events)
    ids = Counter((each.source, each.id) for each in said if not (isinstance(each, Said) and each.expects))
    assert 0.05 < sum(count - 1 for count in ids.values()) / len(ids) < 0.12
