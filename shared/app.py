"""The HTTP application of a service: its own API, health, metrics and its documents."""

from typing import Any, Protocol

import asyncpg
from aiokafka.errors import KafkaError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import make_asgi_app

from shared import asyncapi, db
from shared.http import BodyLimit, Edge, Problems, problems
from shared.service import NotReadyError, Service


class Served(Protocol):
    """The process behind the application."""

    service: Service[Any]

    def silent_seconds(self) -> float:
        """How long ago its loops went round."""
        ...

    def live(self) -> bool:
        """Whether its loops go round."""
        ...

    async def readiness(self, pool: "asyncpg.Pool[Any] | None" = None) -> tuple[bool, dict[str, Any]]:
        """Whether work flows, and what it waits for; asked through this pool."""
        ...


def http_app(runtime: Served, edge: Edge) -> FastAPI:
    """`/health/live`, `/health/ready`, `/metrics`, `/asyncapi`, `/openapi.json`, `/docs` and the service's own routes."""
    name = runtime.service.name
    app = FastAPI(title=f"Backorder: {name}", version="1")
    app.include_router(runtime.service.api(edge), responses={422: {"model": Problems, "description": "Every field that is wrong."}})
    app.add_middleware(BodyLimit)
    app.mount("/metrics", make_asgi_app())

    @app.get("/health/live", tags=["health"])
    async def live() -> JSONResponse:
        """200 while the loops go round; says nothing about Kafka or PostgreSQL, which a restart would not mend."""
        alive = runtime.live()
        return JSONResponse({"live": alive, "silent_seconds": round(runtime.silent_seconds(), 1)}, 200 if alive else 503)

    @app.get("/health/ready", tags=["health"])
    async def ready() -> JSONResponse:
        """200 while work flows; the body says what is waited for, and counts outbox rows, timers and dead letters."""
        flows, details = await runtime.readiness(edge.pool)
        return JSONResponse({"ready": flows, **details}, 200 if flows else 503)

    @app.get("/asyncapi", tags=["documents"])
    async def document() -> dict[str, Any]:
        """The AsyncAPI 3.0 document of the messages that this service takes and gives."""
        return asyncapi.document(runtime.service)

    async def unavailable(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": f"not available at the moment, try again: {error}"}, 503, headers={"Retry-After": "1"})

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return problems(error)

    app.add_exception_handler(RequestValidationError, invalid)
    passing: tuple[type[Exception], ...] = (NotReadyError, asyncpg.InvalidCatalogNameError, KafkaError, *db.TRANSIENT)
    for kind in passing:
        app.add_exception_handler(kind, unavailable)
    return app
