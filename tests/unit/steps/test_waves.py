"""Deployments reach their agents in waves: what is published, what agents say, and what records tell of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from reconciler.desired.plan import make_plan
from reconciler.desired.rollouts import rollouts_from_json, rollouts_to_json
from reconciler.status import Tracker
from reconciler.steps.delivery import Delivery
from reconciler.steps.passing import Pass, Published
from reconciler.steps.standings import Standings
from reconciler.steps.waves import Waves
from reconciler.store.protocols import Event
from schemas.objects import ObjectKey
from schemas.session import Hello, ItemResult, Report, digest_of_items
from schemas.status import AgentProgress
from tests.support.documents import agent, deployment, fleet, secret, settled, team
from tests.unit.steps.test_delivery import Hub
from tests.unit.test_status import Records

NAMES = ("vps-1", "vps-2", "vps-3")
WEB = ObjectKey("Deployment", "shop", "web")
FILES = {
    "fleet.yaml": fleet(team("shop", agents=NAMES)),
    **{f"agents/{name}.yaml": agent(name) for name in NAMES},
}
ONE, TWO, THREE, FOUR = (letter * 40 for letter in "1234")


def web(image: str, *names: str, **more: Any) -> dict[str, bytes | None]:
    return {WEB.path: deployment("web", *(names or NAMES), image=image, **more)}


@dataclass
class Plane:
    """A control plane without git and fronts, and agents that say what a test lets them say."""

    hub: Hub = field(default_factory=Hub)
    published: Published = field(default_factory=Published)
    events: list[Event] = field(default_factory=list)
    paused: str = ""
    now: float = 1000.0
    records: Records = field(default_factory=Records)
    tracker: Tracker = field(init=False)
    standings: Standings = field(init=False)
    waves: Waves = field(init=False)
    delivery: Delivery = field(init=False)

    def __post_init__(self) -> None:
        self._start()

    def restart(self) -> None:
        """A new process finds what the store has; nobody is connected."""
        kept = json.loads(json.dumps(rollouts_to_json(self.published.rollouts)))
        keys = {key.path: key for key in self.published.state.served}
        self.published = replace(self.published, rollouts=rollouts_from_json(kept, keys))
        asyncio.run(self.tracker.flush())
        self._start()

    def _start(self) -> None:
        self.tracker = Tracker(self.records, lambda: self.now)
        self.standings = Standings(lambda: self.published, lambda: self.now)
        self.waves = Waves(
            self.standings,
            self.tracker,
            paused=lambda _: self.paused,
            tell=self.events.append,
            clock=lambda: self.now,
        )
        self.delivery = Delivery(self.hub, self.hub, waves=self.waves)
        asyncio.run(self.tracker.load({name: digest for name, (_, digest) in self.published.agents.items()}))
        asyncio.run(self.delivery.resume(self.published))

    def bring(self, files: Mapping[str, bytes | None], revision: str = "") -> None:
        """Publish a revision, or what is published once more."""
        again = not revision
        revision = revision or self.published.revision
        found = settled(self.published.state, files, revision)
        plan = make_plan(self.published.state, found, ())
        this = Pass(revision, self.published, settled=found, plan=plan, generation=self.published.generation + 1)
        self.delivery.assign(this)
        if not again:
            self.tracker.begin(revision)
            stages = ("fetched", "validated", "planned", "rendered", "preflighted", "published", "loaded")
            self.tracker.reach(revision, *stages)  # type: ignore[arg-type]
        self.published = Published(
            this.generation, revision, this.state, None, this.agents, this.rollouts, this.releases
        )
        documents = asyncio.run(self.delivery.push(self.published, this.items))
        if again:
            self.tracker.documents_again(documents, self.delivery.gone_on(self.published))
        else:
            self.tracker.reach(revision, "pushed")
            present = [name for name in NAMES if self.standings.away(name) is None]
            self.tracker.concern(revision, documents, present)

    def look(self) -> bool:
        """What happens each second; says whether somebody had a turn."""
        if asyncio.run(self.delivery.has_news(self.published)):
            self.bring({})
            return True
        return False

    def connect(self, *names: str, applied: bool = True) -> None:
        for name in names or NAMES:
            digest = self.published.agents.get(name, (0, None))[1]
            hello = Hello(sequence=1, protocol=1, agent=name, version="1", applied_digest=digest if applied else None)
            self.tracker.agent_presence(name, connected=True)
            self.standings.connected(name, hello, self.now)

    def leave(self, name: str) -> None:
        self.tracker.agent_presence(name, connected=False)
        self.standings.disconnected(name, self.now)

    def says(self, name: str, state: Any = "Applied", reason: str = "Running", message: str = "") -> None:
        """The agent reports on the document that it has now."""
        self.now += 1
        document = self.hub.documents[name]
        results = [
            ItemResult(id=item.id, state=state if item.kind == "Deployment" else "Applied", reason=reason)
            for item in document.items()
        ]
        results = [one.model_copy(update={"message": message}) for one in results]
        outcome: Any = state.lower()
        report = Report(
            sequence=2, generation=document.generation, digest=document.digest, outcome=outcome, items=tuple(results)
        )
        self.tracker.agent_progress(name, document.digest, AgentProgress(state=outcome))
        self.standings.reported(name, report, self.now)

    def images(self) -> dict[str, str]:
        """Agent → image in its document, which must be what the hub was given to sign."""
        found: dict[str, str] = {}
        for name, document in self.hub.documents.items():
            items = document.items()
            assert digest_of_items(items) == document.digest == self.published.agents[name][1]
            found.update((name, item.spec["image"]) for item in items if item.kind == "Deployment")
        return found

    def stands(self, revision: str) -> tuple[str, str]:
        status = asyncio.run(self.tracker.status(revision))
        assert status is not None
        return status.state, status.reason

    def places(self, revision: str) -> dict[str, str]:
        status = asyncio.run(self.tracker.status(revision))
        assert status is not None
        return {name: one.state for name, one in status.rollouts["shop/web"].agents.items()}

    def told(self) -> list[str]:
        return [event.type for event in self.events]


@pytest.fixture
def plane() -> Plane:
    one = Plane()
    one.connect()
    one.bring({**FILES, **web("web:1")}, ONE)
    assert set(one.images().values()) == {"web:1"}, "the first version goes everywhere at once"
    for name in NAMES:
        one.says(name)
    assert one.stands(ONE) == ("Converged", "AllStagesReached")
    assert not one.look()
    return one


def test_a_change_reaches_one_agent_after_the_other(plane: Plane) -> None:
    """Each wave is a generation of the same revision, which is converged after the last one."""
    plane.bring(web("web:2"), TWO)
    for number, name in enumerate(NAMES):
        images = plane.images()
        assert [one for one in NAMES if images[one] == "web:2"] == list(NAMES[: number + 1])
        assert not plane.look(), "it has not said that it runs"
        assert plane.stands(TWO) == ("Progressing", "WaitingAgents")
        plane.says(name, "Progressing", "Starting")
        assert not plane.look()
        plane.says(name)
        assert plane.look() == (name != NAMES[-1])
    assert plane.stands(TWO) == ("Converged", "AllStagesReached")
    assert plane.published.revision == TWO
    assert plane.told() == ["RolloutStarted", "RolloutCompleted"]
    status = asyncio.run(plane.tracker.status(TWO))
    assert status is not None
    rollout = status.rollouts["shop/web"]
    assert (rollout.state, set(rollout.agents)) == ("Done", set(NAMES))
    for one in rollout.agents.values():
        assert [step.reason for step in one.steps] == ["Starting", "Running"]
        assert one.steps[0].at < one.steps[1].at
    assert set(status.agents) == set(NAMES)


def test_a_failure_stops_it_and_the_record_says_where(plane: Plane) -> None:
    """The others keep the version before, over restarts too; a newer commit begins where it failed."""
    plane.bring(web("web:2"), TWO)
    plane.says("vps-1", "Failed", "PullFailed", "no such image.")
    assert not plane.look()
    status = asyncio.run(plane.tracker.status(TWO))
    assert status is not None
    assert (status.state, status.reason) == ("Failed", "AgentFailed")
    assert status.message == (
        "shop/web: vps-1 could not apply it: PullFailed: no such image; vps-2, vps-3 keep the version before. "
        "Push a version that works, or revert"
    )
    plane.restart()
    plane.connect(applied=False)
    plane.says("vps-1", "Failed", "PullFailed", "no such image.")
    assert not plane.look()
    assert plane.images() == {"vps-1": "web:2", "vps-2": "web:1", "vps-3": "web:1"}
    assert plane.told() == ["RolloutStarted", "RolloutFailed"], "each once"
    for name in ("vps-2", "vps-3"):
        plane.says(name)
    plane.bring(web("web:3"), THREE)
    assert plane.images() == {"vps-1": "web:3", "vps-2": "web:1", "vps-3": "web:1"}
    assert plane.stands(TWO)[0] == "Superseded"
    for name in NAMES:
        plane.says(name)
        plane.look()
    assert set(plane.images().values()) == {"web:3"}
    assert plane.stands(THREE) == ("Converged", "AllStagesReached")


def test_an_agent_that_fails_and_mends_itself_lets_the_others_go_on(plane: Plane) -> None:
    """A registry that is away for a while needs no person."""
    plane.bring(web("web:2"), TWO)
    plane.says("vps-1", "Failed", "PullFailed")
    plane.says("vps-1")
    assert plane.look()
    assert plane.images()["vps-2"] == "web:2"


def test_another_commit_leaves_a_roll_out_on_its_way(plane: Plane) -> None:
    """The record of the revision that began it goes on, and the other one waits for nothing of it."""
    plane.bring(web("web:2"), TWO)
    plane.bring({"agents/vps-3.yaml": agent("vps-3", labels={"disk": "ssd"})}, THREE)
    assert plane.images()["vps-3"] == "web:1"
    plane.says("vps-3")
    assert plane.stands(THREE) == ("Converged", "AllStagesReached")
    for name in NAMES:
        plane.says(name)
        plane.look()
    assert (plane.stands(TWO), plane.published.revision) == (("Converged", "AllStagesReached"), THREE)


def test_the_last_agent_is_waited_for_whatever_else_is_published(plane: Plane) -> None:
    """It has the newest version, and nobody knows yet how it is: its record waits, and so does the next version."""
    plane.bring(web("web:2"), TWO)
    for name in NAMES[:2]:
        plane.says(name)
        plane.look()
    plane.bring({"agents/vps-1.yaml": agent("vps-1", labels={"disk": "ssd"})}, THREE)
    plane.says("vps-1")
    assert plane.stands(TWO) == ("Progressing", "WaitingAgents")
    plane.bring(web("web:3"), FOUR)
    assert plane.images() == {"vps-1": "web:2", "vps-2": "web:2", "vps-3": "web:3"}, "it goes first"


def test_a_revert_in_the_middle_touches_only_who_was_changed(plane: Plane) -> None:
    """The others never see a thing."""
    plane.bring(web("web:2"), TWO)
    before = dict(plane.published.agents)
    plane.bring(web("web:1"), THREE)
    assert set(plane.images().values()) == {"web:1"}
    assert {name for name in NAMES if plane.published.agents[name] != before[name]} == {"vps-1"}
    plane.says("vps-1")
    assert plane.stands(THREE) == ("Converged", "AllStagesReached")
    assert plane.stands(TWO)[0] == "Superseded"


def test_a_restart_of_the_control_plane_goes_on_where_it_was(plane: Plane) -> None:
    """Nobody gets a turn before those who may be without it have come back and said how they are."""
    plane.bring(web("web:2"), TWO)
    plane.says("vps-1", "Progressing", "Starting")
    plane.restart()
    plane.connect("vps-2", "vps-3")
    assert not plane.look()
    plane.connect("vps-1", applied=False)
    assert not plane.look()
    plane.says("vps-1")
    assert plane.look()
    assert plane.images() == {"vps-1": "web:2", "vps-2": "web:2", "vps-3": "web:1"}
    status = asyncio.run(plane.tracker.status(TWO))
    assert status is not None
    steps = status.rollouts["shop/web"].agents["vps-1"].steps
    assert [step.reason for step in steps] == ["Starting", "Running"], "what was seen before is kept"


def test_a_failure_is_remembered_over_a_restart_of_the_control_plane(plane: Plane) -> None:
    """The machine that a version has brought down says nothing any more, however long the others wait for it."""
    plane.bring(web("web:2"), TWO)
    plane.says("vps-1", "Failed", "Exited", "the machine is out of memory.")
    plane.restart()
    plane.now += 1000
    plane.connect("vps-2", "vps-3")
    assert not plane.look()
    assert plane.images() == {"vps-1": "web:2", "vps-2": "web:1", "vps-3": "web:1"}
    assert plane.stands(TWO) == ("Failed", "AgentFailed")
    plane.connect("vps-1", applied=False)
    plane.says("vps-1")
    assert plane.look(), "until it says something else"


def test_a_pause_keeps_further_agents_from_it_and_ends(plane: Plane) -> None:
    """Who is changing goes on; the record says Paused."""
    plane.bring(web("web:2"), TWO)
    plane.paused = "jane"
    plane.says("vps-1")
    assert not plane.look()
    assert plane.stands(TWO) == ("Progressing", "Paused")
    plane.restart()
    plane.connect()
    assert not plane.look()
    plane.paused = ""
    assert plane.look()
    assert plane.images()["vps-2"] == "web:2"


def test_a_pause_in_the_file_is_ended_by_a_commit(plane: Plane) -> None:
    """What runs is touched by neither."""
    plane.bring(web("web:2", rollout={"paused": True}), TWO)
    assert set(plane.images().values()) == {"web:1"}
    assert plane.stands(TWO) == ("Progressing", "Paused")
    plane.bring(web("web:2"), THREE)
    assert plane.images()["vps-1"] == "web:2"
    for name in NAMES:
        plane.says(name)
        plane.look()
    assert plane.stands(TWO)[0] == "Converged"
    assert plane.stands(THREE)[0] == "Converged"


def test_an_agent_that_is_away_is_passed_over_and_has_its_turn_later(plane: Plane) -> None:
    """The revision is converged without it, and says so."""
    plane.leave("vps-1")
    plane.bring(web("web:2"), TWO)
    assert set(plane.images().values()) == {"web:1"}
    plane.now += 301
    for name in ("vps-2", "vps-3"):
        assert plane.look()
        plane.says(name)
    assert not plane.look()
    assert plane.stands(TWO)[0] == "Converged"
    assert plane.places(TWO) == {"vps-1": "offline", "vps-2": "done", "vps-3": "done"}
    plane.connect("vps-1")
    assert plane.stands(TWO)[0] == "Progressing"
    assert plane.look()
    plane.says("vps-1")
    assert plane.images()["vps-1"] == "web:2"
    assert plane.stands(TWO)[0] == "Converged"


def test_who_goes_away_while_it_changes_is_waited_for_until_the_deadline(plane: Plane) -> None:
    """Also the last one, when nobody else waits any more."""
    plane.bring(web("web:2"), TWO)
    for name in NAMES[:2]:
        plane.says(name)
        plane.look()
    plane.leave("vps-3")
    plane.now += 200
    assert not plane.look()
    assert plane.stands(TWO)[0] == "Progressing"
    plane.now += 200
    assert not plane.look()
    assert plane.stands(TWO)[0] == "Converged"
    assert plane.places(TWO)["vps-3"] == "offline"


def test_a_deployment_that_goes_leaves_at_once(plane: Plane) -> None:
    """Its roll-out is overtaken; nobody waits for it."""
    plane.bring(web("web:2"), TWO)
    plane.bring({WEB.path: None}, THREE)
    assert plane.images() == {}
    assert plane.stands(TWO)[0] == "Superseded"
    assert not plane.published.rollouts


def test_further_agents_get_it_at_once_and_terms_interrupt_nobody(plane: Plane) -> None:
    """Another limit or another list of agents is no other version."""
    plane.bring(web("web:1", "vps-1", "vps-2"), TWO)
    plane.says("vps-1")
    plane.says("vps-2")
    plane.bring(web("web:1", rollout={"maxUnavailable": 2}), THREE)
    assert set(plane.images()) == set(NAMES)
    for name in NAMES:
        plane.says(name)
    assert plane.stands(THREE)[0] == "Converged"
    plane.bring(web("web:2", rollout={"maxUnavailable": 2}), FOUR)
    assert sorted(plane.images().values()) == ["web:1", "web:2", "web:2"]


def test_a_roll_out_that_is_over_is_forgotten(plane: Plane) -> None:
    """What fails later is no longer its failure, and the store grows no further."""
    plane.bring(web("web:2", rollout={"maxUnavailable": 3}), TWO)
    for name in NAMES:
        plane.says(name)
    plane.says("vps-1", "Failed", "Exited")
    assert plane.stands(TWO)[0] == "Converged"
    plane.says("vps-1")
    plane.bring({"agents/vps-3.yaml": agent("vps-3", labels={"disk": "ssd"})}, THREE)
    assert not plane.published.rollouts


def test_another_value_of_a_secret_is_a_change_like_any_other(plane: Plane) -> None:
    """It restarts what uses it, so it goes out in waves too."""
    path = "secrets/shop/api.yaml"
    before, after = secret("api", "token"), secret("api", "token").replace(b"YWdl", b"YWdm")
    uses = [{"secret": "api", "key": "token", "env": "TOKEN"}]
    plane.bring({path: before, **web("web:1", secrets=uses, rollout={"maxUnavailable": 3})}, TWO)
    for name in NAMES:
        plane.says(name)
    plane.bring(web("web:1", secrets=uses), THREE)
    agents = plane.published.agents
    plane.bring({path: after}, FOUR)
    assert {name for name in NAMES if plane.published.agents[name] != agents[name]} == {"vps-1"}
    plane.says("vps-1")
    assert plane.look()


def test_nothing_changes_while_nothing_is_said(plane: Plane) -> None:
    """Looking is free of effects: no generation, no event."""
    plane.bring(web("web:2"), TWO)
    generation, told = plane.published.generation, plane.told()
    for _ in range(5):
        assert not plane.look()
    assert (plane.published.generation, plane.told()) == (generation, told)
