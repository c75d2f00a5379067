"""The proxy's modes, between real sockets: what each lets through, what it withholds, and that nothing is lost when it heals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from deploy.chaos.proxy import CUT, HALF_OPEN, HOST, ONLY_DOWN, ONLY_UP, PASS, RESET, TRICKLE, Mode, Proxy, slow

SHORT = 0.15
"""Long enough for anything on loopback that is not withheld."""


@dataclass
class Server:
    """Keeps what it hears, in the pieces in which it came, and answers each with `got <piece>`."""

    heard: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    peers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer)
        try:
            while data := await reader.read(100_000):
                self.heard.append(data)
                writer.write(b"got " + data)
        except ConnectionResetError:
            self.heard.append(b"reset")
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
async def server(unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[tuple[Server, Proxy]]:
    """A server and an open proxy before it."""
    hearing = Server()
    listening = await asyncio.start_server(hearing.serve, HOST, 0)
    proxy = Proxy(unused_tcp_port_factory(), listening.sockets[0].getsockname()[1])
    await proxy.open()
    yield hearing, proxy
    await proxy.close()
    listening.close()


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def nothing(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a while, not even an end."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SHORT)
    return True


async def answer(reader: asyncio.StreamReader, word: bytes) -> bool:
    """Whether the server's answer to this word comes."""
    return await asyncio.wait_for(reader.readexactly(4 + len(word)), 5) == b"got " + word


async def test_what_passes_passes_both_ways_to_the_end(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (reader, writer):
        writer.write(b"one")
        assert await answer(reader, b"one")
        writer.write(b"two")
        writer.write_eof()
        assert await answer(reader, b"two")
        assert await asyncio.wait_for(reader.read(), 5) == b"", "the server ended, and the client is told"
    assert hearing.heard == [b"one", b"two"]


async def test_a_slow_link_delays_each_way_and_neither_reorders_nor_queues(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    loop = asyncio.get_running_loop()
    async with client(proxy) as (reader, writer):
        await proxy.become(slow(0.1, jitter=0.05))
        begin = loop.time()
        for number in range(20):
            writer.write(b"%02d" % number)
            await asyncio.sleep(0.005)
        assert await answer(reader, b"00")
        assert loop.time() - begin >= 0.2
        rest = b""
        while not rest.endswith(b"19"):
            rest += await asyncio.wait_for(reader.read(1000), 5)
        assert loop.time() - begin < 1.5, "delays are not added up"
    assert b"".join(hearing.heard) == b"".join(b"%02d" % number for number in range(20))


async def test_a_cut_link_refuses_and_drops_all(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (reader, writer):
        writer.write(b"one")
        assert await answer(reader, b"one")
        await proxy.become(CUT)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await asyncio.wait_for(hearing.ended.wait(), 5)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, proxy.port)
    await proxy.become(PASS)
    async with client(proxy) as (reader, writer):
        writer.write(b"two")
        assert await answer(reader, b"two")


async def test_a_half_open_link_takes_all_and_gives_nothing_until_it_heals(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (old, to_old):
        to_old.write(b"one")
        assert await answer(old, b"one")
        await proxy.become(HALF_OPEN)
        to_old.write(b"two")
        async with client(proxy) as (new, to_new):
            to_new.write(b"three")
            assert await nothing(old)
            assert await nothing(new)
            assert hearing.heard == [b"one"]
            await proxy.become(PASS)
            assert await answer(old, b"two")
            assert await answer(new, b"three")


async def test_the_end_of_a_stream_is_withheld_too(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (reader, writer):
        writer.write(b"one")
        assert await answer(reader, b"one")
        await proxy.become(HALF_OPEN)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hearing.ended.wait(), SHORT)
    await proxy.become(PASS)
    await asyncio.wait_for(hearing.ended.wait(), 5)


async def test_a_resetting_link_resets_old_and_new_connections_at_both_ends(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (reader, writer):
        writer.write(b"one")
        assert await answer(reader, b"one")
        await proxy.become(RESET)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        await asyncio.wait_for(hearing.ended.wait(), 5)
        assert hearing.heard == [b"one", b"reset"]
    async with client(proxy) as (reader, _writer):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize(("mode", "arrives"), [(ONLY_UP, True), (ONLY_DOWN, False)])
async def test_a_one_way_link_withholds_the_other_way(server: tuple[Server, Proxy], mode: Mode, arrives: bool) -> None:
    hearing, proxy = server
    async with client(proxy) as (reader, writer):
        writer.write(b"one")
        assert await answer(reader, b"one")
        await proxy.become(mode)
        writer.write(b"two")
        if not arrives:
            hearing.peers[0].write(b"news")
            assert await asyncio.wait_for(reader.readexactly(4), 5) == b"news"
        assert await nothing(reader)
        assert (b"two" in hearing.heard) is arrives
        await proxy.become(PASS)
        assert await answer(reader, b"two")


async def test_a_trickling_link_gives_a_few_bytes_at_a_time_and_all_of_them(server: tuple[Server, Proxy]) -> None:
    hearing, proxy = server
    async with client(proxy) as (_reader, writer):
        await proxy.become(TRICKLE)
        said = bytes(range(70))
        writer.write(said)
        async with asyncio.timeout(5):
            while b"".join(hearing.heard) != said:
                await asyncio.sleep(0.01)
    assert len(hearing.heard) >= 5


async def test_a_server_that_is_down_is_a_connection_that_ends(unused_tcp_port_factory: Callable[[], int]) -> None:
    proxy = Proxy(unused_tcp_port_factory(), unused_tcp_port_factory())
    await proxy.open()
    async with client(proxy) as (reader, _writer):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    await proxy.close()
