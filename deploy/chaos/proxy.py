"""A TCP proxy before a server, whose link can be broken in many ways while it runs, established connections included."""

import asyncio
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from socket import SO_LINGER, SOL_SOCKET
from typing import TypeAlias

HOST = "127.0.0.1"
_READ = 65_536
_WAITING = 64
"""Pieces that wait in one direction before the proxy stops reading: a sender feels a slow link."""


class Way(Enum):
    """A direction, seen from the client, who opened the connection."""

    UP = "to the server"
    DOWN = "to the client"


@dataclass(frozen=True)
class Mode:
    """What a link does to what is sent over it. Times are in seconds; `piece` is in bytes."""

    accepts: bool = True
    """Otherwise connections are refused, and those that exist are closed."""
    resets: bool = False
    """Every connection is ended by RST at once."""
    ways: frozenset[Way] = frozenset(Way)
    """What is sent the other way, an end of stream included, waits until the mode lets it through again."""
    delay: float = 0.0
    jitter: float = 0.0
    """Up to so much more than `delay`; nothing overtakes."""
    piece: int = _READ
    pause: float = 0.0
    """After each piece."""


PASS = Mode()
CUT = Mode(accepts=False)
RESET = Mode(resets=True)
HALF_OPEN = Mode(ways=frozenset())
ONLY_UP = Mode(ways=frozenset({Way.UP}))
ONLY_DOWN = Mode(ways=frozenset({Way.DOWN}))
TRICKLE = Mode(piece=7, pause=0.01)


def slow(delay: float, jitter: float = 0.0) -> Mode:
    """Everything arrives, so many seconds later, each way."""
    return Mode(delay=delay, jitter=jitter)


_Piece: TypeAlias = tuple[float, bytes]
"""When it is due (loop time), and the bytes; none at the end of the stream."""


class Proxy:
    """Listens on `port` of this machine and forwards to `target`. Ports are TCP ports on loopback."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.mode = PASS
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        self._chance = random.Random(port)  # noqa: S311  (jitter is no secret)

    async def become(self, mode: Mode) -> None:
        """From now on the link is like this."""
        self.mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode.accepts:
            await self.open()
        elif self._server is not None:
            self._server.close()
            self._server = None
        if mode.resets or not mode.accepts:
            await self._drop_all()

    async def open(self) -> None:
        """Listens, unless it does. Raises OSError when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, HOST, self.port)

    async def close(self) -> None:
        """Ends everything."""
        await self.become(CUT)

    async def _drop_all(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._link(writer):
            if self.mode.resets:
                return
            try:
                there, to_there = await asyncio.open_connection(HOST, self.target)
                with self._closed_at_the_end(to_there):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._forward(Way.UP, reader, to_there))
                        group.create_task(self._forward(Way.DOWN, there, writer))
            except* OSError:
                pass  # one end is gone, and the other is told by its end

    @contextmanager
    def _link(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """The task of one connection, which `become` may cancel."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            with suppress(asyncio.CancelledError), self._closed_at_the_end(writer):
                yield
        finally:
            self._links.discard(task)

    @contextmanager
    def _closed_at_the_end(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        try:
            yield
        finally:
            if self.mode.resets:
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()

    async def _forward(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of a connection, to the end of the stream."""
        waiting: asyncio.Queue[_Piece] = asyncio.Queue(_WAITING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, waiting))
            group.create_task(self._give(way, waiting, writer))

    async def _take(self, reader: asyncio.StreamReader, waiting: asyncio.Queue[_Piece]) -> None:
        loop = asyncio.get_running_loop()
        data, due = b"start", 0.0
        while data:
            data = b""
            with suppress(ConnectionError):
                data = await reader.read(_READ)
            due = max(due, loop.time() + self.mode.delay + self._chance.uniform(0, self.mode.jitter))
            await waiting.put((due, data))

    async def _give(self, way: Way, waiting: asyncio.Queue[_Piece], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            await self._is_open(way)
            if not data:
                writer.write_eof()
                return
            while data:
                await self._is_open(way)
                mode = self.mode
                writer.write(data[: mode.piece])
                data = data[mode.piece :]
                await writer.drain()
                await asyncio.sleep(mode.pause)

    async def _is_open(self, way: Way) -> None:
        while way not in self.mode.ways:
            await self._changed.wait()
