"""What the server does with peers that take their time, on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from reconciler.web import server
from tests.support.waiting import eventually

SECONDS = 0.2
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
DRIPS = 100


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def large(_: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 65536

    return StreamingResponse(body())


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[server.Server, int]]:
    app = Starlette(routes=[Route("/", hello), Route("/large", large)])
    bound = server.listen("127.0.0.1", 0)
    one = server.make_server(app)
    task = asyncio.create_task(one.serve(sockets=[bound]))
    await eventually(lambda: one.started)
    try:
        yield one, bound.getsockname()[1]
    finally:
        one.should_exit = True
        await task


def test_answers_in_two_parts_do_not_wait_for_an_acknowledgement() -> None:
    """Nagle's algorithm is off for what is accepted: head and body of an answer are two writes."""

    async def scenario() -> bool:
        async with serving() as (one, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await eventually(lambda: bool(one.server_state.connections))
            (accepted,) = one.server_state.connections
            known = accepted.transport.get_extra_info("socket")
            is_off = bool(known.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            return is_off

    assert asyncio.run(scenario())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", SECONDS)
    monkeypatch.setattr(server, "STALL_SECONDS", SECONDS)


@pytest.mark.parametrize(
    "start",
    [b"", HEAD, HEAD + b"\r\n" + HEAD, HEAD + b"Content-Length: 100\r\n\r\n"],
    ids=["nothing", "first head", "second head", "body of no interest"],
)
def test_a_peer_that_dribbles_is_dropped(start: bytes) -> None:
    """Bytes that come one by one keep no connection open: not in the first head, nor after an answer."""

    async def scenario() -> None:
        async with serving() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            if b"\r\n\r\n" in start:
                await reader.readuntil(b"hello")
            with suppress(ConnectionError):
                for _ in range(DRIPS):
                    if start:
                        writer.write(b"X")
                    await writer.drain()
                    with suppress(TimeoutError):
                        assert await asyncio.wait_for(reader.read(1), SECONDS / 4) == b""
                        break
                else:
                    pytest.fail("still connected")
            writer.close()

    asyncio.run(scenario())


def test_a_peer_that_does_not_read_is_dropped() -> None:
    """An answer that nobody takes is given up, and frees what it holds."""

    async def scenario() -> None:
        async with serving() as (one, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: one.server_state.connections)
            await eventually(lambda: not one.server_state.connections)
            writer.transport.abort()

    asyncio.run(scenario())


def test_a_quick_peer_may_ask_again_and_again() -> None:
    """The limits end nobody who sends whole requests, however long that goes on."""

    async def scenario() -> None:
        async with serving() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            end = asyncio.get_running_loop().time() + 3 * SECONDS
            while asyncio.get_running_loop().time() < end:
                writer.write(HEAD + b"\r\n")
                await reader.readuntil(b"hello")
            writer.close()

    asyncio.run(scenario())
