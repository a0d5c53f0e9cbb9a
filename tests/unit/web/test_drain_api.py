"""Who may drain an agent, for how long, and what the answer says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette

from reconciler.commands.agent_drain import sentence
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.replay import ReplayCache
from reconciler.store.seen import Drained
from reconciler.web.drain_api import DrainApi
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from reconciler.web.problem import HANDLERS
from schemas.health_api import AgentDrain
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents
from tests.unit.web.asking import Asked, WaxControl, asked, code

DRAIN, UNDRAIN = "/api/v1/agents/vps-1/drain", "/api/v1/agents/vps-1/undrain"


class Drains:
    """In memory."""

    def __init__(self) -> None:
        self.drains: dict[str, Drained] = {}
        self.ended: list[tuple[str, str]] = []

    async def drain(self, drained: Drained) -> None:
        self.drains[drained.name] = drained

    async def undrain(self, agent: str, by: str) -> bool:
        self.ended.append((agent, by))
        return self.drains.pop(agent, None) is not None


def run(data: Path, scenario: Callable[[Asked, Drains], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asked(data, WaxControl()) as one:
            drains = Drains()
            authenticator = Authenticator(
                issuer=ISSUER, origins=(), keys=one.keys, agents=Agents(), replays=ReplayCache()
            )
            api = DrainApi(
                authenticator=authenticator,
                drains=drains,
                is_there=lambda name: name == "vps-1",
                clock=lambda: one.now,
            )
            one.app = Limits(Starlette(routes=routes_of(api.endpoints()), exception_handlers=dict(HANDLERS)))
            await scenario(one, drains)

    asyncio.run(main())


@pytest.mark.parametrize("path", [DRAIN, UNDRAIN])
def test_only_an_operator_may(tmp_path: Path, path: str) -> None:
    """No agent, not even about itself, and nobody who may only read."""

    async def scenario(one: Asked, drains: Drains) -> None:
        assert (await one.request("POST", path, json={})).status_code == 401
        assert (await one.request("POST", path, json={}, headers=one.agent("POST", path))).status_code == 403
        assert (await one.request("POST", path, json={}, headers=one.bearer("read", "plan"))).status_code == 403
        assert (await one.request("POST", path, json={}, headers=one.bearer("operate"))).status_code == 200

    run(tmp_path, scenario)


def test_a_drain_has_an_end_if_one_is_said(tmp_path: Path) -> None:
    """A second one replaces the first and keeps when it began; undraining names who did it."""

    async def scenario(one: Asked, drains: Drains) -> None:
        done = (await one.post("/agents/vps-1/drain", {"lasting": "1h", "reason": "a new disk"})).json()
        assert (done["name"], done["changed"], done["drain"]["reason"]) == ("vps-1", True, "a new disk")
        assert drains.drains["vps-1"].until == NOW + 3600
        one.now += 10
        again = (await one.post("/agents/vps-1/drain", {})).json()
        assert (again["changed"], again["drain"].get("until")) == (False, None)
        assert drains.drains["vps-1"].at == NOW
        assert (await one.post("/agents/vps-1/undrain", {})).json()["changed"] is True
        assert (await one.post("/agents/vps-1/undrain", {})).json()["changed"] is False
        assert drains.ended[0][0] == "vps-1"
        assert drains.ended[0][1]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/agents/vps-9/drain", {}, 404, "unknown-agent"),
        ("/agents/vps-9/undrain", {}, 404, "unknown-agent"),
        ("/agents/vps-1/drain", {"lasting": "for ever"}, 422, "invalid"),
        ("/agents/vps-1/drain", {"reason": "two\nlines"}, 422, "invalid"),
        ("/agents/vps-1/drain", {"until": 7}, 422, "invalid"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, path: str, body: object, status: int, word: str) -> None:
    """An agent that is not in service, a time that is none, a field that nobody knows."""

    async def scenario(one: Asked, drains: Drains) -> None:
        answer = await one.post(path, body)
        assert (answer.status_code, word in code(answer) or status == 422) == (status, True)
        assert drains.drains == {}

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ({"name": "vps-1"}, "vps-1 gets requests again."),
        ({"name": "vps-1", "changed": False}, "vps-1 was not drained."),
        (
            {"name": "vps-1", "drain": {"by": "ann", "since": "2030-01-01T00:00:00Z", "until": "2030-01-01T01:00:00Z"}},
            "vps-1 is drained until 2030-01-01 01:00 UTC.",
        ),
        (
            {"name": "vps-1", "drain": {"by": "ann", "since": "2030-01-01T00:00:00Z"}},
            "vps-1 is drained until cloudlunacy agent undrain vps-1.",
        ),
    ],
)
def test_the_command_says_it_in_a_sentence(done: object, said: str) -> None:
    """Until when, or that nothing had to be done."""
    assert sentence(AgentDrain.model_validate(done)) == said
