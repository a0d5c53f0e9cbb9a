"""What the API and the dashboard show of what is published: hosts, who answers there, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from reconciler.desired.asking import NoQuestion, question
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.coverage import certificate_of
from reconciler.desired.middleware_words import words_of
from reconciler.desired.observed import AS_DECLARED, Placements, observed, routes_of
from reconciler.desired.route_backends import backends_of, counted
from reconciler.desired.shares import values_of
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.traffic_index import Entry, TrafficIndex, state_of
from reconciler.desired.view import View
from reconciler.desired.who_answers import World, explain_request
from reconciler.errors import Refused
from reconciler.steps.passing import Published
from schemas.explain_api import ExplainedBackend, Explanation
from schemas.objects import ObjectKey
from schemas.route import Route
from schemas.traffic_api import RequestFigures, TrafficList, TrafficRow, TrafficState

MOST_HEADERS: Final = 32
Compile = Callable[[State, ObjectKey, View], TraefikObjects]
"""What a route in service became for Traefik. Raises CompileProblem."""


class Figures(Protocol):
    """:class:`reconciler.steps.figures.Figures`."""

    def of(self, team: str, route: str) -> RequestFigures | None: ...

    @property
    def missing(self) -> str: ...


class TrafficViews:
    """What is made of a state is made once, when it is first asked for."""

    def __init__(
        self,
        published: Callable[[], Published],
        compile_route: Compile,
        figures: Figures,
        open_sealed: Callable[[str], str],
    ) -> None:
        self._published = published
        self._compile = compile_route
        self._figures = figures
        self._open = open_sealed
        self._index = TrafficIndex(State())
        self._view = State().view()
        self._placements: Placements = AS_DECLARED
        self._states: dict[ObjectKey, TrafficState] = {}

    # --- the list -------------------------------------------------------------------------------------------------

    def page(
        self, *, after: str = "", limit: int = 100, text: str = "", team: str = "", agent: str = "", state: str = ""
    ) -> TrafficList:
        """Return a page of what is published."""
        published = self._published()
        index = self._of(published.state)
        found = index.page(
            after=after,
            limit=limit,
            text=text,
            team=team,
            routes=routes_of(published.state, agent) if agent else None,
            keep=(lambda key: self._state_of(published, key) == state) if state else None,
        )
        rows = tuple(self._row(published, one) for one in found.entries)
        return TrafficList(rows=rows, total=found.total, next=found.next, without_figures=self._figures.missing)

    def host(self, host: str) -> tuple[TrafficRow, ...]:
        """Return what answers at exactly this host, or wildcard."""
        published = self._published()
        return tuple(self._row(published, one) for one in self._of(published.state).of_host(host))

    def teams(self) -> tuple[str, ...]:
        """Return the teams of the fleet."""
        fleet = self._published().state.fleet
        return () if fleet is None else tuple(sorted(team.name for team in fleet.spec.teams))

    def _of(self, state: State) -> TrafficIndex:
        if self._index.state is not state:
            self._index, self._view, self._states = TrafficIndex(state), state.view(self._open), {}
        return self._index

    def _row(self, published: Published, entry: Entry) -> TrafficRow:
        state, key = published.state, entry.key
        served = state.served[key]
        route, fleet = _route(state, key), state.fleet
        assert fleet is not None
        ends = route.spec.tls.mode == "terminate"
        backends = self._backends(published, key, entry.host)
        return TrafficRow(
            id=entry.id,
            host=entry.host,
            entry_point=entry.entry_point,
            match=entry.match,
            type=route.spec.type,
            team=key.team,
            route=key.name,
            file=key.path,
            tls=route.spec.tls.mode,
            certificate=(certificate_of(entry.host, state.claims, fleet) or "") if ends else "",
            middlewares=tuple(words_of(one) for one in route.spec.middlewares),
            backends=backends,
            state=self._state_of(published, key),
            retained=served.retained,
            figures=self._figures.of(key.team, key.name) if route.spec.type == "http" else None,
        )

    def _backends(self, published: Published, key: ObjectKey, host: str) -> tuple[ExplainedBackend, ...]:
        route = _route(published.state, key)
        try:
            compiled = self._compile(published.state, key, self._view)
        except CompileProblem:
            compiled = ()
        shown = observed(key, route, compiled, self._view, published.placements)
        return backends_of(
            key, route, self._view, published.placements, values_of(shown), service=_service(key, route, shown, host)
        )

    def _state_of(self, published: Published, key: ObjectKey) -> TrafficState:
        """Return how a route is served; each is worked out once for a generation, when somebody looks."""
        if self._placements is not published.placements:
            self._placements, self._states = published.placements, {}
        found = self._states.get(key)
        if found is None:
            route = _route(published.state, key)
            found = state_of(route, *counted(key, route, self._view, published.placements))
            self._states[key] = found
        return found

    # --- who answers ----------------------------------------------------------------------------------------------

    def explain(self, url: str, *, method: str = "", headers: Sequence[str] = ()) -> Explanation:
        """Say who answers a URL. ``headers``: each as ``Name: value``.

        Raises:
            Refused: 400 ``bad-url`` where nobody could be asked that.
        """
        published = self._published()
        state = published.state
        self._of(state)
        given = dict(_header(one) for one in headers[:MOST_HEADERS] if one.strip())
        try:
            asked = question(url, method=method.strip() or "GET", headers=given)
        except NoQuestion as error:
            raise Refused(str(error), status=400, code="bad-url") from None
        view = self._view
        world = World(state, view, lambda key: self._compile(state, key, view), published.placements)
        return explain_request(world, asked)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise Refused("A header is written as Name: value.", status=400, code="bad-header")
    return name.strip().lower(), value.strip()


def _route(state: State, key: ObjectKey) -> Route:
    found = state.served[key].object
    assert isinstance(found, Route)
    return found


def _service(key: ObjectKey, route: Route, objects: TraefikObjects, host: str) -> str:
    """Return the service of a host: of a mongodb route each has its own."""
    name = f"{key.team}_{key.name}"
    if route.spec.type != "mongodb":
        return name
    return next((one.name for one in objects if one.section == "tcp.routers" and f"`{host}`" in str(one.value)), name)
