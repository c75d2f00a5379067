"""Queries about stock: what there is, what comes, and who waits for it."""

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from shared.contracts.warehouse import BackorderPolicy
from shared.http import Edge
from shared.service import Connection

MAX_LINES = 1_000


class ExpectedSupply(BaseModel):
    """Units of a purchase-order line that are still to come; `expected_on` null = nobody knows when."""

    purchase_order: str
    line: int
    open: int
    expected_on: date | None


class Stock(BaseModel):
    """One SKU. `on_hand` = `allocated` (set aside, not yet shipped) + `free`; `waiting` units are still to be served.
    `backorder` null: the catalogue has not defined it. `next_date`: when one more unit than those waiting could ship."""

    sku: str
    description: str
    backorder: BackorderPolicy | None
    on_hand: int
    allocated: int
    free: int
    waiting: int
    next_date: date | None
    supply: list[ExpectedSupply]


class WaitingLine(BaseModel):
    """A line that waits: `open` units, behind `units_ahead` units of others. `ship_by` null = no date yet."""

    order: str
    line: int
    open: int
    units_ahead: int
    queued_at: datetime
    ship_by: date | None


class Queue(BaseModel):
    """The head of a SKU's queue, in the order in which it will be served; `waiting` counts the units of the whole queue."""

    sku: str
    waiting: int
    lines: list[WaitingLine]


_STOCK = """
    SELECT sku, description, backorder, on_hand, allocated, on_hand - allocated AS free, waiting, next_date
    FROM sku WHERE sku = $1 AND (backorder IS NOT NULL OR counted OR received_total > 0)"""
_SUPPLY = """
    SELECT purchase_order, line, open, expected_on FROM supply WHERE sku = $1 AND open > 0
    ORDER BY expected_on NULLS LAST, purchase_order, line"""
_QUEUE = """
    SELECT order_id AS "order", line, wanted - served - refused AS open, queued_at, ship_by,
        sum(wanted - served - refused) OVER (ORDER BY queue_class, queued_at, order_id, line) - (wanted - served - refused) AS units_ahead
    FROM demand WHERE sku = $1 AND wanted > served + refused
    ORDER BY queue_class, queued_at, order_id, line LIMIT $2"""


def router(edge: Edge) -> APIRouter:
    """The queries of inventory; they are open and name no person."""
    routes = APIRouter(tags=["stock"])
    missing: dict[int | str, dict[str, Any]] = {404: {"description": "Neither the catalogue nor the warehouse has told us of this SKU"}}

    async def known(connection: Connection, sku: str) -> Stock:
        stock = await connection.fetchrow(_STOCK, sku)
        if stock is None:
            raise HTTPException(404, f"unknown SKU {sku!r}: neither the catalogue nor the warehouse has told us of it")
        return Stock(**stock, supply=[ExpectedSupply(**row) for row in await connection.fetch(_SUPPLY, sku)])

    @routes.get("/skus/{sku}", responses=missing)
    async def stock(sku: str) -> Stock:
        """What there is of a SKU, what of it is set aside, who waits for more, and what is expected when."""
        async with edge.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            return await known(connection, sku)

    @routes.get("/skus/{sku}/queue", responses=missing)
    async def queue(sku: str, limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 100) -> Queue:
        """Who waits for a SKU, in order: first come, first served."""
        async with edge.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            waiting = (await known(connection, sku)).waiting
            return Queue(sku=sku, waiting=waiting, lines=[WaitingLine(**row) for row in await connection.fetch(_QUEUE, sku, limit)])

    return routes
