"""From a route to Traefik's objects, and the objects that are there whatever the routes are.

Names are ``<team>_<name>`` with suffixes, made here and nowhere else; names of teams and routes hold no underscore, so
no two objects of two routes can meet. Entry points are always named: a router without would attach to all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from reconciler.desired.backends import Target, targets
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.lookup import Lookup
from reconciler.desired.matching import CATCH_ALL_PRIORITY, FLOOR, Match, http_matches, sni_matches
from reconciler.desired.middlewares import compile_middlewares, compile_tcp_middlewares
from reconciler.desired.traefik_model import (
    RESERVED,
    Certificate,
    Cookie,
    HealthCheck,
    LoadBalancer,
    Router,
    RouterTLS,
    Section,
    Server,
    TCPLoadBalancer,
    TCPServer,
    TraefikObject,
    TraefikObjects,
    Weighted,
    marker_name,
)
from reconciler.desired.transports import (
    DEFAULT_TRANSPORT,
    agent_host,
    by_agent,
    default_transports,
    http_transport,
    is_default,
    proves_agent,
    tcp_transport,
)
from schemas.fleet import Fleet
from schemas.objects import ObjectKey
from schemas.route import Route, RouteSpec, StickyCookie

__all__ = ["CompileProblem", "catch_all", "compile_route", "hostnames", "marker", "tls_entry_point"]


def compile_route(key: ObjectKey, route: Route, lookup: Lookup) -> TraefikObjects:
    """Turn one route into its routers, services, middlewares and transports.

    Raises:
        CompileProblem: when something that it names cannot be resolved, or contradicts itself.
    """
    if route.spec.type == "http":
        return _compile_http(key, route.spec, lookup)
    if route.spec.type == "tcp":
        return _compile_tcp(key, route.spec, lookup)
    return _compile_mongodb(key, route.spec, lookup)


def hostnames(key: ObjectKey, spec: RouteSpec, fleet: Fleet) -> tuple[str, ...]:
    """The hosts of a route of type http or tcp: its own, or ``<name>.app.<domain>``."""
    if spec.hostnames or spec.type != "http":
        return spec.hostnames
    return (f"{key.name}.app.{fleet.spec.domain}",)


def tls_entry_point(route: Route) -> str | None:
    """The entry of the fleet's ``entryPoints.tcp`` on which this route reads TLS names, for :func:`catch_all`."""
    spec = route.spec
    return spec.entry_point if spec.type == "tcp" and spec.tls.mode != "none" else None


def catch_all(
    fleet: Fleet, *, tls_entry_points: Collection[str] = (), default_certificate: Certificate | None = None
) -> TraefikObjects:
    """Objects that belong to no route: answers to unknown names, the TLS floor and what routes share.

    An unknown name on a TCP entry point would fall through to Traefik's HTTP server, whose answer a database driver
    cannot read; here it meets a service without servers, and the connection closes at once. HTTP needs nothing: an
    unknown host gets Traefik's 404. ``tls_entry_points`` are the entries of ``entryPoints.tcp`` that some route reads
    TLS names on. (Where none does, Traefik must not wait for a ClientHello: the server may be the one to speak first.)

    ``default_certificate`` is shown to unknown names. Without it Traefik makes an RSA key at each reload, which takes
    longer than everything else in the reload of a small fleet.
    """
    objects: list[TraefikObject] = [
        *default_transports(),
        TraefikObject("tls.options", "default", {"minVersion": "VersionTLS12"}),
    ]
    if default_certificate is not None:
        objects.append(TraefikObject("tls.stores", "default", {"defaultCertificate": default_certificate}))
    nowhere = f"{RESERVED}nowhere"
    objects.append(TraefikObject("tcp.services", nowhere, {"loadBalancer": {"servers": []}}))
    points = fleet.spec.entry_points
    names = {points.mongodb, *(points.tcp[name] for name in tls_entry_points if name in points.tcp)}
    for point in sorted(names):
        plain: Router = {
            "entryPoints": [point],
            "rule": "HostSNI(`*`)",
            "priority": CATCH_ALL_PRIORITY,
            "service": nowhere,
        }
        tls: Router = {**plain, "tls": {"passthrough": True}}
        objects.append(TraefikObject("tcp.routers", f"{RESERVED}unknown-{point}", plain))
        objects.append(TraefikObject("tcp.routers", f"{RESERVED}unknown-tls-{point}", tls))
    return tuple(objects)


def marker(generation: int, revision: str) -> TraefikObject:
    """The object by whose name Traefik's API tells which generation it has loaded. No router leads to it."""
    return TraefikObject("http.services", marker_name(generation, revision), {"loadBalancer": {"servers": []}})


