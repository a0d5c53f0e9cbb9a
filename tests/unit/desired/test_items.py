"""What an agent's document holds."""

from __future__ import annotations

from typing import Final

from reconciler.desired.items import AgentItems
from reconciler.desired.plan import make_plan
from schemas.objects import FLEET_KEY, ObjectKey
from schemas.session import EXEC, FEATURES, OFFERS
from tests.support.documents import agent, certificate, deployment, fleet, route, settled, state_of, team

FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}),
    "agents/vps-2.yaml": agent("vps-2"),
    "deployments/shop/api.yaml": deployment("api", agentSelector={"region": "ams"}),
    "deployments/shop/web.yaml": deployment("web", "vps-2", "vps-1", port=8082),
    "certificates/a.yaml": certificate("a", "a.cloudlunacy.test", usedBy={"agents": ["vps-2"]}),
    "routes/shop/web.yaml": route("web"),
}


def ids(items: AgentItems, name: str) -> list[str]:
    return [item.id for item in items.of(name)]


def test_an_agent_gets_what_is_meant_for_it_and_nothing_else() -> None:
    """Itself, certificates that name it, deployments that name or select it; never a route."""
    items = AgentItems(state_of(FILES))
    assert ids(items, "vps-1") == ["Agent/vps-1", "Deployment/shop/api", "Deployment/shop/web"]
    assert ids(items, "vps-2") == ["Agent/vps-2", "Certificate/a", "Deployment/shop/web"]


def test_an_agent_is_offered_the_features_of_this_version() -> None:
    """In its own item, where an agent of before sees nothing that it has to do."""
    own, *others = AgentItems(state_of(FILES)).of("vps-2")
    assert own.spec[OFFERS] == list(FEATURES)
    assert not any(OFFERS in item.spec for item in others)


def test_where_people_may_run_programs_is_told_in_the_agents_own_item() -> None:
    """Nothing is said where the fleet names no team; a fleet file that names others is news to every agent."""
    before = state_of(FILES)
    assert all(EXEC not in item.spec for item in AgentItems(before).of("vps-1"))
    teams = (team("shop", agents=["vps-1", "vps-2"]), team("data", agents=["vps-2"]))
    after = settled(before, {"fleet.yaml": fleet(*teams, commands={"exec": ["shop", "data"]})}).state
    for name in ("vps-1", "vps-2"):
        assert AgentItems(after).of(name)[0].spec[EXEC] == ["data", "shop"]
        later = AgentItems(after).maker(name)()
        assert later[0] == AgentItems(after).of(name)[0]
    assert set(AgentItems(after).concerned_by(FLEET_KEY)) == {"vps-1", "vps-2"}
    touched = make_plan(before, settled(before, {"fleet.yaml": fleet(*teams, commands={"exec": ["shop", "data"]})}))
    assert {change.name for change in touched.agents} == {"vps-1", "vps-2"}


def test_an_unknown_agent_gets_nothing() -> None:
    """Neither does one that is not in service any more, though deployments still name it."""
    state = settled(state_of(FILES), {"agents/vps-2.yaml": None}).state
    assert AgentItems(state).of("vps-2") == ()
    assert ids(AgentItems(state), "vps-1") == ["Agent/vps-1", "Deployment/shop/api", "Deployment/shop/web"]


def test_items_made_later_are_those_of_their_state() -> None:
    """Made when somebody asks, also long after a newer state is published; nothing is made before."""
    state = state_of(FILES)
    items = AgentItems(state)
    makers = {name: items.maker(name) for name in ("vps-1", "vps-2", "nobody")}
    assert state.items == {}
    settled(state, {"deployments/shop/web.yaml": None, "agents/vps-1.yaml": agent("vps-1", labels={"a": "b"})})
    assert {name: make() for name, make in makers.items()} == {name: items.of(name) for name in makers}


def test_whom_an_object_concerns() -> None:
    """The agents whose document it is part of."""
    items = AgentItems(state_of(FILES))
    assert items.concerned_by(ObjectKey("Agent", "", "vps-1")) == ("vps-1",)
    assert items.concerned_by(ObjectKey("Deployment", "shop", "api")) == ("vps-1",)
    assert set(items.concerned_by(ObjectKey("Deployment", "shop", "web"))) == {"vps-1", "vps-2"}
    assert items.concerned_by(ObjectKey("Certificate", "", "a")) == ("vps-2",)
    assert items.concerned_by(ObjectKey("Route", "shop", "web")) == ()
    assert items.concerned_by(ObjectKey("Agent", "", "nobody")) == ()


def test_an_items_digest_changes_with_its_content_alone() -> None:
    """What the agent does not need changes nothing for it: whose key it is, and what people note beside it."""
    state = state_of(FILES)
    rekeyed = settled(state, {"agents/vps-2.yaml": agent("vps-2", keyThumbprint="A" * 43)}).state
    assert rekeyed.served != state.served
    assert AgentItems(rekeyed).of("vps-2") == AgentItems(state).of("vps-2")
    moved = settled(state, {"agents/vps-2.yaml": agent("vps-2", address="10.0.0.2")}).state
    assert AgentItems(moved).of("vps-2") != AgentItems(state).of("vps-2"), "it publishes ports there"
    labelled = settled(state, {"agents/vps-2.yaml": agent("vps-2", labels={"a": "b"})}).state
    assert AgentItems(labelled).of("vps-2") != AgentItems(state).of("vps-2")


def test_an_item_is_made_once_and_again_when_its_object_changes() -> None:
    """A later state takes over what was made of unchanged objects; its items are those of a fresh state."""
    state = state_of(FILES)
    former = {item.id: item for item in AgentItems(state).of("vps-2")}
    changed = deployment("web", "vps-2", "vps-1", port=9090)
    later = settled(state, {"deployments/shop/web.yaml": changed}).state
    items = {item.id: item for item in AgentItems(later).of("vps-2")}
    assert items["Certificate/a"] is former["Certificate/a"]
    assert items["Deployment/shop/web"] != former["Deployment/shop/web"]
    fresh = state_of({**FILES, "deployments/shop/web.yaml": changed})
    assert tuple(items.values()) == AgentItems(fresh).of("vps-2")
