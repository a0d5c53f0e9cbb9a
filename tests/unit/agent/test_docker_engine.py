"""What is asked of a container engine, where a real one does what is needed too seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from agent.deployments.actions import Remove
from agent.deployments.docker_engine import DockerEngine
from agent.deployments.firewall import NoFirewall
from agent.deployments.given import NOTHING
from agent.deployments.observed import Instance
from agent.deployments.workload import Key

INSTANCE: Final = Instance("b103", Key("shop", "web"), "digest", "a", "exited")


@asynccontextmanager
async def engine(socket: Path, answers: dict[str, web.Response]) -> AsyncIterator[list[str]]:
    """Answer by method and path without its version; yield what was asked for."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.47"})
        asked.append(f"{request.method} {request.path_qs.partition('/v1.47')[2]}")
        return answers[asked[-1]]

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


def test_a_removal_that_the_engine_is_at_is_waited_for(tmp_path: Path) -> None:
    """As when the agent was told something newer in the middle of one: it is no error, and done when it is over."""
    said = {"message": "removal of container b103 is already in progress"}
    removal, end = "DELETE /containers/b103?force=1&v=1", "POST /containers/b103/wait?condition=removed"
    answers = {removal: web.json_response(said, status=409), end: web.json_response({"StatusCode": 0})}

    async def scenario() -> list[str]:
        async with engine(tmp_path / "engine.sock", answers) as asked:
            driver = DockerEngine(f"unix://{tmp_path}/engine.sock", "vps-1", firewall=NoFirewall())
            try:
                await driver.carry_out(Remove(INSTANCE), NOTHING)
            finally:
                await driver.close()
        return asked

    assert asyncio.run(scenario()) == [removal, end]
