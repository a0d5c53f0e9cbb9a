"""What a refused WebSocket gets, on a real socket: an HTTP response, the end, and no cry for help in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from reconciler.errors import Refused
from reconciler.web import server
from reconciler.web.limits import Limits
from reconciler.web.problem import problem
from tests.support.waiting import eventually

REFUSED = Refused("Only agents connect here.", status=403, code="not-an-agent")


async def _denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(problem(REFUSED))


async def _forgets(_: WebSocket) -> None:
    """An application that answers nothing at all."""


APP = Limits(Starlette(routes=[WebSocketRoute("/denied", _denied), WebSocketRoute("/forgets", _forgets)]))


async def _refusal(path: str, **headers: str) -> tuple[int, str]:
    """Return status and media type of what a handshake is answered with."""
    bound = server.listen("127.0.0.1", 0)
    one = server.make_server(APP)
    task = asyncio.create_task(one.serve(sockets=[bound]))
    await eventually(lambda: one.started)
    try:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"ws://127.0.0.1:{bound.getsockname()[1]}{path}", additional_headers=headers, proxy=None)
        await eventually(lambda: not one.server_state.connections)
    finally:
        one.should_exit = True
        await task
    response = refusal.value.response
    return response.status_code, response.headers.get("Content-Type", "")


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/denied", {}, (403, "application/problem+json")),
        ("/denied", {f"X-{number}": "y" for number in range(70)}, (431, "application/problem+json")),
        ("/denied", {"X-Large": "y" * 20_000}, (431, "text/plain; charset=utf-8")),
        ("/nowhere", {}, (403, "text/plain; charset=utf-8")),
    ],
    ids=["by the application", "by the limits", "by the parser", "no such endpoint"],
)
def test_a_refusal_is_a_response_and_no_error_of_ours(
    caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    """Whoever refuses a handshake, the caller gets an HTTP response, the connection ends, the log has no ERROR."""
    assert asyncio.run(_refusal(path, **headers)) == expected
    assert _errors(caplog) == []


def test_a_handshake_that_nobody_answers_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """An application that forgets to answer is still told of: 500, and a line in the log."""
    assert asyncio.run(_refusal("/forgets"))[0] == 500
    assert _errors(caplog) == ["ASGI callable returned without completing handshake."]
