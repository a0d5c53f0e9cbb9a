"""For all fleets and all that is seen of them: declared, moved and taken out, and nothing else."""

from __future__ import annotations

from typing import Any, Final, cast

from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.observed import AgentPlacements, Placement, Placements, affected, observed
from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.traefik.templates import load_templates
from schemas.objects import ObjectKey
from schemas.route import Route
from tests.support import documents

AGENTS: Final = {"vps-1": "192.0.2.1", "vps-2": "192.0.2.2", "vps-3": "192.0.2.2"}
"""Two of them have one address."""
PORTS: Final = (8081, 8082, 27117)
RENDERER: Final = Renderer(load_templates())
SHARES: Final = st.sampled_from(["full", "none", "gone"])
PLACEMENT: Final = st.builds(Placement, st.sampled_from([8081, 8082, 27117, 20001, 29999]), SHARES)
SEEN: Final = st.dictionaries(
    st.sampled_from([*AGENTS, "vps-9"]),
    st.builds(AgentPlacements, st.dictionaries(st.sampled_from([*PORTS, 1]), PLACEMENT), SHARES),
)
BACKEND: Final = st.fixed_dictionaries(
    {"agent": st.sampled_from(list(AGENTS)), "port": st.sampled_from(PORTS), "weight": st.integers(0, 3)}
)
ROUTE: Final = st.one_of(
    st.fixed_dictionaries({"type": st.just("http"), "transport": st.sampled_from([{}, {"scheme": "https"}])}),
    st.just({"type": "http", "sticky": {}, "healthCheck": {"path": "/"}}),
    st.just({"type": "tcp", "entryPoint": "events", "tls": {"mode": "none"}}),
    st.just({"type": "mongodb"}),
)


@st.composite
def states(draw: st.DrawFn) -> State:
    """One route, any backends."""
    spec = draw(ROUTE)
    backends = draw(st.lists(BACKEND, min_size=1, max_size=5, unique_by=lambda one: (one["agent"], one["port"])))
    files: dict[str, bytes | None] = {
        "fleet.yaml": documents.fleet(
            documents.team("shop", agents=list(AGENTS)), entryPoints={"tcp": {"events": "events"}}
        ),
        **{f"agents/{name}.yaml": documents.agent(name, address=host) for name, host in AGENTS.items()},
        "routes/shop/web.yaml": documents.document("Route", "web", {**spec, "backends": backends}),
    }
    return documents.state_of(files)


def shown(state: State, placements: Placements) -> dict[ObjectKey, TraefikObjects]:
    view, found = state.view(), {}
    for key, one in state.objects.items():
        if isinstance(one, Route):
            found[key] = observed(key, one, state.compiled[key], view, placements)
    return found


def addresses(objects: TraefikObjects) -> list[str]:
    found = []
    for one in objects:
        if one.section.endswith(".services"):
            servers = cast("dict[str, Any]", one.value).get("loadBalancer", {}).get("servers", ())
            found += [server.get("address") or server["url"].partition("://")[2] for server in servers]
    return found


@given(states(), SEEN)
def test_only_ports_change_and_nothing_comes_that_was_not_there(state: State, placements: Placements) -> None:
    """Each address has a host that the route had, routers stay, and what comes out can be rendered."""
    for key, objects in shown(state, placements).items():
        compiled = state.compiled[key]
        hosts = {address.rpartition(":")[0] for address in addresses(compiled)}
        assert {address.rpartition(":")[0] for address in addresses(objects)} <= hosts
        assert [(one.section, one.name) for one in objects] == [(one.section, one.name) for one in compiled]
        assert [one for one in objects if not one.section.endswith(".services")] == [
            one for one in compiled if not one.section.endswith(".services")
        ]
        RENDERER.fragments(objects)


@given(states(), SEEN)
def test_what_is_taken_back_leaves_no_trace(state: State, placements: Placements) -> None:
    """In, out and in again gives the very objects that were compiled, which never change."""
    before = {key: RENDERER.fragments(objects) for key, objects in state.compiled.items()}
    shown(state, placements)
    assert {key: RENDERER.fragments(objects) for key, objects in state.compiled.items()} == before
    assert all(objects is state.compiled[key] for key, objects in shown(state, {}).items())


@given(states(), SEEN, st.randoms())
def test_the_order_in_which_agents_are_seen_does_not_matter(state: State, placements: Placements, random: Any) -> None:
    """Neither of agents nor of ports."""
    mixed = {}
    for name in random.sample(sorted(placements), len(placements)):
        ports = placements[name].ports
        mixed[name] = AgentPlacements(
            {port: ports[port] for port in random.sample(sorted(ports), len(ports))}, placements[name].share
        )
    assert shown(state, mixed) == shown(state, placements)


@given(states(), SEEN, SEEN)
def test_what_is_not_affected_stays_the_same(state: State, before: Placements, after: Placements) -> None:
    """Rendering only the affected routes again gives what rendering everything would."""
    touched = affected(state, before, after)
    old, new = shown(state, before), shown(state, after)
    assert {key for key in new if old[key] != new[key]} <= touched


@given(states(), SEEN)
def test_an_agent_that_is_out_gets_nothing(state: State, placements: Placements) -> None:
    """Whatever else is seen, no weight is left for an address that only agents have that are out."""
    out = {name: AgentPlacements(placements[name].ports if name in placements else {}, "none") for name in AGENTS}
    for objects in shown(state, out).values():
        for one in objects:
            value = cast("dict[str, Any]", one.value)
            for server in value.get("loadBalancer", {}).get("servers", ()):
                assert one.section == "http.services"
                assert server["weight"] == 0
            assert all(member["weight"] == 0 for member in value.get("weighted", {}).get("services", ()))
