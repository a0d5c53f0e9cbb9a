"""Which objects go into service, which stay out, and what stays in their place."""

from __future__ import annotations

from typing import Final

import pytest

from reconciler.desired.finding import Finding
from reconciler.desired.state import State
from schemas.objects import FLEET_KEY, ObjectKey
from schemas.route import Route
from tests.support.documents import (
    agent,
    blob_of,
    certificate,
    codes,
    deployment,
    document,
    fleet,
    problems_of,
    route,
    secret,
    settled,
    state_of,
    team,
)

WEB: Final = "routes/shop/web.yaml"
WEB_KEY: Final = ObjectKey("Route", "shop", "web")
HOST: Final = "web.app.cloudlunacy.test"
BASE: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"]), team("data", agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}),
    "agents/vps-2.yaml": agent("vps-2"),
    WEB: route("web", HOST),
}


def test_a_misspelt_agent_is_told_with_line_column_and_the_right_name() -> None:
    """The sentence that a person reads on a pull request, word for word."""
    content = b"""\
apiVersion: cloudlunacy/v1
kind: Route
metadata: {name: web}
spec:
  type: http
  backends:
    - {agent: vsp-1, port: 8081}
"""
    files = {**BASE, WEB: content}
    (problem,) = problems_of(state_of(files), files)
    assert str(problem) == (
        'routes/shop/web.yaml:7:15 unknown-agent: backend names agent "vsp-1", which does not exist. '
        'Did you mean "vps-1"?'
    )


def test_a_good_tree_is_served_without_a_word() -> None:
    """Every file is in service at its blob, and every route is compiled."""
    state = state_of(BASE)
    assert codes(state) == {}
    assert {key.path: one.blob for key, one in state.served.items()} == {
        path: blob_of(content) for path, content in BASE.items()
    }
    assert set(state.compiled) == {WEB_KEY}


@pytest.mark.parametrize("broken", [b"a: [", b"", route("wob"), route("web", "foreign.example.test")])
def test_a_broken_file_leaves_its_last_good_version_in_service(broken: bytes) -> None:
    """The route goes on as it was compiled, and the file is reported."""
    before = state_of(BASE)
    after = settled(before, {WEB: broken})
    assert after.state.served[WEB_KEY].object == before.served[WEB_KEY].object
    assert after.state.served[WEB_KEY].retained
    assert after.state.compiled == before.compiled
    assert list(after.state.quarantined) == [WEB]
    assert after.touched == frozenset()


def test_a_repaired_file_is_served_again() -> None:
    """Findings go with the mistake; what is as before touches nothing."""
    broken = settled(state_of(BASE), {WEB: b"a: ["}).state
    repaired = settled(broken, {WEB: BASE[WEB]})
    assert codes(repaired.state) == {}
    assert not repaired.state.served[WEB_KEY].retained
    assert repaired.touched == frozenset()


def test_a_broken_file_that_is_deleted_takes_its_object_out_of_service() -> None:
    """A retained object is deleted like any other."""
    broken = settled(state_of(BASE), {WEB: b"a: ["}).state
    gone = settled(broken, {WEB: None})
    assert WEB_KEY not in gone.state.served
    assert codes(gone.state) == {}
    assert gone.touched == {WEB_KEY}


def test_a_new_comment_touches_nothing() -> None:
    """Another blob of an equal object changes nothing that anybody runs."""
    after = settled(state_of(BASE), {WEB: BASE[WEB] + b"\n# note\n"})
    assert after.touched == frozenset()
    assert after.state.served[WEB_KEY].blob == blob_of(BASE[WEB] + b"\n# note\n")


def test_a_deleted_agent_quarantines_its_routes_but_they_go_on() -> None:
    """The route keeps the address that the agent had; it is told at the route's file."""
    before = state_of(BASE)
    after = settled(before, {"agents/vps-1.yaml": None}).state
    assert ObjectKey("Agent", "", "vps-1") not in after.served
    assert codes(after) == {WEB: ["unknown-agent"]}
    assert after.compiled == before.compiled


