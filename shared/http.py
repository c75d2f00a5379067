"""The HTTP edge: checks a request, appends it to the log, and answers 202 with where to look. It changes no state itself."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, Header, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette import types as asgi

from shared.auth import Client, Role, client_of
from shared.contracts.base import MAX_MESSAGE_BYTES, Message
from shared.contracts.orders import FieldError
from shared.explained import explained
from shared.settings import Settings


class Problems(BaseModel):
    """Everything that is wrong with a request."""

    errors: list[FieldError]


def problems(error: RequestValidationError) -> JSONResponse:
    """Names what is wrong with a request as an OrderRejected does: every field, by its path in the body."""
    found = explained([{**each, "loc": _path(each)} for each in error.errors()])
    return JSONResponse({"errors": [wrong.model_dump() for wrong in found]}, status_code=422)


def _path(found: Mapping[str, Any]) -> tuple[str | int, ...]:
    place, *path = found["loc"]
    if found["type"] == "json_invalid":  # FastAPI tells the position in the text
        return ()
    return tuple(path) if place == "body" else (place, *path)


class BodyLimit:
    """ASGI middleware: a request whose body is larger than a message may be is answered 413, and not read to its end."""

    def __init__(self, app: asgi.ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Serves one request."""
        size = 0

        async def limited() -> asgi.Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_MESSAGE_BYTES:
                raise HTTPException(413, f"a request may have at most {MAX_MESSAGE_BYTES} bytes")
            return message

        await self._app(scope, limited, send)


@dataclass(frozen=True)
class Edge:
    """What a service's API may use."""

    settings: Settings
    pool: "asyncpg.Pool[Any]"
    append: Callable[[Message, str, str, str], Awaitable[None]]
    """(message, source, id, actor): returns once the log has it (`acks=all`)."""
    applied: Callable[[str, str], Awaitable[bool]]
    """(topic name, key): whether everything appended so far to that key's partition has been applied by this service."""

    def client(self, *roles: Role) -> Any:
        """A dependency: the caller, by `Authorization: Bearer <key>`, in one of these roles; else 401 or 403."""

        def check(authorization: Annotated[str, Header()] = "") -> Client:
            scheme, _, key = authorization.partition(" ")
            found = client_of(self.settings.api_secret, key.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise HTTPException(401, "send a valid key: 'Authorization: Bearer <key>'", {"WWW-Authenticate": "Bearer"})
            if found.role not in roles:
                raise HTTPException(403, f"a {found.role} key may not do this; it takes one of: {', '.join(roles)}")
            return found

        return Depends(check)

    async def accept(self, message: Message, client: Client, id_: str, location: str) -> Response:
        """Appends the message under the client's own id and answers 202; a repeat of the same id gets the same answer."""
        await self.append(message, client.source, id_, f"{client.role}:{client.name}")
        return JSONResponse({"accepted": id_, "location": location}, status_code=202, headers={"Location": location})
