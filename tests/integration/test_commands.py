"""``cloudlunacy deploy`` on the real parts: ``serve``, an agent's process, commands; the engine is one in thought."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation, run_cli
from tests.support.orphans import tied
from tests.support.waiting import wait_for

IMAGE: Final = "web:good"
WEB: Final = "/deployments/shop/web"


def files(*, may_exec: bool = True) -> dict[str, bytes | str | None]:
    teams = [documents.team("shop", agents=["vps-1", "vps-2"]), documents.team("data", agents=["vps-1"])]
    more: dict[str, Any] = {"commands": {"exec": ["shop"]}} if may_exec else {}
    return {
        "fleet.yaml": documents.fleet(*teams, **more),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
        "deployments/shop/web.yaml": documents.deployment("web", "vps-1", image=IMAGE),
        "deployments/data/db.yaml": documents.deployment("db", "vps-1", image=IMAGE, port=8082),
    }


def run_modelled(one: Installation, name: str) -> subprocess.Popen[bytes]:
    """Enrol an agent and start it."""
    done = one.enrol(name)
    assert done.returncode == 0, done.stderr
    with (one.folder / f"agent-{name}.log").open("ab") as log:
        process = subprocess.Popen(
            tied([sys.executable, "-m", "tests.support.modelled_agent", str(one.agent_data(name))]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
    one._agents.append(process)
    one.wait_connected(name)
    return process


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("commands") / "one", files(), traefik=False) as running:
        run_modelled(running, "vps-1")
        wait_for(lambda: state(running) == "Running", 30, what="the deployment")
        yield running


def state(one: Installation, path: str = WEB) -> str:
    """How the deployment stands on its first agent."""
    [agent, *_] = one.ask(path)["agents"]
    return str((agent.get("result") or {}).get("reason"))


def deploy(one: Installation, *words: str, program: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    after = ("--", *program) if program else ()
    return run_cli("deploy", *words, "--data", one.data, *after)


def ends(one: Installation, *, item: str = "Deployment/shop/web") -> list[tuple[str, str]]:
    """The commands in the timeline of a deployment: what, and by whom."""
    events = one.ask("/events", subject=item, limit=1000)["events"]
    return [(event["message"].rpartition(" (command ")[0], event["actor"]) for event in events]


def test_list_and_view_say_how_it_stands(one: Installation) -> None:
    """The list has each deployment with its agents and what they say; one alone has what its file says too."""
    listed = deploy(one, "list", "--format", "json")
    found = {(row["team"], row["name"]): row for row in json.loads(listed.stdout)["deployments"]}
    assert found.keys() == {("shop", "web"), ("data", "db")}
    assert found["shop", "web"]["agents"][0]["agent"] == "vps-1"
    text = deploy(one, "list").stdout
    assert "shop/web" in text
    assert "Running" in text
    view = one.ask(WEB)
    assert (view["spec"]["image"], view["execAllowed"]) == (IMAGE, True)


def test_logs_are_told_line_by_line(one: Installation) -> None:
    """The last lines come as they were written; a pipe gets them unchanged."""
    done = deploy(one, "logs", "shop/web", "--tail", "2")
    assert (done.returncode, done.stdout) == (0, "two\n\x1b[31mthree\n"), done.stderr


def test_following_goes_on_until_it_is_ended(one: Installation) -> None:
    """New lines come as they are written; Ctrl-C ends the command here and on the agent."""
    words = ("deploy", "logs", "shop/web", "-f", "--tail", "0", "--data", str(one.data))
    process = subprocess.Popen(
        tied([sys.executable, "-m", "reconciler", *words]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert all(line.startswith("tick ") for line in lines)
    before = len(ends(one))
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.communicate()
    wait_for(lambda: len(ends(one)) > before, 15, what="the end of the command")
    assert ends(one)[-1][0].startswith("logs, followed, on vps-1 was stopped after")


def test_a_program_runs_and_its_exit_code_is_passed_on(one: Installation) -> None:
    """What it writes comes on its stream, and the exit code is the program's; arguments are written down nowhere."""
    done = deploy(one, "exec", "shop/web", program=("echo", "hello", "--password=hunter2"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "echo hello --password=hunter2\n", "")
    failed = deploy(one, "exec", "shop/web", program=("fail",))
    assert (failed.returncode, failed.stdout, failed.stderr) == (3, "fail\n", "it failed\n")
    wait_for(lambda: "exit code 3" in ends(one)[-1][0], 10, what="the events")
    told = ends(one)[-4:]
    assert told[0] == ("operator:local began exec of echo and 2 arguments on vps-1.", "operator:local")
    assert told[1][0].startswith("exec of echo and 2 arguments on vps-1 ended well after ")
    assert told[3][0].startswith("exec of fail on vps-1 ended with exit code 3 after ")
    assert "hunter2" not in json.dumps(one.ask("/events", limit=1000)) + one.log() + one.agent_log("vps-1")


def test_a_program_ends_with_its_time(one: Installation) -> None:
    """After the time that was given the program is ended and the command says so."""
    done = deploy(one, "exec", "shop/web", "--timeout", "1", program=("sleep", "100"))
    assert (done.returncode, done.stdout) == (1, "sleep 100\n")
    assert "vps-1: TimedOut: It took longer than 1 s and was ended." in done.stderr


def test_a_restart_has_a_fresh_instance_made(one: Installation) -> None:
    """The steps are told, another instance serves, and what is wanted is what it was."""
    before = one.ask("/status")["generation"]
    done = deploy(one, "restart", "shop/web")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("vps-1 | Restarted.\n"), done.stdout
    assert "Starting" in done.stdout
    assert state(one) == "Running"
    assert one.ask("/status")["generation"] == before
    assert "began restart on vps-1." in ends(one)[-2][0] or "began restart on vps-1." in ends(one)[-1][0]


def test_only_what_the_fleet_allows_is_run(one: Installation) -> None:
    """A team that the fleet does not name is refused, with what to write; other teams may go on."""
    done = deploy(one, "exec", "data/db", program=("echo",))
    assert done.returncode == 1
    assert 'does not let people run programs in what team "data" deploys' in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("logs", "shop/nothing"), "There is no such deployment."),
        (("logs", "shop/web", "--agent", "vps-2"), "does not run on such an agent"),
        (("restart", "shop/web", "--agent", "no such"), "not valid"),
    ],
)
def test_what_is_not_there_is_told(one: Installation, words: tuple[str, ...], said: str) -> None:
    """Unknown deployments and agents are refused with a sentence."""
    done = deploy(one, *words)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_token_of_a_team_sees_that_team_alone(one: Installation, tmp_path: Path) -> None:
    """It lists, reads and restarts the team's deployments; others and everything else are refused."""
    made = one.post("/tokens", {"kind": "person", "scopes": ["read", "operate"], "team": "shop"}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}

    def status(method: str, path: str, **more: Any) -> tuple[int, str]:
        answer = one.client.request(method, f"/api/v1{path}", headers=headers, **more)
        return answer.status_code, answer.json()["type"].rpartition(":")[2] if answer.status_code >= 400 else ""

    listed = one.client.get("/api/v1/deployments", headers=headers).json()["deployments"]
    assert [(row["team"], row["name"]) for row in listed] == [("shop", "web")]
    assert status("GET", WEB) == (200, "")
    assert one.client.get(f"/api/v1{WEB}/logs", headers=headers).is_success
    assert status("GET", "/deployments/data/db") == (403, "other-team")
    assert status("GET", "/deployments/data/db/logs") == (403, "other-team")
    assert status("POST", "/deployments/data/db/restart", json={}) == (403, "other-team")
    assert status("POST", f"{WEB}/exec", json={"command": ["echo"]}) == (403, "insufficient-scope")
    for path in ("/status", "/agents", "/events", "/state", "/objects"):
        assert status("GET", path) == (403, "other-team")
    assert status("POST", "/agents/vps-1/revocation", json={}) == (403, "other-team")
    assert status("POST", "/tokens", json={"kind": "ci", "scopes": ["read"]}) == (403, "other-team")
    refused = one.post("/tokens", {"kind": "person", "scopes": ["approve"], "team": "shop"})
    assert refused.status_code == 422