def _compile_http(key: ObjectKey, spec: RouteSpec, lookup: Lookup) -> TraefikObjects:
    fleet = lookup.fleet
    name = f"{key.team}_{key.name}"
    hosts = hostnames(key, spec, fleet)
    plain = spec.tls.mode == "none"
    matches = http_matches(hosts, spec.paths, spec.headers, spec.methods)
    found = targets(key.team, spec.backends, lookup)
    objects: list[TraefikObject] = []
    service = name
    middlewares: list[str] = []
    if spec.middlewares:
        _refuse_redirect_to_itself(spec, hosts)
        chain = compile_middlewares(key.team, name, spec.middlewares, lookup)
        objects, middlewares = chain.objects, chain.names
        service = chain.service or name
    entry_points = fleet.spec.entry_points
    points = [entry_points.http if plain else entry_points.https]
    objects += _routers(
        "http.routers", name, matches, points, service=service, tls=None if plain else {}, middlewares=middlewares
    )
    if service == name:
        objects += _http_services(name, spec, found, fleet)
    return tuple(objects)


def _routers(
    section: Section,
    name: str,
    matches: Sequence[Match],
    entry_points: list[str],
    *,
    service: str,
    tls: RouterTLS | None,
    middlewares: Sequence[str] = (),
) -> list[TraefikObject]:
    """One router for each rank of match; the first has the route's name."""
    objects = []
    for number, match in enumerate(matches, start=1):
        router: Router = {
            "entryPoints": entry_points,
            "rule": match.rule,
            "priority": match.priority,
            "service": service,
        }
        if middlewares:
            router["middlewares"] = list(middlewares)
        if tls is not None:
            router["tls"] = tls
        router_name = name if number == 1 else f"{name}_router-{number}"
        objects.append(TraefikObject(section, router_name, router))
    return objects


def _http_services(name: str, spec: RouteSpec, found: list[Target], fleet: Fleet) -> list[TraefikObject]:
    """One load balancer; where each agent must prove its own name one for each, and a weighted service of these."""
    groups = by_agent(found) if proves_agent(spec) else {}
    if not groups:
        balancer = _load_balancer(name, spec, found, fleet)
        objects = [TraefikObject("http.services", name, {"loadBalancer": balancer})]
        return objects if is_default(spec) else [*objects, http_transport(name, spec.transport)]
    objects = []
    names = _names_of_groups(name, groups)
    for agent, members in groups.items():
        own, server_name = names[agent], agent_host(agent, fleet.spec.domain)
        balancer = _load_balancer(own, spec, members, fleet)
        objects.append(TraefikObject("http.services", own, {"loadBalancer": balancer}))
        objects.append(http_transport(own, spec.transport, server_name))
    if len(groups) > 1:
        weighted = _weighted(names, groups, checked=spec.health_check is not None)
        if spec.sticky is not None:
            weighted["sticky"] = {"cookie": _cookie(name, spec.sticky, plain=spec.tls.mode == "none")}
        objects.append(TraefikObject("http.services", name, {"weighted": weighted}))
    return objects


def _names_of_groups(name: str, groups: Collection[str]) -> dict[str, str]:
    return {agent: name if len(groups) == 1 else f"{name}_{agent}" for agent in groups}


def _weighted(names: Mapping[str, str], groups: Mapping[str, list[Target]], *, checked: bool) -> Weighted:
    weighted: Weighted = {
        "services": [
            {"name": names[one], "weight": sum(target.weight for target in members)} for one, members in groups.items()
        ]
    }
    if checked:
        weighted["healthCheck"] = {}  # has no options; without it the members' health counts for nothing
    return weighted


def _load_balancer(name: str, spec: RouteSpec, found: list[Target], fleet: Fleet) -> LoadBalancer:
    """One load balancer with weighted servers, not a weighted service of several: so cookie and health see all."""
    scheme = spec.transport.scheme
    even = len({target.weight for target in found}) <= 1
    servers: list[Server] = [
        {"url": f"{scheme}://{target.address}"}
        if even
        else {"url": f"{scheme}://{target.address}", "weight": target.weight}
        for target in found
    ]
    balancer: LoadBalancer = {
        "servers": servers,
        "serversTransport": DEFAULT_TRANSPORT if is_default(spec) else name,
    }
    if not spec.pass_host_header:
        balancer["passHostHeader"] = False
    if spec.sticky is not None:
        balancer["sticky"] = {"cookie": _cookie(name, spec.sticky, plain=spec.tls.mode == "none")}
    if spec.health_check is not None:
        balancer["healthCheck"] = _health_check(spec, fleet)
    return balancer


def _cookie(name: str, sticky: StickyCookie, *, plain: bool) -> Cookie:
    cookie: Cookie = {
        "name": sticky.name or name,
        # over plain HTTP a browser would not send a secure cookie back, and nobody would stick
        "secure": sticky.secure and not plain,
        "httpOnly": sticky.http_only,
        "sameSite": sticky.same_site,
    }
    if sticky.max_age:
        cookie["maxAge"] = sticky.max_age
    return cookie


def _health_check(spec: RouteSpec, fleet: Fleet) -> HealthCheck:
    check = spec.health_check
    assert check is not None
    value: HealthCheck = {
        "path": check.path,
        "interval": check.interval or fleet.spec.defaults.health_interval,
        "timeout": check.timeout,
        "followRedirects": False,  # a backend must not send the front's probes elsewhere
    }
    if check.status is not None:
        value["status"] = check.status
    if check.headers:
        value["headers"] = dict(check.headers)
    return value


