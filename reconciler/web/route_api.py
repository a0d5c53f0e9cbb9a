"""Routes that agents ask for; shapes in ``schemas.agent_routes``. Who asks is who proved the agent's key."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.asked_routes import AskedRoutes
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from schemas.agent_routes import ROUTE_PATH, ROUTES_PATH, AgentRoute, AgentRouteRequest, AskedName
from schemas.names import Name

STATUS_SECONDS = 1
"""Retry-After of what is queued."""
_TEAM: TypeAdapter[str] = TypeAdapter(Name)
_NAME: TypeAdapter[str] = TypeAdapter(AskedName)


class RouteApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, authenticator: Authenticator, routes: AskedRoutes, clock: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._routes = routes
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        later = {202: "Queued; git is told once the remote takes it, or somebody merges it"}
        return (
            Endpoint("POST", ROUTES_PATH, "Ask for a route to what runs on the agent that asks", self.ask, "agent",
                     request=AgentRouteRequest, response=AgentRoute, also=later),
            Endpoint("GET", ROUTE_PATH, "How a route stands that the agent asked for", self.standing, "agent",
                     response=AgentRoute),
            Endpoint("DELETE", ROUTE_PATH, "Take a route back that the agent asked for", self.take_back, "agent",
                     response=AgentRoute, also=later),
        )  # fmt: skip

    async def ask(self, request: Request) -> Response:
        agent = self._agent(request)
        wanted = await read_json(request, AgentRouteRequest)
        return _answer(await self._routes.put(agent, wanted))

    async def standing(self, request: Request) -> Response:
        agent = self._agent(request)
        return json_answer(self._routes.view(agent, *_named(request)))

    async def take_back(self, request: Request) -> Response:
        agent = self._agent(request)
        return _answer(await self._routes.take_back(agent, *_named(request)))

    def _agent(self, request: Request) -> str:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require("agent")
        return identity.name


def _named(request: Request) -> tuple[str, str]:
    """Return team and name, where they can be those of a route that was made this way.

    Raises:
        Refused: 404 ``unknown-route``.
    """
    try:
        return _TEAM.validate_python(request.path_params["team"]), _NAME.validate_python(request.path_params["name"])
    except ValidationError:
        raise Refused("There is no such route.", status=404, code="unknown-route") from None


def _answer(route: AgentRoute) -> Response:
    if route.state == "committed":
        return json_answer(route)
    return json_answer(route, 202, {"Location": route.status_url, "Retry-After": str(STATUS_SECONDS)})
