"""A route becomes exactly the objects that it means."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from reconciler.desired import traefik_model as model
from reconciler.desired.routing import CompileProblem, catch_all, compile_route, marker, tls_entry_point
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.transports import agent_host
from reconciler.pki.authority import profiles
from schemas.route import Route
from tests.support.traefik import FakeLookup, agent, deployment, fleet, key, lookup, route

BACKENDS = [{"agent": "vps-1", "port": 8081}]
ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "http.routers": TypeAdapter(model.Router),
    "http.services": TypeAdapter(model.Service),
    "http.middlewares": TypeAdapter(model.Middleware),
    "http.serversTransports": TypeAdapter(model.ServersTransport),
    "tcp.routers": TypeAdapter(model.Router),
    "tcp.services": TypeAdapter(model.TCPService),
    "tcp.middlewares": TypeAdapter(model.Middleware),
    "tcp.serversTransports": TypeAdapter(model.TCPServersTransport),
    "tls.options": TypeAdapter(model.TLSOptions),
    "tls.stores": TypeAdapter(model.TLSStore),
}


def compiled(one: Route, look: FakeLookup | None = None, *, name: str = "web") -> dict[str, dict[str, Any]]:
    """Compile, check every value against its shape, and return section → name → value."""
    return by_section(compile_route(key(name), one, look or lookup()))


def by_section(objects: TraefikObjects) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for section, name, value in objects:
        ADAPTERS[section].validate_python(value)
        assert name not in found.setdefault(section, {})
        found[section][name] = value
    return found


def http(**spec: Any) -> dict[str, dict[str, Any]]:
    return compiled(route(backends=BACKENDS) if not spec else route(**{"backends": BACKENDS, **spec}))


def balancer(look: FakeLookup | None = None, **spec: Any) -> dict[str, Any]:
    found = compiled(route(**{"backends": BACKENDS, **spec}), look)
    return dict(found["http.services"]["shop_web"]["loadBalancer"])


def test_the_smallest_http_route() -> None:
    """Backends alone: the default host, TLS at the entry point https, one service."""
    assert http() == {
        "http.routers": {
            "shop_web": {
                "entryPoints": ["websecure"],
                "rule": "Host(`web.app.cloudlunacy.test`)",
                "priority": 263144,
                "service": "shop_web",
                "tls": {},
            }
        },
        "http.services": {
            "shop_web": {
                "loadBalancer": {
                    "servers": [{"url": "http://127.0.0.1:8081"}],
                    "serversTransport": "cloudlunacy__default",
                }
            }
        },
    }


def test_a_plain_route_attaches_to_the_http_entry_point_only() -> None:
    """tls.mode none: the fleet's http entry point, no tls key."""
    look = lookup(fleet=fleet(entryPoints={"http": "port80"}))
    router = compiled(route(backends=BACKENDS, tls={"mode": "none"}), look)["http.routers"]["shop_web"]
    assert (router["entryPoints"], "tls" in router) == (["port80"], False)


def test_hosts_of_two_ranks_share_one_service() -> None:
    """Further routers carry a number and lead to the route's service."""
    found = http(hostnames=["*.a.test", "b.test"])
    assert {name: value["service"] for name, value in found["http.routers"].items()} == {
        "shop_web": "shop_web",
        "shop_web_router-2": "shop_web",
    }


def test_ipv6_addresses_are_bracketed() -> None:
    """An IPv6 agent gives a URL in RFC 3986 form."""
    assert balancer(lookup(agent(address="2001:db8::1")))["servers"] == [{"url": "http://[2001:db8::1]:8081"}]


def test_weights_are_those_of_servers_and_zero_takes_out() -> None:
    """Weights are reduced to the smallest whole numbers; equal ones are left out."""
    two = lookup(agent("a", "10.0.0.1"), agent("b", "10.0.0.2"), agent("c", "10.0.0.3"))
    shares = [{"agent": name, "port": 80, "weight": weight} for name, weight in (("a", 20), ("b", 10), ("c", 0))]
    assert balancer(two, backends=shares)["servers"] == [
        {"url": "http://10.0.0.1:80", "weight": 2},
        {"url": "http://10.0.0.2:80", "weight": 1},
    ]


