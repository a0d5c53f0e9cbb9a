"""From a finished ``git push`` to the real Traefik serving it, against Traefik's reload of a file put there by hand.

Two Traefiks of the same static configuration (ours, so the same throttle) hold the same routes. One watches the file of
a control plane, which is woken when the push has finished, as a webhook would; the other one watches a file that is
replaced by hand. On both sides the same poller waits for a generation's marker in the API.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

from bench.pairs import Pairs, Row, settle_down
from bench.plane import Plane, plane, settings
from bench.state_repo import BareRepo, route, route_path, tree
from reconciler.desired.render import Renderer
from reconciler.desired.traefik_model import MARKER, marker_name
from reconciler.traefik.binary import find_binary
from reconciler.traefik.static import static_configuration
from reconciler.traefik.templates import load_templates
from schemas.fleet import Fleet

SIZES: Final = {1_000: 9, 10_000: 4}
"""Routes → rounds."""
POLL: Final = 0.01
AGENTS: Final = 10


class Traefik:
    """A running Traefik that watches ``dynamic``."""

    def __init__(self, folder: Path, dynamic: Path) -> None:
        self.dynamic = dynamic
        dynamic.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self.api = f"http://127.0.0.1:{port}"
        self.client = httpx.AsyncClient(base_url=self.api, trust_env=False)
        static = folder / f"{dynamic.parent.name}-static.yml"
        fleet = Fleet.model_validate(_FLEET)
        addresses = dict.fromkeys(("web", "websecure", "mongodb"), "127.0.0.1:0")
        text = static_configuration(
            Renderer(load_templates()), fleet, dynamic, addresses=addresses, api_address=f"127.0.0.1:{port}"
        )
        static.write_text(text, encoding="utf-8")
        with (folder / f"{dynamic.parent.name}.log").open("wb") as log:
            command = [str(find_binary()), f"--configfile={static}"]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    async def has(self, marker: str) -> bool:
        with suppress(httpx.HTTPError):
            answer = await self.client.get(f"/api/http/services/{marker}@file")
            return answer.status_code == 200
        return False

    async def wait_for(self, marker: str) -> float:
        """Return when the marker was seen."""
        end = time.perf_counter() + 60
        while not await self.has(marker):
            if time.perf_counter() > end:
                raise SystemExit(f"Traefik did not load {marker}")
            await asyncio.sleep(POLL)
        return time.perf_counter()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def measure_served(folder: Path) -> list[Row]:
    """Return one row for each size."""
    return [asyncio.run(_served(folder / str(routes), routes, rounds)) for routes, rounds in SIZES.items()]


async def _served(folder: Path, routes: int, rounds: int) -> Row:
    remote = BareRepo(_made(folder) / "remote.git", tree(routes, routes_only=True))
    pairs = Pairs()
    with (
        _traefik(folder, folder / "ours" / "front" / "dynamic") as ours,
        _traefik(folder, folder / "hand" / "d") as hand,
    ):
        given = settings(remote.path, folder / "ours", api=ours.api)
        async with plane(given, real_front=True) as running:
            looping = asyncio.create_task(running.loop.run(), name="loop")
            await ours.wait_for(marker_name(1, remote.head()))
            await _until_confirmed(running)
            for number in range(-1, rounds):
                by_hand = await _by_hand(ours, hand, number + 1000)
                settle_down()
                committed = await _commit(running, remote, ours, number + 2)
                if number >= 0:
                    pairs.add(committed, by_hand)
            looping.cancel()
            await asyncio.gather(looping, return_exceptions=True)
    name, against = f"commit → served by Traefik, {routes:,} routes", "Traefik's reload of a file written by hand"
    return pairs.row(name, against, 1.25, notes="from the end of the push to the marker in the API")


async def _commit(running: Plane, remote: BareRepo, ours: Traefik, number: int) -> float:
    generation = running.loop.published.generation + 1
    changed = number % 900
    revision = remote.push({route_path(changed): route(changed, agents=AGENTS, average=1000 + number)})
    began = time.perf_counter()
    running.loop.wake()
    seen = await ours.wait_for(marker_name(generation, revision))
    await _until_confirmed(running)
    return seen - began


async def _by_hand(ours: Traefik, hand: Traefik, generation: int) -> float:
    """Change one route and the marker of the very file that the control plane wrote, and put it in place."""
    text = (ours.dynamic / "cloudlunacy.yml").read_text(encoding="utf-8")
    marker = marker_name(generation, "by-hand")
    text = re.sub(rf"{MARKER}[0-9a-f-]+", marker, text).replace('"average": 100,', f'"average": {generation},', 1)
    temporary = hand.dynamic.parent / "new.yml"
    settle_down()
    began = time.perf_counter()
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(hand.dynamic / "routes.yml")
    return await hand.wait_for(marker) - began


async def _until_confirmed(running: Plane) -> None:
    """Let the pass end, so that no round pays for another, and its wakes be granted again."""
    while not running.loop.published.confirmed:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.2)


@contextmanager
def _traefik(folder: Path, dynamic: Path) -> Iterator[Traefik]:
    running = Traefik(folder, dynamic)
    try:
        yield running
    finally:
        running.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_FLEET: Final = {
    "apiVersion": "cloudlunacy/v1",
    "kind": "Fleet",
    "metadata": {"name": "bench"},
    "spec": {"domain": "cloudlunacy.test"},
}
