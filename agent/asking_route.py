"""``cloudlunacy agent route``: ask for a route to what runs on this machine, or take one back.

What the fleet file grants (``agentRoutes``) goes into the state repo by a commit in this agent's name; the command
waits until it is served, as far as the control plane knows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import ValidationError

from agent.client import CredentialsUnavailable
from agent.credentials import Credentials, detail_of
from agent.keys import Unusable
from schemas.agent_routes import ROUTE_PATH, ROUTES_PATH, AgentRoute, AgentRouteRequest, route_name
from schemas.text import visible

SECONDS: Final = 60.0
PAUSE: Final = 0.5
_FINAL: Final = frozenset({"Held", "Failed"})


class NotDone(Exception):
    """The control plane refused it, or cannot be reached; the text is for people."""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    parser = actions.add_parser(
        "route",
        help="ask for a route to what runs here",
        description="Have requests for a host sent to a deployment that runs on this machine. The fleet file has to "
        "grant the host (spec.agentRoutes). It is a commit; asking again changes nothing, --remove takes it back.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the directory given to enrol")
    parser.add_argument("--deployment", required=True, metavar="TEAM/NAME", help="what runs here")
    parser.add_argument("--hostname", required=True, metavar="HOST", help="requests for it")
    parser.add_argument("--path", default="/", metavar="PATH", help="only it and what is below it (default: all)")
    parser.add_argument("--port-name", metavar="NAME", help="needed where the deployment has several ports")
    parser.add_argument("--plain", action="store_true", help="plain HTTP, where the host has no certificate")
    parser.add_argument("--remove", action="store_true", help="take the route back")
    parser.add_argument(
        "--timeout", type=float, default=SECONDS, metavar="S", help="seconds to wait (default: %(default)g)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask, wait and say what became of it."""
    try:
        sys.stdout.write(f"{asyncio.run(_ask(options))}\n")
    except (NotDone, Unusable, CredentialsUnavailable) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(str(error).rstrip("."))
    return 0


async def _ask(options: argparse.Namespace) -> str:
    wanted = _wanted(options)
    credentials = Credentials.load(options.data)
    try:
        if options.remove:
            path = _path(wanted.team, route_name(credentials.name, wanted))
            done = await _call(credentials, "DELETE", path, {})
            return f"{done.file} is deleted, in {done.revision}." if done.state == "committed" else _later(done)
        body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
        done = await _call(credentials, "POST", ROUTES_PATH, body)
        return await _wait(credentials, wanted, done, time.monotonic() + options.timeout)
    finally:
        await credentials.close()


def _wanted(options: argparse.Namespace) -> AgentRouteRequest:
    team, _, deployment = options.deployment.partition("/")
    try:
        return AgentRouteRequest(
            team=team,
            deployment=deployment,
            hostname=options.hostname,
            path=options.path,
            port_name=options.port_name,
            tls="none" if options.plain else "terminate",
        )
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors(include_input=False)}))
        raise NotDone(f"this is no route: {wrong}. Write TEAM/NAME, a host name and a path.") from None


async def _wait(credentials: Credentials, wanted: AgentRouteRequest, done: AgentRoute, end: float) -> str:
    """Wait until it is served, cannot be, or the time is over."""
    first, now = done, done
    while not now.in_service and time.monotonic() < end:
        if now.message or first.state == "proposed":
            break
        await asyncio.sleep(PAUSE)
        now = await _call(credentials, "GET", _path(done.team, done.name), None)
    if now.message:
        raise NotDone(f"{done.file} is in git and is not served: {visible(now.message)}")
    if not now.in_service:
        return _later(first)
    scheme = "http" if wanted.tls == "none" else "https"
    return f"{scheme}://{wanted.hostname}{wanted.path} leads to {wanted.team}/{wanted.deployment} here ({done.file})."


def _later(done: AgentRoute) -> str:
    if done.state == "proposed":
        return f"The fleet takes changes by pull request: branch {done.proposal} waits to be merged."
    if done.state == "pending":
        return f"{done.file} is queued, and goes out as soon as the remote takes it."
    held = f" ({done.convergence})" if done.convergence in _FINAL else ""
    return f"{done.file} is in git, in {done.revision}, and is not served yet{held}."


async def _call(credentials: Credentials, method: str, path: str, body: Mapping[str, Any] | None) -> AgentRoute:
    response = await credentials.call(method, path, body or {})
    if response.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
        raise NotDone(detail_of(response))
    try:
        return AgentRoute.model_validate_json(response.content)
    except ValidationError:
        raise NotDone("what answers is no control plane of this version.") from None


def _path(team: str, name: str) -> str:
    return ROUTE_PATH.replace("{team}", team).replace("{name}", name)


def _fail(message: str) -> int:
    sys.stderr.write(f"cloudlunacy: {message}\n")
    return 1
