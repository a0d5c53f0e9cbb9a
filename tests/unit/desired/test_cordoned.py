"""A cordoned agent keeps what it has and takes nothing new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.desired.state import State
from schemas.objects import ObjectKey
from tests.support.documents import agent, codes, deployment, fleet, problems_of, route, settled, state_of, team

WEB: Final = "deployments/shop/web.yaml"
KEY: Final = ObjectKey("Deployment", "shop", "web")
SITE: Final = "routes/shop/site.yaml"
LABELS: Final = {"pool": "shared"}
FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1", labels=LABELS),
    "agents/vps-2.yaml": agent("vps-2", labels=LABELS, address="10.0.0.2"),
}
CORDONED: Final = {"agents/vps-1.yaml": agent("vps-1", labels=LABELS, state="cordoned")}


def after(*changes: Mapping[str, bytes | None]) -> State:
    """Settle files and then each change, one commit after the other."""
    state = state_of(FILES)
    for change in changes:
        state = settled(state, change).state
    return state


def test_a_new_deployment_is_kept_out() -> None:
    """Also in the commit that cordons, with a hint; it comes once the agent is active again."""
    new = {WEB: deployment("web", "vps-1")}
    for state in (after(CORDONED, new), after({**CORDONED, **new})):
        (problem,) = problems_of(state, new)
        assert (problem.code, problem.severity) == ("agent-cordoned", "error")
        assert problem.hint == "Use another agent, or set state: active in agents/vps-1.yaml."
        assert KEY not in state.served
        assert KEY in settled(state, {"agents/vps-1.yaml": FILES["agents/vps-1.yaml"]}).state.served


def test_what_runs_there_stays_and_may_change() -> None:
    """Another image is no new work, and neither is a second look at what did not change."""
    state = after({WEB: deployment("web", "vps-1")}, CORDONED)
    assert codes(state) == {}
    state = settled(state, {WEB: deployment("web", "vps-1", image="web:2")}).state
    assert codes(state) == {}
    assert not state.served[KEY].retained


def test_a_deployment_grows_onto_no_cordoned_agent() -> None:
    """It stays as it was, on the agents that it had."""
    both = {WEB: deployment("web", "vps-1", "vps-2")}
    state = after({WEB: deployment("web", "vps-2")}, CORDONED, both)
    assert codes(state) == {WEB: ["agent-cordoned"]}
    assert state.served[KEY].object.spec.agents == ("vps-2",)  # type: ignore[union-attr]


def test_a_selector_keeps_cordoned_agents_and_picks_none_anew() -> None:
    """Who selected it before still does, under any version; who comes later does not."""
    chosen = {WEB: deployment("web", agentSelector=LABELS)}
    kept = after(chosen, CORDONED, {WEB: deployment("web", agentSelector=LABELS, image="web:2")})
    assert kept.selected[KEY] == ("vps-1", "vps-2")
    listed = after({WEB: deployment("web", "vps-1")}, CORDONED, chosen)
    assert listed.selected[KEY] == ("vps-1", "vps-2")
    late = after(CORDONED, chosen)
    assert (late.selected[KEY], codes(late)) == (("vps-2",), {})
    assert settled(late, {WEB: deployment("web", agentSelector=LABELS, image="web:2")}).state.selected[KEY] == (
        "vps-2",
    )
    active = settled(late, {"agents/vps-1.yaml": FILES["agents/vps-1.yaml"]}).state
    assert active.selected[KEY] == ("vps-1", "vps-2")


def test_a_new_backend_is_kept_out_and_an_old_one_stays() -> None:
    """A route may change its other fields, and its port, where it led to the agent before."""
    leads = route("site")
    assert codes(after(CORDONED, {SITE: leads})) == {SITE: ["agent-cordoned"]}
    other = route("site", backends=[{"agent": "vps-2", "port": 8081}])
    state = after({SITE: other}, CORDONED, {SITE: leads})
    assert codes(state) == {SITE: ["agent-cordoned"]}
    changed = route("site", backends=[{"agent": "vps-1", "port": 8082}])
    assert codes(after({SITE: leads}, CORDONED, {SITE: changed})) == {}


def test_a_route_follows_its_deployment() -> None:
    """A new route to what runs there already brings the agent no new work."""
    through = route("site", backends=[{"deployment": "web"}])
    state = after({WEB: deployment("web", "vps-1")}, CORDONED, {SITE: through})
    assert codes(state) == {}


def test_without_anything_in_service_it_is_a_warning() -> None:
    """A first commit, a lost store, validate in CI: nobody can say what is new, and nothing may go down for it."""
    files = {**FILES, **CORDONED, WEB: deployment("web", "vps-1"), "deployments/shop/all.yaml": deployment(
        "all", agentSelector=LABELS, port=8099
    )}  # fmt: skip
    state = state_of(files)
    assert [(one.code, one.severity) for one in problems_of(state, files)] == [("agent-cordoned", "warning")]
    assert KEY in state.served
    assert state.selected[ObjectKey("Deployment", "shop", "all")] == ("vps-1", "vps-2")
