"""50 deployments on one agent, in containers of a real Docker Engine: what idle costs, and what one change touches.

The engine is one of its own, in a network namespace, so the row needs root, ``docker.io`` and ``busybox-static``;
without them it is left out. The agent's service runs in this process with its usual times; each deployment has an HTTP
health check every ten seconds. The floor asks the same containers as often over bare connections, and nothing else.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agent.deployments.actions import Action
from agent.deployments.docker_engine import DockerEngine
from agent.deployments.firewall import IpTables
from agent.deployments.given import Given
from agent.deployments.service import DeploymentService
from bench.pairs import Row
from schemas.session import Item, ItemResult, digest_of

DEPLOYMENTS: Final = 50
INTERVAL: Final = 10.0
ROUNDS: Final = 3
IDLE_SECONDS: Final = 10.0
START_SECONDS: Final = 120.0
_SHARE: Final = 1.0
"""Percent of a core that idle may cost."""


class CountingEngine(DockerEngine):
    """``done``: which deployment each action was about."""

    done: list[str]

    async def carry_out(self, action: Action, given: Given) -> None:
        self.done.append(action.key.name)
        await super().carry_out(action, given)


def measure_deployments(folder: Path) -> list[Row]:
    """Return the rows; none, with a sentence on stderr, where there is no engine."""
    from tests.support.networked_engine import networked_engine  # noqa: PLC0415  needs what only tests need
    from tests.support.parts import find  # noqa: PLC0415

    missing = [part for part in ("dockerd", "docker", "busybox") if find(part) is None]
    if missing:
        print(f"left out, because there is no {', '.join(missing)};", file=sys.stderr, end=" ")
        return []
    with networked_engine() as engine:
        for version in ("1", "2"):
            engine.make_image(f"web:{version}", f"version {version}")
        rows: list[Row] = engine.inside(lambda: _measure(engine.socket, folder))
        return rows


async def _measure(socket: str, folder: Path) -> list[Row]:
    memory = Path("/dev/shm/cloudlunacy-bench")
    driver = CountingEngine(socket, "bench", firewall=IpTables(), secret_files=memory)
    driver.done = []
    service = DeploymentService(folder / "agent", [driver])
    task = asyncio.create_task(service.run(), name="service")
    try:
        items = tuple(_item(number) for number in range(DEPLOYMENTS))
        await _settled(service, items)
        addresses = [one.address for one in (await driver.observe()).instances]
        ours = []
        for _ in range(ROUNDS):
            driver.done.clear()
            ours.append(await _share(asyncio.sleep(IDLE_SECONDS)))
            if driver.done:
                raise SystemExit(f"idle, and yet something was done: {driver.done}")
        driver.done.clear()
        await _settled(service, (_item(0, "web:2"), *items[1:]))
        touched = set(driver.done)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        shutil.rmtree(memory, ignore_errors=True)
    floor = [await _share(_bare(addresses)) for _ in range(ROUNDS)]
    return _rows(sorted(ours)[ROUNDS // 2], sorted(floor)[ROUNDS // 2], touched)


def _rows(ours: float, floor: float, touched: set[str]) -> list[Row]:
    return [
        Row(
            name=f"{DEPLOYMENTS} deployments on an agent, nothing changes (each asked every {INTERVAL:g} s)",
            against=f"{_SHARE:g} % of a core",
            ours=round(ours, 3),
            reference=_SHARE,
            unit="%",
            ratio=round(ours / _SHARE, 2),
            reach=1.0,
            rounds=ROUNDS,
        ),
        Row(
            name="… the same",
            against="the same requests over bare connections, and nothing else",
            ours=round(ours, 3),
            reference=round(floor, 3),
            unit="%",
            ratio=round(ours / floor, 2),
            reach=0,
            rounds=ROUNDS,
            counts=False,
        ),
        Row(
            name=f"… one of {DEPLOYMENTS} changes",
            against="deployments that are touched",
            ours=len(touched),
            reference=1,
            unit="deployments",
            ratio=len(touched),
            reach=1,
        ),
    ]


def _item(number: int, image: str = "web:1") -> Item:
    spec: dict[str, Any] = {
        "type": "container",
        "agents": ["bench"],
        "image": image,
        "command": ["httpd", "-f", "-p", "8080", "-h", "/www"],
        "ports": [{"container": 8080, "host": 10_000 + number}],
        "healthCheck": {"http": {"path": "/", "port": 8080}, "interval": f"{INTERVAL:g}s"},
        "stopGrace": "1s",
    }
    return Item(id=f"Deployment/shop/web-{number}", kind="Deployment", digest=digest_of(spec), spec=spec)


async def _settled(service: DeploymentService, items: tuple[Item, ...]) -> None:
    end = time.monotonic() + START_SECONDS
    said: Sequence[ItemResult] = ()
    while time.monotonic() < end:
        said = await service.apply(items)
        if all(one.state == "Applied" for one in said):
            return
        await asyncio.sleep(0.2)
    raise SystemExit(f"not all are running: {[one.message for one in said if one.state != 'Applied'][:3]}")


async def _share(work: Any) -> float:  # noqa: ANN401  something to wait for
    """Return the percentage of a core that this process used meanwhile."""
    began, used = time.monotonic(), time.process_time()
    await work
    return (time.process_time() - used) / (time.monotonic() - began) * 100


async def _bare(addresses: list[str]) -> None:
    """Ask as often as the service did, at even distances."""
    for _ in range(round(IDLE_SECONDS / INTERVAL)):
        for address in addresses:
            reader, writer = await asyncio.open_connection(address, 8080)
            writer.write(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            await reader.readline()
            writer.close()
            await asyncio.sleep(INTERVAL / len(addresses))
