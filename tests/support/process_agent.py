"""A process that runs the deployment service of an agent with the process driver, to be killed.

``python -m tests.support.process_agent DATA`` reads a line for each run from its standard input, the path of a JSON
file with the items that are wanted. It runs the service in a child, says its process id, ``settled`` whenever nothing
is under way, and ``ended`` when the child was killed. Children are forked, because starting Python each time would
take longer than what is tested.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from agent.deployments import process_instances as instances
from agent.deployments.lane import LaneSettings
from agent.deployments.process_driver import ProcessDriver, ProcessSettings
from agent.deployments.process_files import FOLDER
from agent.deployments.process_machine import look
from agent.deployments.service import DeploymentService
from schemas.session import Item, ItemResult, digest_of
from tests.support.waiting import eventually

AGENT: Final = "vps-1"
SECONDS: Final = 30.0
LANE: Final = LaneSettings(settle=0.3, drain=0.1, retry_base=0.2, retry_cap=1.0)
PYTHON: Final = str(Path(sys.executable).resolve())
SETTINGS: Final = ProcessSettings(readable=(sys.base_prefix,), unconfined=bool(look().lacking))
SERVER: Final = """
import http.server, os, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
if os.environ["VERSION"].startswith("bad"): sys.exit("it is broken")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""
"""Answers with its version at the port that it is told; a version that begins with ``bad`` ends at once."""


def process(name: str, *command: str, **spec: Any) -> Item:
    """Return an item of the document; ``spec`` as in YAML."""
    whole = {"type": "process", "agents": [AGENT], "command": list(command), "stopGrace": "1s", **spec}
    return Item(id=f"Deployment/shop/{name}", kind="Deployment", digest=digest_of(whole), spec=whole)


def script(name: str, text: str, **spec: Any) -> Item:
    """Return an item that runs a text of Python."""
    return process(name, PYTHON, "-I", "-S", "-u", "-c", text, **spec)


def web(version: str, port: int, *, name: str = "web", strategy: str = "recreate", **spec: Any) -> Item:
    return script(
        name,
        SERVER,
        env={"VERSION": version},
        ports=[{"container": port, "host": port}],
        healthCheck={"http": {"path": "/", "port": port}, "interval": "200ms", "startPeriod": "5s", "failures": 2},
        rollout={"strategy": strategy, "deadline": "10s"},
        **spec,
    )


def service(data: Path, settings: ProcessSettings = SETTINGS, **more: Any) -> DeploymentService:
    """Return the service as an agent would have it, with short times."""
    return DeploymentService(data, [ProcessDriver(data, AGENT, settings)], settings=LANE, **more)


@asynccontextmanager
async def running(data: Path, settings: ProcessSettings = SETTINGS, **more: Any) -> AsyncIterator[DeploymentService]:
    """The service of an agent, at work. What it started goes on when it ends."""
    async with running_with(data, ProcessDriver(data, AGENT, settings), **more) as found:
        yield found


@asynccontextmanager
async def running_with(data: Path, driver: ProcessDriver, **more: Any) -> AsyncIterator[DeploymentService]:
    """The same with another driver."""
    found = DeploymentService(data, [driver], settings=LANE, **more)
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(found: DeploymentService, *items: Item) -> dict[str, ItemResult]:
    """Apply until nothing is under way; return the results by the name of the deployment."""
    said: Sequence[ItemResult] = ()

    async def done() -> bool:
        nonlocal said
        said = await found.apply(items)
        return all(result.state != "Progressing" for result in said)

    _: bool = await eventually(done, SECONDS, what="an end of the roll-out")
    return {result.id.rpartition("/")[2]: result for result in said}


def end_all(data: Path) -> None:
    """End whatever a test has left running."""
    for _, directory in instances.directories(data / FOLDER):
        for path in directory.iterdir():
            if path.name in ("a", "b", "c"):
                instances.stop(path, 5.0)


async def _serve(data: Path, wanted: Path) -> None:
    found = service(data)
    items = tuple(Item.model_validate(one) for one in json.loads(wanted.read_text()))
    changed = asyncio.Event()
    found.on_change = changed.set
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(found.run(), name="service")
        while True:
            changed.clear()
            results = await found.apply(items)
            if all(result.state != "Progressing" for result in results):
                _say("settled")
            await changed.wait()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(data: Path) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(_serve(data, Path(line.strip())))
            os._exit(0)
        _say(str(child))
        os.waitpid(child, 0)
        _say("ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
