"""Every page and list with 5,000 agents and 10,000 routes in service, while heartbeats arrive.

A person's browser asks over TLS, with a session, one thing after the other and all of them in turns; two more listen to
the feed. What is asked comes from the application's own table: an endpoint that nothing is known of here ends the row.
``/healthz`` of the same server is what an answer costs at least. Afterwards a browser stays on the longest lists.
"""

from __future__ import annotations

import http.client
import re
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.beating import beating
from bench.big_fleet import AGENTS, DEPLOYMENTS, HEARTBEAT, ROUTES, Served, serving_it
from bench.pages_browser import Stay, stay_on_pages
from bench.pairs import Row
from reconciler.pki.authenticator import SESSION_COOKIE

ROUNDS: Final = 40
WARM_UP: Final = 2
GOAL: Final = 300.0
"""Milliseconds, at the 95th percentile."""
FLOOR: Final = "/healthz"
LISTENERS: Final = 2
WANTED: Final[Mapping[str, tuple[str, ...]]] = {
    "/": ("/",),
    "/traffic": (
        "/traffic", "/traffic?after=web-200.team-012.cloudlunacy.test", "/traffic?team=team-024",
        "/traffic?text=web-399.team-024", "/traffic?agent=vps-4999", "/traffic?state=degraded",
        "/traffic?url=http://web-7.team-012.cloudlunacy.test/",
    ),
    "/traffic/{host}": ("/traffic/web-7.team-012.cloudlunacy.test",),
    "/agents": (
        "/agents", "/agents?after=vps-4000", "/agents?q=vps-4999", "/agents?presence=Disconnected",
        "/agents?state=cordoned", "/agents?label=region%3Dams",
    ),
    "/agents/new": ("/agents/new",),
    "/agents/new/{name}": ("/agents/new/vps-7",),
    "/agents/{name}": ("/agents/vps-2500", "/agents/vps-2500?range=24h"),
    "/deployments": (
        "/deployments", "/deployments?after=team-012/app-1", "/deployments?team=team-024", "/deployments?q=app-199",
        "/deployments?agent=vps-4999", "/deployments?state=Failed",
    ),
    "/deployments/{team}/{name}": ("/deployments/team-012/app-7",),
    "/deployments/{team}/{name}/logs": ("/deployments/team-012/app-7/logs",),
    "/databases": ("/databases",),
    "/databases/{team}/{name}": ("/databases/team-012/db-12",),
    "/certificates": ("/certificates",),
    "/certificates/{name}": ("/certificates/team-012-3",),
    "/secrets": ("/secrets",),
    "/revisions": ("/revisions",),
    "/revisions/{revision}": ("/revisions/newest", "/revisions/{newest}"),
    "/revisions/{revision}/revert": ("/revisions/{newest}/revert",),
    "/events": ("/events", "/events?q=nowhere", "/events?severity=error", "/events?type=PlanApproved&since=24h"),
    "/objects/{path:path}": (
        "/objects/routes/team-012/web-7.yaml", "/objects/agents/vps-7.yaml", "/objects/fleet.yaml",
    ),
    "/routes/new": ("/routes/new",),
    "/tokens": ("/tokens",),
    "/sessions": ("/sessions",),
    "/api": ("/api",),
    "/login": (),
    "/api/v1/status": ("/api/v1/status",),
    "/api/v1/revisions": ("/api/v1/revisions",),
    "/api/v1/revisions/{revision}": ("/api/v1/revisions/newest",),
    "/api/v1/revisions/{revision}/plan": ("/api/v1/revisions/{newest}/plan",),
    "/api/v1/revisions/{revision}/convergence": ("/api/v1/revisions/{newest}/convergence",),
    "/api/v1/revisions/{revision}/diff": ("/api/v1/revisions/{newest}/diff",),
    "/api/v1/approvals": ("/api/v1/approvals",),
    "/api/v1/objects": (
        "/api/v1/objects", "/api/v1/objects?limit=1000", "/api/v1/objects?kind=Route&team=team-024",
    ),
    "/api/v1/objects/{path:path}": ("/api/v1/objects/routes/team-012/web-7.yaml",),
    "/api/v1/objects/{path:path}/history": ("/api/v1/objects/routes/team-000/web-7.yaml/history",),
    "/api/v1/agents": ("/api/v1/agents", "/api/v1/agents?limit=1000"),
    "/api/v1/agents/{name}": ("/api/v1/agents/vps-2500",),
    "/api/v1/agents/{name}/metrics": ("/api/v1/agents/vps-2500/metrics",),
    "/api/v1/deployments": ("/api/v1/deployments", "/api/v1/deployments?limit=1000"),
    "/api/v1/databases": ("/api/v1/databases",),
    "/api/v1/deployments/{team}/{name}": ("/api/v1/deployments/team-012/app-7",),
    "/api/v1/deployments/{team}/{name}/metrics": ("/api/v1/deployments/team-012/app-7/metrics",),
    "/api/v1/deployments/{team}/{name}/rollout": ("/api/v1/deployments/team-012/app-7/rollout",),
    "/api/v1/traffic": ("/api/v1/traffic", "/api/v1/traffic?limit=1000", "/api/v1/traffic?state=degraded"),
    "/api/v1/explain": ("/api/v1/explain?url=http://web-7.team-012.cloudlunacy.test/",),
    "/api/v1/certificates": ("/api/v1/certificates",),
    "/api/v1/secrets": ("/api/v1/secrets",),
    "/api/v1/conditions": ("/api/v1/conditions",),
    "/api/v1/events": (
        "/api/v1/events", "/api/v1/events?order=newest&limit=1000", "/api/v1/events?q=nowhere",
        "/api/v1/events?under=agent/vps-49",
    ),
    "/api/v1/events/{event}": ("/api/v1/events/{event}",),
    "/api/v1/tokens": ("/api/v1/tokens",),
    "/api/v1/sessions": ("/api/v1/sessions",),
    "/api/v1/whoami": ("/api/v1/whoami",),
    "/api/v1/pki/rotations": ("/api/v1/pki/rotations",),
}  # fmt: skip
"""Path of the table → what is asked."""
WHOLE: Final = ("/api/v1/state", "/metrics", "/metrics/agents")
"""Everything at once, for programs: no page, and no list that has pages. Asked once, and told apart."""
LEFT_OUT: Final = re.compile(
    r"/healthz|/readyz|/static/.*|/\.well-known/.*|/install.*|/login/.*|/api/v1/stream|/api/v1/agents/stream"
    r"|/api/v1/agents/enrolments/.*|/api/v1/routes/.*|/api/v1/changes/.*|/api/v1/approvals/.*|.*/logs|.*/backups"
    r"|/api/v1/revisions/\{revision\}/revert"
)
"""What is no page and no list, what agents ask, and what waits for an agent to do something."""


