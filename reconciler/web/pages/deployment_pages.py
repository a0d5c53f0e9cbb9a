"""Pages of deployments: ``/deployments``, ``/deployments/{team}/{name}``, and what people may do with one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.commands import Asked, Commands, said_of
from reconciler.agents.measures import subject_of
from reconciler.desired.state import State
from reconciler.errors import CloudLunacyError, Refused, Transient
from reconciler.pki.authenticator import Identity
from reconciler.status import Tracker
from reconciler.steps.pauses import Pauses
from reconciler.store.history import History
from reconciler.store.protocols import EventStore
from reconciler.web.api import Control
from reconciler.web.deployment_api import restart_seconds
from reconciler.web.deployment_views import Look, Seen, agents_of, deployment_of, deployment_view
from reconciler.web.endpoint import Endpoint
from reconciler.web.errands import Errands
from reconciler.web.measure_api import history_of
from reconciler.web.pages import agents_view, charts
from reconciler.web.pages import deployments_view as view
from reconciler.web.pages.kit import Form, Site
from reconciler.web.pages.placement import Placements, page_of, routes_to
from schemas.metrics import DEPLOYMENT
from schemas.objects import ObjectKey
from schemas.rollout_api import RolloutStatus
from schemas.status import DeploymentRollout

PAGE: Final = 50
"""Rows of one page."""
EVENTS: Final = 15
AGENTS: Final = 100
"""Agents of one deployment that are shown; those that need somebody first."""


class DeploymentSources(NamedTuple):
    """Whom pages of deployments and databases ask."""

    control: Control
    seen: Seen
    history: History
    tracker: Tracker
    rollout: Callable[[ObjectKey], RolloutStatus]
    pauses: Pauses
    commands: Commands
    errands: Errands
    events: EventStore

    def look(self) -> Look:
        """Return what is known now."""
        control = self.control
        return Look(control.published.state, control.connected(), control.observations(), self.seen)

    def key(self, request: Request) -> ObjectKey:
        """Return the deployment that a page is about.

        Raises:
            Refused: 404 ``unknown-deployment``.
        """
        key = ObjectKey("Deployment", request.path_params["team"], request.path_params["name"])
        if key not in self.control.published.state.served:
            hint = "The list of deployments has those in service; what was removed is in the timeline."
            raise Refused("There is no such deployment in service.", status=404, code="unknown-deployment", hint=hint)
        return key


class DeploymentPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, sources: DeploymentSources, placements: Placements) -> None:
        self._site = site
        self._of = sources
        self._placements = placements

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        one = "/deployments/{team}/{name}"
        return (
            Endpoint("GET", "/deployments", "Deployments", self.listing, "read", page=True),
            Endpoint("GET", one, "A deployment", self.deployment, "read", page=True),
            Endpoint("POST", f"{one}/pause", "No further agent gets a change", self.pause, "operate", page=True),
            Endpoint("POST", f"{one}/resume", "Changes go on", self.resume, "operate", page=True),
            Endpoint("POST", f"{one}/restart", "A fresh instance", self.restart, "operate", page=True),
        )

    # --- looking --------------------------------------------------------------------------------------------------

    async def listing(self, request: Request) -> Response:
        identity = self._site.caller(request)
        wanted, look = view.Wanted.of(request.query_params), self._of.look()
        known = self._placements.of(look.state)
        after = request.query_params.get("after", "")
        names, following = page_of(
            known.deployments, lambda name: view.is_meant(known.deployments[name], look, wanted), after, PAGE
        )
        keys = [known.deployments[name] for name in names]
        return await self._site.render(
            request,
            identity,
            "deployments.html.j2",
            rows=[view.row(deployment_view(key, look), view.image_of(look.state, key)) for key in keys],
            total=len(known.deployments),
            wanted=wanted,
            states=view.STATES,
            teams=known.teams,
            team=writable_team(look.state, identity),
            next=f"/deployments?{wanted.query(after=following)}" if following else "",
            first=f"/deployments?{wanted.query()}" if after else "",
        )

    async def deployment(self, request: Request) -> Response:
        identity = self._site.caller(request, team=request.path_params["team"])
        key = self._of.key(request)
        look, rollout = self._of.look(), self._of.rollout(key)
        shown, span = deployment_view(key, look), agents_view.range_of(request.query_params.get("range", ""))
        rows = sorted(
            ((view.word_of(one), one, view.why(one)) for one in shown.agents),
            key=lambda row: (view.STATES.index(row[0]), row[1].agent),
        )
        return await self._site.render(
            request,
            identity,
            "deployment.html.j2",
            deployment=shown,
            what=view.image_of(look.state, key),
            state=view.worst(word for word, _, _ in rows),
            rows=rows[:AGENTS],
            more=max(0, len(rows) - AGENTS),
            places={one.agent: one for one in rollout.agents},
            rollout=rollout,
            story=await self._story(key, rollout),
            errands=self._of.errands.of(key),
            routes=routes_to(look.state, key),
            spec=deployment_of(look.state, key).spec,
            is_exec_allowed=look.state.fleet is not None and key.team in look.state.fleet.spec.commands.exec,
            charts=await self._charts(key, [one.agent for one in shown.agents], span),
            ranges=agents_view.RANGES,
            range=span,
            events=await self._of.events.events(subject=str(key), newest_first=True, limit=EVENTS),
        )

    async def _story(self, key: ObjectKey, rollout: RolloutStatus) -> DeploymentRollout | None:
        """Return what each agent said on its way to the newest version, where that is still on its way."""
        status = await self._of.tracker.status(rollout.revision) if rollout.revision else None
        return None if status is None else status.rollouts.get(f"{key.team}/{key.name}")

    async def _charts(self, key: ObjectKey, agents: list[str], span: agents_view.Range) -> tuple[charts.Chart, ...]:
        now, found = self._site.clock(), []
        try:
            for agent in agents[: charts.LINES]:
                subject = subject_of(agent, key.team, key.name)
                found.append(
                    await history_of(
                        self._of.history,
                        agent,
                        subject,
                        since=now - span.seconds,
                        until=now,
                        step=span.step,
                        units=DEPLOYMENT,
                    )
                )
        except Transient:  # the past is not kept just now; what is true now is shown all the same
            return ()
        return agents_view.deployment_charts(found, now - span.seconds, now)

    # --- acting ---------------------------------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        async def act(key: ObjectKey, identity: Identity, _: Form) -> str:
            await self._of.pauses.pause(key, str(identity))
            return f"{key.team}/{key.name} is paused: no further agent gets a change until somebody resumes it."

        return await self._act(request, act)

    async def resume(self, request: Request) -> Response:
        async def act(key: ObjectKey, identity: Identity, _: Form) -> str:
            await self._of.pauses.resume(key, str(identity))
            return f"Changes of {key.team}/{key.name} go on."

        return await self._act(request, act)

    async def restart(self, request: Request) -> Response:
        async def act(key: ObjectKey, identity: Identity, form: Form) -> str:
            state = self._of.control.published.state
            limit = restart_seconds(deployment_of(state, key))
            asked = commands_for(agents_meant(self._of, key, form.get("agent", "")), "restart", key, limit)
            errand = await self._of.errands.begin(key, asked, str(identity))
            return f"The restart of {key.team}/{key.name} has begun on {errand.on}; how it goes stands below."

        return await self._act(request, act)

    async def _act(self, request: Request, act: Callable[[ObjectKey, Identity, Form], Awaitable[str]]) -> Response:
        identity = self._site.caller(request, "operate", team=request.path_params["team"])
        key = self._of.key(request)
        back = f"/deployments/{quote(key.team, safe='')}/{quote(key.name, safe='')}"
        return await answered(self._site, back, act(key, identity, await self._site.form(request)))


def writable_team(state: State, identity: Identity) -> str:
    """Return a team of the fleet for which somebody may write files; empty where there is none."""
    teams = () if state.fleet is None else state.fleet.spec.teams
    return next((one.name for one in teams if identity.may("write", one.name)), "")


def commands_for(agents: tuple[str, ...], action: str, key: ObjectKey, seconds: float) -> list[Asked]:
    """Return the commands for agents, in order."""
    return [Asked(agent, action, str(key), said_of(action, agent), seconds, {}) for agent in agents]


def agents_meant(sources: DeploymentSources, key: ObjectKey, agent: str) -> tuple[str, ...]:
    """Return the agents that an action is for: that one, or all of them.

    Raises:
        Refused: 404 ``unknown-agent``; 409 ``runs-nowhere``.
    """
    agents = agents_of(sources.control.published.state, key)
    if not agents:
        raise Refused(f"{key.team}/{key.name} runs on no agent.", status=409, code="runs-nowhere")
    if agent and agent not in agents:
        raise Refused("It does not run on such an agent.", status=404, code="unknown-agent")
    return (agent,) if agent else agents


async def answered(site: Site, back: str, act: Awaitable[str]) -> Response:
    """Do something and lead back, with a sentence on what was done, or on why it was not."""
    try:
        return site.redirect(back, notice=await act)
    except CloudLunacyError as error:
        return site.redirect(back, notice=f"Not done. {error}")