def test_a_returning_agent_frees_what_waited_for_it() -> None:
    """Quarantined objects are judged again when something else changes; with another address they follow it."""
    gone = settled(state_of(BASE), {"agents/vps-1.yaml": None}).state
    back = settled(gone, {"agents/vps-1.yaml": agent("vps-1", address="10.0.0.9")})
    assert codes(back.state) == {}
    assert "10.0.0.9" in str(back.state.compiled[WEB_KEY])
    assert back.touched == {WEB_KEY, ObjectKey("Agent", "", "vps-1")}


def test_a_route_through_a_deployment_keeps_its_servers_when_the_agent_goes() -> None:
    """What hangs on a quarantined deployment is retained with it, instead of being compiled to nothing."""
    files = {
        **BASE,
        "deployments/shop/web.yaml": deployment("web", "vps-1"),
        WEB: route("web", backends=[{"deployment": "web"}]),
    }
    before = state_of(files)
    after = settled(before, {"agents/vps-1.yaml": None}).state
    assert codes(after) == {"deployments/shop/web.yaml": ["unknown-agent"], WEB: ["unknown-agent"]}
    assert after.compiled == before.compiled


def test_a_retained_selector_does_not_spread_to_new_agents() -> None:
    """A deployment that may not run on a new agent stays on those that it was checked for."""
    files = {
        **BASE,
        "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2", "vps-3"])),
        "deployments/shop/web.yaml": deployment("web", agentSelector={"region": "ams"}),
        WEB: route("web", backends=[{"deployment": "web"}]),
    }
    before = state_of(files)
    after = settled(
        before, {"agents/vps-3.yaml": agent("vps-3", labels={"region": "ams"}, capabilities=["process"])}
    ).state
    key = ObjectKey("Deployment", "shop", "web")
    assert codes(after) == {key.path: ["agent-lacks-capability"]}
    assert after.selected == {key: ("vps-1",)}
    assert after.compiled == before.compiled


def test_a_selector_follows_the_labels() -> None:
    """A deployment runs on an agent that got the label, and its routes lead there too."""
    files = {
        **BASE,
        "deployments/shop/web.yaml": deployment("web", agentSelector={"region": "ams"}),
        WEB: route("web", backends=[{"deployment": "web"}]),
    }
    after = settled(
        state_of(files), {"agents/vps-2.yaml": agent("vps-2", labels={"region": "ams"}, address="10.0.0.2")}
    )
    key = ObjectKey("Deployment", "shop", "web")
    assert after.state.selected == {key: ("vps-1", "vps-2")}
    assert {key, WEB_KEY} <= after.touched
    assert "10.0.0.2" in str(after.state.compiled[WEB_KEY])


def test_a_selector_without_agents_is_a_warning_that_goes_away() -> None:
    """A warning keeps nothing out, and disappears when its reason does."""
    files = {**BASE, "deployments/shop/web.yaml": deployment("web", agentSelector={"region": "fra"})}
    state = state_of(files)
    assert codes(state) == {"deployments/shop/web.yaml": ["selects-no-agent"]}
    assert list(state.quarantined) == []
    after = settled(state, {"agents/vps-2.yaml": agent("vps-2", labels={"region": "fra"})}).state
    assert codes(after) == {}


def test_swapped_hosts_are_no_conflict() -> None:
    """Two routes that change hosts with each other in one revision are both served."""
    files = {**BASE, WEB: route("web", HOST), "routes/shop/api.yaml": route("api", "api.app.cloudlunacy.test")}
    swap = {WEB: route("web", "api.app.cloudlunacy.test"), "routes/shop/api.yaml": route("api", HOST)}
    assert codes(settled(state_of(files), swap).state) == {}