def test_a_deployment_shares_its_weight_among_its_agents() -> None:
    """Weight 1 beside a deployment of weight 1 on two agents: half of the requests to the one, a quarter to each."""
    look = lookup(
        agent("a", "10.0.0.1"),
        agent("b", "10.0.0.2"),
        agent("c", "10.0.0.3"),
        deployments={("shop", "web"): deployment(agents=["b", "c"], ports=[{"container": 80, "host": 8080}])},
    )
    servers = balancer(look, backends=[{"agent": "a", "port": 80}, {"deployment": "web"}])["servers"]
    assert servers == [
        {"url": "http://10.0.0.1:80", "weight": 2},
        {"url": "http://10.0.0.2:8080", "weight": 1},
        {"url": "http://10.0.0.3:8080", "weight": 1},
    ]


def test_quarantined_agents_get_no_traffic_and_cordoned_ones_keep_it() -> None:
    """Only the state quarantined takes an agent out."""
    look = lookup(agent("a", "10.0.0.1", state="quarantined"), agent("b", "10.0.0.2", state="cordoned"))
    shares = [{"agent": "a", "port": 80}, {"agent": "b", "port": 80}]
    assert balancer(look, backends=shares)["servers"] == [{"url": "http://10.0.0.2:80"}]


@pytest.mark.parametrize(
    ("backend", "url"),
    [
        ({"deployment": "web", "port": 80}, "http://127.0.0.1:8080"),
        ({"deployment": "web", "portName": "admin"}, "http://127.0.0.1:9090"),
    ],
)
def test_a_deployments_port_is_picked_by_container_port_or_name(backend: dict[str, Any], url: str) -> None:
    """The server is at the host port that is mapped."""
    ports = [{"container": 80, "host": 8080}, {"container": 81, "host": 9090, "name": "admin"}]
    look = lookup(deployments={("shop", "web"): deployment(agents=["vps-1"], ports=ports)})
    assert balancer(look, backends=[backend])["servers"] == [{"url": url}]


def test_health_check_sticky_and_host_header() -> None:
    """They are options of the one load balancer; what is left out follows the fleet or the kind of route."""
    look = lookup(fleet=fleet(defaults={"healthInterval": "7s"}))
    found = balancer(
        look,
        tls={"mode": "none"},
        healthCheck={"path": "/up", "status": 204, "headers": {"X-Probe": "yes"}},
        sticky={"maxAge": 60},
        passHostHeader=False,
    )
    assert found["healthCheck"] == {
        "path": "/up",
        "interval": "7s",
        "timeout": "3s",
        "followRedirects": False,
        "status": 204,
        "headers": {"X-Probe": "yes"},
    }
    assert found["sticky"] == {
        "cookie": {"name": "shop_web", "secure": False, "httpOnly": True, "sameSite": "lax", "maxAge": 60}
    }
    assert found["passHostHeader"] is False


