"""The HTTP edge of orders: takes orders, cancellations and shipments, and shows what became of them, without personal data."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Header, HTTPException, Path, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, Json, TypeAdapter, ValidationError

from services.orders import domain
from services.orders.domain import Line, Status
from services.orders.store import LINE_COLUMNS
from shared.auth import Client, Role
from shared.contracts.base import Identifier, Instant, LineNumber, Quantity, Text
from shared.contracts.commerce import COMMERCE_ORDERS, OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.orders import Amounts, FieldError
from shared.http import Edge


class Accepted(BaseModel):
    """The request is in the log. What became of it is told at `location`."""

    accepted: str
    location: str


class Cancellation(BaseModel):
    """Cancel an order (no `line`), a line (no `quantity`) or some units of a line."""

    request: Identifier | None = Field(default=None, description="Your own id of this wish; the header `Idempotency-Key` otherwise.")
    line: LineNumber | None = None
    quantity: Quantity | None = None
    reason: Text = ""
    requested_at: Instant


class LineView(BaseModel):
    """A line: `amounts` add up to what was ordered; `ship_by` is the promise for what still waits (null = no date)."""

    line: int
    sku: str
    unit_price: Decimal
    amounts: Amounts
    ship_by: date | None
    version: int


class OrderView(BaseModel):
    """An order. `pending`: something that was sent about it has not been decided yet, so look again."""

    order: str
    status: Status
    pending: bool
    currency: str | None = None
    placed_at: datetime | None = None
    completed_at: datetime | None = None
    lines: list[LineView] = []
    errors: list[FieldError] = Field(default=[], description="Why it was rejected.")


class TimelineEntry(BaseModel):
    """Something that was told about the order."""

    at: datetime
    type: str
    data: Json[dict[str, Any]]
    cause: str = Field(description="Id of the message that caused it.")


_ERRORS = TypeAdapter(list[FieldError])


OrderId = Annotated[Identifier, Path(description="The shop's order id.")]


def router(edge: Edge) -> APIRouter:
    """The routes of orders."""
    api = APIRouter()
    _take(api, edge)
    _show(api, edge)
    return api


def _take(api: APIRouter, edge: Edge) -> None:
    @api.post("/orders", status_code=202, response_model=Accepted)
    async def place_order(order: OrderPlaced, client: Annotated[Client, edge.client(Role.SHOP)]) -> Response:
        """Places an order, complete. Its id makes it safe to send again."""
        return await edge.accept(order, client, order.order, _location(order.order))

    @api.post(
        "/orders/{order}/cancellations",
        status_code=202,
        response_model=Accepted,
        responses={400: {"description": "Neither `request` nor `Idempotency-Key` was given."}},
    )
    async def cancel(
        order: OrderId,
        wish: Annotated[Cancellation, Body()],
        client: Annotated[Client, edge.client(Role.SHOP)],
        idempotency_key: Annotated[Identifier | None, Header()] = None,
    ) -> Response:
        """Asks to cancel an order, a line or some units. What has shipped is refused, and the timeline says so."""
        request = wish.request or idempotency_key
        if request is None:
            raise HTTPException(
                400, "name your request: give 'request' in the body or the header 'Idempotency-Key', and repeat it if you retry"
            )
        try:
            message = OrderCancelRequested.model_validate(wish.model_dump() | {"order": order, "request": request})
        except ValidationError as error:
            raise RequestValidationError([found | {"loc": ("body", *found["loc"])} for found in error.errors(include_url=False)]) from error
        return await edge.accept(message, client, f"{order}/{request}", _location(order))

    @api.post("/shipments", status_code=202, response_model=Accepted)
    async def ship(shipment: ShipmentConfirmed, client: Annotated[Client, edge.client(Role.WAREHOUSE)]) -> Response:
        """Confirms that units of one order left the house. The parcel's id makes it safe to send again."""
        return await edge.accept(shipment, client, f"{shipment.order}/{shipment.shipment}", _location(shipment.order))


def _show(api: APIRouter, edge: Edge) -> None:
    @api.get("/orders/{order}", responses={404: {"description": "Nothing was ever sent about such an order."}})
    async def show_order(order: OrderId) -> OrderView:
        """The order as it stands: its lines with their five amounts and promises."""
        pending = await _pending(edge, order)
        async with edge.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            row = await connection.fetchrow(
                "SELECT status, currency, placed_at, completed_at, errors FROM orders WHERE order_id = $1 AND status IS NOT NULL", order
            )
            rows = await connection.fetch(f"SELECT {', '.join(LINE_COLUMNS)} FROM line WHERE order_id = $1 ORDER BY line", order)  # noqa: S608
        if row is None:
            if not pending:
                raise _unknown(order)
            return OrderView(order=order, status=Status.PENDING, pending=True)
        lines = [Line(*values) for values in rows]
        return OrderView(
            order=order,
            status=Status.REJECTED if row["status"] == "rejected" else domain.status(lines),
            pending=pending,
            currency=row["currency"],
            placed_at=row["placed_at"],
            completed_at=row["completed_at"],
            lines=[_view(line) for line in lines],
            errors=[] if row["errors"] is None else _ERRORS.validate_json(row["errors"]),
        )

    @api.get("/orders/{order}/timeline", responses={404: {"description": "Nothing was ever sent about such an order."}})
    async def show_timeline(order: OrderId) -> list[TimelineEntry]:
        """Everything that was told about the order, in order; empty while the order waits to be decided."""
        pending = await _pending(edge, order)
        rows = await edge.pool.fetch(
            "SELECT at, type, data::jsonb - 'tracking' AS data, cause FROM timeline WHERE order_id = $1 ORDER BY id", order
        )
        if not rows and not pending:
            raise _unknown(order)
        return [TimelineEntry(**row) for row in rows]


async def _pending(edge: Edge, order: str) -> bool:
    """Whether something sent about the order waits to be applied. Asked before the order is read: what is read is then no older."""
    return not await edge.applied(COMMERCE_ORDERS.name, order)


def _unknown(order: str) -> HTTPException:
    return HTTPException(404, f"no order {order!r} was ever accepted or rejected here, and nothing about it is on its way")


def _location(order: str) -> str:
    return f"/orders/{quote(order, safe='')}"


def _view(line: Line) -> LineView:
    return LineView(
        line=line.line,
        sku=line.sku,
        unit_price=line.unit_price,
        amounts=Amounts(**line.amounts),
        ship_by=line.ship_by if line.backordered else None,
        version=line.version,
    )
