"""What an agent's document has of a deployment that is being rolled out, and how the store keeps that."""

from __future__ import annotations

import json

from reconciler.desired.items import AgentItems
from reconciler.desired.rollouts import NOTHING, Older, Rollout, rollouts_from_json, rollouts_to_json
from schemas.objects import ObjectKey
from schemas.session import digest_of_items
from tests.support.documents import agent, deployment, fleet, state_of

WEB = ObjectKey("Deployment", "shop", "web")
FILES = {"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1"), "agents/vps-2.yaml": agent("vps-2")}
BEFORE = state_of({**FILES, WEB.path: deployment("web", "vps-1", "vps-2", image="web:1", deletionPolicy="delete")})
AFTER = state_of({**FILES, WEB.path: deployment("web", "vps-1", "vps-2", image="web:2", rollout={"paused": True})})
ONE = Rollout("a" * 40, "sha256:2", 1.0, {"vps-1": 7}, {"vps-2": Older.of(AgentItems(BEFORE).newest(WEB))})


def images(items: AgentItems, name: str) -> list[str]:
    return [item.spec["image"] for item in items.of(name) if item.kind == "Deployment"]


def test_an_agent_that_is_held_has_the_older_version_on_the_newest_terms() -> None:
    """Else a file that says retain by now would be followed by the loss of data."""
    items = AgentItems(AFTER, rollouts={WEB: ONE})
    assert (images(items, "vps-1"), images(items, "vps-2")) == (["web:2"], ["web:1"])
    (held,) = (item for item in items.of("vps-2") if item.kind == "Deployment")
    assert held.spec["deletionPolicy"] == "retain"
    assert digest_of_items(items.maker("vps-2")()) == digest_of_items(items.of("vps-2"))


def test_an_agent_that_shall_have_nothing_yet_has_nothing() -> None:
    """A paused deployment is not begun."""
    items = AgentItems(AFTER, rollouts={WEB: Rollout("a" * 40, "sha256:2", 1.0, held={"vps-1": NOTHING})})
    assert (images(items, "vps-1"), images(items, "vps-2")) == ([], ["web:2"])


def test_a_pause_is_no_business_of_agents() -> None:
    """Pausing by the file changes no document, and older agents need not know the word."""
    spec = AgentItems(AFTER).newest(WEB).spec
    assert "paused" not in spec["rollout"]


def test_the_store_keeps_a_version_once() -> None:
    """Whatever the number of agents; what is no longer in service is dropped."""
    older = ONE.held["vps-2"]
    many = Rollout("a" * 40, "sha256:2", 1.0, {"vps-1": 7}, {"vps-2": older, "vps-3": older, "vps-4": NOTHING})
    stored = json.loads(json.dumps(rollouts_to_json({WEB: many})))
    assert len(stored[0]["held"]) == 2
    assert rollouts_from_json(stored, {WEB.path: WEB}) == {WEB: many}
    assert rollouts_from_json(stored, {}) == {}


def test_documents_that_come_anew_are_judged_by_what_is_said_after_it() -> None:
    """Of the others the generation stays."""
    assert ONE.moved({"vps-2", "vps-9"}, 9).since == {"vps-1": 7, "vps-2": 9}
