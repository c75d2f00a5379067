"""What one may ask purchasing over HTTP, and who may tell it what."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import httpx
import pytest

from services.purchasing.app import service
from services.purchasing.timers import WindowClosed
from shared.app import http_app
from shared.auth import Role, key_for
from shared.contracts.base import MAX_MESSAGE_BYTES, Message
from shared.http import Edge
from shared.settings import Settings
from tests.integration.purchasing.test_store import apply, offer, receipt, shortage
from tests.unit.purchasing.world import MONDAY

RECEIPT = receipt("R", "A-1", 1, "X", good=2).model_dump(mode="json")
ANSWER = {
    "acknowledgement": "K",
    "purchase_order": "A-1",
    "supplier": "A",
    "acknowledged_at": MONDAY.isoformat(),
    "lines": [{"line": 1, "answer": "accepted"}],
}


@dataclass
class Log:
    """Stands for the log: what was appended, and whether purchasing has applied it."""

    appended: list[tuple[Message, str, str, str]] = field(default_factory=list)
    all_applied: bool = True

    async def append(self, message: Message, source: str, name: str, actor: str) -> None:
        self.appended.append((message, source, name, actor))

    async def applied(self, topic: str, key: str) -> bool:
        return self.all_applied


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def client(pool: "asyncpg.Pool[asyncpg.Record]", log: Log) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API; A-1 is issued and partly received, B-1 planned, Z is short without an offer."""
    async with pool.acquire() as tx, tx.transaction():
        await apply(tx, [offer("A", "X"), offer("B", "Y"), shortage("X", 5, 1), shortage("Z", 3, 1)], MONDAY, 1)
        await apply(tx, [WindowClosed(key="A")], MONDAY, 2)
        await apply(tx, [receipt("R0", "A-1", 1, "X", good=2), shortage("Y", 4, 3)], MONDAY, 3)
    edge = Edge(Settings(), pool, log.append, log.applied)
    app = http_app(cast("Any", SimpleNamespace(service=service(Settings()))), edge)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://purchasing") as client:
        yield client


def key(role: Role, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key_for(Settings().api_secret, role, name)}"}


async def test_a_purchase_order_with_its_lines_and_receipts(client: httpx.AsyncClient, log: Log) -> None:
    log.all_applied = False
    found: dict[str, Any] = (await client.get("/purchase-orders/A-1")).json()
    assert (found["status"], found["supplier"], found["pending"]) == ("issued", "A", True)
    amounts = {"ordered": 5, "outstanding": 3, "received": 2, "declined": 0, "closed_short": 0}
    assert found["lines"] == [{"line": 1, "sku": "X", **amounts, "expected_on": "2026-03-03"}]
    booked = {"line": 1, "sku": "X", "good": 2, "closed_short": 0, "refused": 0}
    assert found["receipts"] == [{"receipt": "R0", "received_at": "2026-03-02T09:00:00Z", "lines": [booked]}]


async def test_an_unknown_purchase_order_is_pending_while_something_said_of_it_is_not_applied(client: httpx.AsyncClient, log: Log) -> None:
    assert (await client.get("/purchase-orders/Q-1")).status_code == 404
    log.all_applied = False
    assert (await client.get("/purchase-orders/Q-1")).json() == {"purchase_order": "Q-1", "pending": True}
    assert (await client.get("/purchase-orders/%00")).status_code == 422


async def test_purchase_orders_by_status_and_supplier(client: httpx.AsyncClient) -> None:
    async def ids(**query: Any) -> list[str]:
        return [order["purchase_order"] for order in (await client.get("/purchase-orders", params=query)).json()]

    assert await ids() == ["A-1", "B-1"]
    assert await ids(status="planned") == ["B-1"]
    assert await ids(supplier="A") == ["A-1"]
    assert await ids(limit=1) == ["A-1"]


async def test_exceptions(client: httpx.AsyncClient) -> None:
    moment = "2026-03-02T09:00:00Z"
    assert (await client.get("/exceptions")).json() == [
        {"sku": "Z", "reason": "no_offer", "quantity": 3, "needed_by": moment, "opened_at": moment}
    ]


async def test_the_dock_tells_a_receipt_under_its_own_id(client: httpx.AsyncClient, log: Log) -> None:
    answer = await client.post("/receipts", json=RECEIPT, headers=key(Role.WAREHOUSE, "dock"))
    assert (answer.status_code, answer.headers["Location"]) == (202, "/purchase-orders/A-1")
    [(message, source, name, actor)] = log.appended
    assert (message.key, source, name, actor) == ("A-1", "/clients/warehouse/dock", "R", "warehouse:dock")
    assert (await client.post("/receipts", json=RECEIPT, headers=key(Role.SUPPLIER, "A"))).status_code == 403
    assert (await client.post("/receipts", json=RECEIPT)).status_code == 401
    assert len(log.appended) == 1


@pytest.mark.parametrize(
    ("name", "changes", "status"),
    [
        ("A", {}, 202),
        ("A", {"purchase_order": "Q-1"}, 202),  # unknown so far: the service itself decides
        ("B", {}, 403),  # for another supplier
        ("B", {"supplier": "B"}, 403),  # for another's order
        ("A", {"lines": []}, 422),
    ],
)
async def test_a_supplier_answers_its_own_orders_only(
    client: httpx.AsyncClient, log: Log, name: str, changes: dict[str, Any], status: int
) -> None:
    answer = await client.post("/acknowledgements", json=ANSWER | changes, headers=key(Role.SUPPLIER, name))
    assert answer.status_code == status
    assert len(log.appended) == (status == 202)


BODIES: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"hello", 422, "(whole message)"),
    "not UTF-8": (b'{"receipt": "\xff"}', 400, ""),
    "a number that is none": (b'{"receipt": NaN}', 422, "receipt"),
    "half a character": (b'{"receipt": "\\ud800"}', 422, "receipt"),
    "deep": (b'{"receipt": ' + b"[" * 100_000, 400, ""),
    "a long number": (b'{"receipt": ' + b"9" * 100_000 + b"}", 400, ""),
    "seconds since 1970": (b'{"received_at": 1735689600}', 422, "received_at"),
    "larger than a message": (b" " * (MAX_MESSAGE_BYTES + 1), 413, ""),
}


@pytest.mark.parametrize("case", BODIES)
async def test_whatever_the_body_the_answer_names_the_field(client: httpx.AsyncClient, log: Log, case: str) -> None:
    content, status, field = BODIES[case]
    headers = {**key(Role.WAREHOUSE, "dock"), "Content-Type": "application/json"}
    answer = await client.post("/receipts", content=content, headers=headers)
    assert answer.status_code == status
    assert not field or field in [error["field"] for error in answer.json()["errors"]]
    assert log.appended == []