def measure_pages(folder: Path) -> list[Row]:
    """Return the rows; the table of every page is told on stderr."""
    with serving_it(folder) as served, beating(served.address, AGENTS, HEARTBEAT), _listening(served):
        asked = _asked(served)
        times = _ask(served, asked)
        whole = {path: _Asking(served).get(path) for path in WHOLE}
        used = _cpu_of(served.pid)
        stays = stay_on_pages(served)
    _print(times, whole, stays)
    floor = _p95(times[FLOOR])
    pages = {path: taken for path, taken in times.items() if path in asked and not path.startswith("/api/")}
    lists = {path: taken for path, taken in times.items() if path.startswith("/api/")}
    rows = [_row("page", pages, floor), _row("answer of the API", lists, floor)]
    rows[0].details.update(cpu_seconds=used, whole=whole, stays=[stay._asdict() for stay in stays])
    return rows


def _row(what: str, times: Mapping[str, list[float]], floor: float) -> Row:
    slowest = max(times, key=lambda path: _p95(times[path]))
    every = {path: [round(statistics.median(taken), 1), round(_p95(taken), 1)] for path, taken in times.items()}
    return Row(
        name=f"slowest {what} at the 95th percentile, {AGENTS:,} agents, {ROUTES:,} routes",
        against="300 ms",
        ours=round(_p95(times[slowest]), 1),
        reference=GOAL,
        unit="ms",
        ratio=round(_p95(times[slowest]) / GOAL, 2),
        reach=1.0,
        rounds=ROUNDS,
        notes=f"{slowest}, of {len(times)}; {FLOOR} {floor:.1f} ms",
        details={"every": every, "deployments": DEPLOYMENTS},
    )