def test_a_transport_of_its_own() -> None:
    """Scheme https and time-outs make a transport named like the route."""
    transport = {"scheme": "https", "serverName": "in.test", "dialTimeout": "1s", "responseHeaderTimeout": "9s"}
    found = http(transport=transport)
    assert found["http.services"]["shop_web"]["loadBalancer"] == {
        "servers": [{"url": "https://127.0.0.1:8081"}],
        "serversTransport": "shop_web",
    }
    assert found["http.serversTransports"]["shop_web"] == {
        "serverName": "in.test",
        "forwardingTimeouts": {"dialTimeout": "1s", "idleConnTimeout": "90s", "responseHeaderTimeout": "9s"},
    }


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ({"backends": [{"agent": "vsp-1", "port": 80}]}, "unknown-agent", ("spec", "backends", 0, "agent")),
        ({"backends": [{"deployment": "api"}]}, "unknown-deployment", ("spec", "backends", 0, "deployment")),
        ({"backends": [*BACKENDS, {"deployment": "web"}]}, "ambiguous-port", ("spec", "backends", 1, "deployment")),
        ({"backends": [{"deployment": "web", "port": 5}]}, "unknown-port", ("spec", "backends", 0, "port")),
        ({"backends": [{"deployment": "web", "portName": "x"}]}, "unknown-port", ("spec", "backends", 0, "portName")),
        ({"backends": [{"deployment": "none"}]}, "unknown-port", ("spec", "backends", 0, "deployment")),
        (
            {"middlewares": [{"compress": {}}, {"basicAuth": {"secret": {"name": "x", "key": "y"}}}]},
            "unknown-secret",
            ("spec", "middlewares", 1, "basicAuth", "secret"),
        ),
        (
            {"middlewares": [{"redirect": {"host": "web.app.cloudlunacy.test"}}]},
            "redirect-loop",
            ("spec", "middlewares", 0, "redirect", "host"),
        ),
        (
            {"middlewares": [{"maintenance": {"page": {"agent": "gone", "port": 1}}}]},
            "unknown-agent",
            ("spec", "middlewares", 0, "maintenance", "page", "agent"),
        ),
        ({"type": "tcp", "entryPoint": "mail", "hostnames": ["a.test"]}, "unknown-entry-point", ("spec", "entryPoint")),
        ({"type": "mongodb", "transport": {"scheme": "h2c"}}, "invalid-transport", ("spec", "transport", "scheme")),
        (
            {"type": "mongodb", "tls": {"mode": "passthrough"}, "transport": {"scheme": "https"}},
            "invalid-transport",
            ("spec", "transport", "scheme"),
        ),
    ],
)
def test_what_cannot_be_resolved_names_code_and_field(
    spec: dict[str, Any], code: str, field: tuple[str | int, ...]
) -> None:
    """Each contradiction is a CompileProblem with a message for people."""
    two = deployment(agents=["vps-1"], ports=[{"container": 80, "host": 8080}, {"container": 81, "host": 8081}])
    none = deployment("none", agents=["vps-1"])
    look = lookup(deployments={("shop", "web"): two, ("shop", "none"): none})
    with pytest.raises(CompileProblem) as caught:
        compiled(route(**{"backends": BACKENDS, **spec}), look)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.message


def tcp(look: FakeLookup | None = None, **spec: Any) -> dict[str, dict[str, Any]]:
    look = look or lookup(fleet=fleet(entryPoints={"tcp": {"mail": "smtps"}}))
    return compiled(
        route("mail", **{"type": "tcp", "entryPoint": "mail", "backends": BACKENDS, **spec}), look, name="mail"
    )


def test_a_tcp_route_by_server_name() -> None:
    """TLS ends at Traefik; the health check is a connection."""
    assert tcp(hostnames=["mail.test"], healthCheck={"interval": "5s"}) == {
        "tcp.routers": {
            "shop_mail": {
                "entryPoints": ["smtps"],
                "rule": "HostSNI(`mail.test`)",
                "priority": 3000,
                "service": "shop_mail",
                "tls": {},
            }
        },
        "tcp.services": {
            "shop_mail": {
                "loadBalancer": {
                    "servers": [{"address": "127.0.0.1:8081"}],
                    "serversTransport": "cloudlunacy__default",
                    "healthCheck": {"interval": "5s", "timeout": "3s"},
                }
            }
        },
    }


def test_a_plain_tcp_route_owns_its_entry_point() -> None:
    """Without TLS there are no names: the rule is HostSNI(*)."""
    router = tcp(tls={"mode": "none"})["tcp.routers"]["shop_mail"]
    assert (router["rule"], "tls" in router) == ("HostSNI(`*`)", False)


def test_passthrough_and_tls_to_the_backend() -> None:
    """passthrough is a key of the router; scheme https makes the servers TLS."""
    assert tcp(hostnames=["a.test"], tls={"mode": "passthrough"})["tcp.routers"]["shop_mail"]["tls"] == {
        "passthrough": True
    }
    found = tcp(hostnames=["a.test"], transport={"scheme": "https", "serverName": "in.test"})
    assert found["tcp.services"]["shop_mail"]["loadBalancer"]["servers"] == [{"address": "127.0.0.1:8081", "tls": True}]
    assert found["tcp.serversTransports"] == {"shop_mail": {"dialTimeout": "5s", "tls": {"serverName": "in.test"}}}


