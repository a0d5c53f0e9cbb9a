"""An agent's container deployments on a real engine: what tests of them want, do and look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from agent.deployments.service import DeploymentService
from schemas.session import Item, ItemResult
from tests.support.deployment_agent import item, service
from tests.support.networked_engine import NetworkedEngine
from tests.support.waiting import eventually

SECONDS: Final = 30.0
# the first process of a container has to ask for signals, or it is killed after its grace
SERVE: Final = "trap 'exit 0' TERM; httpd -p 8080 -h /www & while :; do sleep 1 & wait $!; done"
# a busy machine may take a while to start httpd; one that answers is healthy at once
CHECK: Final = {"http": {"path": "/", "port": 8080}, "interval": "500ms", "startPeriod": "5s", "failures": 3}


def web(image: str = "web:1", *, name: str = "web", host: int = 8081, strategy: str = "recreate", **more: Any) -> Item:
    spec = {
        "image": image,
        "command": ["sh", "-c", SERVE],
        "ports": [{"container": 8080, "host": host}],
        "healthCheck": CHECK,
        "rollout": {"strategy": strategy, "deadline": "10s"},
        **more,
    }
    return item(name, **spec)


@asynccontextmanager
async def running(machine: NetworkedEngine, data: Path, **more: Any) -> AsyncIterator[DeploymentService]:
    """The service of an agent, at work."""
    found = service(machine.socket, data, **more)
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

    await until(done, "an end of the roll-out")
    return {result.id.rpartition("/")[2]: result for result in said}


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a coroutine function to say yes."""
    _: bool = await eventually(condition, SECONDS, what=what)


async def page(port: int, host: str = "127.0.0.1") -> str:
    """Return what is answered at a port; raises OSError where nobody answers."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await writer.drain()
        return (await reader.read()).decode().rpartition("\r\n")[2]
    finally:
        writer.close()


def containers(machine: NetworkedEngine) -> list[dict[str, Any]]:
    """Return what the engine knows of all containers, ours and others'."""
    names = sorted(machine.command("ps", "--all", "--quiet", "--no-trunc").stdout.split())
    # one may go between the two commands; the engine shows the others
    found: list[dict[str, Any]] = json.loads(machine.command("inspect", *names, check=False).stdout) if names else []
    return found


def images_and_states(machine: NetworkedEngine) -> list[tuple[str, str]]:
    return [(one["Config"]["Image"], one["State"]["Status"]) for one in containers(machine)]


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, as a server of the machine would."""
    await reader.readline()
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
    await writer.drain()
    writer.close()


async def reached_from(machine: NetworkedEngine, shown: dict[str, Any], targets: list[str]) -> list[str]:
    """Ask all targets (``host port``) at once from inside a container; return those that answered."""
    ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {0} | grep -q '200 OK' && echo {0} &"
    script = "\n".join([*(ask.format(target) for target in targets), "wait"])
    command = ("exec", shown["Id"], "sh", "-c", script)
    said = await asyncio.to_thread(machine.command, *command, check=False)
    return said.stdout.splitlines()


def network_of(shown: dict[str, Any]) -> dict[str, Any]:
    (network,) = shown["NetworkSettings"]["Networks"].values()
    return dict(network)