def test_who_is_in_service_keeps_the_host() -> None:
    """A newcomer does not take a host, even if its path sorts first; nothing else changes."""
    before = state_of(BASE)
    after = settled(before, {"routes/data/a.yaml": route("a", HOST)})
    assert codes(after.state) == {"routes/data/a.yaml": ["host-taken"]}
    assert after.state.compiled == before.compiled
    assert after.touched == frozenset()


def test_of_two_newcomers_the_first_path_wins_and_both_are_told() -> None:
    """Without a former state nobody knows who is right, so both ends of the conflict are named."""
    files = {**BASE, "routes/data/a.yaml": route("a", HOST)}
    state = state_of(files)
    assert codes(state) == {WEB: ["host-taken"], "routes/data/a.yaml": ["contested"]}
    assert list(state.quarantined) == [WEB]
    assert WEB in state.findings["routes/data/a.yaml"][0].message
    assert codes(settled(state, {}).state) == {WEB: ["host-taken"]}


def test_a_freed_host_goes_to_who_waits_for_it() -> None:
    """When the holder is deleted, the quarantined route takes its place in the same revision."""
    state = settled(state_of(BASE), {"routes/data/a.yaml": route("a", HOST)}).state
    after = settled(state, {WEB: None}).state
    assert codes(after) == {}
    assert ObjectKey("Route", "data", "a") in after.served


def test_a_last_good_version_takes_its_host_back() -> None:
    """Who moves away and fails gets the old host back from who took it in the same revision."""
    change = {WEB: route("web", "foreign.example.test"), "routes/data/a.yaml": route("a", HOST)}
    after = settled(state_of(BASE), change).state
    assert codes(after) == {WEB: ["host-not-owned"], "routes/data/a.yaml": ["host-taken"]}
    assert after.served[WEB_KEY].retained


def test_who_lost_to_a_loser_is_asked_again() -> None:
    """A host that turns out to be free in the end is given away in the same revision."""
    b, c = "b.app.cloudlunacy.test", "c.app.cloudlunacy.test"
    files = {**BASE, WEB: route("web", HOST), "routes/data/z.yaml": route("z", c)}
    change = {
        "routes/data/m.yaml": route("m", b, HOST),  # takes b, then loses all to web, which comes back
        "routes/data/n.yaml": route("n", b),  # lost b to m
        WEB: route("web", c),  # loses to z
    }
    after = settled(state_of(files), change).state
    assert set(after.quarantined) == {WEB, "routes/data/m.yaml"}
    assert ObjectKey("Route", "data", "n") in after.served


def test_long_chains_of_conflicts_need_no_stack() -> None:
    """A thousand routes that each move onto the next one's host all go back when the last one cannot move."""
    hosts = [f"h{number}.app.cloudlunacy.test" for number in range(1001)]
    files = {**BASE, **{f"routes/shop/r{n:04}.yaml": route(f"r{n:04}", hosts[n]) for n in range(1000)}}
    files["routes/data/last.yaml"] = route("last", hosts[1000])
    state = state_of(files)
    moved = {f"routes/shop/r{n:04}.yaml": route(f"r{n:04}", hosts[n + 1]) for n in range(1000)}
    after = settled(state, moved).state
    assert set(after.quarantined) == set(moved)
    assert after.compiled == state.compiled


def test_one_host_may_be_shared_within_a_team_by_path() -> None:
    """Routes of a team with different paths, methods or headers live at one host; of two teams never."""
    own = {**BASE, "routes/shop/api.yaml": route("api", HOST, paths=[{"prefix": "/api"}])}
    assert codes(state_of(own)) == {}
    foreign = settled(state_of(BASE), {"routes/data/api.yaml": route("api", HOST, paths=[{"prefix": "/api"}])}).state
    assert codes(foreign) == {"routes/data/api.yaml": ["host-taken"]}


def test_a_wildcard_of_another_team_is_a_conflict() -> None:
    """No team answers below or above the host of another."""
    files = {**BASE, "routes/data/any.yaml": route("any", "*.app.cloudlunacy.test")}
    assert codes(settled(state_of(BASE), files).state) == {"routes/data/any.yaml": ["host-taken"]}


