"""A control plane as large as it is meant to become: 5,000 agents, 10,000 routes, and what goes with them.

``python -m bench.big_fleet FOLDER`` serves it with TLS, as ``serve`` does, with two differences: agents are believed by
their name alone (what proving a key costs is another row's), and somebody is logged in already. It says where, and
what it answers, in a line of JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.state_repo import DOMAIN, BareRepo, Files, agent, deployment, fleet, route
from reconciler.access.sessions import Person
from reconciler.app import control_plane, serving
from reconciler.observability import logs
from reconciler.settings import FrontSettings, GitSettings, Settings
from reconciler.store.protocols import Event, RevisionRecord
from reconciler.store.tables import events
from reconciler.web import application
from reconciler.web.agent_stream import AgentStream
from reconciler.web.endpoint import Endpoint, routes_of

AGENTS: Final = 5_000
ROUTES: Final = 10_000
DEPLOYMENTS: Final = 5_000
DATABASES: Final = 100
CERTIFICATES: Final = 200
REVISIONS: Final = 50
EVENTS: Final = 20_000
OF_TEAM: Final = 400
"""Routes."""
HEARTBEAT: Final = 15.0
"""Seconds between two of an agent."""
_EVENTS: Final = (
    ("AgentConnected", "info", "agent/vps-{0}", "vps-{0} is connected."),
    ("ObjectQuarantined", "error", "Route/team-001/web-{0}", "The port 70000 is none."),
    ("PlanApproved", "warning", "revision/{0:040x}", "ann approved a plan that removes 12 hosts."),
    ("RevisionPublished", "info", "revision/{0:040x}", "Generation {0} is published."),
    ("AgentDisconnected", "warning", "agent/vps-{0}", "vps-{0} has gone: no word for 50 s."),
)


# --- what lies in git -------------------------------------------------------------------------------------------------


def files() -> Files:
    """Return the state repository."""
    teams = [f"team-{number:03d}" for number in range(ROUTES // OF_TEAM)]
    found = {"fleet.yaml": fleet(teams)}
    for number in range(AGENTS):
        identity = f"  identity: {{thumbprint: {thumbprint(f'vps-{number}')}}}\n"
        found[f"agents/vps-{number}.yaml"] = agent(number) + identity
    for number in range(ROUTES):
        team, index = teams[number // OF_TEAM], number % OF_TEAM
        text = route(number, agents=AGENTS)
        if index < CERTIFICATES // len(teams):
            host = f"web-{index}.{team}.{DOMAIN}"
            found[f"certificates/{team}-{index}.yaml"] = _certificate(f"{team}-{index}", host)
            text = text.replace("tls: {mode: none}", "tls: {mode: terminate}")
        found[f"routes/{team}/web-{index}.yaml"] = text
    for number in range(DEPLOYMENTS):
        team, index = teams[number % len(teams)], number // len(teams)
        found[f"deployments/{team}/app-{index}.yaml"] = deployment(team, index, number, AGENTS)
    for number in range(DATABASES):
        found[f"deployments/{teams[number % len(teams)]}/db-{number}.yaml"] = _database(number)
    return found


def thumbprint(name: str) -> str:
    """Return what stands for the agent's key."""
    return urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).rstrip(b"=").decode()


def _certificate(name: str, host: str) -> str:
    head = f"apiVersion: cloudlunacy/v1\nkind: Certificate\nmetadata: {{name: {name}}}\n"
    return f"{head}spec:\n  dnsNames: [{host}]\n  issuer: internal\n"


def _database(number: int) -> str:
    head = f"apiVersion: cloudlunacy/v1\nkind: Deployment\nmetadata: {{name: db-{number}}}\n"
    ports = f"  ports:\n    - {{name: mongodb, container: 27017, host: {27000 + number}}}\n"
    return f'{head}spec:\n  type: mongodb\n  agents: [vps-{number}]\n  mongodb: {{version: "6.0"}}\n{ports}'


# --- serving it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """``table``: each endpoint that is a GET, and whether it is a page."""

    address: str
    ca: str
    cookie: str
    revision: str
    event: str
    """Id of one."""
    table: Mapping[str, bool]
    pid: int


@contextmanager
def serving_it(folder: Path, seconds: float = 150) -> Iterator[Served]:
    """Run it in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "bench.big_fleet", str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Served(pid=process.pid, **json.loads(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(seconds)


@dataclass(frozen=True)
class _Agent:
    name: str
    thumbprint: str
    kind: str = "agent"


class _Believer:
    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> _Agent:  # noqa: ARG002
        name = headers["authorization"].removeprefix("Test ")
        return _Agent(name, thumbprint(name))


async def _serve(folder: Path) -> None:
    remote = BareRepo(folder / "remote.git", files())
    for number in range(REVISIONS):
        remote.push({f"routes/team-000/web-{number}.yaml": route(number, agents=AGENTS, average=200 + number)})
    table: dict[str, bool] = {}

    def noted(endpoints: tuple[Endpoint, ...]) -> Any:  # noqa: ANN401 - Starlette's
        table.update((one.path, one.page) for one in endpoints if one.method == "GET")
        return routes_of(endpoints)

    serving.AgentStream = lambda hub, _: AgentStream(hub, _Believer())  # type: ignore[misc, assignment, attr-defined]
    application.routes_of = noted  # type: ignore[attr-defined, assignment]
    (folder / "front").mkdir()
    settings = Settings(
        git=GitSettings(repo=str(remote.path)),
        data=folder / "data",
        port=0,
        fronts=(FrontSettings(folder / "front" / "cloudlunacy.yml", "http://127.0.0.1:1"),),
        heartbeat_seconds=HEARTBEAT,
        read_back_seconds=600,
    )
    logs.configure(format="json", stream=(folder / "log").open("w", encoding="utf-8"))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with control_plane(settings) as plane:
        await _fill(plane._store, remote)  # noqa: SLF001 - it is as if all of it had happened
        cookie = await plane._access.sessions.begin(Person("ann", roles=("administrator",)), "for the bench")  # noqa: SLF001
        running = asyncio.create_task(plane.run(stop))
        while not plane.ready or plane._directory.published("vps-0") is None:  # noqa: SLF001 - agents may come
            await asyncio.sleep(0.1)
            if running.done():
                await running
        ca = plane.certificate.authority.bundle().pem
        said = {"address": plane.address, "ca": ca, "cookie": cookie, "revision": remote.head(), "table": table}
        said["event"] = str((await plane._store.events(newest_first=True, limit=1))[0].id)  # noqa: SLF001
        print(json.dumps(said), flush=True)
        await running


async def _fill(store: Any, remote: BareRepo) -> None:  # noqa: ANN401 - the embedded one
    """Make it as if much had happened."""
    now, shown = time.time(), []
    for number in range(EVENTS):
        kind, severity, subject, text = _EVENTS[number % len(_EVENTS)]
        at, place = now - (EVENTS - number) * 60, number % AGENTS
        shown.append(Event(at, kind, severity, subject.format(place), text.format(place)))  # type: ignore[arg-type]
    await store._state.run(lambda connection: [events.append(connection, one) for one in shown])  # noqa: SLF001
    record = RevisionRecord("", 1, "Converged", "", "", {}, {}, (), None, {"subject": "Change", "author": "ann"}, now)
    for number, revision in enumerate(remote.revisions(REVISIONS + 1)[1:], 1):
        at = now - number * 600
        stages = {"fetched": at, "validated": at + 0.1, "published": at + 0.4, "loaded": at + 1, "applied": at + 2}
        await store.save_record(replace(record, revision=revision, stages=stages, updated_at=at + 2))


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
