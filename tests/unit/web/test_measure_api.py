"""What the API answers about how agents are and were."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from reconciler.agents.measures import Measures
from reconciler.observability.agent_metrics import OfAgent
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.replay import ReplayCache
from reconciler.steps.passing import Published
from reconciler.store.history import History
from reconciler.store.protocols import AgentObservation
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from reconciler.web.measure_api import MeasureApi
from reconciler.web.problem import HANDLERS
from schemas.agent import Agent
from schemas.api import AgentCondition
from schemas.observation import DeploymentUsage
from tests.support.documents import agent, fleet, state_of
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents
from tests.unit.web.asking import Asked, WaxControl, asked, code


class Known:
    """Two agents; ``shop/web`` is on the first."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.measures = Measures(history, lambda *_: True)

    def agent(self, name: str) -> Agent | None:
        state = state_of({"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1")})
        found = next((one.object for key, one in state.served.items() if key.name == name), None)
        return found if isinstance(found, Agent) else None

    def agents_of(self, team: str, name: str) -> list[str] | None:
        return ["vps-1"] if (team, name) == ("shop", "web") else None

    def of_agents(self) -> list[OfAgent]:
        return [OfAgent("vps-1", NOW, {"Connected": "True"}, {"machine_load1": 0.5}, {})]


def run(data: Path, scenario: Callable[[Asked, Known], Awaitable[None]]) -> None:
    async def main() -> None:
        seen = AgentObservation("vps-1", True, NOW, 5, None, "1", "applied", "", (), {"machine_load1": 0.5})
        condition = AgentCondition(
            type="Connected", status="True", reason="Connected", since=datetime.fromtimestamp(NOW, UTC)
        )
        state = state_of({"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1")})
        control = WaxControl(Published(1, "1" * 40, state), seen={"vps-1": seen}, judged={"vps-1": (condition,)})
        async with asked(data, control) as one:
            history = await History.open(data, clock=lambda: one.now)
            known = Known(history)
            authenticator = Authenticator(
                issuer=ISSUER, origins=(), keys=one.keys, agents=Agents(), replays=ReplayCache()
            )
            api = MeasureApi(control=control, known=known, authenticator=authenticator, clock=lambda: one.now)
            one.app = Limits(Starlette(routes=routes_of(api.endpoints()), exception_handlers=dict(HANDLERS)))
            try:
                await scenario(one, known)
            finally:
                await history.close()

    asyncio.run(main())


PATHS = ["/api/v1/agents/vps-1", "/api/v1/agents/vps-1/metrics", "/api/v1/deployments/shop/web/metrics",
         "/metrics/agents"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_only_who_may_read_is_answered(tmp_path: Path, path: str) -> None:
    """Names of agents and their load are for nobody without a token, and for no agent."""

    async def scenario(one: Asked, _: Known) -> None:
        assert (await one.request("GET", path)).status_code == 401
        assert (await one.request("GET", path, headers=one.agent("GET", path))).status_code == 403
        assert (await one.request("GET", path, headers=one.bearer("plan"))).status_code == 403
        assert (await one.request("GET", path, headers=one.bearer("read"))).status_code == 200

    run(tmp_path, scenario)


def test_an_agent_is_shown_with_conditions_and_usage(tmp_path: Path) -> None:
    """What it told, how it is judged, and what its deployments use."""

    async def scenario(one: Asked, known: Known) -> None:
        known.measures.usage("vps-1", [DeploymentUsage(team="shop", name="web", memory_bytes=5)], NOW)
        body = (await one.get("/agents/vps-1")).json()
        assert body["conditions"][0]["type"] == "Connected"
        assert body["metrics"] == {"machine_load1": 0.5}
        assert body["deployments"][0]["values"] == {"memory_bytes": 5.0, "pids": 0.0, "restarts": 0.0}
        assert code(await one.get("/agents/vps-9")) == "unknown-agent"

    run(tmp_path, scenario)


def test_history_is_answered_with_units(tmp_path: Path) -> None:
    """Lists of equal length; only what was asked for."""

    async def scenario(one: Asked, known: Known) -> None:
        for number in range(10):
            numbers = {"machine_load1": float(number), "machine_disk_free_bytes": 7.0}
            known.measures.heartbeat("vps-1", numbers, NOW - 100 + 10 * number)
            known.measures.usage("vps-1", [DeploymentUsage(team="shop", name="web", pids=number)], NOW - 100 + number)
        body = (await one.get("/agents/vps-1/metrics", metric="machine_load1")).json()
        assert (body["step"], list(body["series"])) == (10, ["machine_load1"])
        load = body["series"]["machine_load1"]
        assert (sum(load["samples"]), sum(load["mean"]), load["unit"]) == (10, 45.0, "count")
        coarse = (await one.get("/agents/vps-1/metrics", **{"from": "7d", "step": "3600"})).json()
        assert coarse["step"] == 3600
        assert max(coarse["series"]["machine_load1"]["high"]) == 9.0
        deployment = (await one.get("/deployments/shop/web/metrics")).json()
        assert deployment["agents"][0]["agent"] == "vps-1"
        assert max(deployment["agents"][0]["series"]["pids"]["high"]) == 9.0
        assert code(await one.get("/deployments/shop/other/metrics")) == "unknown-deployment"
        assert code(await one.get("/agents/vps-9/metrics")) == "unknown-agent"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"},
        {"from": "2030-01-01T00:00:00"},
        {"from": "1h", "to": "2h"},
        {"step": "-1"},
        {"step": "1e9"},
        {"metric": "made_up"},
        {"from": "9" * 40},
        {"to": "9999-12-31T23:59:59+00:00", "from": "9999-12-31T23:59:59+00:00"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(tmp_path: Path, query: dict[str, Any]) -> None:
    """With a sentence, whatever was written."""

    async def scenario(one: Asked, _: Known) -> None:
        answer = await one.get("/agents/vps-1/metrics", **query)
        assert answer.status_code == 400
        assert code(answer) == "bad-query"

    run(tmp_path, scenario)


def test_the_largest_question_has_a_bounded_answer(tmp_path: Path) -> None:
    """All that there is, in steps that fit."""

    async def scenario(one: Asked, known: Known) -> None:
        known.measures.heartbeat("vps-1", {"machine_load1": 1.0}, NOW)
        body = (await one.get("/agents/vps-1/metrics", **{"from": "0001-01-02T00:00:00+00:00", "step": "1"})).json()
        assert body["step"] >= 400 * 86_400 / 1500

    run(tmp_path, scenario)


def test_prometheus_gets_agents_by_name(tmp_path: Path) -> None:
    """In its own format, at an address of its own."""

    async def scenario(one: Asked, _: Known) -> None:
        answer = await one.request("GET", "/metrics/agents", headers=one.bearer("read"))
        assert 'cloudlunacy_machine_load1{agent="vps-1"} 0.5' in answer.text

    run(tmp_path, scenario)
