"""Which databases clients can reach, by which names people call them, and who may log in there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from reconciler.desired.backends import endpoints
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.finding import did_you_mean
from reconciler.desired.state import State
from reconciler.desired.view import View, port_of
from reconciler.errors import Rejected
from schemas.certificate import Certificate
from schemas.deployment import Deployment, MongoDBUser
from schemas.objects import ObjectKey
from schemas.route import Backend, Route, RouteSpec


@dataclass(frozen=True, slots=True)
class Place:
    """A database under its name. ``deployments`` are those behind it, as far as the repository says who that is."""

    host: str
    agent: str
    route: ObjectKey
    spec: RouteSpec
    backends: tuple[str, ...] = ()
    """``host:port`` on the agent."""
    is_internal: bool = False
    """Its certificate is of the fleet's own authority."""
    deployments: tuple[ObjectKey, ...] = ()
    users: tuple[MongoDBUser, ...] = ()

    def user(self, name: str) -> MongoDBUser | None:
        return next((one for one in self.users if one.name == name), None)


def places(state: State) -> tuple[Place, ...]:
    """Return every database of a state, in order of route and agent."""
    if state.fleet is None:
        return ()
    view = state.view()
    return tuple(one for key in sorted(state.objects) for one in _of_route(key, state, view))


def places_of(routes: Iterable[ObjectKey], state: State) -> tuple[Place, ...]:
    """Return the databases that some routes lead to: others are not looked at."""
    if state.fleet is None:
        return ()
    view = state.view()
    return tuple(one for key in routes if key in state.objects for one in _of_route(key, state, view))


def find(name: str, state: State) -> tuple[Place, ...]:
    """Return the databases that somebody means by ``name``: an agent, a route, a deployment, or the host itself.

    Routes and deployments may be written TEAM/NAME, and must be where several teams have one of the name.

    Raises:
        Rejected: when there is none, or the name means several; the hint says what to write.
    """
    if "@" in name or "://" in name:  # not repeated, since it may have a password
        hint = "cloudlunacy mongodb check - reads one from standard input."
        raise Rejected("A connection string is no name of a database.", reason="NoDatabase", hint=hint)
    known = places(state)
    found = [one for one in known if name in (one.agent, one.host)] or _named(name, known)
    if not found:
        text, hint = _why_not(name, state)
        raise Rejected(text, reason="NoDatabase", hint=_choices(name, known) if known else hint)
    return tuple(found)


def _named(name: str, known: Sequence[Place]) -> list[Place]:
    """Return the databases of the routes and deployments of this name, which must be of one team."""
    found: list[Place] = []
    meant: set[ObjectKey] = set()
    for one in known:
        keys = {key for key in (one.route, *one.deployments) if name in (key.name, f"{key.team}/{key.name}")}
        if keys:
            found.append(one)
            meant |= keys
    if len({key.team for key in meant}) > 1:
        choices = " or ".join(sorted({f"{key.team}/{key.name}" for key in meant}))
        raise Rejected(f'"{name}" means several databases.', reason="Ambiguous", hint=f"Write {choices}.")
    return found


def _why_not(name: str, state: State) -> tuple[str, str]:
    """Return what is wrong, and what to do where there is no database at all."""
    fleet = state.fleet
    suffix = f".mongodb.{fleet.spec.domain}" if fleet is not None else ""
    agent = name.removesuffix(suffix) if suffix else name
    there = state.view().agent(agent)
    if there is not None:
        text = f'No route of type mongodb leads to the agent "{agent}"'
        if there.spec.state == "quarantined":
            return f"{text}; it is quarantined.", ""
        return f"{text}.", "Add one with a backend on it."
    text = f'There is no database "{name}": no agent, route or deployment of type mongodb has this name.'
    return text, "There is no route of type mongodb that leads to an agent in service."


def _choices(name: str, known: Sequence[Place]) -> str:
    words = dict.fromkeys(word for one in known for word in _words(one))
    guess = did_you_mean(name, words)
    return guess or f"There are: {', '.join(sorted({one.agent for one in known})[:10])}."


def _words(place: Place) -> Iterator[str]:
    yield from (place.agent, place.host)
    for key in (place.route, *place.deployments):
        yield from (key.name, f"{key.team}/{key.name}")


def _of_route(key: ObjectKey, state: State, view: View) -> Iterator[Place]:
    route = state.objects[key]
    if not isinstance(route, Route) or route.spec.type != "mongodb":
        return
    behind: dict[str, list[Backend]] = {}
    for backend in route.spec.backends:
        for agent in _agents(key.team, backend, view):
            behind.setdefault(agent, []).append(backend)
    for agent, backends in sorted(behind.items()):
        deployments = tuple(
            sorted({one for backend in backends for one in _deployments(key.team, agent, backend, view, state)})
        )
        users = dict.fromkeys(user for one in deployments for user in _users(state, one))
        host = f"{agent}.mongodb.{view.fleet.spec.domain}"
        ports = tuple(_ports(key, agent, backends, view))
        internal = _is_internal(host, route, state, view)
        yield Place(host, agent, key, route.spec, ports, internal, deployments, tuple(users))


def _is_internal(host: str, route: Route, state: State, view: View) -> bool:
    """Say who signed what clients see: with passthrough that is the database's own affair."""
    name = view.certificate_of(host)
    if name is None or route.spec.tls.mode != "terminate":
        return False
    found = state.objects.get(ObjectKey("Certificate", "", name))
    return not isinstance(found, Certificate) or found.spec.issuer == "internal"


def _ports(key: ObjectKey, agent: str, backends: Sequence[Backend], view: View) -> Iterator[str]:
    for backend in backends:
        with suppress(CompileProblem):  # a last good version whose deployment is gone
            found = endpoints(key.team, backend, view, ())
            yield from (one.address for one in found if one.agent == agent)


def _agents(team: str, backend: Backend, view: View) -> Iterator[str]:
    """Names of the agents in service behind a backend that gets traffic, as for a route."""
    if not backend.weight:
        return
    names: Sequence[str] = (backend.agent,) if backend.agent is not None else ()
    deployment = view.deployment(team, backend.deployment or "")
    if deployment is not None:
        names = view.agent_names_of(team, deployment)
    for name in names:
        agent = view.agent(name)
        if agent is not None and agent.spec.state != "quarantined":
            yield name


def _deployments(team: str, agent: str, backend: Backend, view: View, state: State) -> Iterator[ObjectKey]:
    """Say what runs behind a backend: what it names, or whatever of the team has its port on that agent."""
    for key, one in state.objects.items():
        if not isinstance(one, Deployment) or one.spec.type != "mongodb" or key.team != team:
            continue
        if backend.deployment is not None:
            if backend.deployment == key.name and port_of(backend, one) is not None:
                yield key
        elif agent in view.agent_names_of(team, one) and any(port.host == backend.port for port in one.spec.ports):
            yield key


def _users(state: State, key: ObjectKey) -> tuple[MongoDBUser, ...]:
    found = state.objects[key]
    return found.spec.mongodb.users if isinstance(found, Deployment) and found.spec.mongodb is not None else ()