def test_a_token_that_ends_ends_what_it_asked_for(one: Installation) -> None:
    """A stream of a revoked token is over within seconds, and says why."""
    made = one.post("/tokens", {"kind": "person", "scopes": ["operate"], "team": "shop"}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    url = f"/api/v1{WEB}/logs"
    with one.client.stream("GET", url, params={"follow": "true"}, headers=headers, timeout=30) as answer:
        assert answer.is_success
        lines = answer.iter_lines()
        next(lines)
        assert one.post(f"/tokens/{made['id']}/revocation", {}).is_success
        last = [json.loads(line) for line in lines if line][-1]
    assert (last["ended"], last["reason"]) == (True, "TokenEnded")


def test_an_agent_that_goes_ends_its_commands(tmp_path: Path) -> None:
    """Who waits hears at once that the agent is gone; a second try is refused until it is back."""
    with installation(tmp_path / "one", files(), traefik=False) as one:
        agent = run_modelled(one, "vps-1")
        wait_for(lambda: state(one) == "Running", 30, what="the deployment")
        url, params = f"/api/v1{WEB}/logs", {"follow": "true"}
        with one.client.stream("GET", url, params=params, headers=one.headers(), timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            agent.kill()
            last = [json.loads(line) for line in lines if line][-1]
        assert (last["ended"], last["reason"]) == (True, "AgentGone")
        refused = one.client.get(url, headers=one.headers())
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:cloudlunacy:problem:agent-away")
