"""The listener for challenges, and the look whether a real Traefik leads there."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from yaml_rs import loads

from reconciler.app.acme_challenges import PORT_FILE, ChallengeFront, ChallengeListener, FrontedHttp01
from reconciler.desired.challenge_path import challenge_routes
from reconciler.errors import Broken, Transient
from reconciler.pki.acme.solver import Challenge
from reconciler.traefik.api import TraefikAPI
from tests.support.traefik import Front, fleet, front

HOST = "shop.example.test"
TOKEN = "a-token_of-the-server"
CHALLENGE = Challenge(HOST, TOKEN, f"{TOKEN}.thumbprint", "value")
PATH = f"/.well-known/acme-challenge/{TOKEN}"


@asynccontextmanager
async def listening(data: Path, port: int = 0) -> AsyncIterator[ChallengeListener]:
    listener = ChallengeListener(data, port)
    task = asyncio.create_task(listener.run())
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


@asynccontextmanager
async def behind(running: Front, data: Path, seconds: float = 10.0) -> AsyncIterator[tuple[str, FrontedHttp01]]:
    """The URL of a listener, and the solver that looks for its answers at a front."""
    api = TraefikAPI(running.api_url)
    try:
        async with listening(data) as listener:
            yield listener.url, FrontedHttp01(listener.table, [ChallengeFront("front-1", api)], fleet, seconds=seconds)
    finally:
        await api.close()


def test_nothing_but_tokens_answers(tmp_path: Path) -> None:
    """On loopback, over plain HTTP: 200 for a token that is presented, 404 for all else, 405 for other methods."""

    async def scenario() -> None:
        async with listening(tmp_path) as listener, httpx.AsyncClient(base_url=listener.url, trust_env=False) as client:
            assert listener.url.startswith("http://127.0.0.1:")
            await listener.table.present(CHALLENGE)
            asked = [
                ("GET", PATH),
                ("HEAD", PATH),
                ("POST", PATH),
                ("GET", f"{PATH}x"),
                ("GET", "/"),
                ("GET", "/healthz"),
            ]
            found = [(await client.request(method, path)).status_code for method, path in asked]
            assert found == [200, 200, 405, 404, 404, 404]
            assert (await client.get(PATH)).text == CHALLENGE.key_authorization
            await listener.table.cleanup(CHALLENGE)
            assert (await client.get(PATH)).status_code == 404

    asyncio.run(scenario())


def test_the_port_is_taken_again(tmp_path: Path) -> None:
    """What stands in the fronts' files is still right after a restart; a port that somebody took is no reason to stay
    away, one that was asked for is."""

    async def port() -> int:
        async with listening(tmp_path) as listener:
            return int(listener.url.rpartition(":")[2])

    first = asyncio.run(port())
    assert asyncio.run(port()) == first
    with socket.create_server(("127.0.0.1", first)):
        second = asyncio.run(port())
        assert second != first
        with pytest.raises(Broken, match="--acme-http-port"):
            ChallengeListener(tmp_path, first)
    assert asyncio.run(port()) == second
    (tmp_path / PORT_FILE).write_text("nonsense")
    asyncio.run(port())


def test_an_answer_is_seen_at_the_front(tmp_path: Path) -> None:
    """Presenting returns once the front answers the token, also where it loads the routers only then."""

    async def scenario(running: Front) -> None:
        async with behind(running, tmp_path) as (url, solver):
            presenting = asyncio.create_task(solver.present(CHALLENGE))
            await asyncio.sleep(0.5)
            assert not presenting.done()
            await asyncio.to_thread(running.load, challenge_routes(running.fleet, url))
            await presenting
            assert running.disabled() == {}
            assert (await asyncio.to_thread(running.get, HOST, PATH)).text == CHALLENGE.key_authorization

    with front(tmp_path / "front") as running:
        asyncio.run(scenario(running))


def test_a_redirect_to_https_is_followed(tmp_path: Path) -> None:
    """An entry point that sends everybody to https leads an ACME server to the second router, and us too."""

    async def scenario(running: Front) -> None:
        async with behind(running, tmp_path) as (url, solver):
            await asyncio.to_thread(running.load, challenge_routes(running.fleet, url))
            assert running.get(HOST, PATH).is_redirect
            await solver.present(CHALLENGE)

    with front(tmp_path / "front") as running:
        running.stop()
        static: Any = loads(running.static.read_text())
        secure = static["entryPoints"]["websecure"]["address"]
        static["entryPoints"]["web"]["http"] = {
            "redirections": {"entryPoint": {"to": f":{secure.rpartition(':')[2]}", "scheme": "https"}}
        }
        running.static.write_text(json.dumps(static))
        running.start()
        asyncio.run(scenario(running))


@pytest.mark.parametrize(
    ("loaded", "words"), [(True, "answers with status 502"), (False, "answers with status 404")], ids=["dead", "none"]
)
def test_a_front_that_leads_elsewhere_is_named(tmp_path: Path, loaded: bool, words: str) -> None:
    """A router to a port where nobody listens, or none: the sentence says which front, and what it answered."""

    async def scenario(running: Front) -> None:
        async with behind(running, tmp_path, 0.5) as (_, solver):
            url = "http://127.0.0.1:1" if loaded else None
            await asyncio.to_thread(running.load, challenge_routes(running.fleet, url))
            with pytest.raises(Transient) as caught:
                await solver.present(CHALLENGE)
        assert caught.value.reason == "ChallengeNotServed"
        assert 'The front "front-1"' in caught.value.message
        assert words in caught.value.message

    with front(tmp_path / "front") as running:
        asyncio.run(scenario(running))
