"""What one may ask inventory."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from services.inventory.api import router
from shared.http import Edge
from shared.settings import Settings
from tests.integration.inventory.stored import StoredHouse
from tests.unit.inventory.house import counted, day, defined, demand, moment, received, supply


@pytest.fixture
async def client(pool) -> AsyncIterator[httpx.AsyncClient]:
    async def nothing(*_):
        raise AssertionError("a query appends nothing")

    app = FastAPI()
    app.include_router(router(Edge(Settings(), pool, nothing, nothing)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inventory") as connected:
        yield connected


async def test_a_sku_with_its_supply(client, pool):
    stored = StoredHouse(pool)
    await stored.apply(defined(), counted(2), demand("O1", 3), supply(4, day(5)), supply(2, None, purchase_order="P-2"))
    await stored.apply(supply(3, day(2), purchase_order="P-3"), supply(0, day(1), purchase_order="P-4"))
    answer = await client.get("/skus/A")
    assert answer.json() == {
        "sku": "A", "description": "", "backorder": "allow", "on_hand": 2, "allocated": 2, "free": 0, "waiting": 1,
        "next_date": str(day(3)),
        "supply": [
            {"purchase_order": "P-3", "line": 1, "open": 3, "expected_on": str(day(2))},
            {"purchase_order": "P-1", "line": 1, "open": 4, "expected_on": str(day(5))},
            {"purchase_order": "P-2", "line": 1, "open": 2, "expected_on": None},
        ],
    }  # fmt: skip


async def test_the_queue_says_how_much_is_ahead(client, pool):
    await StoredHouse(pool).apply(
        defined(), counted(1), supply(4, day(5)), demand("O1", 3), demand("O3", 4), demand("O2", 2), demand("O4", 1, sku="B")
    )
    answer = (await client.get("/skus/A/queue")).json()
    assert answer["waiting"] == 8
    assert [(line["order"], line["open"], line["units_ahead"], line["ship_by"]) for line in answer["lines"]] == [
        ("O1", 2, 0, str(day(6))),
        ("O2", 2, 2, str(day(6))),
        ("O3", 4, 4, None),
    ]
    assert answer["lines"][0]["queued_at"] == moment(1).isoformat().replace("+00:00", "Z")
    limited = (await client.get("/skus/A/queue", params={"limit": 2})).json()
    assert limited["lines"] == answer["lines"][:2]


@pytest.mark.parametrize("path", ["/skus/NOPE", "/skus/NOPE/queue", "/skus/B", "/skus/B/queue"])
async def test_an_unknown_sku_is_said_to_be_unknown(client, pool, path):
    await StoredHouse(pool).apply(demand("O1", 1, sku="B"))  # that somebody ordered it does not make it known
    answer = await client.get(path)
    assert answer.status_code == 404
    assert "unknown SKU" in answer.json()["detail"]


async def test_what_is_in_the_house_is_known_though_the_catalogue_does_not_know_it(client, pool):
    await StoredHouse(pool).apply(received(3, sku="B"))
    answer = (await client.get("/skus/B")).json()
    assert (answer["free"], answer["backorder"]) == (3, None)


@pytest.mark.parametrize("limit", [0, -1, 1_001, "many"])
async def test_a_senseless_limit_is_refused(client, limit):
    assert (await client.get("/skus/A/queue", params={"limit": limit})).status_code == 422
