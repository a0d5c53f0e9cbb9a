"""Agents from token to document, with the real agent process: enrolled, served, revoked, restarted, left alone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from ruamel.yaml import YAML

from agent.cli import CAPABILITIES
from agent.installing.layout import Layout
from agent.installing.machine import capabilities_of
from tests.support import documents
from tests.support.fleet import Installation, installation, start_files, web
from tests.support.waiting import wait_for

APPLIED = "applied.json"
DESIRED = "desired.jws"


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    """A control plane with two agents whose files say no identity yet, without a front."""
    with installation(tmp_path / "one", start_files("web"), traefik=False) as running:
        yield running


def enrolled(one: Installation, *names: str) -> None:
    for name in names:
        done = one.enrol(name)
        assert done.returncode == 0, done.stderr
        assert f"{name} is enrolled with key " in done.stdout
        one.run_agent(name)
    for name in names:
        one.wait_connected(name)
    for name in names:
        wait_for((one.agent_data(name) / DESIRED).exists, what=f"the document of {name} on its disk")


def desired(one: Installation, name: str) -> dict[str, Any]:
    """The document on the agent's disk."""
    path = one.agent_data(name) / DESIRED
    if not path.exists():
        return {}
    found: dict[str, Any] = jwt.decode(
        path.read_text(), options={"verify_signature": False, "verify_exp": False, "verify_aud": False}
    )
    return found


def test_an_enrolled_agent_gets_its_document_and_only_what_concerns_it(one: Installation) -> None:
    """Enrolled over HTTP it connects and applies; a change of a deployment is sent to the agent that it is on alone."""
    enrolled(one, "vps-1", "vps-2")
    tip = one.repo.tip() or ""
    assert one.status_wait(tip)["state"] == "Converged"
    assert one.repo.log()[:2] == ["Enrol agent vps-2", "Enrol agent vps-1"]
    before = desired(one, "vps-2")
    found = one.live({"deployments/shop/web.yaml": documents.deployment("web", "vps-1")}, "Deploy")
    assert {name: agent["state"] for name, agent in found["agents"].items()} == {"vps-1": "applied"}
    assert found["agents"]["vps-1"]["applied"] <= found["stages"]["applied"]
    items = [item["id"] for item in desired(one, "vps-1")["items"]]
    assert "Deployment/shop/web" in items
    assert desired(one, "vps-1")["generation"] == found["generation"]
    assert desired(one, "vps-2") == before
    shown = one.agent("vps-1")
    assert shown is not None
    assert (shown["enrolled"], shown["connected"], shown["appliedGeneration"]) == (True, True, found["generation"])
    for kind, direction in (("hello", "in"), ("welcome", "out"), ("desired", "out"), ("report", "in")):
        series = f'cloudlunacy_agent_messages_total{{direction="{direction}",type="{kind}"}} '
        assert re.search(f"^{re.escape(series)}[1-9]", one.client.get("/metrics").text, re.MULTILINE), series


def test_an_agent_that_is_new_to_the_repository_can_run_what_its_machine_has(one: Installation) -> None:
    """Without a word about it; where somebody wrote the file, the list there stays as it is."""

    def can(name: str) -> list[str]:
        found: list[str] = YAML(typ="safe").load(one.repo.show(f"agents/{name}.yaml"))["spec"].get("capabilities", [])
        return found

    one.live({"agents/vps-1.yaml": documents.agent("vps-1", capabilities=["mongodb"])}, "Say what it can run")
    enrolled(one, "vps-1")
    assert can("vps-1") == ["mongodb"]
    assert one.enrol("vps-9", "--address", "127.0.0.9").returncode == 0
    assert can("vps-9") == list(capabilities_of(Layout(Path("/"))) or CAPABILITIES)
    assert one.enrol("vps-8", "--address", "127.0.0.8", "--capability", "none").returncode == 0
    assert can("vps-8") == []


@pytest.mark.parametrize("how", ["deleted", "quarantined", "identity removed"])
def test_a_revoked_agent_is_put_out(one: Installation, how: str) -> None:
    """Without its file, quarantined, or with its identity removed its socket closes and its token is worth nothing."""
    enrolled(one, "vps-2")
    path = "agents/vps-2.yaml"
    if how == "deleted":
        content: bytes | None = None
    elif how == "quarantined":
        content = documents.agent("vps-2", state="quarantined", identity={"thumbprint": thumbprint(one)})
    else:
        content = documents.agent("vps-2")
    files: dict[str, bytes | str | None] = {path: content}
    if how == "deleted":
        files["fleet.yaml"] = documents.fleet(documents.team("shop", agents=["vps-1"]))
    found = one.status_wait(one.push(files, f"vps-2 is {how}"))
    assert found["state"] == "Converged", found
    notice = "its file keeps this agent out" if how == "quarantined" else "this agent was revoked; enrol it again"
    wait_for(lambda: notice in one.agent_log("vps-2"), 15, what="the agent's notice")
    assert (how == "quarantined") is ("this agent was revoked" not in one.agent_log("vps-2"))
    refused = f"does not let this agent in (HTTP {403 if how == 'quarantined' else 401})"
    wait_for(lambda: refused in one.agent_log("vps-2"), 15, what=f"the refusal\n{one.agent_log('vps-2')[-2000:]}")
    wait_for(lambda: one.ask("/status")["agentsConnected"] == 0, what="the end of the connection")


