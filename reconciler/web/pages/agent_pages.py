"""Pages of agents: ``/agents``, ``/agents/{name}``, and what people may do with one.

Every form is a plain POST that leads back to the agent's page with a sentence: what was done, or why it was not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.measures import Measured
from reconciler.errors import CloudLunacyError, Refused, Transient
from reconciler.pki.authenticator import Identity, Scope
from reconciler.store.protocols import EventStore
from reconciler.store.seen import Drained
from reconciler.web.agent_views import agent_status, moment
from reconciler.web.api import Control
from reconciler.web.deployment_views import Look, Seen
from reconciler.web.drain_api import Drains
from reconciler.web.endpoint import Endpoint
from reconciler.web.measure_api import Known, history_of
from reconciler.web.pages import agents_view as view
from reconciler.web.pages.deployments_view import state_in
from reconciler.web.pages.kit import Form, Site
from reconciler.web.pages.placement import Placements, page_of
from schemas.access_api import AgentRevocation, RevocationRequest, seconds_of
from schemas.agent import Agent
from schemas.api import AgentStatus, DeploymentMeasures
from schemas.changes_api import ChangeAnswer
from schemas.health_api import DrainRequest
from schemas.metrics import MACHINE
from schemas.metrics_api import MetricsHistory

PAGE: Final = 50
"""Rows of one page."""
EVENTS: Final = 15
_DONE: Final = {
    "committed": "{what}: commit {revision}.",
    "pending": "{what}: kept on disk, and will be committed as soon as the remote takes it.",
    "proposed": "{what}: proposed on branch {branch}, which waits to be merged.",
    "nothing": "{what}: it was so already, and nothing was committed.",
}


class Revoking(Protocol):
    """:class:`reconciler.agents.revocation.Revocations`."""

    async def revoke(
        self, name: str, wanted: RevocationRequest, *, actor: str, author: tuple[str, str]
    ) -> AgentRevocation: ...


Cordon = Callable[[str, bool, Identity], Awaitable[ChangeAnswer]]
"""Agent, whether it is to be cordoned, by whom → the commit."""


_Act = Callable[[str, Identity, Form], Awaitable[str]]
"""Agent, who wants it, what the form says → a sentence about what was done."""


class AgentSources(NamedTuple):
    """Whom these pages ask."""

    control: Control
    known: Known
    drains: Drains
    revocations: Revoking
    events: EventStore
    seen: Seen
    cordon: Cordon
    certificate: Callable[[str], Awaitable[tuple[float, float | None] | None]]
    """Agent → end, and time of revocation, of its newest certificate."""


class Row(NamedTuple):
    """A line of the list. ``ok`` of ``wanted`` deployments are as they shall be."""

    agent: AgentStatus
    labels: Mapping[str, str]
    shares: tuple[view.Share, ...]
    ok: int
    wanted: int


class AgentPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, sources: AgentSources, placements: Placements) -> None:
        self._site = site
        self._of = sources
        self._placements = placements

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table. ``/agents/new`` is :mod:`reconciler.web.pages.enrol_pages`, and has to stand before."""
        one = "/agents/{name}"
        return (
            Endpoint("GET", "/agents", "Agents", self.listing, "read", page=True),
            Endpoint("GET", one, "An agent", self.agent, "read", page=True),
            Endpoint("POST", f"{one}/drain", "Keep requests away", self.drain, "operate", page=True),
            Endpoint("POST", f"{one}/undrain", "Let requests come again", self.undrain, "operate", page=True),
            Endpoint("POST", f"{one}/cordon", "No new work", self.cordon, "write", page=True),
            Endpoint("POST", f"{one}/uncordon", "New work again", self.uncordon, "write", page=True),
            Endpoint("POST", f"{one}/revoke", "Lock it out", self.revoke, "operate", page=True),
        )

    # --- looking --------------------------------------------------------------------------------------------------

    async def listing(self, request: Request) -> Response:
        identity = self._site.caller(request)
        wanted = view.Wanted.of(request.query_params)
        placed = self._placements.of(self._of.control.published.state)

        def keep(name: str) -> bool:
            is_there = not wanted.presence or self._of.control.presence_of(name) == wanted.presence
            return is_there and view.is_meant(placed.agents[name], wanted)

        names, following = page_of(placed.agents, keep, request.query_params.get("after", ""), PAGE)
        return await self._site.render(
            request,
            identity,
            "agents.html.j2",
            rows=self._rows(names),
            total=len(placed.agents),
            wanted=wanted,
            states=view.STATES,
            presences=view.PRESENCES,
            next=f"/agents?{wanted.query(after=following)}" if following else "",
            first=f"/agents?{wanted.query()}" if request.query_params.get("after") else "",
        )

    def _rows(self, names: list[str]) -> list[Row]:
        control = self._of.control
        published, seen, present = control.published, control.observations(), control.connected()
        placed, conditions = self._placements.of(published.state), control.conditions(names)
        look = Look(published.state, present, seen, self._of.seen)
        rows = []
        for name in names:
            agent = placed.agents[name]
            status = agent_status(
                agent, published, seen.get(name), connected=name in present, conditions=conditions[name],
                health=control.health_of(name),
            )  # fmt: skip
            here = placed.on.get(name, ())
            ok = sum(state_in(key, look, on=name) in ("Healthy", "Unsupported") for key in here)
            shares = view.shares(status.metrics) if view.is_fresh(status) else ()
            rows.append(Row(status, agent.metadata.labels, shares, ok, len(here)))
        return rows

    async def agent(self, request: Request) -> Response:
        identity = self._site.caller(request)
        agent = self._agent(request)
        name, control, span = (
            agent.metadata.name,
            self._of.control,
            view.range_of(request.query_params.get("range", "")),
        )
        status = agent_status(
            agent, control.published, control.observations().get(name), connected=name in control.connected(),
            conditions=control.conditions([name])[name], health=control.health_of(name),
        )  # fmt: skip
        history = await self._history(name, span)
        wanted = [str(key) for key in self._placements.of(control.published.state).on.get(name, ())]
        items, more = view.item_rows(wanted, status.items)
        usage = [_measures(key, one) for key, one in self._of.known.measures.usage_of(name).items()]
        return await self._site.render(
            request,
            identity,
            "agent.html.j2",
            agent=status,
            spec=agent.spec,
            labels=agent.metadata.labels,
            shares=view.shares(status.metrics),
            is_fresh=view.is_fresh(status),
            items=items,
            more_items=more,
            usage=[(one, view.usage(one.values)) for one in usage],
            charts=() if history is None else view.machine_charts(history, status.metrics),
            ranges=view.RANGES,
            range=span,
            measurements=view.measurements(status.metrics),
            certificate=await self._certificate(name),
            events=await self._of.events.events(subject=f"agent/{name}", newest_first=True, limit=EVENTS),
        )

    async def _history(self, name: str, span: view.Range) -> MetricsHistory | None:
        now = self._site.clock()
        try:
            return await history_of(
                self._of.known.history, name, name, since=now - span.seconds, until=now, step=span.step, units=MACHINE
            )
        except Transient:  # the past is not kept just now; what is true now is shown all the same
            return None

    async def _certificate(self, name: str) -> dict[str, object] | None:
        found = await self._of.certificate(name)
        if found is None:
            return None
        until, revoked = found
        left = until - self._site.clock()
        state = "Revoked" if revoked is not None else "Expired" if left <= 0 else "Good"
        return {"until": moment(until), "revoked": None if revoked is None else moment(revoked), "state": state}

    def _agent(self, request: Request) -> Agent:
        name = request.path_params["name"]
        agent = self._placements.of(self._of.control.published.state).agents.get(name)
        if agent is None:
            hint = "The list of agents has those in service; one whose file was removed is in the timeline."
            raise Refused("There is no such agent in service.", status=404, code="unknown-agent", hint=hint)
        return agent

    # --- acting ---------------------------------------------------------------------------------------------------

    async def drain(self, request: Request) -> Response:
        async def act(name: str, identity: Identity, form: Form) -> str:
            try:
                wanted = DrainRequest(lasting=form.get("lasting") or None, reason=form.get("reason", ""))
            except ValidationError:
                hint = "Write a time such as 30m, 12h or 2d, and a reason in one line of at most 200 characters."
                raise Refused("The time or the reason is not valid.", status=422, code="bad-form", hint=hint) from None
            now, before = self._site.clock(), self._of.drains.drains.get(name)
            until = None if wanted.lasting is None else now + seconds_of(wanted.lasting)
            since = now if before is None else before.at
            await self._of.drains.drain(Drained(name, wanted.reason, str(identity), since, until))
            return f"{name} is drained: fronts send no more requests there. What runs there runs on."

        return await self._act(request, "operate", act)

    async def undrain(self, request: Request) -> Response:
        async def act(name: str, identity: Identity, _: Form) -> str:
            changed = await self._of.drains.undrain(name, str(identity))
            return f"{name} gets requests again." if changed else f"{name} was not drained."

        return await self._act(request, "operate", act)

    async def cordon(self, request: Request) -> Response:
        return await self._act(request, "write", self._cordoning(is_cordoned=True))

    async def uncordon(self, request: Request) -> Response:
        return await self._act(request, "write", self._cordoning(is_cordoned=False))

    def _cordoning(self, *, is_cordoned: bool) -> _Act:
        async def act(name: str, identity: Identity, _: Form) -> str:
            what = f"{name} gets no new work" if is_cordoned else f"{name} gets new work again"
            if self._placements.of(self._of.control.published.state).agents[name].spec.state == "quarantined":
                hint = "Take spec.state out of its file, if that is meant."
                raise Refused(f"The file of {name} keeps it out.", status=409, code="agent-quarantined", hint=hint)
            return said_of(await self._of.cordon(name, is_cordoned, identity), what)

        return act

    async def revoke(self, request: Request) -> Response:
        async def act(name: str, identity: Identity, form: Form) -> str:
            if form.get("confirm", "").strip() != name:
                raise Refused(f"To lock it out, type its name, {name}.", status=409, code="not-confirmed")
            try:
                wanted = RevocationRequest(
                    quarantine=form.get("keep") == "quarantine", reason=form.get("reason", "").strip()
                )
            except ValidationError:
                raise Refused(
                    "The reason is one line of at most 200 characters.", status=422, code="bad-form"
                ) from None
            done = await self._of.revocations.revoke(name, wanted, actor=str(identity), author=identity.author)
            rest = {
                "committed": f"its file says so in commit {done.revision[:10]}",
                "pending": "git is told as soon as the remote takes it",
                "proposed": f"branch {done.proposal} waits to be merged",
                "conflicted": f"its file could not be changed: {done.message}",
            }[done.state]
            return f"{name} is locked out; {rest}."

        return await self._act(request, "operate", act, away="/agents")

    async def _act(self, request: Request, scope: Scope, act: _Act, away: str = "") -> Response:
        identity = self._site.caller(request, scope)
        name = self._agent(request).metadata.name
        form, back = await self._site.form(request), f"/agents/{quote(name, safe='')}"
        try:
            return self._site.redirect(away or back, notice=await act(name, identity, form))
        except CloudLunacyError as error:
            return self._site.redirect(back, notice=f"Not done. {error}")


def said_of(answer: ChangeAnswer, what: str) -> str:
    """Say what became of a change.

    Raises:
        Refused: 409 ``conflicted``.
    """
    if answer.state == "conflicted":
        raise Refused(answer.message or "The file could not be changed.", status=409, code="conflicted")
    text = _DONE[answer.state].format(what=what, revision=answer.revision[:10], branch=answer.branch)
    return f"{text} {answer.pull_request}".rstrip()


def _measures(key: tuple[str, str], one: Measured) -> DeploymentMeasures:
    return DeploymentMeasures(team=key[0], name=key[1], at=moment(one.at), values=dict(one.values))