def test_tcp_weights_are_those_of_services() -> None:
    """TCP servers have no weight, so uneven shares make a weighted service."""
    look = lookup(agent("a", "10.0.0.1"), agent("b", "10.0.0.2"), fleet=fleet(entryPoints={"tcp": {"mail": "smtps"}}))
    shares = [{"agent": "a", "port": 25, "weight": 3}, {"agent": "b", "port": 25}]
    services = tcp(look, hostnames=["a.test"], backends=shares)["tcp.services"]
    assert services["shop_mail"] == {
        "weighted": {
            "services": [{"name": "shop_mail_backend-1", "weight": 3}, {"name": "shop_mail_backend-2", "weight": 1}]
        }
    }
    assert set(services) == {"shop_mail", "shop_mail_backend-1", "shop_mail_backend-2"}


def test_a_mongodb_route_answers_at_its_agents_name() -> None:
    """The host is <agent>.mongodb.<domain> on the fleet's mongodb entry point, always TLS."""
    found = compiled(route("db", type="mongodb", backends=[{"agent": "vps-1", "port": 27117}]), name="db")
    assert found["tcp.routers"] == {
        "shop_db": {
            "entryPoints": ["mongodb"],
            "rule": "HostSNI(`vps-1.mongodb.cloudlunacy.test`)",
            "priority": 3000,
            "service": "shop_db",
            "tls": {},
        }
    }


def test_middlewares_of_connections() -> None:
    """Routes of types tcp and mongodb limit who connects and how often; all routers of a route share the objects."""
    chain = [{"ipAllowList": {"ranges": ["10.0.0.0/8"]}}, {"connectionLimit": {"amount": 5}}]
    objects = {
        "shop_mail_ip-allow-list-1": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"]}},
        "shop_mail_connection-limit-2": {"inFlightConn": {"amount": 5}},
    }
    found = tcp(hostnames=["a.test"], middlewares=chain)
    assert found["tcp.middlewares"] == objects
    assert found["tcp.routers"]["shop_mail"]["middlewares"] == list(objects)

    look = lookup(agent("a", "10.0.0.1"), agent("b", "10.0.0.2"))
    shares = [{"agent": "a", "port": 27017}, {"agent": "b", "port": 27017}]
    databases = route("mail", type="mongodb", backends=shares, middlewares=chain)
    found = compiled(databases, look, name="mail")
    assert found["tcp.middlewares"] == objects
    assert [one["middlewares"] for one in found["tcp.routers"].values()] == [list(objects)] * 2


def test_a_mongodb_route_of_several_agents_has_a_router_for_each() -> None:
    """Each agent's database has its own name and its own service."""
    look = lookup(agent("a", "10.0.0.1"), agent("b", "10.0.0.2"))
    shares = [{"agent": "a", "port": 27017}, {"agent": "b", "port": 27017}]
    found = compiled(route("db", type="mongodb", backends=shares), look, name="db")
    assert {name: value["rule"] for name, value in found["tcp.routers"].items()} == {
        "shop_db_a": "HostSNI(`a.mongodb.cloudlunacy.test`)",
        "shop_db_b": "HostSNI(`b.mongodb.cloudlunacy.test`)",
    }
    assert found["tcp.services"]["shop_db_b"]["loadBalancer"]["servers"] == [{"address": "10.0.0.2:27017"}]


def test_unknown_names_meet_a_service_without_servers() -> None:
    """Catch-alls of priority 1, with and without TLS, on the mongodb entry point and those that read TLS names."""
    example = fleet(entryPoints={"tcp": {"mail": "smtps", "plain": "telnet"}})
    found = by_section(catch_all(example, tls_entry_points={"mail"}))
    assert {
        (value["entryPoints"][0], value["priority"], "tls" in value) for value in found["tcp.routers"].values()
    } == {("mongodb", 1, True), ("mongodb", 1, False), ("smtps", 1, True), ("smtps", 1, False)}
    assert found["tcp.services"] == {"cloudlunacy__nowhere": {"loadBalancer": {"servers": []}}}
    assert found["tls.options"] == {"default": {"minVersion": "VersionTLS12"}}


