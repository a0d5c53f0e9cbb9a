"""What is seen of endpoints, put into compiled routes."""

from __future__ import annotations

from typing import Any

from reconciler.desired.observed import (
    AS_DECLARED,
    GONE,
    AgentPlacements,
    Assigned,
    Placement,
    Placements,
    Share,
    affected,
    missing_agents,
    observed,
    placed,
    ports_led_to,
)
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObjects
from schemas.objects import ObjectKey
from schemas.route import Route
from tests.support import documents

WEB = ObjectKey("Route", "shop", "web")
FILES: dict[str, bytes | None] = {
    "fleet.yaml": documents.fleet(entryPoints={"tcp": {"events": "events"}}),
    "agents/vps-1.yaml": documents.agent("vps-1", address="192.0.2.1"),
    "agents/vps-2.yaml": documents.agent("vps-2", address="192.0.2.2"),
    "deployments/shop/web.yaml": documents.document(
        "Deployment",
        "web",
        {
            "type": "container",
            "image": "web:1",
            "agents": ["vps-1", "vps-2"],
            "ports": [{"container": 8080, "host": 8081}],
        },
    ),
}


def state(**spec: Any) -> State:
    return documents.state_of(FILES | {"routes/shop/web.yaml": route(**spec)})


def route(**spec: Any) -> bytes:
    return documents.document("Route", "web", {"type": "http", "backends": [{"deployment": "web"}], **spec})


def seen(agent: str = "vps-1", port: int = 8081, actual: int = 8081, share: Share = "full") -> Placements:
    return {agent: AgentPlacements({port: Placement(actual, share)})}


def shown(found: State, placements: Placements, key: ObjectKey = WEB) -> TraefikObjects:
    one = found.objects[key]
    assert isinstance(one, Route)
    return observed(key, one, found.compiled[key], found.view(), placements)


def value(objects: TraefikObjects, name: str = "shop_web", kind: str = "services") -> Any:
    return next(one.value for one in objects if one.name == name and one.section.endswith(kind))


def servers(objects: TraefikObjects, name: str = "shop_web") -> Any:
    return value(objects, name)["loadBalancer"]["servers"]


def test_nothing_seen_changes_nothing() -> None:
    """Where no agent tells anything fronts get the very objects that were compiled."""
    found = state()
    assert shown(found, AS_DECLARED) is found.compiled[WEB]
    assert shown(found, seen("vps-9")) is found.compiled[WEB]
    assert shown(found, seen(port=9999)) is found.compiled[WEB]


def test_a_server_goes_where_the_agent_says() -> None:
    """Only the port of its address is another."""
    found = state()
    assert servers(shown(found, seen(actual=20007))) == [
        {"url": "http://192.0.2.1:20007"},
        {"url": "http://192.0.2.2:8081"},
    ]
    assert servers(found.compiled[WEB]) == [{"url": "http://192.0.2.1:8081"}, {"url": "http://192.0.2.2:8081"}]


def test_a_server_loses_its_weight_and_then_its_place() -> None:
    """The others keep theirs."""
    found = state()
    assert servers(shown(found, seen(share="none"))) == [
        {"url": "http://192.0.2.1:8081", "weight": 0},
        {"url": "http://192.0.2.2:8081"},
    ]
    assert servers(shown(found, seen(share="gone"))) == [{"url": "http://192.0.2.2:8081"}]


def test_what_holds_for_an_agent_holds_for_all_its_ports() -> None:
    """Whatever is seen of a single port: drained is drained."""
    found = state()
    drained = {"vps-1": AgentPlacements({8081: Placement(20001)}, "none")}
    assert servers(shown(found, drained))[0] == {"url": "http://192.0.2.1:20001", "weight": 0}
    assert servers(shown(found, {"vps-1": GONE, "vps-2": GONE})) == []


