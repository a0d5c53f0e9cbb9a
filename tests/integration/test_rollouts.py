"""Roll-outs over several agents on the real parts: ``serve``, a git remote, commands, and scripted agents."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas.jwk import JwkSet
from tests.support import agent_swarm, documents
from tests.support.fleet import Installation, installation
from tests.support.orphans import tied
from tests.support.waiting import wait_for

COUNT = 5
NAMES = tuple(agent_swarm.NAMES.format(number) for number in range(1, COUNT + 1))
PATH = "deployments/shop/web.yaml"


def web(image: str, **rollout: Any) -> bytes:
    return documents.deployment("web", *NAMES, image=image, rollout={"deadline": "20s", **rollout})


@dataclass
class Fleet:
    """``folder`` has a directory for each agent."""

    one: Installation
    folder: Path

    def script(self, **images: tuple[float, str, str]) -> None:
        """Say what becomes of ``web:<name>``."""
        script = {f"web:{name}": list(what) for name, what in images.items()}
        self.folder.with_suffix(".json").write_text(json.dumps(script))

    def push(self, image: str, **rollout: Any) -> str:
        return self.one.push({PATH: web(image, **rollout)}, image)

    def notes(self, name: str) -> list[tuple[float, str, str]]:
        """What happened on an agent: time, what, image."""
        lines = (self.folder / name / "seen").read_text().splitlines()
        return [(float(at), what, image) for at, what, image in (line.split() for line in lines)]

    def have(self, image: str) -> set[str]:
        """Agents on which it was begun."""
        return {name for name in NAMES if any((what, seen) == ("begin", image) for _, what, seen in self.notes(name))}

    def most_at_once(self, image: str) -> int:
        """On how many agents it was under way at a time."""
        steps: list[tuple[float, int]] = []
        for name in NAMES:
            mine = [(at, what) for at, what, seen in self.notes(name) if seen == image]
            steps += [(at, 1 if what == "begin" else -1) for at, what in mine]
        running = most = 0
        for _, step in sorted(steps):
            running += step
            most = max(most, running)
        return most

    def deploy(self, action: str, *more: str, code: int = 0) -> dict[str, Any]:
        done = self.one.cli("deploy", action, "shop/web", "--format", "json", *more)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def events(self) -> list[str]:
        """Types of events about the deployment; whether somebody did it is said by a star."""
        found = self.one.ask("/events", limit=1000, subject="Deployment/shop/web")["events"]
        return [event["type"] + ("*" if event["actor"] else "") for event in found]

    def wait_events(self, *kinds: str) -> None:
        wait_for(lambda: self.events() == list(kinds), 10, what=str(kinds))


@contextlib.contextmanager
def agents(folder: Path) -> Iterator[None]:
    """Run them in a process of their own."""
    command = tied([sys.executable, "-m", "tests.support.scripted_agents", str(folder)])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder.parent / "agents.log").open("wb") as out:
        process = subprocess.Popen(command, stderr=out, env=environment)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Five agents that run web:1."""
    folder = tmp_path / "agents"
    folder.mkdir()
    keys = agent_swarm.make_keys(folder, COUNT)
    files: dict[str, bytes | str | None] = {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=NAMES)),
        **{
            f"agents/{name}.yaml": documents.agent(name, identity={"thumbprint": thumbprint})
            for name, thumbprint in keys.items()
        },
    }
    with installation(tmp_path / "one", files, traefik=False) as one:
        known = JwkSet.model_validate(one.client.get("/.well-known/jwks.json").json())
        agent_swarm.enrol(folder, keys, server=one.url, ca=one.ca.read_text(), jwks=known)
        found = Fleet(one, folder)
        with agents(folder):
            wait_for(lambda: one.ask("/status")["agentsConnected"] == COUNT, 30, what="agents")
            first = one.status_wait(found.push("web:1"))
            assert first["state"] == "Converged", first
            assert found.most_at_once("web:1") > 1, "the first version goes everywhere at once"
            yield found


def test_a_change_reaches_no_more_agents_at_once_than_it_may(fleet: Fleet) -> None:
    """By the agents' own account; the record has each agent's steps, and metrics and events tell of it."""
    record = fleet.one.status_wait(fleet.push("web:2", maxUnavailable=2))
    assert record["state"] == "Converged"
    assert fleet.have("web:2") == set(NAMES)
    assert fleet.most_at_once("web:2") == 2
    rollout = record["rollouts"]["shop/web"]
    assert rollout["state"] == "Done"
    for agent in rollout["agents"].values():
        assert [step["reason"] for step in agent["steps"]] == ["Starting", "Running"]
    assert set(record["agents"]) == set(NAMES)
    fleet.wait_events("RolloutStarted", "RolloutCompleted")
    assert fleet.one.metric("cloudlunacy_rollouts") == 0
    shown = fleet.one.cli("status", record["revision"])
    assert "rollout shop/web  Done" in shown.stdout
    said = fleet.deploy("status", "--wait")
    assert {one["version"] for one in said["agents"]} == {said["version"]}


