from __future__ import annotations

import asyncio

import httpx
import pytest

from reconciler.errors import Rejected, Transient
from reconciler.pki.acme import http01
from reconciler.pki.acme.http01 import PREFIX, Http01, Message
from reconciler.pki.acme.solver import Challenge

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


def challenge(token: str = TOKEN) -> Challenge:
    return Challenge("shop.example.test", token, f"{token}.thumbprint", "txt")


def presenting(*tokens: str) -> Http01:
    table = Http01()
    for token in tokens or (TOKEN,):
        asyncio.run(table.present(challenge(token)))
    return table


def ask(app: Http01, path: str, method: str = "GET", **more: bytes) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example.test") as client:
            return await client.request(method, path, **more)  # type: ignore[arg-type]

    return asyncio.run(scenario())


def test_a_token_that_is_presented_is_answered() -> None:
    """The key authorization as plain text, that nothing keeps and no browser takes for something else."""
    answer = ask(presenting(), PREFIX + TOKEN)
    assert (answer.status_code, answer.text) == (200, f"{TOKEN}.thumbprint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = ask(presenting(), PREFIX + TOKEN, "HEAD")
    assert (head.status_code, head.text) == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        PREFIX,
        PREFIX + "other",
        PREFIX + TOKEN[:-1],
        PREFIX + TOKEN + "x",
        PREFIX + TOKEN + "/",
        PREFIX + "x/" + TOKEN,
        PREFIX + "../" + TOKEN,
        PREFIX + TOKEN + "%00",
        "/" + TOKEN,
        "/.well-known/acme-challeng/" + TOKEN,
        "//.well-known/acme-challenge/" + TOKEN,
        PREFIX.upper() + TOKEN,
    ],
)
def test_every_other_path_is_not_found(path: str) -> None:
    """Only exact tokens below the one prefix; the answer repeats nothing of the request."""
    answer = ask(presenting(), path)
    assert (answer.status_code, answer.text) == (404, "not found\n")


def test_nothing_is_answered_after_the_end() -> None:
    """A token that was taken away is like one that never was; taking it away twice is no error."""
    table = presenting()
    asyncio.run(table.cleanup(challenge()))
    asyncio.run(table.cleanup(challenge()))
    assert ask(table, PREFIX + TOKEN).status_code == 404


def test_other_methods_do_nothing() -> None:
    """405 for a token, 404 elsewhere, whatever the body."""
    assert ask(presenting(), PREFIX + TOKEN, "POST", content=b"x" * 100_000).status_code == 405
    assert ask(presenting(), "/", "DELETE").status_code == 404


@pytest.mark.parametrize("token", ["", "a/b", "../x", "a b", "ä", "x" * 129, "a\n"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    """A server cannot make us answer on another path."""
    with pytest.raises(Rejected, match="no base64url"):
        presenting(token)


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More answers than the most are refused, and those that are there stay."""
    monkeypatch.setattr(http01, "MAX_ANSWERS", 1)
    table = presenting()
    with pytest.raises(Transient, match="at once"):
        asyncio.run(table.present(challenge("other")))
    assert ask(table, PREFIX + TOKEN).status_code == 200


def talk(app: Http01, kind: str, *received: str) -> list[str]:
    """Let a server begin a conversation of another kind than HTTP; return what it hears."""
    heard: list[str] = []

    async def scenario() -> None:
        left = [{"type": one} for one in received]

        async def receive() -> dict[str, str]:
            return left.pop(0)

        async def send(message: Message) -> None:
            heard.append(message["type"])

        await app({"type": kind}, receive, send)

    asyncio.run(scenario())
    return heard


def test_a_server_may_ask_whether_it_has_started() -> None:
    """The lifespan of ASGI is answered."""
    heard = talk(presenting(), "lifespan", "lifespan.startup", "lifespan.shutdown")
    assert heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_websocket_is_refused() -> None:
    """It is closed before it opens."""
    assert talk(presenting(), "websocket", "websocket.connect") == ["websocket.close"]