def test_agents_that_have_one_address_answer_at_all_their_ports() -> None:
    """One of which nothing is seen is as declared, and a port at which two answer stays while one of them is well."""
    files = FILES | {"agents/vps-2.yaml": documents.agent("vps-2", address="192.0.2.1")}
    found = documents.state_of(files | {"routes/shop/web.yaml": route()})
    assert servers(shown(found, seen(share="gone"))) == [{"url": "http://192.0.2.1:8081"}]
    both = {**seen(actual=20002), **seen("vps-2", actual=20001)}
    assert servers(shown(found, both)) == [{"url": "http://192.0.2.1:20002"}, {"url": "http://192.0.2.1:20001"}]
    one_out = {**seen(share="gone"), **seen("vps-2", actual=20001)}
    assert servers(shown(found, one_out)) == [{"url": "http://192.0.2.1:20001"}]
    assert servers(shown(found, {**seen(share="gone"), **seen("vps-2", share="none")})) == [
        {"url": "http://192.0.2.1:8081", "weight": 0}
    ]


def test_a_weighted_member_whose_servers_are_out_loses_its_weight() -> None:
    """Traefik would answer its share of the requests with 503."""
    found = state(transport={"scheme": "https"})
    objects = shown(found, seen(share="none"))
    assert value(objects)["weighted"]["services"] == [
        {"name": "shop_web_vps-1", "weight": 0},
        {"name": "shop_web_vps-2", "weight": 1},
    ]
    assert servers(objects, "shop_web_vps-1") == [{"url": "https://192.0.2.1:8081", "weight": 0}]
    objects = shown(found, seen(share="gone"))
    assert value(objects)["weighted"]["services"] == [{"name": "shop_web_vps-2", "weight": 1}]


def test_servers_of_tcp_go_at_once_and_their_weighted_services_lose_weight() -> None:
    """Servers of TCP have no weights."""
    tcp = {"type": "tcp", "entryPoint": "events", "tls": {"mode": "none"}}
    found = state(**tcp)
    assert servers(shown(found, seen(share="none"))) == [{"address": "192.0.2.2:8081"}]
    backends = [{"agent": "vps-1", "port": 8081, "weight": 3}, {"agent": "vps-2", "port": 8081, "weight": 1}]
    objects = shown(state(**tcp, backends=backends), seen(share="none"))
    assert [one["weight"] for one in value(objects)["weighted"]["services"]] == [0, 1]
    objects = shown(state(**tcp, backends=backends), {**seen(share="gone"), **seen("vps-2", share="gone")})
    assert value(objects)["weighted"]["services"] == []


def test_a_database_is_reached_at_its_port_and_its_name_stays() -> None:
    """A route for MongoDB has a router for each agent; one whose database is out leads to nobody."""
    backends = [{"agent": "vps-1", "port": 27117}, {"agent": "vps-2", "port": 27117}]
    found = state(type="mongodb", backends=backends)
    objects = shown(found, {**seen(port=27117, actual=20003), **seen("vps-2", 27117, share="none")})
    assert servers(objects, "shop_web_vps-1") == [{"address": "192.0.2.1:20003"}]
    assert servers(objects, "shop_web_vps-2") == []
    assert [one for one in objects if one.section == "tcp.routers"] == [
        one for one in found.compiled[WEB] if one.section == "tcp.routers"
    ]


def test_who_is_asked_for_permission_is_asked_at_the_port_and_never_left_out() -> None:
    """Without somebody to ask everybody would be let in, or Traefik would refuse the middleware."""
    forward = [{"forwardAuth": {"address": {"agent": "vps-1", "port": 9000, "path": "/check"}}}]
    found = state(middlewares=forward)
    for share in ("full", "none", "gone"):
        objects = shown(found, seen(port=9000, actual=20009, share=share))
        middleware = value(objects, "shop_web_forward-auth-1", "middlewares")
        assert middleware["forwardAuth"]["address"] == "http://192.0.2.1:20009/check"


def test_backends_of_an_agent_that_was_deleted_go() -> None:
    """Its route keeps its last good version, in which the address still stands."""
    backends = [{"agent": "vps-1", "port": 8000}, {"agent": "vps-2", "port": 8000}]
    before = documents.state_of(FILES | {"routes/shop/web.yaml": route(backends=backends)})
    after = documents.settled(before, {"agents/vps-1.yaml": None}).state
    assert after.served[WEB].retained
    assert missing_agents(after) == {"vps-1"}
    assert servers(shown(after, {"vps-1": GONE})) == [{"url": "http://192.0.2.2:8000"}]
    assert affected(after, AS_DECLARED, {"vps-1": GONE}) == {WEB}


