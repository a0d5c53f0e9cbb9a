"""A process that runs the deployment service of an agent, to be killed.

``python -m tests.support.deployment_agent SOCKET DATA`` reads a line for each run from its standard input, the path of
a JSON file with the items that are wanted. It runs the service in a child, says its process id, ``settled`` whenever
nothing is under way, and ``ended`` when the child was killed. Children are forked, because starting Python each time
would take longer than what is tested.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from agent.deployments.docker_engine import DockerEngine
from agent.deployments.firewall import IpTables
from agent.deployments.lane import LaneSettings
from agent.deployments.service import DeploymentService
from agent.deployments.shared_directories import NOTHING_SHARED, Shared
from schemas.session import Item, digest_of

AGENT: Final = "vps-1"
SETTINGS: Final = LaneSettings(settle=0.3, drain=0.1, retry_base=0.2, retry_cap=1.0)


def item(name: str, *, team: str = "shop", **spec: Any) -> Item:
    """Return an item of the document; ``spec`` as in YAML."""
    whole = {"type": "container", "agents": [AGENT], "stopGrace": "1s", **spec}
    return Item(id=f"Deployment/{team}/{name}", kind="Deployment", digest=digest_of(whole), spec=whole)


def in_memory(socket: str) -> Path:
    """Return where files of secrets lie, on the tmpfs that every Linux has: of each engine's agents apart, for they
    remove what belongs to no container of their engine."""
    return Path("/dev/shm") / f"cloudlunacy-{Path(socket).parent.name}"


def service(
    socket: str, data: Path, *, secret_files: Path | None = None, shared: Shared = NOTHING_SHARED, **more: Any
) -> DeploymentService:
    """Return the service as an agent would have it, with short times."""
    files = secret_files or in_memory(socket)
    driver = DockerEngine(socket, AGENT, firewall=IpTables(), secret_files=files, shared=shared)
    return DeploymentService(data, [driver], settings=SETTINGS, **more)


async def _serve(socket: str, data: Path, wanted: Path) -> None:
    found = service(socket, data)
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


def main(socket: str, data: Path) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(_serve(socket, data, Path(line.strip())))
            os._exit(0)
        _say(str(child))
        os.waitpid(child, 0)
        _say("ended")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
