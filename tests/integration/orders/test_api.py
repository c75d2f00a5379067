"""The HTTP edge: what it takes, what it answers, and what it never tells."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import httpx
import pytest

from services.orders.app import service
from services.orders.handlers import OrderInvalid
from shared.app import http_app
from shared.auth import Role, key_for
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested
from shared.contracts.orders import FieldError
from shared.http import Edge
from shared.settings import Settings
from tests.integration.orders.conftest import StoredDesk
from tests.unit.orders.desk import ADA, NOON, cancel, placed, shipped

SECRET = "s"
SHOP = {"Authorization": f"Bearer {key_for(SECRET, Role.SHOP, 'web')}"}
WAREHOUSE = {"Authorization": f"Bearer {key_for(SECRET, Role.WAREHOUSE, 'north')}"}


class Log:
    """What was appended, and whether all of it has been applied."""

    def __init__(self) -> None:
        self.appended: list[tuple[Message, str, str, str]] = []
        self.settled = True

    async def append(self, message: Message, source: str, id_: str, actor: str) -> None:
        self.appended.append((message, source, id_, actor))

    async def applied(self, topic: str, key: str) -> bool:
        assert (topic, bool(key)) == ("commerce.orders", True)
        return self.settled


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def client(database: "asyncpg.Pool[Any]", log: Log) -> AsyncIterator[httpx.AsyncClient]:
    edge = Edge(Settings(api_secret=SECRET), database, log.append, log.applied)
    app = http_app(cast("Any", SimpleNamespace(service=service(Settings()))), edge)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://orders") as client:
        yield client


def body(message: Message, *without: str) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude=set(without))


async def test_an_order_is_appended_under_its_own_id(client: httpx.AsyncClient, log: Log) -> None:
    answer = await client.post("/orders", json=body(placed("A 1", 5)), headers=SHOP)
    assert (answer.status_code, answer.headers["location"]) == (202, "/orders/A%201")
    assert log.appended == [(placed("A 1", 5), "/clients/shop/web", "A 1", "shop:web")]


async def test_a_cancellation_is_known_by_its_request_or_the_header(client: httpx.AsyncClient, log: Log) -> None:
    wish = body(cancel("r1", "A", 1, 2), "order", "request")
    missing = await client.post("/orders/A/cancellations", json=wish, headers=SHOP)
    assert missing.status_code == 400
    by_header = await client.post("/orders/A/cancellations", json=wish, headers=SHOP | {"Idempotency-Key": "r1"})
    by_body = await client.post("/orders/A/cancellations", json=wish | {"request": "r1"}, headers=SHOP)
    assert (by_header.status_code, by_body.status_code) == (202, 202)
    assert by_header.headers["location"] == "/orders/A"
    assert log.appended == [(cancel("r1", "A", 1, 2), "/clients/shop/web", "A/r1", "shop:web")] * 2
    assert isinstance(log.appended[0][0], OrderCancelRequested)


async def test_a_shipment_takes_a_warehouse_key(client: httpx.AsyncClient, log: Log) -> None:
    message = shipped("p1", (1, 2))
    for headers, status in (({}, 401), (SHOP, 403), (WAREHOUSE, 202)):
        assert (await client.post("/shipments", json=body(message), headers=headers)).status_code == status
    assert log.appended == [(message, "/clients/warehouse/north", "A/p1", "warehouse:north")]


async def test_every_wrong_field_is_named(client: httpx.AsyncClient, log: Log) -> None:
    wrong = body(placed("A", 5, 2))
    wrong["lines"][1]["quantity"] = 0
    wrong["customer"]["email"] = "nobody"
    answer = await client.post("/orders", json=wrong, headers=SHOP)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["customer.email", "lines.1.quantity"]
    half = await client.post(
        "/orders/A/cancellations", json={"request": "r", "quantity": 2, "requested_at": NOON.isoformat()}, headers=SHOP
    )
    assert half.status_code == 422
    assert "needs a 'line'" in half.json()["errors"][0]["error"]
    assert log.appended == []


async def test_an_order_shows_its_lines_and_no_personal_data(client: httpx.AsyncClient, desk: StoredDesk) -> None:
    await desk.store(placed("A", 5, 2))
    await desk.store(desk.served(2), desk.served(2, line=2))
    await desk.store(shipped("p1", (1, 1)))
    answer = await client.get("/orders/A")
    order = answer.json()
    assert (order["status"], order["pending"], order["currency"]) == ("backordered", False, "EUR")
    assert order["lines"][0]["amounts"] == {"ordered": 5, "pending": 0, "allocated": 1, "backordered": 3, "shipped": 1, "cancelled": 0}
    timeline = await client.get("/orders/A/timeline")
    assert [entry["type"] for entry in timeline.json()] == ["OrderAccepted", "LineAllocated", "LineBackordered", "LineShipped"]
    assert all(entry["cause"] for entry in timeline.json())
    for text in (answer.text, timeline.text):
        assert ADA.name not in text
        assert ADA.email not in text
        assert ADA.id not in text
        assert "tracking" not in text


async def test_an_order_on_its_way_is_pending_and_an_unknown_one_is_not_there(client: httpx.AsyncClient, log: Log) -> None:
    log.settled = False
    answer = await client.get("/orders/A")
    assert (answer.status_code, answer.json()["status"], answer.json()["pending"]) == (200, "pending", True)
    assert (await client.get("/orders/A/timeline")).json() == []
    log.settled = True
    assert (await client.get("/orders/A")).status_code == 404
    assert (await client.get("/orders/A/timeline")).status_code == 404


async def test_a_rejected_order_says_why(client: httpx.AsyncClient, desk: StoredDesk) -> None:
    await desk.store(OrderInvalid(order="A", errors=(FieldError(field="lines", error="too short"),)))
    order = (await client.get("/orders/A")).json()
    assert (order["status"], order["errors"], order["lines"]) == ("rejected", [{"field": "lines", "error": "too short"}], [])


@pytest.mark.parametrize(
    ("served", "then", "status"),
    [
        (5, [], "open"),
        (3, [], "backordered"),
        (5, [shipped("p1", (1, 5))], "completed"),
        (3, [shipped("p1", (1, 3)), cancel()], "completed"),
        (0, [cancel()], "cancelled"),
    ],
)
async def test_the_status_is_one_word(client: httpx.AsyncClient, desk: StoredDesk, served: int, then: list[Message], status: str) -> None:
    await desk.store(placed("A", 5))
    await desk.store(desk.served(served))
    await desk.store(*then)
    assert (await client.get("/orders/A")).json()["status"] == status


async def test_the_document_describes_the_edge(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    own = {path for path in paths if not path.startswith(("/health", "/asyncapi"))}
    assert own == {"/orders", "/orders/{order}", "/orders/{order}/cancellations", "/orders/{order}/timeline", "/shipments"}
    assert {"202", "422"} <= paths["/orders"]["post"]["responses"].keys()
