"""Who answers a request, and why: the routers of a state asked as Traefik asks them.

Each router of the routes that claim the host is asked by the very rule that fronts are given
(:mod:`reconciler.desired.rules`), and the highest priority wins. Then the request goes through the route's middlewares
to its backends, as these are seen. The routers of our own (ACME's path, unknown database names) are told in words. The
cost is that of the routes of one host, however many there are in the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from reconciler.desired.acme_terms import wants_http01
from reconciler.desired.asking import Question, routing_path
from reconciler.desired.challenge_path import CHALLENGE_PATH
from reconciler.desired.claims import ANY, covered
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.coverage import certificate_of
from reconciler.desired.middleware_words import Passage, passage
from reconciler.desired.observed import Placements, observed
from reconciler.desired.route_backends import backends_of
from reconciler.desired.rules import Asked, fits, misses
from reconciler.desired.shares import shares, values_of
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import View
from schemas.explain_api import ExplainedRouter, ExplainedTLS, Explanation, Outcome
from schemas.objects import ObjectKey
from schemas.route import Route

MOST_ROUTERS: Final = 20
"""That are listed beside the one that wins."""
_MISSES: Final = {
    "Host": "another host",
    "HostRegexp": "another host",
    "Path": "another path",
    "PathPrefix": "another path",
    "Header": "a header is missing, or has another value",
    "Method": "another method",
    "HostSNI": "another server name",
    "HostSNIRegexp": "another server name",
}
_STATUS: Final = {301: "permanent redirect", 302: "redirect", 307: "redirect", 308: "permanent redirect"}


@dataclass(frozen=True, slots=True)
class World:
    """What is in service. ``compile`` returns what a route in service became for Traefik; raises CompileProblem."""

    state: State
    view: View
    compile: Callable[[ObjectKey], TraefikObjects]
    placements: Placements


class _Router(NamedTuple):
    key: ObjectKey
    name: str
    value: Any
    section: str


def explain_request(world: World, asked: Question) -> Explanation:
    """Say what becomes of a request or a connection at fronts that serve this state."""
    if world.state.fleet is None:
        return _answer(asked, "", "not-found", "Nothing is published yet.", status=404)
    if asked.scheme == "mongodb":
        return _database(world, asked)
    if asked.scheme == "tls":
        return _connection(world, asked)
    return _request(world, asked)


# --- requests ---------------------------------------------------------------------------------------------------------


def _request(world: World, asked: Question) -> Explanation:
    fleet = world.state.fleet
    assert fleet is not None
    secure = asked.scheme == "https"
    point = fleet.spec.entry_points.https if secure else fleet.spec.entry_points.http
    host = asked.host.removesuffix(".")
    if secure and (taken := list(_routers(world, f"tcp:{point}", host, point))):
        found = _chosen(taken, Asked(server_name=host))
        if found.winner is not None:
            return _tcp(world, asked, point, found)
    path = routing_path(asked.path)
    tls = _tls(world, host) if secure else None
    if path.startswith(CHALLENGE_PATH) and wants_http01(world.state):
        text = "The control plane answers it: here ACME servers look for proof that a certificate may be issued."
        return _answer(asked, point, "control-plane", text, tls=tls)
    question = Asked(host=asked.host, path=path, method=asked.method, headers=asked.headers, server_name=host)
    found = _chosen(list(_routers(world, "http", host, point)), question)
    if found.winner is None:
        hint = _hint(world, host, asked, point, found)
        text = f'No router takes it at the entry point "{point}": the front answers 404.'
        return _answer(asked, point, "not-found", text, status=404, hint=hint, tls=tls, others=found.others)
    return _served(world, asked, point, found, tls)


def _served(world: World, asked: Question, point: str, found: _Chosen, tls: ExplainedTLS | None) -> Explanation:
    winner = found.winner
    assert winner is not None
    route = _route(world, winner.key)
    way = passage(route.spec.middlewares, asked)
    values = values_of(observed(winner.key, route, world.compile(winner.key), world.view, world.placements))
    backends = backends_of(
        winner.key, route, world.view, world.placements, values, service=f"{winner.key.team}_{winner.key.name}"
    )
    outcome, status, text = _outcome(way, is_served=bool(shares(values, "http.services", winner.value["service"])))
    return _answer(
        asked, point, outcome, text,
        status=status,
        location=way.location,
        tls=tls,
        router=_told(winner),
        beaten=found.beaten,
        others=found.others,
        middlewares=way.steps,
        backends=backends,
        path_at_backend=way.path or "/" if outcome == "backend" and way.path != asked.path else "",
        notes=tuple(_notes(route, found)),
        retained=world.state.served[winner.key].retained,
    )  # fmt: skip


def _outcome(way: Passage, *, is_served: bool) -> tuple[Outcome, int | None, str]:
    if way.status in _STATUS:
        return "redirect", way.status, f"The front answers {way.status} ({_STATUS[way.status]}) to {way.location}."
    if way.status is not None:
        return "refused", way.status, f"A middleware answers {way.status}: {way.steps[-1].words}."
    if way.is_in_maintenance:
        return "unavailable", 503, "The route is in maintenance: the front answers 503."
    if not is_served:
        return "unavailable", 503, "No backend gets requests: the front answers 503."
    return "backend", None, "A backend answers it."


def _notes(route: Route, found: _Chosen) -> Iterator[str]:
    spec = route.spec
    if found.equals:
        yield f"{found.equals[0]} has the same priority and fits too: which of them answers is not settled."
    if spec.sticky is not None:
        yield "A client with the cookie of an earlier answer goes to the same backend."
    if spec.health_check is not None:
        yield f"Fronts ask each backend for {spec.health_check.path}; one that fails gets no requests."
    if spec.transport.scheme != "http":
        yield f"Fronts speak {spec.transport.scheme} to the backends."


# --- connections ------------------------------------------------------------------------------------------------------


def _database(world: World, asked: Question) -> Explanation:
    fleet = world.state.fleet
    assert fleet is not None
    point = fleet.spec.entry_points.mongodb
    if not asked.tls:
        return _answer(
            asked, point, "closed", "Databases are reached over TLS alone: the connection is refused.",
            hint="Add tls=true to the connection string.",
        )  # fmt: skip
    found = _chosen(list(_routers(world, f"tcp:{point}", asked.host, point)), Asked(server_name=asked.host))
    if found.winner is None:
        text = "No route of type mongodb has this name: the driver is told so, and the connection ends."
        hint = f"Databases answer at <agent>.mongodb.{fleet.spec.domain}."
        return _answer(asked, point, "closed", text, hint=hint, others=found.others)
    return _tcp(world, asked, point, found)


def _connection(world: World, asked: Question) -> Explanation:
    fleet = world.state.fleet
    assert fleet is not None
    points = (*fleet.spec.entry_points.tcp.values(), fleet.spec.entry_points.mongodb)
    for point in dict.fromkeys(points):
        found = _chosen(list(_routers(world, f"tcp:{point}", asked.host, point)), Asked(server_name=asked.host))
        if found.winner is not None:
            return _tcp(world, asked, point, found)
    return _answer(asked, "", "closed", "No route of type tcp or mongodb has this server name.")


def _tcp(world: World, asked: Question, point: str, found: _Chosen) -> Explanation:
    winner = found.winner
    assert winner is not None
    route = _route(world, winner.key)
    values = values_of(observed(winner.key, route, world.compile(winner.key), world.view, world.placements))
    backends = backends_of(winner.key, route, world.view, world.placements, values, service=winner.value["service"])
    mode = route.spec.tls.mode
    tls = None
    if mode == "passthrough":
        tls = ExplainedTLS(mode="passthrough", server_name=asked.host, message="The backend shows its own certificate.")
    elif mode == "terminate":
        tls = _tls(world, asked.host)
    is_served = bool(shares(values, "tcp.services", winner.value["service"]))
    text = "The connection goes to a backend." if is_served else "No backend takes connections: it is closed."
    return _answer(
        asked, point, "backend" if is_served else "closed", text,
        tls=tls,
        router=_told(winner),
        beaten=found.beaten,
        others=found.others,
        middlewares=passage(route.spec.middlewares, asked).steps,
        backends=backends,
        notes=tuple(_notes(route, found)),
        retained=world.state.served[winner.key].retained,
    )  # fmt: skip


# --- which router -----------------------------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    winner: _Router | None
    beaten: tuple[ExplainedRouter, ...]
    others: tuple[ExplainedRouter, ...]
    equals: tuple[str, ...] = ()


def _routers(world: World, scope: str, host: str, point: str) -> Iterator[_Router]:
    """Yield the routers of the routes that claim a host, or the wildcard above it, at an entry point."""
    seen: set[ObjectKey] = set()
    section = "http.routers" if scope == "http" else "tcp.routers"
    for pattern in (host, f"*.{host.partition('.')[2]}", ANY):
        for claim in world.state.claims.at(scope, pattern):
            if claim.owner in seen or claim.owner not in world.state.served:
                continue
            seen.add(claim.owner)
            try:
                compiled = world.compile(claim.owner)
            except CompileProblem:
                continue  # it waits for something, and fronts have none of it
            for one in compiled:
                value: Any = one.value
                if one.section == section and point in value["entryPoints"]:
                    yield _Router(claim.owner, one.name, value, section)


def _chosen(routers: list[_Router], asked: Asked) -> _Chosen:
    fitting = sorted(
        (one for one in routers if fits(one.value["rule"], asked)), key=lambda one: (-one.value["priority"], one.name)
    )
    winner = fitting[0] if fitting else None
    equals = tuple(
        f"{one.key.team}/{one.key.name}"
        for one in fitting[1:]
        if winner is not None and one.value["priority"] == winner.value["priority"] and one.key != winner.key
    )
    others = [_told(one, _miss(one, asked)) for one in routers if one not in fitting]
    beaten = [_told(one, "lower priority") for one in fitting[1:]]
    return _Chosen(winner, tuple(beaten[:MOST_ROUTERS]), tuple(others[:MOST_ROUTERS]), equals)


def _miss(router: _Router, asked: Asked) -> str:
    return ", ".join(dict.fromkeys(_MISSES[name] for name in misses(router.value["rule"], asked)))


def _told(router: _Router, why: str = "") -> ExplainedRouter:
    key = router.key
    return ExplainedRouter(
        name=router.name,
        rule=router.value["rule"],
        priority=router.value["priority"],
        team=key.team,
        route=key.name,
        file=key.path,
        why=why,
    )


def _route(world: World, key: ObjectKey) -> Route:
    found = world.state.served[key].object
    assert isinstance(found, Route)
    return found


# --- what else there is to say ----------------------------------------------------------------------------------------


def _tls(world: World, host: str) -> ExplainedTLS:
    fleet = world.state.fleet
    assert fleet is not None
    name = certificate_of(host, world.state.claims, fleet)
    message = "" if name else "No certificate covers the name: the front shows its own, which nobody trusts."
    return ExplainedTLS(mode="terminate", server_name=host, certificate=name or "", message=message)


def _hint(world: World, host: str, asked: Question, point: str, found: _Chosen) -> str:
    if found.others:
        return "The host is known here, and none of its routers takes this request."
    fleet = world.state.fleet
    assert fleet is not None
    points = fleet.spec.entry_points
    other = points.http if point == points.https else points.https
    if list(_routers(world, "http", host, other)):
        scheme = "https" if other == points.https else "http"
        return f"The host is served over {scheme}. For both, add a second route with another tls.mode."
    teams = [team.name for team in fleet.spec.teams if covered(host, frozenset(team.hostnames))]
    if teams:
        return f'No route names the host. Team "{teams[0]}" may: add routes/{teams[0]}/<name>.yaml.'
    return f"No team may claim the host. Grant it in fleet.yaml. (Asked for {asked.host}.)"


def _answer(asked: Question, point: str, outcome: Outcome, message: str, **more: Any) -> Explanation:  # noqa: ANN401
    return Explanation(url=asked.url, method=asked.method, entry_point=point, outcome=outcome, message=message, **more)