def test_a_failure_stops_it_and_a_newer_commit_takes_over(fleet: Fleet) -> None:
    """The others never see the bad version; the record says who and why; a restart of serve changes nothing of it."""
    fleet.script(bad=(0.2, "Failed", "Exited"))
    bad = fleet.push("web:bad")
    record = fleet.one.status_wait(bad)
    assert (record["state"], record["reason"]) == ("Failed", "AgentFailed")
    assert record["message"].startswith("shop/web: vps-001 could not apply it: Exited; vps-002, vps-003, vps-004")
    assert fleet.one.metric("cloudlunacy_rollouts") == 1
    fleet.wait_events("RolloutStarted", "RolloutFailed")
    fleet.one.restart()
    wait_for(lambda: fleet.one.ask("/status")["agentsConnected"] == COUNT, 30, what="agents again")
    wait_for(lambda: fleet.deploy("status")["state"] == "Failed", 20, what="that it is known again")
    said = fleet.deploy("status", "--wait", code=1)
    assert [one["place"] for one in said["agents"]] == ["failed", *["waiting"] * 4]
    good = fleet.one.status_wait(fleet.push("web:3"))
    assert good["state"] == "Converged"
    assert fleet.one.status(bad)["state"] == "Superseded"  # type: ignore[index]
    assert (fleet.have("web:bad"), fleet.have("web:3")) == ({"vps-001"}, set(NAMES))
    assert fleet.most_at_once("web:3") == 1
    fleet.wait_events("RolloutStarted", "RolloutFailed", "RolloutStarted", "RolloutCompleted")


def test_serve_is_killed_in_the_middle_and_the_waves_go_on(fleet: Fleet) -> None:
    """As often as it likes: never more at once than may be, and in the end everybody has it."""
    fleet.script(**{"2": (0.8, "Applied", "Running")})
    revision = fleet.push("web:2")
    for number in range(1, 4):
        wait_for(lambda: len(fleet.have("web:2")) >= number, 30, what=f"wave {number}")  # noqa: B023
        fleet.one.restart()
    record = fleet.one.status_wait(revision, "Converged", deadline=90)
    assert fleet.have("web:2") == set(NAMES)
    assert fleet.most_at_once("web:2") == 1
    assert record["rollouts"]["shop/web"]["state"] == "Done"
    assert set(record["agents"]) == set(NAMES)


def test_a_pause_holds_over_a_restart_until_somebody_ends_it(fleet: Fleet) -> None:
    """No further agent gets the change; who paused and who resumed is in the timeline."""
    fleet.script(**{"2": (3.0, "Applied", "Running")})
    revision = fleet.push("web:2")
    fleet.wait_events("RolloutStarted")
    answer = fleet.one.post("/deployments/shop/web/rollout/pause", {}).json()
    assert answer["pausedBy"]
    wait_for(lambda: (fleet.one.status(revision) or {}).get("reason") == "Paused", 20, what="that it says Paused")
    fleet.one.restart()
    wait_for(lambda: fleet.one.ask("/status")["agentsConnected"] == COUNT, 30, what="agents again")
    assert fleet.deploy("status", "--wait", code=1)["state"] == "Paused"
    assert len(fleet.have("web:2")) == 1
    assert fleet.deploy("pause")["pausedBy"] == answer["pausedBy"], "pausing twice is pausing once"
    assert fleet.deploy("resume")["pausedBy"] == ""
    assert fleet.one.status_wait(revision, "Converged")["state"] == "Converged"
    assert fleet.most_at_once("web:2") == 1
    fleet.wait_events("RolloutStarted", "RolloutPaused*", "RolloutResumed*", "RolloutCompleted")
    assert fleet.one.cli("deploy", "pause", "shop/nobody").returncode == 1


def test_data_goes_only_after_a_person_has_agreed_to_that(fleet: Fleet) -> None:
    """The plan is held, says which data on which agent, and is approved by its checksum; until then it stays."""
    volumes = [{"name": "uploads", "path": "/srv"}]
    with_data = documents.deployment("web", "vps-001", volumes=volumes, deletionPolicy="delete")
    fleet.one.live({PATH: with_data, "deployments/shop/app.yaml": documents.deployment("app", "vps-002")})
    held = fleet.one.status_wait(fleet.one.push({PATH: None}))
    assert (held["state"], held["reason"]) == ("Held", "DataLoss")
    assert "the plan deletes data: volume uploads of shop/web on vps-001" in held["message"]
    plan = fleet.one.ask(f"/revisions/{held['revision']}/plan")
    assert plan["losses"] == [{"agent": "vps-001", "deployment": "shop/web", "data": ["volume uploads"]}]
    assert fleet.deploy("status")["agents"][0]["agent"] == "vps-001"
    assert fleet.one.cli("approve", held["approve"]).returncode == 0
    assert fleet.one.status_wait(held["revision"], "Converged")["state"] == "Converged"
    assert fleet.one.cli("deploy", "status", "shop/web").returncode == 1


def test_two_commits_in_the_middle_end_at_the_newest(fleet: Fleet) -> None:
    """An agent under way gets the newest at once; the limit holds for whatever is under way."""
    fleet.script(**{"2": (5.0, "Applied", "Running")})
    fleet.push("web:2")
    wait_for(lambda: fleet.have("web:2") == {"vps-001"}, 30, what="the first wave")
    record = fleet.one.status_wait(fleet.push("web:3"))
    assert record["state"] == "Converged"
    assert fleet.have("web:2") == {"vps-001"}
    assert fleet.most_at_once("web:3") == 1