def test_what_traefik_refused_stays_out() -> None:
    """The loop hands in what the throwaway Traefik named; the last good version goes on."""
    before = state_of(BASE)
    finding = Finding(WEB, "refused-by-traefik", "no")
    after = settled(before, {WEB: route("web", "new.app.cloudlunacy.test")}, refused={WEB_KEY: finding}).state
    assert after.findings == {WEB: (finding,)}
    assert after.compiled == before.compiled


def test_without_a_fleet_nothing_is_judged_and_nothing_forgotten() -> None:
    """The files wait until there is a fleet."""
    files = {path: content for path, content in BASE.items() if path != "fleet.yaml"}
    state = state_of(files)
    assert codes(state) == {"fleet.yaml": ["fleet-missing"]}
    assert state.served == {}
    after = settled(state, {"fleet.yaml": BASE["fleet.yaml"]}).state
    assert codes(after) == {}
    assert set(after.served) == set(state_of(BASE).served)


@pytest.mark.parametrize("content", [None, b"a: [", fleet(entryPoints={"http": "x", "https": "x"})])
def test_a_fleet_that_is_gone_or_wrong_stays_in_force(content: bytes | None) -> None:
    """Everything goes on, new objects are judged by the last good fleet, and its return touches nothing."""
    before = state_of(BASE)
    lost = settled(before, {"fleet.yaml": content, "routes/shop/api.yaml": route("api")})
    assert set(lost.state.findings) == {"fleet.yaml"}
    assert lost.touched == {ObjectKey("Route", "shop", "api")}
    assert lost.state.served[FLEET_KEY].retained
    back = settled(lost.state, {"fleet.yaml": BASE["fleet.yaml"]})
    assert codes(back.state) == {}
    assert back.touched == frozenset()


def test_a_revoked_grant_is_told_and_takes_nothing_down() -> None:
    """A narrower fleet quarantines what no longer fits; a person decides when it goes."""
    before = state_of(BASE)
    after = settled(before, {"fleet.yaml": fleet(team("shop", agents=["vps-2"]), team("data"))}).state
    assert codes(after) == {WEB: ["agent-not-granted"]}
    assert after.compiled == before.compiled


def test_two_agents_with_one_key_are_told_apart() -> None:
    """An identity belongs to one agent."""
    identity = {"identity": {"thumbprint": "k" * 43}}
    files = {**BASE, "agents/vps-1.yaml": agent("vps-1", **identity), "agents/vps-2.yaml": agent("vps-2", **identity)}
    assert codes(state_of(files)) == {"agents/vps-2.yaml": ["identity-taken"], "agents/vps-1.yaml": ["contested"]}


def test_a_certificate_for_the_same_name_is_a_conflict() -> None:
    """No certificate can be shown in place of another."""
    before = state_of({**BASE, "certificates/z.yaml": certificate("z", HOST)})
    after = settled(before, {"certificates/a.yaml": certificate("a", HOST)}).state
    assert codes(after) == {"certificates/a.yaml": ["certificate-taken"]}


def test_one_port_of_an_agent_belongs_to_one_deployment() -> None:
    """Across teams, too."""
    before = state_of({**BASE, "deployments/shop/web.yaml": deployment("web", "vps-1")})
    after = settled(before, {"deployments/data/a.yaml": deployment("a", "vps-1")}).state
    assert codes(after) == {"deployments/data/a.yaml": ["port-taken"]}


