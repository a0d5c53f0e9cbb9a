"""What an object refers to and what it claims for itself: hosts, ports, names.

A claim is exclusive. Two objects that claim the same thing conflict, and :mod:`reconciler.desired.settle` decides who
keeps it. Claims and references follow from the document alone, so they are computed once for each blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from reconciler.desired.finding import FieldPath
from schemas.agent import Agent
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.fleet import Fleet
from schemas.middleware import Middleware, ServiceAddress
from schemas.names import covers, overlaps
from schemas.objects import AnyObject, ObjectKey
from schemas.route import Backend, Route, RouteSpec

ANY: Final = "*"
"""Pattern of a TCP route without TLS: it owns the whole entry point."""


class Reference(NamedTuple):
    """``field`` of the object names ``key``."""

    key: ObjectKey
    field: FieldPath


class HostMatch(NamedTuple):
    """Which requests to a host a route answers. Empty: all."""

    paths: frozenset[tuple[str, str]] = frozenset()
    methods: frozenset[str] = frozenset()
    headers: frozenset[tuple[str, str]] = frozenset()

    def meets(self, other: HostMatch) -> bool:
        """Say whether some request is answered by both, and neither is the more specific one."""
        same_path = self.paths == other.paths or bool(self.paths & other.paths)
        same_method = not self.methods or not other.methods or bool(self.methods & other.methods)
        return same_path and same_method and self.headers == other.headers


class Claim(NamedTuple):
    """``scope`` and ``pattern`` say what is claimed; only claims of one scope can conflict."""

    scope: str
    """``http``, ``tcp:<entry point>``, ``port:<agent>``, ``identity`` or ``certificate``."""
    pattern: str
    owner: ObjectKey
    entry_point: str = ""
    match: HostMatch = HostMatch()
    field: FieldPath = ()

    @property
    def thing(self) -> tuple[str, str]:
        return self.scope, self.pattern

    def conflicts(self, other: Claim) -> bool:
        """Say whether both claims cannot be in service at once."""
        if self.scope != other.scope or self.owner == other.owner:
            return False
        if self.scope == "http":
            return self._conflicts_over_host(other)
        if ANY in (self.pattern, other.pattern):
            return True
        if self.scope.startswith("tcp:") and self.owner.team != other.owner.team:
            return overlaps(self.pattern, other.pattern)
        return self.pattern == other.pattern

    def _conflicts_over_host(self, other: Claim) -> bool:
        """One host belongs to one team. Within it several routes may share the host if their matches differ."""
        if self.owner.team != other.owner.team:
            return overlaps(self.pattern, other.pattern)
        return self.pattern == other.pattern and self.entry_point == other.entry_point and self.match.meets(other.match)


def hosts_of(route: Route, fleet: Fleet, agents: tuple[str, ...]) -> tuple[str, ...]:
    """Return the host patterns of a route, defaults resolved. Empty for a TCP route without TLS.

    ``agents``: for a route of type mongodb, the agents behind its backends.
    """
    spec = route.spec
    if spec.type == "http":
        return spec.hostnames or (f"{route.metadata.name}.app.{fleet.spec.domain}",)
    if spec.type == "tcp":
        return spec.hostnames
    return tuple(f"{agent}.mongodb.{fleet.spec.domain}" for agent in agents)


def references_of(key: ObjectKey, found: AnyObject) -> tuple[Reference, ...]:
    """List every other object that ``found`` names, with the field that names it."""
    if isinstance(found, Route):
        return tuple(_references_of_route(key.team, found.spec))
    if isinstance(found, Deployment):
        return tuple(_references_of_deployment(key.team, found))
    if isinstance(found, Certificate):
        return tuple(
            Reference(ObjectKey("Agent", "", name), ("spec", "usedBy", "agents", index))
            for index, name in enumerate(found.spec.used_by.agents)
        )
    return ()


def _references_of_route(team: str, spec: RouteSpec) -> Iterator[Reference]:
    for index, backend in enumerate(spec.backends):
        yield _target(team, backend, ("spec", "backends", index))
    if spec.tls.certificate is not None:
        yield Reference(ObjectKey("Certificate", "", spec.tls.certificate), ("spec", "tls", "certificate"))
    for index, middleware in enumerate(spec.middlewares):
        yield from _references_of_middleware(team, middleware, ("spec", "middlewares", index))


def _references_of_middleware(team: str, middleware: Middleware, field: FieldPath) -> Iterator[Reference]:
    if middleware.basic_auth is not None:
        secret = ObjectKey("Secret", team, middleware.basic_auth.secret.name)
        yield Reference(secret, (*field, "basicAuth", "secret", "name"))
    if middleware.forward_auth is not None:
        yield _target(team, middleware.forward_auth.address, (*field, "forwardAuth", "address"))
    if middleware.maintenance is not None and middleware.maintenance.page is not None:
        yield _target(team, middleware.maintenance.page, (*field, "maintenance", "page"))


def _target(team: str, target: Backend | ServiceAddress, field: FieldPath) -> Reference:
    if target.agent is not None:
        return Reference(ObjectKey("Agent", "", target.agent), (*field, "agent"))
    return Reference(ObjectKey("Deployment", team, target.deployment or ""), (*field, "deployment"))


def _references_of_deployment(team: str, deployment: Deployment) -> Iterator[Reference]:
    spec = deployment.spec
    for index, name in enumerate(spec.agents):
        yield Reference(ObjectKey("Agent", "", name), ("spec", "agents", index))
    for index, secret in enumerate(spec.secrets):
        yield Reference(ObjectKey("Secret", team, secret.secret), ("spec", "secrets", index, "secret"))
    if spec.mongodb is not None:
        for index, user in enumerate(spec.mongodb.users):
            field: FieldPath = ("spec", "mongodb", "users", index, "password", "name")
            yield Reference(ObjectKey("Secret", team, user.password.name), field)


def claims_of(key: ObjectKey, found: AnyObject, fleet: Fleet, agents: tuple[str, ...]) -> tuple[Claim, ...]:
    """List what ``found`` claims. ``agents``: those that a deployment runs on, or that are behind a mongodb route."""
    if isinstance(found, Route):
        return tuple(_claims_of_route(key, found, fleet, agents))
    if isinstance(found, Deployment):
        return tuple(
            Claim(f"port:{agent}", str(mapping.host), key, field=("spec", "ports", index, "host"))
            for agent in agents
            for index, mapping in enumerate(found.spec.ports)
        )
    if isinstance(found, Certificate):
        return tuple(
            Claim("certificate", name, key, field=("spec", "dnsNames", index))
            for index, name in enumerate(found.spec.dns_names)
        )
    if isinstance(found, Agent) and found.spec.identity is not None:
        thumbprint = found.spec.identity.thumbprint
        return (Claim("identity", thumbprint, key, field=("spec", "identity", "thumbprint")),)
    return ()


def _claims_of_route(key: ObjectKey, route: Route, fleet: Fleet, agents: tuple[str, ...]) -> Iterator[Claim]:
    spec, points = route.spec, fleet.spec.entry_points
    hosts = hosts_of(route, fleet, agents)
    if spec.type == "http":
        match = HostMatch(
            frozenset(("prefix", path.prefix) if path.prefix else ("exact", path.exact or "") for path in spec.paths)
            or frozenset({("prefix", "/")}),
            frozenset(spec.methods),
            frozenset((header.name.lower(), header.value) for header in spec.headers),
        )
        point = points.http if spec.tls.mode == "none" else points.https
        for index, host in enumerate(hosts):
            yield Claim("http", host, key, point, match, _host_field(spec, index))
        return
    point = points.mongodb if spec.type == "mongodb" else points.tcp.get(spec.entry_point or "", "")
    if spec.type == "tcp" and not hosts:
        hosts = (ANY,)
    for index, host in enumerate(hosts):
        yield Claim(f"tcp:{point}", host, key, point, field=_host_field(spec, index))


def _host_field(spec: RouteSpec, index: int) -> FieldPath:
    if spec.hostnames:
        return ("spec", "hostnames", index)
    return ("spec", "backends") if spec.type == "mongodb" else ("spec", "type")


class ClaimIndex:
    """Who claims what. A value: :meth:`copy` before changing it."""

    def __init__(self, by_thing: dict[tuple[str, str], tuple[Claim, ...]] | None = None) -> None:
        self._by_thing = by_thing or {}

    def copy(self) -> ClaimIndex:
        return ClaimIndex(self._by_thing.copy())

    def add(self, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            self._by_thing[claim.thing] = (*self._by_thing.get(claim.thing, ()), claim)

    def remove(self, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            rest = tuple(other for other in self._by_thing.get(claim.thing, ()) if other.owner != claim.owner)
            if rest:
                self._by_thing[claim.thing] = rest
            else:
                self._by_thing.pop(claim.thing, None)

    def at(self, scope: str, pattern: str) -> tuple[Claim, ...]:
        """Return the claims of exactly this thing."""
        return self._by_thing.get((scope, pattern), ())

    def conflicting(self, claim: Claim) -> Iterator[Claim]:
        """Yield the claims of others that cannot be in service together with ``claim``."""
        for thing in self._related(claim):
            yield from (other for other in self._by_thing.get(thing, ()) if claim.conflicts(other))

    def _related(self, claim: Claim) -> list[tuple[str, str]]:
        """List what could conflict without looking at everything, except for the rare wildcards."""
        scope, pattern = claim.thing
        if scope != "http" and not scope.startswith("tcp:"):
            return [claim.thing]
        if pattern == ANY or pattern.startswith("*."):
            return [
                thing
                for thing in self._by_thing
                if thing[0] == scope and (ANY in (pattern, thing[1]) or covers(pattern, thing[1]))
            ]
        return [claim.thing, (scope, f"*.{pattern.partition('.')[2]}"), (scope, ANY)]
