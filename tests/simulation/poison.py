"""Records that must not be applied, each of a kind, and the dead letter that must be kept of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from random import Random

from shared.codec import cloud_event_headers, encode
from shared.contracts.base import Message
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.orders import DemandSet
from shared.contracts.suppliers import GoodsReceived, ReceivedLine
from shared.contracts.warehouse import StockCounted
from shared.partitions import Place
from tests.simulation.log import Draft
from tests.simulation.outsiders import Outside

SOURCE = "/clients/hostile"


@dataclass(frozen=True, slots=True)
class Poison:
    """A record, and what is to be kept of it: one letter with this reason. Who can be read is known again by its id; else, or if the
    id is another record's (`by_place`), each copy is known by its place in the log and kept."""

    kind: str
    place: Place
    draft: Draft
    reason: str
    id: str
    by_place: bool


Broken = tuple[Draft, str, bool]
"""The record, the reason, and whether its copies are told apart by their places."""


def _headers(message: Message, id_: str, at: datetime, **changed: bytes | None) -> list[tuple[str, bytes | None]]:
    return [(name, changed.get(name, value)) for name, value in cloud_event_headers(message.TYPE, SOURCE, id_, at)]


def _broken(message: Message, id_: str, at: datetime) -> dict[str, Broken]:
    """One record of each kind that cannot be read as what it says it is."""
    key, value = message.key.encode(), encode(message)

    def headers(**changed: bytes | None) -> list[tuple[str, bytes | None]]:
        return _headers(message, id_, at, **changed)

    return {
        "not JSON": (Draft(key, b"hello", headers()), "not_json", False),
        "no value": (Draft(key, None, headers()), "no_data", False),
        "unknown type": (Draft(key, value, headers(ce_type=b"backorder.commerce.OrderEaten.v1")), "unknown_type", False),
        "unknown version": (Draft(key, value, headers(ce_type=message.TYPE.replace(".v1", ".v9").encode())), "unknown_version", False),
        "a field is missing": (Draft(key, json.dumps({**json.loads(value), "lines": []}).encode(), headers()), "invalid", False),
        "no headers": (Draft(key, value, ()), "missing_attribute", True),
        "no id": (Draft(key, value, headers(ce_id=b"")), "missing_attribute", True),
        "a header that is not text": (Draft(key, value, headers(ce_source=b"\xff\xfe")), "bad_header", True),
        "a null header": (Draft(key, value, headers(ce_id=None)), "bad_header", True),
    }


def _order(number: int, at: datetime) -> OrderPlaced:
    customer = Customer(id="C-X", name="Eve", email="eve@example.com")
    line = OrderedLine(line=1, sku="S1", quantity=1, unit_price=Decimal(1))
    return OrderPlaced(order=f"bad-{number}", placed_at=at, customer=customer, currency="EUR", lines=(line,))


def unreadable(outside: Outside, random: Random, number: int, at: datetime) -> Poison:
    """A record that is no message."""
    message: Message = _order(number, at)
    if random.random() < 0.3:
        line = ReceivedLine(line=1, sku="S1", good=1)
        message = GoodsReceived(receipt=f"bad-{number}", purchase_order="acme-1", received_at=at, lines=(line,))
    kind, (record, reason, by_place) = random.choice(sorted(_broken(message, f"poison-{number}", at).items(), key=lambda entry: entry[0]))
    return Poison(kind, outside.place(message), record, reason, f"poison-{number}", by_place)


def flawed_item(outside: Outside, _random: Random, number: int, at: datetime) -> Poison:
    """A list record with an item that says nothing; from a source that is none of ours."""
    demand = DemandSet(order="bad", line=1, sku="S1", wanted=1, shipped=0, queued_at=at, ordered_at=at, demand_version=0, version=0)
    record = Draft(None, json.dumps({"items": [{"order": "bad"}]}).encode(), _headers(demand, f"poison-{number}", at))
    return Poison("a flawed item", outside.place(demand), record, "invalid", f"poison-{number}", by_place=False)


def nonsense(outside: Outside, random: Random, number: int, at: datetime) -> Poison:
    """A proper message about something that does not exist, or that has been told."""
    line = ReceivedLine(line=1, sku="S1", good=1)
    counted = [article.sku for article in outside.story.articles if article.policy and not article.late]
    wishes: list[tuple[Message, str]] = [
        (OrderCancelRequested(request=f"R-{number}", order=f"ghost-{number}", requested_at=at), "unknown_order"),
        (GoodsReceived(receipt=f"ghost-{number}", purchase_order="ghost-1", received_at=at, lines=(line,)), "unknown_purchase_order"),
    ]
    if counted:
        again = StockCounted(count=f"again-{number}", sku=random.choice(counted), on_hand=5, counted_at=at)
        wishes.append((again, "already_counted"))
    message, reason = random.choice(wishes)
    headers = cloud_event_headers(message.TYPE, SOURCE, f"nonsense-{number}", at)
    record = Draft(message.key.encode(), encode(message), headers)
    return Poison("nonsense", outside.place(message), record, reason, f"nonsense-{number}", by_place=False)


def used_again(outside: Outside, random: Random, number: int, at: datetime) -> Poison | None:
    """Another order under the message id of one that was placed."""
    orders = [
        (place, record)
        for place, record in outside.said
        if place[0] == "commerce.orders" and b"OrderPlaced" in (dict(record.headers)["ce_type"] or b"")
    ]
    if not orders:
        return None
    place, record = random.choice(orders)
    other = json.loads(record.value or b"")
    other["lines"][0]["quantity"] += 1
    return Poison("an id used again", place, record._replace(value=json.dumps(other).encode()), "id_reused", "", by_place=True)


KINDS: tuple[Callable[[Outside, Random, int, datetime], Poison | None], ...] = (unreadable, unreadable, flawed_item, nonsense, used_again)
"""What a hostile client thinks of."""
