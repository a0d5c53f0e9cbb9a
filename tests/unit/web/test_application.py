"""The application as a whole: probes, and the description of everything that it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from reconciler.observability.metrics import Metrics
from reconciler.web import application
from reconciler.web.application import Probes, make_application
from reconciler.web.openapi import openapi
from tests.unit.web.asking import WaxControl, asked


def run(data: Path, control: WaxControl, scenario: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Ask an application with the real API, and without the parts for agents."""

    async def main() -> None:
        async with asked(data, control) as one:
            nothing: Any = SimpleNamespace(endpoints=tuple, receive=None)
            probes = Probes(control, Metrics())
            app = make_application(
                api=one.api,
                agents=nothing,
                certificates=nothing,
                access=nothing,
                rotations=nothing,
                stream=nothing,
                webhooks=nothing,
                probes=probes,
                version="1.2.3",
            )
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://plane.test") as client:
                await scenario(client)

    asyncio.run(main())


def test_the_description_is_made_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait for it, and who asks again gets the same."""
    made: list[str] = []

    def counted(*arguments: Any, **options: Any) -> dict[str, Any]:
        made.append("openapi")
        return openapi(*arguments, **options)

    monkeypatch.setattr(application, "openapi", counted)

    async def scenario(client: httpx.AsyncClient) -> None:
        assert made == []
        first, second = await client.get("/openapi.json"), await client.get("/openapi.json")
        assert (made, first.content) == (["openapi"], second.content)
        assert first.headers["content-type"] == "application/json"
        assert {"/api/v1/status", "/healthz", "/metrics"} <= first.json()["paths"].keys()
        assert first.json()["info"]["version"] == "1.2.3"

    run(tmp_path, WaxControl(), scenario)


def test_it_is_ready_once_it_has_seen_the_remote(tmp_path: Path) -> None:
    """The process answers from the start; ready it is when the remote was reached. Neither asks for credentials."""
    control = WaxControl(ready=False)

    async def scenario(client: httpx.AsyncClient) -> None:
        waiting = await client.get("/readyz")
        assert (waiting.status_code, waiting.json()["status"]) == (503, "starting")
        assert (await client.get("/healthz")).json() == {"status": "ok", "message": ""}
        control.ready = True
        assert (await client.get("/readyz")).json()["status"] == "ok"
        assert "cloudlunacy_generation" in (await client.get("/metrics")).text

    run(tmp_path, control, scenario)


def test_a_path_is_what_it_is(tmp_path: Path) -> None:
    """A slash too many is a page that is not there, in problem details, and no redirect."""

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/status/")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")

    run(tmp_path, WaxControl(), scenario)