@pytest.mark.parametrize(
    "directory", ["/etc/tls/web", "/etc/tls", "/etc/tls/web/b", "/etc/tls/web.1/b", "/etc/TLS/Web"]
)
def test_one_directory_of_an_agent_belongs_to_one_deployment(directory: str) -> None:
    """The second team is told at its file, wherever that sorts; on another agent it may have the directory."""
    owner = deployment("web", "vps-1", tls={"directory": "/etc/tls/web"})
    before = state_of({**BASE, "deployments/shop/web.yaml": owner})
    later = deployment("a", "vps-1", port=9000, tls={"directory": directory})
    after = settled(before, {"deployments/data/a.yaml": later}).state
    assert codes(after) == {"deployments/data/a.yaml": ["directory-taken"]}
    elsewhere = deployment("a", "vps-2", port=9000, tls={"directory": directory})
    assert codes(settled(after, {"deployments/data/a.yaml": elsewhere}).state) == {}


def test_a_deployment_may_take_over_the_directory_of_one_that_goes() -> None:
    """In the same revision, so that a new name needs no detour."""
    tls = {"directory": "/etc/tls/web"}
    before = state_of({**BASE, "deployments/shop/web.yaml": deployment("web", "vps-1", tls=tls)})
    renamed = {"deployments/shop/web.yaml": None, "deployments/shop/a.yaml": deployment("a", "vps-1", tls=tls)}
    assert codes(settled(before, renamed).state) == {}


def test_a_secret_that_loses_a_key_quarantines_its_users() -> None:
    """What worked goes on with the value that it was compiled with."""
    password = [{"basicAuth": {"secret": {"name": "admins", "key": "users"}}}]
    files = {**BASE, "secrets/shop/admins.yaml": secret("admins", "users"), WEB: route("web", middlewares=password)}
    before = state_of(files)
    after = settled(before, {"secrets/shop/admins.yaml": secret("admins", "other")}).state
    assert codes(after) == {WEB: ["unknown-secret-key"]}
    assert after.compiled == before.compiled


def test_a_route_that_does_not_compile_is_quarantined() -> None:
    """What fits the schema and cannot work is told like any other mistake."""
    loop = route("web", HOST, middlewares=[{"redirect": {"host": HOST, "scheme": "http"}}])
    assert codes(state_of({**BASE, WEB: loop})) == {WEB: ["redirect-loop"]}


def test_the_former_state_is_not_changed() -> None:
    """A state is a value: settling on it again gives the same."""
    before = state_of(BASE)
    served, referrers = dict(before.served), {name: dict(users) for name, users in before.referrers.items()}
    first = settled(before, {WEB: None, "routes/data/a.yaml": route("a", HOST)}).state
    assert dict(before.served) == served
    assert {name: dict(users) for name, users in before.referrers.items()} == referrers
    second = settled(before, {WEB: None, "routes/data/a.yaml": route("a", HOST)}).state
    assert first.served == second.served


def test_a_thousand_routes_at_one_host_are_settled_quickly() -> None:
    """The cost of a conflict check does not grow with the routes that share a host."""
    files = {
        **BASE,
        **{f"routes/shop/r{n}.yaml": route(f"r{n}", HOST, paths=[{"prefix": f"/p{n}"}]) for n in range(1000)},
    }
    state = state_of(files)
    assert codes(state) == {}
    assert len(state.claims.at("http", HOST)) == 1001
    assert isinstance(state.objects[WEB_KEY], Route)


def test_an_empty_tree_deletes_all_but_the_fleet() -> None:
    """The fleet's absence is a problem, never a deletion; the plan's guard holds the rest."""
    after = settled(state_of(BASE), dict.fromkeys(BASE))
    assert set(after.state.served) == {FLEET_KEY}
    assert codes(after.state) == {"fleet.yaml": ["fleet-missing"]}
    assert len(after.touched) == 3


def test_objects_of_a_kind_that_needs_no_team_know_no_team() -> None:
    """A document cannot claim a place that its path does not give it."""
    state = state_of({**BASE, "routes/nobody/x.yaml": document("Route", "x", {"type": "mongodb", "backends": []})})
    assert "routes/nobody/x.yaml" in codes(state)
    assert codes(settled(State(), {**BASE, "routes/shpo/x.yaml": route("x")}).state) == {
        "routes/shpo/x.yaml": ["unknown-team"]
    }
