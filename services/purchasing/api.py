"""purchasing over HTTP: two doors to the log, for the dock and for suppliers, and what has become of purchase orders."""

import json
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, Field

from services.purchasing.domain import ExceptionReason, Status
from shared.auth import Client, Role
from shared.contracts.base import Identifier
from shared.contracts.suppliers import SUPPLIERS_MESSAGES, GoodsReceived, PurchaseOrderAcknowledged
from shared.http import Edge

Limit = Annotated[int, Query(ge=1, le=1000)]


class Accepted(BaseModel):
    """The message is in the log; `location` shows its effect once it has been applied."""

    accepted: str
    location: str


class LineView(BaseModel):
    """ordered = outstanding + received + declined + closed_short. `expected_on` is a day in the warehouse's zone, null = unknown."""

    line: int
    sku: str
    ordered: int
    outstanding: int
    received: int
    declined: int
    closed_short: int
    expected_on: date | None


class ReceivedView(BaseModel):
    """What of a receipt's line was booked; `refused` good units were more than outstanding and are kept among the dead letters."""

    line: int
    sku: str
    good: int
    closed_short: int
    refused: int


class ReceiptView(BaseModel):
    """A receipt that counted."""

    receipt: str
    received_at: datetime
    lines: list[ReceivedView]


class PurchaseOrderHead(BaseModel):
    """A purchase order without its lines. Planned ones are issued at `window_due`, or dropped if nothing is needed by then."""

    purchase_order: str
    supplier: str
    currency: str
    status: Status
    window_due: datetime
    issued_at: datetime | None


class PurchaseOrderView(PurchaseOrderHead):
    """`pending`: something sent about it has not been applied yet."""

    pending: bool
    lines: list[LineView]
    receipts: list[ReceiptView]


class PendingView(BaseModel):
    """Something was sent about a purchase order that is not known (yet)."""

    purchase_order: str
    pending: bool = Field(default=True)


class ExceptionView(BaseModel):
    """Units that wait for a supplier to be found. `needed_by` = when the first who waits ordered."""

    sku: str
    reason: ExceptionReason
    quantity: int
    needed_by: datetime | None
    opened_at: datetime


def router(edge: Edge) -> APIRouter:
    """The service's routes."""
    routes = APIRouter()

    @routes.post("/receipts", status_code=202, response_model=Accepted, tags=["receiving"])
    async def receive(receipt: GoodsReceived, client: Annotated[Client, edge.client(Role.WAREHOUSE)]) -> Response:
        """The dock received goods. `receipt` is the warehouse's own id: sending it again changes nothing."""
        return await edge.accept(receipt, client, receipt.receipt, f"/purchase-orders/{receipt.purchase_order}")

    @routes.post("/acknowledgements", status_code=202, response_model=Accepted, tags=["suppliers"])
    async def acknowledge(answer: PurchaseOrderAcknowledged, client: Annotated[Client, edge.client(Role.SUPPLIER)]) -> Response:
        """A supplier answers its own purchase order. `acknowledgement` is its own id: sending it again changes nothing."""
        if answer.supplier != client.name:
            raise HTTPException(403, f"this key is supplier {client.name!r}'s; it may not answer for {answer.supplier!r}")
        supplier = await edge.pool.fetchval("SELECT supplier FROM purchase_order WHERE purchase_order = $1", answer.purchase_order)
        if supplier not in (None, client.name):
            raise HTTPException(403, f"purchase order {answer.purchase_order!r} is not with supplier {client.name!r}")
        return await edge.accept(answer, client, answer.acknowledgement, f"/purchase-orders/{answer.purchase_order}")

    @routes.get("/purchase-orders/{purchase_order}", tags=["purchase orders"], responses={404: {"description": "Unknown"}})
    async def one(purchase_order: Identifier) -> PurchaseOrderView | PendingView:
        """A purchase order with its lines and receipts."""
        pending = not await edge.applied(SUPPLIERS_MESSAGES.name, purchase_order)
        async with edge.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
            head, lines, receipts = [await tx.fetch(statement, purchase_order) for statement in (_ORDER, _LINES, _RECEIPTS)]
        if head:
            content: dict[str, Any] = {"lines": map(dict, lines), "receipts": map(_receipt, receipts), "pending": pending}
            return PurchaseOrderView(**head[0], **content)
        if pending:
            return PendingView(purchase_order=purchase_order)
        raise HTTPException(404, f"there is no purchase order {purchase_order!r}")

    @routes.get("/purchase-orders", tags=["purchase orders"])
    async def many(status: Status | None = None, supplier: Identifier | None = None, limit: Limit = 100) -> list[PurchaseOrderHead]:
        """Purchase orders, the latest window first."""
        return [PurchaseOrderHead(**row) for row in await edge.pool.fetch(_ORDERS, status, supplier, limit)]

    @routes.get("/exceptions", tags=["exceptions"])
    async def exceptions(limit: Limit = 100) -> list[ExceptionView]:
        """SKUs that are short and that no supplier can be asked for, the oldest first: an operator has to find one."""
        return [ExceptionView(**row) for row in await edge.pool.fetch(_EXCEPTIONS, limit)]

    return routes


def _receipt(row: Any) -> dict[str, Any]:
    return {**row, "lines": json.loads(row["lines"])}


_ORDER = """
    SELECT purchase_order, supplier, currency, status, window_due, issued_at FROM purchase_order WHERE purchase_order = $1
"""
_LINES = """
    SELECT line, sku, ordered, ordered - received - declined - closed_short AS outstanding, received, declined, closed_short, expected_on
    FROM purchase_line WHERE purchase_order = $1 ORDER BY line
"""
_RECEIPTS = """
    SELECT receipt, received_at, lines::text FROM receipt WHERE purchase_order = $1 ORDER BY received_at, receipt
"""
_ORDERS = """
    SELECT purchase_order, supplier, currency, status, window_due, issued_at FROM purchase_order
    WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR supplier = $2)
    ORDER BY window_due DESC, purchase_order LIMIT $3
"""
_EXCEPTIONS = """
    SELECT sku, reason, quantity, needed_by, opened_at FROM exception JOIN sku USING (sku)
    WHERE closed_at IS NULL ORDER BY opened_at, sku LIMIT $1
"""