def test_backends_of_an_agent_in_quarantine_go_from_a_last_good_version() -> None:
    """The version was compiled before the agent was kept out."""
    backends = [{"agent": "vps-1", "port": 8000}, {"agent": "vps-2", "port": 8000}]
    before = documents.state_of(FILES | {"routes/shop/web.yaml": route(backends=backends)})
    broken = {"routes/shop/web.yaml": route(backends=[{"agent": "vps-7", "port": 1}])}
    kept = documents.settled(before, broken).state
    out = documents.agent("vps-1", address="192.0.2.1", state="quarantined")
    after = documents.settled(kept, {"agents/vps-1.yaml": out}).state
    assert servers(shown(after, seen("vps-3"))) == [{"url": "http://192.0.2.2:8000"}]


def test_only_routes_that_lead_to_what_changed_are_affected() -> None:
    """Another route of the same agent keeps its text."""
    other = documents.route("other", "other.app.cloudlunacy.test", backends=[{"agent": "vps-1", "port": 9090}])
    found = documents.state_of(FILES | {"routes/shop/web.yaml": route(), "routes/shop/other.yaml": other})
    assert affected(found, AS_DECLARED, seen()) == {WEB}
    assert affected(found, seen(), seen()) == set()
    assert affected(found, seen(), seen(actual=20001)) == {WEB}
    assert affected(found, seen(), {}) == {WEB}
    assert affected(found, {}, {"vps-1": GONE}) == {WEB, ObjectKey("Route", "shop", "other")}
    assert affected(found, {}, {}, [ObjectKey("Deployment", "shop", "web")]) == set()
    assert affected(found, seen(), seen(), [ObjectKey("Deployment", "shop", "web")]) == {WEB}


def test_deployments_that_choose_their_agents_by_label_count_as_well() -> None:
    """Their routes lead to what they chose."""
    chosen = documents.document(
        "Deployment",
        "web",
        {
            "type": "container",
            "image": "web:1",
            "agentSelector": {"tier": "edge"},
            "ports": [{"container": 8080, "host": 8081}],
        },
    )
    edge = documents.agent("vps-1", address="192.0.2.1", labels={"tier": "edge"})
    files = FILES | {"deployments/shop/web.yaml": chosen, "agents/vps-1.yaml": edge}
    found = documents.state_of(files | {"routes/shop/web.yaml": route()})
    assert affected(found, {}, seen()) == {WEB}
    assert servers(shown(found, seen(actual=20001))) == [{"url": "http://192.0.2.1:20001"}]
    assert ports_led_to(found, "vps-1") == {8081}
    assert ports_led_to(found, "vps-2") == frozenset()


def test_addresses_of_version_6_keep_their_brackets() -> None:
    """Only what follows the last colon is a port."""
    service = next(one for one in state().compiled[WEB] if one.section == "http.services")
    compiled = service._replace(value={"loadBalancer": {"servers": [{"url": "http://[2001:db8::1]:8081"}]}})
    (one,) = placed((compiled,), {"[2001:db8::1]:8081": (Placement(20001),)})
    assert one.value == {"loadBalancer": {"servers": [{"url": "http://[2001:db8::1]:20001"}]}}


def test_git_says_which_ports_a_deployment_has_where() -> None:
    """Nothing where it does not run, and nothing for what is not there."""
    assigned = Assigned(state())
    assert assigned("vps-1", ("shop", "web")) == {8081}
    assert assigned("vps-3", ("shop", "web")) == frozenset()
    assert assigned("vps-1", ("shop", "other")) == frozenset()
    assert assigned("vps-1", ("shop", "web")) == {8081}


def test_what_git_says_of_an_unchanged_deployment_is_not_asked_again() -> None:
    """Of one that has changed it is, also where only its label chose another agent."""
    first = state()
    before = Assigned(first)
    assert before("vps-1", ("shop", "web")) == {8081}
    other = documents.deployment("web", "vps-1", port=9000)
    second = documents.settled(first, {"deployments/shop/web.yaml": other}).state
    after = Assigned(second, before)
    assert after("vps-1", ("shop", "web")) == {9000}
    assert after("vps-2", ("shop", "web")) == frozenset()
    third = documents.settled(second, {"agents/vps-2.yaml": None}).state
    assert Assigned(third, after)("vps-1", ("shop", "web")) == {9000}
