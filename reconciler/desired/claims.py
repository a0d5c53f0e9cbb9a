"""What an object refers to and what it claims for itself: hosts, ports, names.

A claim is exclusive. Two objects that claim the same thing conflict, and :mod:`reconciler.desired.settle` decides who
keeps it. Claims and references follow from the document alone, so they are computed once for each blob.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, NamedTuple

from reconciler.desired.finding import FieldPath
from schemas.agent import Agent
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.fleet import Fleet
from schemas.middleware import Middleware, ServiceAddress
from schemas.names import overlaps
from schemas.objects import AnyObject, ObjectKey
from schemas.route import Backend, Route, RouteSpec
from schemas.service_tls import meet, ways_to

ANY: Final = "*"
"""Pattern of a TCP route without TLS: it owns the whole entry point."""


class Reference(NamedTuple):
    """``field`` of the object names ``key``."""

    key: ObjectKey
    field: FieldPath


class HostMatch(NamedTuple):
    """Which requests to a host a route answers. No methods, no headers: any."""

    paths: frozenset[tuple[str, str]] = frozenset({("prefix", "/")})
    """(``prefix`` or ``exact``, path); never empty."""
    methods: frozenset[str] = frozenset()
    headers: frozenset[tuple[str, str]] = frozenset()

    def meets(self, other: HostMatch) -> bool:
        """Say whether some request is answered by both, and neither is the more specific one."""
        if self.headers != other.headers or self.paths.isdisjoint(other.paths):
            return False
        return not self.methods or not other.methods or not self.methods.isdisjoint(other.methods)


EVERYTHING: Final = HostMatch()


class Claim(NamedTuple):
    """``scope`` and ``pattern`` say what is claimed; only claims of one scope can conflict."""

    scope: str
    """``http``, ``tcp:<entry point>``, ``port:<agent>``, ``directory:<agent>``, ``identity`` or ``certificate``."""
    pattern: str
    owner: ObjectKey
    entry_point: str = ""
    match: HostMatch = EVERYTHING
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
        if self.scope.startswith("directory:"):
            return meet(self.pattern, other.pattern)
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


def covered(host: str, patterns: Container[str]) -> bool:
    """Say whether one of ``patterns`` covers ``host``, which may be ``*.parent`` itself. Two look-ups in a set."""
    return host in patterns or (not host.startswith("*.") and f"*.{host.partition('.')[2]}" in patterns)


def claims_to_json(claims: Sequence[Claim]) -> list[Any]:
    """Return claims as JSON, for the store."""
    return [
        [one.scope, one.pattern, list(one.owner), one.entry_point, [sorted(part) for part in one.match], one.field]
        for one in claims
    ]


def claims_from_json(stored: Sequence[Any]) -> tuple[Claim, ...]:
    """Return what :func:`claims_to_json` wrote."""
    return tuple(
        Claim(
            scope,
            pattern,
            ObjectKey(*owner),
            point,
            HostMatch(
                frozenset((kind, path) for kind, path in paths),
                frozenset(methods),
                frozenset((name, value) for name, value in headers),
            ),
            tuple(field),
        )
        for scope, pattern, owner, point, (paths, methods, headers), field in stored
    )


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
        return _references_of_route(key.team, found.spec)
    if isinstance(found, Deployment):
        return tuple(_references_of_deployment(key.team, found))
    if isinstance(found, Certificate):
        return tuple(_references_of_certificate(found))
    return ()


def _references_of_certificate(certificate: Certificate) -> Iterator[Reference]:
    for index, name in enumerate(certificate.spec.used_by.agents):
        yield Reference(ObjectKey("Agent", "", name), ("spec", "usedBy", "agents", index))
    provided = certificate.spec.provided
    if provided is not None:
        yield Reference(ObjectKey("Secret", provided.team, provided.secret), ("spec", "provided", "secret"))


def _references_of_route(team: str, spec: RouteSpec) -> tuple[Reference, ...]:
    found = [_target(team, backend, ("spec", "backends", index)) for index, backend in enumerate(spec.backends)]
    if spec.tls.certificate is not None:
        found.append(Reference(ObjectKey("Certificate", "", spec.tls.certificate), ("spec", "tls", "certificate")))
    for index, middleware in enumerate(spec.middlewares):
        if middleware.basic_auth or middleware.forward_auth or middleware.maintenance:
            found += _references_of_middleware(team, middleware, ("spec", "middlewares", index))
    return tuple(found)


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
    for use in spec.secret_uses():
        yield Reference(ObjectKey("Secret", team, use.secret), (*use.field, use.member))


def claims_of(key: ObjectKey, found: AnyObject, fleet: Fleet, agents: tuple[str, ...]) -> tuple[Claim, ...]:
    """List what ``found`` claims. ``agents``: those that a deployment runs on, or that are behind a mongodb route."""
    if isinstance(found, Route):
        return tuple(_claims_of_route(key, found, fleet, agents))
    if isinstance(found, Deployment):
        return tuple(_claims_of_deployment(key, found, agents))
    if isinstance(found, Certificate):
        return tuple(
            Claim("certificate", name, key, field=("spec", "dnsNames", index))
            for index, name in enumerate(found.spec.dns_names)
        )
    if isinstance(found, Agent) and found.spec.identity is not None:
        thumbprint = found.spec.identity.thumbprint
        return (Claim("identity", thumbprint, key, field=("spec", "identity", "thumbprint")),)
    return ()


def _claims_of_deployment(key: ObjectKey, deployment: Deployment, agents: tuple[str, ...]) -> Iterator[Claim]:
    spec = deployment.spec
    for agent in agents:
        for index, mapping in enumerate(spec.ports):
            yield Claim(f"port:{agent}", str(mapping.host), key, field=("spec", "ports", index, "host"))
        if spec.tls is not None and spec.tls.directory is not None:
            yield Claim(f"directory:{agent}", spec.tls.directory.lower(), key, field=("spec", "tls", "directory"))


def _claims_of_route(key: ObjectKey, route: Route, fleet: Fleet, agents: tuple[str, ...]) -> Iterator[Claim]:
    spec, points = route.spec, fleet.spec.entry_points
    hosts = hosts_of(route, fleet, agents)
    if spec.type == "http":
        match = _match_of(spec) if spec.paths or spec.methods or spec.headers else EVERYTHING
        point = points.http if spec.tls.mode == "none" else points.https
        for index, host in enumerate(hosts):
            yield Claim("http", host, key, point, match, _host_field(spec, index))
        return
    point = points.mongodb if spec.type == "mongodb" else points.tcp.get(spec.entry_point or "", "")
    if spec.type == "tcp" and not hosts:
        hosts = (ANY,)
    for index, host in enumerate(hosts):
        yield Claim(f"tcp:{point}", host, key, point, field=_host_field(spec, index))


def _match_of(spec: RouteSpec) -> HostMatch:
    paths = frozenset([("prefix", path.prefix) if path.prefix else ("exact", path.exact or "") for path in spec.paths])
    headers = frozenset([(header.name.lower(), header.value) for header in spec.headers])
    match = HostMatch(paths or EVERYTHING.paths, frozenset(spec.methods), headers)
    return EVERYTHING if match == EVERYTHING else match


def _host_field(spec: RouteSpec, index: int) -> FieldPath:
    if spec.hostnames:
        return ("spec", "hostnames", index)
    return ("spec", "backends") if spec.type == "mongodb" else ("spec", "type")


class ClaimIndex:
    """Who claims what. A value: :meth:`copy` before changing it.

    Whatever a claim can conflict with is found by a few look-ups, however many routes share a host: within a team by
    host, entry point and path, across teams by host, below a wildcard by the wildcard's parent.
    """

    def __init__(self) -> None:
        self._things: dict[tuple[str, str], dict[str, tuple[Claim, ...]]] = {}
        """(scope, pattern) → team → claims."""
        self._paths: dict[tuple[str, str, tuple[str, str]], tuple[Claim, ...]] = {}
        """(host, entry point, path) → HTTP claims."""
        self._below: dict[tuple[str, str], dict[str, None]] = {}
        """(scope, parent) → patterns one label below; for TCP also (scope, ANY) → all patterns; for directories
        (scope, path) → all that lie there or below."""
        self._own: set[tuple[str, str]] = set()
        """Keys of ``_below`` whose value belongs to this index alone; the others are shared with those it came from."""

    def copy(self) -> ClaimIndex:
        other = ClaimIndex()
        other._things = self._things.copy()
        other._paths = self._paths.copy()
        other._below = self._below.copy()
        self._own = set()
        return other

    def add(self, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            thing, team = claim.thing, claim.owner.team
            teams = self._things.get(thing)
            if teams is None:
                self._things[thing] = {team: (claim,)}
                for parent in _parents(thing):
                    self._patterns_below(parent)[thing[1]] = None
            else:
                self._things[thing] = {**teams, team: (*teams.get(team, ()), claim)}
            if claim.scope == "http":
                for path in claim.match.paths:
                    slot = (claim.pattern, claim.entry_point, path)
                    self._paths[slot] = (*self._paths.get(slot, ()), claim)

    def remove(self, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            thing, team = claim.thing, claim.owner.team
            teams = dict(self._things.get(thing, {}))
            teams[team] = tuple(other for other in teams.get(team, ()) if other != claim)
            if not teams[team]:
                del teams[team]
            if teams:
                self._things[thing] = teams
            elif self._things.pop(thing, None) is not None:
                for parent in _parents(thing):
                    self._patterns_below(parent).pop(thing[1], None)
            if claim.scope == "http":
                for path in claim.match.paths:
                    self._leave_path((claim.pattern, claim.entry_point, path), claim)

    def _leave_path(self, slot: tuple[str, str, tuple[str, str]], claim: Claim) -> None:
        rest = tuple(other for other in self._paths.get(slot, ()) if other != claim)
        if rest:
            self._paths[slot] = rest
        else:
            self._paths.pop(slot, None)

    def _patterns_below(self, parent: tuple[str, str]) -> dict[str, None]:
        if parent not in self._own:
            self._own.add(parent)
            self._below[parent] = dict(self._below.get(parent, ()))
        return self._below[parent]

    def at(self, scope: str, pattern: str) -> tuple[Claim, ...]:
        """Return the claims of exactly this thing."""
        return tuple(claim for claims in self._things.get((scope, pattern), {}).values() for claim in claims)

    def below(self, scope: str, parent: str) -> tuple[Claim, ...]:
        """Return the claims of patterns one label below ``parent``, at which a wildcard host may stand too."""
        patterns = self._below.get((scope, parent), ())
        return tuple(claim for pattern in patterns if pattern != f"*.{parent}" for claim in self.at(scope, pattern))

    def conflicting(self, claim: Claim) -> list[Claim]:
        """List the claims of others that cannot be in service together with ``claim``."""
        team, is_http = claim.owner.team, claim.scope == "http"
        found: list[Claim] = []
        for thing in self._related(claim):
            teams = self._things.get(thing)
            if teams is None or (is_http and len(teams) == 1 and team in teams):
                continue
            for other_team, claims in teams.items():
                if not is_http or other_team != team:
                    found += [other for other in claims if claim.conflicts(other)]
        if is_http:
            for path in claim.match.paths:
                same = self._paths.get((claim.pattern, claim.entry_point, path), ())
                found += [other for other in same if other.owner.team == team and claim.conflicts(other)]
        return list(dict.fromkeys(found)) if len(found) > 1 else found

    def _related(self, claim: Claim) -> list[tuple[str, str]]:
        """List the things whose claims of other teams could conflict."""
        scope, pattern = claim.thing
        if scope == "http":
            if not pattern.startswith("*."):
                return [claim.thing, (scope, f"*.{pattern.partition('.')[2]}")]
            return [claim.thing, *((scope, other) for other in self._below.get((scope, pattern[2:]), ()))]
        if scope.startswith("directory:"):
            within = ((scope, other) for other in self._below.get((scope, pattern), ()))
            return [*((scope, way) for way in ways_to(pattern)), *within]
        if not scope.startswith("tcp:"):
            return [claim.thing]
        if pattern == ANY:
            return [(scope, other) for other in self._below.get((scope, ANY), ())]
        if pattern.startswith("*."):
            below = ((scope, other) for other in self._below.get((scope, pattern[2:]), ()))
            return [claim.thing, *below, (scope, ANY)]
        return [claim.thing, (scope, f"*.{pattern.partition('.')[2]}"), (scope, ANY)]


def _parents(thing: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return under which keys of ``_below`` a pattern is found."""
    scope, pattern = thing
    if scope == "http":
        return () if pattern.startswith("*.") else ((scope, pattern.partition(".")[2]),)
    if scope.startswith("tcp:"):
        return (scope, ANY), (scope, pattern.partition(".")[2])
    if scope.startswith("directory:"):
        return tuple((scope, way) for way in ways_to(pattern))
    return ()