def _asked(served: Served) -> list[str]:
    """Return what to ask.

    Raises:
        SystemExit: when the table has something that nothing is known of here.
    """
    table = [path for path in served.table if path not in WHOLE and not LEFT_OUT.fullmatch(path)]
    unknown = [path for path in table if path not in WANTED and path.startswith(("/api/v1", "/"))]
    if unknown:
        raise SystemExit(f"say in bench/pages.py what is to be asked of {', '.join(unknown)}")
    asked = [one for path in table for one in WANTED[path]]
    return [one.replace("{newest}", served.revision).replace("{event}", served.event) for one in asked]


class _Asking:
    """A connection of a browser."""

    def __init__(self, served: Served) -> None:
        where = urlsplit(served.address)
        self._to = http.client.HTTPSConnection(
            where.hostname or "", where.port, timeout=60, context=ssl.create_default_context(cadata=served.ca)
        )
        self._headers = {"Cookie": f"{SESSION_COOKIE}={served.cookie}"}

    def get(self, path: str) -> float:
        """Return the milliseconds until all of the answer is there."""
        accept = "application/json, */*" if path.startswith("/api/") else "text/html"
        began = time.perf_counter()
        self._to.request("GET", path, headers={**self._headers, "Accept": accept})
        answer = self._to.getresponse()
        content = answer.read()
        took = (time.perf_counter() - began) * 1e3
        if answer.status != 200:
            raise SystemExit(f"{path} is answered {answer.status}: {content[:400]!r}")
        return took

    def listen(self) -> None:
        """Read the feed until the server ends it."""
        self._to.request("GET", "/api/v1/stream", headers=self._headers)
        answer = self._to.getresponse()
        while answer.read1():
            pass


@contextmanager
def _listening(served: Served) -> Iterator[None]:
    """Others who have the dashboard open. They go with the process."""
    for _ in range(LISTENERS):
        threading.Thread(target=_Asking(served).listen, daemon=True).start()
    yield


def _ask(served: Served, asked: list[str]) -> dict[str, list[float]]:
    asking, times = _Asking(served), {path: list[float]() for path in (FLOOR, *asked)}
    for number in range(ROUNDS + WARM_UP):
        for path, taken in times.items():
            took = asking.get(path)
            if number >= WARM_UP:
                taken.append(took)
    return times


def _p95(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=20)[-1]


def _cpu_of(pid: int) -> float:
    """Return the seconds of processor time that a process took."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _print(times: Mapping[str, list[float]], whole: Mapping[str, float], stays: list[Stay]) -> None:
    lines = ["", "| asked for | median | 95th percentile | longest |", "|---|---:|---:|---:|"]
    for path, taken in times.items():
        lines.append(f"| `{path}` | {statistics.median(taken):.1f} ms | {_p95(taken):.1f} ms | {max(taken):.1f} ms |")
    lines += [f"| `{path}`, all of it, once | {took:.0f} ms | | |" for path, took in whole.items()]
    lines += ["", *(f"{stay}" for stay in stays)]
    print("\n".join(lines), file=sys.stderr)