def test_an_agent_proves_its_own_name() -> None:
    """scheme https without serverName: the agent's name, signed by the fleet's own authority."""
    found = http(transport={"scheme": "https", "dialTimeout": "1s"})
    assert found["http.services"]["shop_web"]["loadBalancer"]["serversTransport"] == "shop_web"
    assert found["http.serversTransports"]["shop_web"] == {
        "forwardingTimeouts": {"dialTimeout": "1s", "idleConnTimeout": "90s"},
        "serverName": "vps-1.agents.cloudlunacy.test",
        "rootCAs": ["cloudlunacy__roots"],
    }
    database = route("db", type="mongodb", backends=BACKENDS, transport={"scheme": "https"})
    assert compiled(database, name="db")["tcp.serversTransports"]["shop_db"]["tls"] == {
        "serverName": "vps-1.agents.cloudlunacy.test",
        "rootCAs": ["cloudlunacy__roots"],
    }
    assert agent_host("vps-1", "cloudlunacy.test") == profiles.agent_host("cloudlunacy.test", "vps-1")


def test_each_of_several_agents_proves_its_own_name() -> None:
    """One load balancer checks one name, so there is a weighted service of one for each agent."""
    shares = [
        {"agent": "a", "port": 80, "weight": 3},
        {"agent": "b", "port": 80},
        {"agent": "b", "port": 81, "weight": 2},
    ]
    look = lookup(agent("a", "10.0.0.1"), agent("b", "10.0.0.2"), fleet=fleet(entryPoints={"tcp": {"mail": "smtps"}}))
    spec: dict[str, Any] = {"backends": shares, "transport": {"scheme": "https"}}
    found = compiled(route(**spec, sticky={}, healthCheck={}), look)
    weighted = found["http.services"]["shop_web"]["weighted"]
    assert weighted["services"] == [{"name": "shop_web_a", "weight": 3}, {"name": "shop_web_b", "weight": 3}]
    assert (weighted["sticky"]["cookie"]["name"], weighted["healthCheck"]) == ("shop_web", {})
    balancer = found["http.services"]["shop_web_b"]["loadBalancer"]
    assert balancer["servers"] == [
        {"url": "https://10.0.0.2:80", "weight": 1},
        {"url": "https://10.0.0.2:81", "weight": 2},
    ]
    assert (balancer["serversTransport"], balancer["sticky"]["cookie"]["name"]) == ("shop_web_b", "shop_web_b")
    names = {name: one["serverName"] for name, one in found["http.serversTransports"].items()}
    assert names == {f"shop_web_{one}": f"{one}.agents.cloudlunacy.test" for one in "ab"}

    found = tcp(look, hostnames=["a.test"], **spec)
    assert found["tcp.services"]["shop_mail"]["weighted"]["services"] == [
        {"name": "shop_mail_a", "weight": 3},
        {"name": "shop_mail_b", "weight": 3},
    ]
    assert {name: one["tls"]["serverName"] for name, one in found["tcp.serversTransports"].items()} == {
        f"shop_mail_{one}": f"{one}.agents.cloudlunacy.test" for one in "ab"
    }


def test_only_tcp_routes_with_tls_read_names() -> None:
    """tls_entry_point tells the caller for which entry points a catch-all is safe."""
    assert tls_entry_point(route(type="tcp", entryPoint="mail", hostnames=["a.test"], backends=BACKENDS)) == "mail"
    assert tls_entry_point(route(type="tcp", entryPoint="mail", tls={"mode": "none"}, backends=BACKENDS)) is None
    assert tls_entry_point(route(backends=BACKENDS)) is None


def test_our_own_names_cannot_be_a_teams() -> None:
    """Reserved names have an empty middle where a team's object has the route's name."""
    assert marker(7, "0123456789abcdef" * 2).name == "cloudlunacy__generation-7-0123456789ab"
    assert all(
        name.startswith("cloudlunacy__") or name == "default" for _, name, _ in catch_all(fleet(), tls_entry_points=())
    )