def thumbprint(one: Installation) -> str:
    found = [line for line in one.repo.show("agents/vps-2.yaml").splitlines() if "thumbprint" in line]
    return found[0].partition("thumbprint")[2].strip(" \":'}")


def test_an_agent_serves_on_without_the_control_plane(one: Installation) -> None:
    """Without the control plane an agent keeps what it has, also through a restart; afterwards it is told news."""
    enrolled(one, "vps-1")
    found = one.live({"deployments/shop/web.yaml": documents.deployment("web", "vps-1")})
    one.kill()
    agent = one._agents[-1]
    agent.kill()
    agent.wait()
    applied = (one.agent_data("vps-1") / APPLIED).read_text()
    one.run_agent("vps-1")
    wait_for(lambda: "cannot" in one.agent_log("vps-1") or "again" in one.agent_log("vps-1").lower(), 15)
    assert json.loads((one.agent_data("vps-1") / APPLIED).read_text())["digest"] == json.loads(applied)["digest"]
    later = one.push({"deployments/shop/web.yaml": documents.deployment("web", "vps-1", image="web:2")})
    one.start()
    one.wait_connected("vps-1", deadline=30)
    assert one.status_wait(later)["state"] == "Converged"
    wait_for(lambda: desired(one, "vps-1")["generation"] > found["generation"], what="the newer document")
    wait_for(lambda: (one.agent("vps-1") or {})["appliedGeneration"] > found["generation"], what="its application")


def test_agents_reconnect_after_a_restart_and_are_sent_nothing(one: Installation) -> None:
    """After a restart agents come back by themselves; who has its document is not sent it again."""
    enrolled(one, "vps-1")
    before, stat = desired(one, "vps-1"), (one.agent_data("vps-1") / DESIRED).stat()
    assert one.stop(8) == 0, "an agent that is connected must not hold up the end"
    one.start()
    one.wait_connected("vps-1", deadline=30)
    shown = one.agent("vps-1")
    assert shown is not None
    assert shown["appliedGeneration"] == before["generation"]
    assert (one.agent_data("vps-1") / DESIRED).stat().st_mtime_ns == stat.st_mtime_ns


def test_an_enrolment_may_be_repeated_by_its_key_only(one: Installation, tmp_path: Path) -> None:
    """The same token and key are answered the same again; another key gets nothing."""
    token = one.token("vps-1")
    first = one.enrol("vps-1", token=token)
    again = one.enrol("vps-1", token=token)
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == again.stdout
    assert one.repo.log().count("Enrol agent vps-1") == 1
    (one.agent_data("vps-1")).rename(tmp_path / "elsewhere")
    stolen = one.enrol("vps-1", token=token)
    assert stolen.returncode == 1
    assert "is enrolled with another key" in stolen.stderr, stolen.stderr


def test_in_mode_pull_request_an_agent_waits_to_be_merged(tmp_path: Path) -> None:
    """In mode pull-request the enrolment is a branch of its own; merged, the agent connects."""
    files = start_files("web", fleet=documents.fleet(registration={"mode": "pull-request"}))
    with installation(tmp_path / "one", files, traefik=False) as one:
        before = one.repo.tip()
        done = one.enrol("vps-1")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "vps-1 is on branch enrol/vps-1; somebody has to merge it\n"
        assert one.repo.tip() == before
        assert one.repo.log("enrol/vps-1")[0] == "Enrol agent vps-1"
        one.run_agent("vps-1")
        wait_for(lambda: len(one.agent_log("vps-1")) > 0, what="the agent's first try")
        merged = one.repo.tip("enrol/vps-1") or ""
        one.repo.set_tip(merged)
        assert one.status_wait(merged)["state"] == "Converged"
        one.wait_connected("vps-1", deadline=75)


def test_enrolments_and_people_push_at_the_same_time(one: Installation) -> None:
    """While people push all the time, no enrolment and no commit is lost, and nothing is forced."""
    enough = threading.Event()
    pushed: list[str] = []

    def people() -> None:
        while not enough.wait(0.4) and len(pushed) < 40:  # where pushing takes longer than that, people win for ever
            name = f"p-{len(pushed)}"
            pushed.append(one.repo.push_on_top({f"routes/shop/{name}.yaml": web(name, 8081)}, message=f"Add {name}"))

    thread = threading.Thread(target=people)
    thread.start()
    try:
        names = [f"new-{number}" for number in range(8)]
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(one.enrol, names))
    finally:
        enough.set()
        thread.join()
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * len(names)
    expected = len(names) + len(pushed) + 1
    wait_for(lambda: len(one.repo.log()) >= expected, 40, what="every commit on the branch")
    log = one.repo.log()
    assert sorted(log) == sorted(
        ["Start", *(f"Enrol agent {name}" for name in names), *(f"Add p-{number}" for number in range(len(pushed)))]
    )
    assert one.status_wait(one.repo.tip() or "", deadline=40)["state"] == "Converged"
    assert {f"agents/{name}.yaml" for name in names} <= set(one.repo.files())
