"""The HTTP server of a service's process, on a thread and a loop of its own, with its own connections to log and database."""

from datetime import datetime
from typing import Protocol

import uvicorn
import uvloop

from shared import db
from shared.app import Served, http_app
from shared.door import opened
from shared.settings import Settings


class Answering(Served, Protocol):
    """The process behind the server."""

    settings: Settings

    def now(self) -> datetime:
        """Business time (UTC). Raises NotReadyError."""
        ...


class Server:
    """Answers while `run` runs, until told to stop from any thread."""

    def __init__(self, runtime: Answering) -> None:
        self._runtime = runtime
        self._stopped = False
        self._server: uvicorn.Server | None = None

    def run(self) -> None:
        """Answers until stopped. Exits with 1 when it may not listen."""
        uvloop.run(self._serve())

    def stop(self) -> None:
        """Lets what is being answered end, and `run` with it."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        settings = self._runtime.settings
        pool = await db.pool(settings, self._runtime.service.name)
        try:
            async with opened(settings, pool, self._runtime.now) as edge:
                config = uvicorn.Config(
                    http_app(self._runtime, edge), host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
                    lifespan="off",
                )  # fmt: skip
                self._server = uvicorn.Server(config)
                self._server.should_exit = self._stopped
                await self._server.serve()
        finally:
            pool.terminate()
