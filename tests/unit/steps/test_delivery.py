"""Whose document changes with a generation, with a commit or without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.agents.documents import WantedDocument, sign_document
from reconciler.desired.plan import make_plan
from reconciler.desired.state import State
from reconciler.errors import Rejected
from reconciler.status import Tracker
from reconciler.steps.delivery import Delivery
from reconciler.steps.passing import Pass, Published
from reconciler.steps.standings import Standings
from reconciler.steps.waves import Waves
from schemas.agent import Agent
from schemas.session import digest_of_items
from schemas.trust import MEMBER
from tests.support.agent_hub import TestSigner
from tests.support.documents import agent, deployment, fleet, settled, team
from tests.unit.test_status import Records

FILES = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2"),
    "deployments/shop/web.yaml": deployment("web", "vps-2"),
}
OLD: Mapping[str, Any] = {"bundle": "old"}
NEW: Mapping[str, Any] = {"bundle": "new"}


@dataclass
class Hub:
    documents: dict[str, WantedDocument] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()

    async def publish(self, documents: Mapping[str, WantedDocument]) -> frozenset[str]:
        self.documents |= documents
        return frozenset(documents)

    def revoke(self, names: Iterable[str]) -> None:
        for name in names:
            self.documents.pop(name, None)

    def update(self, agents: Mapping[str, Agent]) -> frozenset[str]:
        return frozenset(self.documents) - frozenset(agents)


@dataclass
class Plane:
    hub: Hub = field(default_factory=Hub)
    trust: Mapping[str, Any] | None = field(default_factory=lambda: OLD)
    published: Published = field(default_factory=Published)
    delivery: Delivery = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        standings = Standings(lambda: self.published, lambda: 0.0)
        waves = Waves(standings, Tracker(Records(), lambda: 0.0), clock=lambda: 0.0)
        self.delivery = Delivery(self.hub, self.hub, waves=waves, trust=lambda: self.trust)
        self.published = replace(self.published, agents=dict(self.published.agents))

    def bring(self, files: Mapping[str, bytes | None]) -> set[str]:
        """Publish a change; return whose document came along."""
        found = settled(self.published.state, files)
        plan = make_plan(self.published.state, found, ())
        this = Pass("a" * 40, self.published, settled=found, plan=plan, generation=self.published.generation + 1)
        self.delivery.assign(this)
        self.published = Published(
            this.generation, this.revision, this.state, None, this.agents, this.rollouts, this.releases
        )
        asyncio.run(self.delivery.push(self.published, this.items))
        return set(this.items)

    def has_news(self) -> bool:
        return asyncio.run(self.delivery.has_news(self.published))

    @property
    def generations(self) -> dict[str, int]:
        return {name: generation for name, (generation, _) in self.published.agents.items()}


@pytest.fixture
def plane() -> Plane:
    one = Plane()
    assert one.bring(FILES) == {"vps-1", "vps-2"}
    return one


def test_a_commit_changes_the_documents_that_it_is_about(plane: Plane) -> None:
    """The other keeps its generation, and nothing is left to be told."""
    assert plane.bring({"deployments/shop/web.yaml": deployment("web", "vps-2", port=9000)}) == {"vps-2"}
    assert plane.generations == {"vps-1": 1, "vps-2": 2}
    assert not plane.has_news()


def test_whom_to_trust_changes_every_document_without_a_commit(plane: Plane) -> None:
    """Once: the same trust again is no news."""
    plane.trust = NEW
    assert plane.has_news()
    assert plane.bring({}) == {"vps-1", "vps-2"}

    assert plane.generations == {"vps-1": 2, "vps-2": 2}
    assert not plane.has_news()
    assert plane.bring({}) == set()
    told = {item.id: item.spec for item in plane.hub.documents["vps-1"].items()}
    assert told["Agent/vps-1"][MEMBER] == NEW


def test_a_restart_finds_that_documents_are_as_they_were(plane: Plane) -> None:
    """Equal content under another object is no news."""
    plane.trust = dict(OLD)
    plane.restart()

    assert not plane.has_news()


def test_what_a_new_version_says_differently_is_published_anew(plane: Plane) -> None:
    """A restart that makes other items of the same objects would offer what every agent refuses."""
    state = plane.published.state
    plane.published = replace(plane.published, agents={**plane.published.agents, "vps-2": (1, "sha256:" + "0" * 64)})
    plane.restart()
    asyncio.run(plane.delivery.resume(plane.published))
    with pytest.raises(Rejected, match="not what was published"):
        sign_document("vps-2", plane.hub.documents["vps-2"], TestSigner(), datetime.now(UTC))

    assert plane.has_news()
    assert plane.bring({}) == {"vps-2"}
    document = plane.hub.documents["vps-2"]
    assert document.digest == digest_of_items(document.items())
    assert plane.published.state.served.keys() == state.served.keys()


def test_nothing_is_told_before_there_is_a_fleet() -> None:
    """There is nobody to tell."""
    assert not Plane(published=Published(state=State())).has_news()


def test_an_agent_that_leaves_takes_its_document_along(plane: Plane) -> None:
    """Also in the generation in which everybody is told something new."""
    plane.trust = NEW
    assert plane.bring({"agents/vps-1.yaml": None}) == {"vps-2"}
    assert set(plane.published.agents) == {"vps-2"}
