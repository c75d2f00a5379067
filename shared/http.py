"""The HTTP edge: checks a request, appends it to the log, and answers 202 with where to look. It changes no state itself."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, Header, HTTPException, Response
from fastapi.responses import JSONResponse

from shared.auth import Client, Role, client_of
from shared.contracts.base import Message
from shared.settings import Settings


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
