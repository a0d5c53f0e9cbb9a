"""Routes that agents ask for: what may be asked, the commit that says so, and how it stands (docs/adr/0038).

In order: how often the agent asks → the fleet grants the host to this agent for that team → the deployment is the
team's and runs on the agent → the route as it would be written passes every check of a commit beside what is in
service → the entry of the outbox is durable → the answer, once the commit is on the remote, or after ten seconds
without. Nothing is written for what is refused.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from reconciler.agents.group_commit import CONFLICTED, PROPOSED, GroupCommitter, Job, Settled
from reconciler.agents.rates import CallerBuckets
from reconciler.desired.asked_route import ASKED_BY, AskedRoute, putting, taking_back
from reconciler.desired.claims import covered
from reconciler.desired.edits import CommitRequest
from reconciler.desired.finding import Finding
from reconciler.desired.parse import parse_file
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import settle
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import Refused
from reconciler.store.protocols import Event, EventStore, Outbox, OutboxEntry
from schemas.agent_routes import AgentRoute, AgentRouteRequest, route_name
from schemas.deployment import Deployment
from schemas.fleet import Fleet
from schemas.objects import ObjectKey

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 10.0
BURST: Final = 60
PER_SECOND: Final = 0.1
"""Requests of one agent that may write."""
MOST: Final = 64
"""Routes of one agent that were made this way."""
BRANCH: Final = "route/"
_NO_BLOB: Final = "0" * 40
_STATUS: Final[Mapping[str, int]] = {
    "host-taken": 409,
    "contested": 409,
    "host-not-owned": 403,
    "port-not-granted": 403,
    "agent-not-granted": 403,
    "agent-cordoned": 409,
}
"""Code of a problem → status; others are 422."""


class Store(Outbox, EventStore, Protocol):
    """What has to be remembered."""


Standing = Callable[[str], str]
"""Revision → state of its record; empty where it is not known."""


class AskedRoutes:
    """``state()`` is in service; ``standing`` tells how a revision stands. Endpoints are below ``issuer``."""

    def __init__(
        self,
        *,
        issuer: str,
        store: Store,
        committer: GroupCommitter,
        state: Callable[[], State],
        open_sealed: OpenSecret,
        standing: Standing = lambda _revision: "",
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer.rstrip("/")
        self._store = store
        self._committer = committer
        self._state = state
        self._open_sealed = open_sealed
        self._standing = standing
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._buckets = CallerBuckets(BURST, PER_SECOND)
        self._under_way: dict[str, OutboxEntry] = {}
        """Path → what was asked last."""

    async def put(self, agent: str, wanted: AgentRouteRequest) -> AgentRoute:
        """Have the route made.

        Raises:
            Refused: 403 ``host-not-granted``, ``not-on-this-agent`` and what a commit is refused for; 404; 409; 422;
                429; 503.
        """
        state, fleet = self._in_service()
        self._take_turn(agent)
        require_granted(fleet, agent, wanted)
        deployment = require_own(state, agent, wanted)
        asked = asked_route(agent, wanted, deployment)
        require_room(state, agent, asked.path)
        finding = await asyncio.to_thread(first_problem, state, asked, self._open_sealed)
        if finding is not None:
            status = _STATUS.get(finding.code, 422)
            raise Refused(finding.message, status=status, code=finding.code, hint=finding.hint)
        payload = {
            "agent": agent,
            "team": wanted.team,
            "deployment": wanted.deployment,
            "hostname": wanted.hostname,
            "prefix": wanted.path,
            "port": asked.port,
            "plain": asked.plain,
            "delete": False,
        }
        return await self._write(agent, wanted.team, asked.name, payload, fleet)

    async def take_back(self, agent: str, team: str, name: str) -> AgentRoute:
        """Have a route of the agent deleted.

        Raises:
            Refused: 403 ``not-yours``; 409 ``route-changed``; 429; 503.
        """
        state, fleet = self._in_service()
        self._take_turn(agent)
        _require_asker(state, agent, team, name)
        return await self._write(agent, team, name, {"agent": agent, "team": team, "delete": True}, fleet)

    def view(self, agent: str, team: str, name: str) -> AgentRoute:
        """Tell how a route of the agent stands.

        Raises:
            Refused: 403 ``not-yours``; 404 ``unknown-route``; 503.
        """
        state, _ = self._in_service()
        served = _require_asker(state, agent, team, name)
        path = ObjectKey("Route", team, name).path
        under_way = self._under_way.get(path)
        mine = under_way is not None and under_way.payload["agent"] == agent
        if not served and not mine:
            raise Refused("There is no such route.", status=404, code="unknown-route")
        return self._described(agent, team, name, None)

    # --- writing --------------------------------------------------------------------------------------------------

    async def _write(self, agent: str, team: str, name: str, payload: Mapping[str, object], fleet: Fleet) -> AgentRoute:
        path = ObjectKey("Route", team, name).path
        registration = {"name": name, "domain": fleet.spec.domain, "mode": fleet.spec.registration.mode}
        entry = OutboxEntry(f"route-{secrets.token_hex(12)}", "route", {**payload, **registration}, self._clock())
        before = self._under_way.get(path)
        if before is not None and before.payload == entry.payload and self._committer.is_pending(before.id):
            entry = before
        else:
            await self._store.put(entry)
            self._committer.add(entry)
            self._note(path, entry)
            log.info("a route was asked for", agent=agent, route=path, delete=bool(payload["delete"]))
        settled = await self._committer.wait(entry.id, self._answer_seconds)
        if settled is not None and settled.outcome.startswith(CONFLICTED):
            text = settled.outcome.removeprefix(CONFLICTED)
            raise Refused(text, status=409, code="route-changed", hint="Delete the file, or leave it to people.")
        return self._described(agent, team, name, settled or Settled("", None))

    def _note(self, path: str, entry: OutboxEntry) -> None:
        self._under_way.pop(path, None)
        self._under_way[path] = entry
        while len(self._under_way) > 10_000:
            del self._under_way[next(iter(self._under_way))]

    def _described(self, agent: str, team: str, name: str, settled: Settled | None) -> AgentRoute:
        state = self._state()
        key = ObjectKey("Route", team, name)
        served = state.served.get(key)
        findings = [one for one in state.findings.get(key.path, ()) if one.severity == "error"]
        revision = (settled.revision if settled is not None else None) or ""
        convergence = self._standing(revision) if revision else ""
        proposed = settled is not None and settled.outcome == PROPOSED
        return AgentRoute(
            state="" if settled is None else "proposed" if proposed else "committed" if settled.outcome else "pending",
            team=team,
            name=name,
            file=key.path,
            revision=revision,
            proposal=f"{BRANCH}{name}" if proposed else "",
            in_service=served is not None and _asker(served.object) == agent,
            convergence=convergence,
            message=findings[0].message if findings else "",
            status_url=f"{self._issuer}/api/v1/routes/{team}/{name}",
        )

    # --- what may be asked ----------------------------------------------------------------------------------------

    def _in_service(self) -> tuple[State, Fleet]:
        state = self._state()
        if state.fleet is None or not self._committer.resumed.is_set():
            raise Refused("No revision is in service yet.", status=503, code="not-ready", retry_after=2.0)
        return state, state.fleet

    def _take_turn(self, agent: str) -> None:
        if seconds := self._buckets.of(agent).take(self._monotonic()):
            text = "This agent asks for routes too often."
            raise Refused(text, status=429, code="too-many-requests", retry_after=seconds)


def require_granted(fleet: Fleet, agent: str, wanted: AgentRouteRequest) -> None:
    """Refuse what the fleet file does not let this agent ask for.

    Raises:
        Refused: 403 ``host-not-granted``.
    """
    for grant in fleet.spec.agent_routes:
        is_meant = grant.team == wanted.team and (not grant.agents or agent in grant.agents)
        if is_meant and covered(wanted.hostname, frozenset(grant.hostnames)):
            return
    text = f'The fleet does not let agent "{agent}" ask for "{wanted.hostname}" for team "{wanted.team}".'
    hint = "It would with an entry of agentRoutes in the spec of fleet.yaml."
    raise Refused(text, status=403, code="host-not-granted", hint=hint)


def require_own(state: State, agent: str, wanted: AgentRouteRequest) -> Deployment:
    """Return the deployment, where it runs on this agent.

    Raises:
        Refused: 403 ``not-on-this-agent``, the same for one that is not there.
    """
    key = ObjectKey("Deployment", wanted.team, wanted.deployment)
    served = state.served.get(key)
    found = served.object if served is not None else None
    if not isinstance(found, Deployment) or agent not in state.selected.get(key, found.spec.agents):
        text = f'There is no deployment {wanted.team}/{wanted.deployment} on agent "{agent}".'
        raise Refused(text, status=403, code="not-on-this-agent")
    return found


def asked_route(agent: str, wanted: AgentRouteRequest, deployment: Deployment) -> AskedRoute:
    """Return what would be written: the only backend is the agent itself, at a port that the deployment declares.

    Raises:
        Refused: 422 ``unknown-port``, ``ambiguous-port``.
    """
    ports = [one for one in deployment.spec.ports if wanted.port_name in (None, one.name)]
    if len(ports) != 1:
        known = ", ".join(f"{one.name or '-'} ({one.host})" for one in deployment.spec.ports) or "none"
        code = "ambiguous-port" if ports else "unknown-port"
        text = f"{wanted.team}/{wanted.deployment} has no single port that fits; it has: {known}."
        raise Refused(text, status=422, code=code, hint="Name one of them.")
    name = route_name(agent, wanted)
    return AskedRoute(
        path=ObjectKey("Route", wanted.team, name).path,
        name=name,
        agent=agent,
        deployment=wanted.deployment,
        hostname=wanted.hostname,
        prefix=wanted.path,
        port=ports[0].host,
        plain=wanted.tls == "none",
    )


def require_room(state: State, agent: str, path: str) -> None:
    """Refuse one route too many.

    Raises:
        Refused: 409 ``too-many-routes``.
    """
    keys = [one.key.path for one in state.served.values() if one.key.kind == "Route" and _asker(one.object) == agent]
    if path not in keys and len(keys) >= MOST:
        text = f'Agent "{agent}" has {MOST} routes that it asked for; it may have no more.'
        raise Refused(text, status=409, code="too-many-routes", hint="Take some back.")


def first_problem(state: State, asked: AskedRoute, open_sealed: OpenSecret) -> Finding | None:
    """Return what a commit of this file would be refused for, beside what is in service."""
    news = [parse_file(asked.path, _NO_BLOB, asked.content())]
    settled = settle(state, "", news, compile_route=compile_route, open_sealed=open_sealed)
    found = settled.state.findings.get(asked.path, ())
    return next((one for one in found if one.severity == "error"), None)


def _require_asker(state: State, agent: str, team: str, name: str) -> bool:
    """Say whether the route is in service; refuse one that is not the agent's.

    Raises:
        Refused: 403 ``not-yours``.
    """
    served = state.served.get(ObjectKey("Route", team, name))
    if served is not None and _asker(served.object) != agent:
        raise Refused("This route was not asked for by this agent.", status=403, code="not-yours")
    return served is not None


def _asker(found: object) -> str:
    metadata = getattr(found, "metadata", None)
    return str(metadata.annotations.get(ASKED_BY, "")) if metadata is not None else ""


# --- the commit -------------------------------------------------------------------------------------------------------


def compose_route(entry: OutboxEntry, *, branch: str) -> Job:
    """Turn what was asked into its commit on ``branch``, or on ``route/<name>`` in mode pull-request.

    Raises:
        KeyError, TypeError, ValueError: when the payload is not one of ours.
    """
    said = entry.payload
    agent, team, name = str(said["agent"]), str(said["team"]), str(said["name"])
    path = ObjectKey("Route", team, name).path
    if said["delete"]:
        subject, edit = f"Take back route {team}/{name}", taking_back(path, agent)
        body = f"{agent} does not ask for it any more."
    else:
        asked = AskedRoute(
            path=path,
            name=name,
            agent=agent,
            deployment=str(said["deployment"]),
            hostname=str(said["hostname"]),
            prefix=str(said["prefix"]),
            port=int(said["port"]),
            plain=bool(said["plain"]),
        )
        subject, edit = f"Route {asked.hostname} to {team}/{asked.deployment} on {agent}", putting(asked)
        body = f"{agent} asked for it, and the fleet grants it (agentRoutes)."
    request = CommitRequest(
        id=entry.id,
        path=path,
        edit=edit,
        subject=subject[:200],
        body=body,
        author_name=agent,
        author_email=f"{agent}@agents.{said['domain']}",
        time=datetime.fromtimestamp(entry.accepted_at, UTC),
        trailers={"CloudLunacy-Actor": f"agent:{agent}"},
    )
    if said["mode"] == "pull-request":
        return Job(request, f"{BRANCH}{name}", base=branch, proposal=True)
    return Job(request, branch)


def event_of(entry: OutboxEntry, settled: Settled, now: float) -> Event:
    """Return what the timeline says of a settled entry."""
    said = entry.payload
    agent, key = str(said["agent"]), ObjectKey("Route", str(said["team"]), str(said["name"]))
    conflicted = settled.outcome.startswith(CONFLICTED)
    done = "took back" if said["delete"] else "asked for"
    return Event(
        time=now,
        type="RouteConflicted" if conflicted else "RouteAsked",
        severity="warning" if conflicted else "info",
        subject=str(key),
        message=settled.outcome.removeprefix(CONFLICTED) if conflicted else f"{agent} {done} {key.path}.",
        revision=settled.revision or "",
        actor=f"agent:{agent}",
    )
