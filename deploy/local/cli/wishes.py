"""How commands name services, and ask a running one for something: the wish is a row, which the service settles."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Annotated, Any

import typer

from deploy.local.databases import Connection
from deploy.local.errors import UserError
from shared.settings import SERVICES

ANSWER_SECONDS = 10.0
"""A running service settles an operator's request within a fraction of a second."""

ServiceOption = Annotated[str | None, typer.Option("--service", help="Only this service's.")]
ActorOption = Annotated[str, typer.Option("--actor", help="Who decides so; kept with the decision.", show_default="you")]


def known(service: str) -> str:
    """The service's name. Raises UserError when there is no such service."""
    if service not in SERVICES:
        raise UserError(f"there is no service {service!r}; there are {', '.join(SERVICES)}")
    return service


def chosen(service: str | None) -> tuple[str, ...]:
    """The named service, or all of them. Raises UserError when there is no such service."""
    return SERVICES if service is None else (known(service),)


async def settled(connection: Connection, service: str, table: str, request: int) -> Mapping[str, Any]:
    """The row of a request, once the service has settled it. Raises UserError when it does not."""
    deadline = monotonic() + ANSWER_SECONDS
    while monotonic() < deadline:
        row = await connection.fetchrow(f"SELECT * FROM {table} WHERE id = $1 AND done_at IS NOT NULL", request)  # noqa: S608
        if row is not None:
            return dict(row)
        await asyncio.sleep(0.1)
    raise UserError(f"the service {service} has not answered within {ANSWER_SECONDS:.0f} s; it will see to the request as soon as it runs")