def _refuse_redirect_to_itself(spec: RouteSpec, hosts: Sequence[str]) -> None:
    own = "http" if spec.tls.mode == "none" else "https"
    for index, middleware in enumerate(spec.middlewares):
        redirect = middleware.redirect
        if redirect is None or redirect.host not in hosts or redirect.port is not None:
            continue
        if redirect.scheme in (None, own):
            raise CompileProblem(
                "redirect-loop",
                f"this redirects {redirect.host} to itself",
                ("spec", "middlewares", index, "redirect", "host"),
                "Name another host, or another scheme.",
            )


def _compile_tcp(key: ObjectKey, spec: RouteSpec, lookup: Lookup) -> TraefikObjects:
    name = f"{key.team}_{key.name}"
    known = lookup.fleet.spec.entry_points.tcp
    point = known.get(spec.entry_point or "")
    if point is None:
        raise CompileProblem(
            "unknown-entry-point",
            f'the fleet has no TCP entry point "{spec.entry_point}"',
            ("spec", "entryPoint"),
            f"It has: {', '.join(sorted(known))}." if known else "Add it to entryPoints.tcp in fleet.yaml.",
        )
    found = targets(key.team, spec.backends, lookup)
    tls = _tcp_tls(spec)
    matches = [Match("HostSNI(`*`)", FLOOR)] if tls is None else sni_matches(spec.hostnames)
    objects, chain = compile_tcp_middlewares(name, spec.middlewares)
    objects += _routers("tcp.routers", name, matches, [point], service=name, tls=tls, middlewares=chain)
    return (*objects, *_tcp_services(name, spec, found, lookup.fleet))


def _compile_mongodb(key: ObjectKey, spec: RouteSpec, lookup: Lookup) -> TraefikObjects:
    """A router for each agent, because each agent's database has its own name."""
    fleet = lookup.fleet
    name = f"{key.team}_{key.name}"
    groups = by_agent(targets(key.team, spec.backends, lookup))
    names = _names_of_groups(name, groups)
    objects, chain = compile_tcp_middlewares(name, spec.middlewares)
    points = [fleet.spec.entry_points.mongodb]
    for agent, found in groups.items():
        own = names[agent]
        matches = sni_matches([f"{agent}.mongodb.{fleet.spec.domain}"])
        objects += _routers("tcp.routers", own, matches, points, service=own, tls=_tcp_tls(spec), middlewares=chain)
        objects += _tcp_services(own, spec, found, fleet)
    return tuple(objects)


def _tcp_tls(spec: RouteSpec) -> RouterTLS | None:
    if spec.tls.mode == "none":
        return None
    if spec.tls.mode == "passthrough" and spec.transport.scheme != "http":
        hint = "With tls.mode passthrough the client's own TLS reaches the backend; leave scheme out."
        raise CompileProblem("invalid-transport", "TLS inside TLS", ("spec", "transport", "scheme"), hint)
    return {"passthrough": True} if spec.tls.mode == "passthrough" else {}


def _tcp_services(name: str, spec: RouteSpec, found: list[Target], fleet: Fleet) -> list[TraefikObject]:
    """One load balancer, or a weighted service of several: TCP servers have no weights and prove one name together."""
    groups = by_agent(found) if proves_agent(spec) else {}
    if len(groups) > 1:
        names = _names_of_groups(name, groups)
        objects = [each for one in groups for each in _tcp_services(names[one], spec, groups[one], fleet)]
        weighted = _weighted(names, groups, checked=spec.health_check is not None)
        return [*objects, TraefikObject("tcp.services", name, {"weighted": weighted})]
    objects = []
    if not is_default(spec):
        server_name = next((agent_host(agent, fleet.spec.domain) for agent in groups), None)
        objects.append(tcp_transport(name, spec.transport, server_name))
    uses = DEFAULT_TRANSPORT if is_default(spec) else name
    if len({target.weight for target in found}) <= 1:
        return [
            TraefikObject("tcp.services", name, {"loadBalancer": _tcp_balancer(spec, found, fleet, uses)}),
            *objects,
        ]
    members = {f"{name}_backend-{number}": [target] for number, target in enumerate(found, start=1)}
    for each, one in members.items():
        objects.append(TraefikObject("tcp.services", each, {"loadBalancer": _tcp_balancer(spec, one, fleet, uses)}))
    weighted = _weighted({each: each for each in members}, members, checked=spec.health_check is not None)
    return [*objects, TraefikObject("tcp.services", name, {"weighted": weighted})]


def _tcp_balancer(spec: RouteSpec, found: list[Target], fleet: Fleet, transport: str) -> TCPLoadBalancer:
    to_tls = spec.transport.scheme == "https"
    servers: list[TCPServer] = [
        {"address": target.address, "tls": True} if to_tls else {"address": target.address} for target in found
    ]
    balancer: TCPLoadBalancer = {"servers": servers, "serversTransport": transport}
    check = spec.health_check
    if check is not None:
        interval = check.interval or fleet.spec.defaults.health_interval
        balancer["healthCheck"] = {"interval": interval, "timeout": check.timeout}
    return balancer
