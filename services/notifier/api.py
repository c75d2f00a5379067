"""What one may ask the notifier. No names, no addresses, no texts of mails."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, Field

from shared.contracts.notifier import NoticeKind
from shared.http import Edge

_NOTICES = """
SELECT n.line, n.kind, n.version AS promise_version, n.since, n.due_at, coalesce(m.status, 'waiting') AS status, m.sent_at
FROM every_notice n LEFT JOIN mail m USING (order_id, number)
WHERE n.order_id = $1 ORDER BY n.since, n.line, n.kind, n.version, n.total
"""

_SUMMARY = """
SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'sent') AS sent,
    count(*) FILTER (WHERE status = 'failed') AS failed FROM mail
"""


class Notice(BaseModel):
    """One thing that the customer is or was told about a line. What newer news made obsolete before its mail left is gone."""

    line: int
    kind: NoticeKind
    promise_version: int = Field(description="Version of the promise; of the line for notices that tell no promise.")
    since: datetime = Field(description="Business time at which there was something to tell.")
    due_at: datetime | None = Field(description="Business time from which it may go into a mail, while it waits.")
    status: Literal["waiting", "queued", "sent", "failed"] = Field(description="All but `waiting` are its mail's.")
    sent_at: datetime | None = Field(description="Business time at which the mail server took the mail.")


class OrderNotices(BaseModel):
    """All notices of an order, oldest first."""

    order: str
    notices: list[Notice]


class MailSummary(BaseModel):
    """Mails by what became of them."""

    queued: int
    sent: int
    failed: int


def router(edge: Edge) -> APIRouter:
    """The notifier's queries."""
    routes = APIRouter(tags=["notices"])

    @routes.get("/orders/{order}/notices")
    async def order_notices(order: Annotated[str, Path(max_length=64)]) -> OrderNotices:
        """What the customer has been told about an order, and what is waiting to be told. 404 until the order is known here."""
        if not await edge.pool.fetchval("SELECT EXISTS (SELECT FROM correspondence WHERE order_id = $1)", order):
            raise HTTPException(404, "the notifier has not heard of this order")
        rows = await edge.pool.fetch(_NOTICES, order)
        return OrderNotices(order=order, notices=[Notice(**row) for row in rows])

    @routes.get("/mails/summary")
    async def mails_summary() -> MailSummary:
        """How many mails wait, were taken by the mail server, or were refused for good."""
        row = await edge.pool.fetchrow(_SUMMARY)
        return MailSummary(**(row or {}))

    return routes
