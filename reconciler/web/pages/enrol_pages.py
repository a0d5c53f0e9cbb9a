"""``/agents/new``: a form for a name → once, the line that makes a new machine that agent → whether it has come.

The token stands on the answer to the form and nowhere else: in no address, no cookie and nothing that is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.joining import Doorway, enrol_command, install_line
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.agent_views import moment
from reconciler.web.api import Control
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.placement import Placements
from schemas.enrolment import NewToken, NewTokenRequest
from schemas.names import seconds
from schemas.objects import ObjectKey

LIFETIMES: Final = (("15m", "15 minutes"), ("10m", "10 minutes"), ("5m", "5 minutes"), ("2m", "2 minutes"))


class Tokens(Protocol):
    """:class:`reconciler.agents.enrolment_tokens.EnrolmentTokens`."""

    async def create(self, agent: str, *, ttl: float, created_by: str, now: float) -> NewToken: ...


class Joined(NamedTuple):
    """How far a new agent is."""

    name: str
    state: Literal["Waiting", "Enrolled", "Connected"]
    at: datetime | None = None
    """When it was heard of."""


def joined(name: str, control: Control) -> Joined:
    """Say how far an agent of this name is: it is waited for, its file has its key, or it has told something."""
    served = control.published.state.served.get(ObjectKey("Agent", "", name))
    identity = getattr(getattr(served.object, "spec", None), "identity", None) if served is not None else None
    if identity is None:
        return Joined(name, "Waiting")
    seen = control.observations().get(name)
    if name in control.connected():
        return Joined(name, "Connected", None if seen is None else moment(seen.last_seen))
    return Joined(name, "Enrolled")


class EnrolPages:
    """The endpoints; ``endpoints()`` is the table. ``doorway`` says how new agents reach this control plane."""

    def __init__(
        self,
        site: Site,
        *,
        control: Control,
        tokens: Tokens,
        doorway: Callable[[], Awaitable[Doorway]],
        placements: Placements,
    ) -> None:
        self._site = site
        self._control = control
        self._tokens = tokens
        self._doorway = doorway
        self._placements = placements

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", "/agents/new", "Enrol an agent", self.form, "enrol", page=True),
            Endpoint("POST", "/agents/new", "Make a token, and show it once", self.create, "enrol", page=True),
            Endpoint("GET", "/agents/new/{name}", "Whether a new agent has come", self.joining, "read", page=True),
        )

    async def form(self, request: Request) -> Response:
        identity = self._site.caller(request, "enrol")
        return await self._form(request, identity, name=request.query_params.get("name", "")[:63])

    async def _form(
        self, request: Request, identity: Identity, *, name: str = "", ttl: str = "15m", error: str = ""
    ) -> Response:
        placed = self._placements.of(self._control.published.state)
        declared = [one for one, agent in placed.agents.items() if agent.spec.identity is None][:50]
        return await self._site.render(
            request, identity, "agent_new.html.j2", status=422 if error else 200,
            name=name, ttl=ttl, error=error, lifetimes=LIFETIMES, declared=declared,
        )  # fmt: skip

    async def create(self, request: Request) -> Response:
        identity = self._site.caller(request, "enrol")
        form = await self._site.form(request)
        name, ttl = form.get("name", "").strip(), form.get("ttl", "15m")
        try:
            wanted = NewTokenRequest(agent=name, ttl=ttl)
        except ValidationError:
            text = "A name has lower-case letters, digits and inner hyphens, at most 63 characters, such as vps-3."
            return await self._form(request, identity, name=name, ttl=ttl, error=text)
        agent = self._placements.of(self._control.published.state).agents.get(name)
        if agent is not None and agent.spec.identity is not None:
            text = f"{name} is enrolled already, and no enrolment replaces a key. Lock it out first, or choose a name."
            return await self._form(request, identity, name=name, ttl=ttl, error=text)
        try:
            new = await self._tokens.create(
                name, ttl=seconds(wanted.ttl), created_by=str(identity), now=self._site.clock()
            )
        except Refused as refused:
            return await self._form(request, identity, name=name, ttl=ttl, error=refused.message)
        doorway = await self._doorway()
        return await self._site.render(
            request,
            identity,
            "agent_enrol.html.j2",
            name=name,
            token=new.token,
            until=moment(new.expires_at),
            line=install_line(doorway, name, new.token),
            enrol=enrol_command(doorway, name),
            doorway=doorway,
            joined=joined(name, self._control),
        )

    async def joining(self, request: Request) -> Response:
        identity = self._site.caller(request)
        try:
            name = NewTokenRequest(agent=request.path_params["name"]).agent
        except ValidationError:
            raise Refused("This is no name of an agent.", status=404, code="unknown-agent") from None
        return await self._site.render(request, identity, "agent_joining.html.j2", joined=joined(name, self._control))
