"""``cloudlunacy agent route`` on the real parts: ``serve``, a git remote, Traefik, agents' keys (rows 8 and 25)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from agent.credentials import Credentials
from schemas.agent_routes import AgentRouteRequest, route_name
from tests.support import documents
from tests.support.fleet import Installation, installation, run_cli
from tests.support.git_repos import git
from tests.support.traefik import backends
from tests.support.waiting import wait_for

DOMAIN: Final = documents.DOMAIN
HOST: Final = f"asked.app.{DOMAIN}"
GRANT: Final = {"team": "shop", "hostnames": [f"*.app.{DOMAIN}"], "agents": ["vps-1"]}


def files(port: int = 8081, **more: Any) -> dict[str, bytes | str | None]:
    teams = [
        documents.team("shop", hostnames=[f"*.app.{DOMAIN}"], agents=["vps-1", "vps-2"]),
        documents.team("data", hostnames=[f"data.{DOMAIN}"], agents=["vps-2"]),
    ]
    return {
        "fleet.yaml": documents.fleet(*teams, agentRoutes=[GRANT], **more),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2", address="127.0.0.2"),
        "deployments/shop/web.yaml": documents.deployment("web", "vps-1", port=port),
        "deployments/shop/other.yaml": documents.deployment("other", "vps-2", port=8082),
        "routes/shop/taken.yaml": documents.route("taken", f"taken.app.{DOMAIN}"),
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with backends("app") as (backend,):
        folder = tmp_path_factory.mktemp("routes") / "one"
        with installation(folder, files(backend.port)) as running:
            for name in ("vps-1", "vps-2"):
                done = running.enrol(name)
                assert done.returncode == 0, done.stderr
            running.status_wait(running.repo.tip() or "")
            yield running


def ask(one: Installation, *words: str, agent: str = "vps-1") -> Any:
    return run_cli("agent", "route", "--data", one.agent_data(agent), *words)


def call(one: Installation, agent: str, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Call the API as an agent."""

    async def send() -> httpx.Response:
        credentials = Credentials.load(one.agent_data(agent))
        try:
            return await credentials.call(method, path, body or {})
        finally:
            await credentials.close()

    return asyncio.run(send())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2] if answer.status_code >= 400 else ""


def wanted(**more: Any) -> dict[str, Any]:
    return {"team": "shop", "deployment": "web", "hostname": HOST, "tls": "none", **more}


def path_of(agent: str = "vps-1", **more: Any) -> str:
    return f"/api/v1/routes/shop/{route_name(agent, AgentRouteRequest.model_validate(wanted(**more)))}"


def test_an_agent_has_a_route_made_and_takes_it_back(one: Installation) -> None:
    """One command: a commit in the agent's name, served by Traefik; again nothing changes; with --remove it is gone."""
    words = ("--deployment", "shop/web", "--hostname", HOST, "--plain")
    done = ask(one, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"http://{HOST}/ leads to shop/web here (routes/shop/web-asked-")
    shown = git("-C", one.repo.path, "show", "--name-status", "--format=%an <%ae>%n%s%n%(trailers)", "main")
    assert f"vps-1 <vps-1@agents.{DOMAIN}>\nRoute {HOST} to shop/web on vps-1\n" in shown
    assert "CloudLunacy-Actor: agent:vps-1" in shown
    assert f"A\t{path_of().replace('/api/v1/', '')}.yaml" in shown
    assert one.front is not None
    wait_for(lambda: one.front is not None and one.front.get(HOST, "/").status_code == 200, 10, what="the answer")
    tip = one.repo.tip()
    assert ask(one, *words).returncode == 0
    assert one.repo.tip() == tip, "the same again is no commit"
    told = one.ask("/events", limit=1000)["events"]
    assert [event["actor"] for event in told if event["type"] == "RouteAsked"][:1] == ["agent:vps-1"]
    gone = ask(one, *words, "--remove")
    assert gone.returncode == 0, gone.stderr
    assert "is deleted, in " in gone.stdout
    wait_for(lambda: one.front is not None and one.front.get(HOST, "/").status_code == 404, 10, what="the end of it")
    assert ask(one, *words, "--remove").returncode == 0, "what is gone may be taken back again"


@pytest.mark.parametrize(
    ("agent", "body", "expected"),
    [
        ("vps-1", {"hostname": f"data.{DOMAIN}"}, (403, "host-not-granted")),
        ("vps-1", {"hostname": "bank.example.com"}, (403, "host-not-granted")),
        ("vps-1", {"hostname": f"a.b.app.{DOMAIN}"}, (403, "host-not-granted")),
        ("vps-1", {"team": "data", "hostname": f"data.{DOMAIN}"}, (403, "host-not-granted")),
        ("vps-2", {}, (403, "host-not-granted")),
        ("vps-2", {"deployment": "other"}, (403, "host-not-granted")),
        ("vps-1", {"deployment": "other"}, (403, "not-on-this-agent")),
        ("vps-1", {"deployment": "nothing"}, (403, "not-on-this-agent")),
        ("vps-1", {"hostname": f"taken.app.{DOMAIN}"}, (409, "host-taken")),
        ("vps-1", {"path": "/.well-known/acme-challenge/x"}, (422, "path-reserved")),
        ("vps-1", {"portName": "other"}, (422, "unknown-port")),
        ("vps-1", {"agent": "vps-2"}, (422, "invalid-request")),
        ("vps-1", {"address": "127.0.0.2"}, (422, "invalid-request")),
        ("vps-1", {"port": 22}, (422, "invalid-request")),
        ("vps-1", {"backends": [{"agent": "vps-2", "port": 8082}]}, (422, "invalid-request")),
        ("vps-1", {"hostname": "a`) || Host(`b.example.com"}, (422, "invalid-request")),
        ("vps-1", {"hostname": "*.app.cloudlunacy.test"}, (422, "invalid-request")),
        ("vps-1", {"path": "/../x"}, (422, "invalid-request")),
        ("vps-1", {"team": "../agents"}, (422, "invalid-request")),
        ("vps-1", {"deployment": "web\nkind: Agent"}, (422, "invalid-request")),
    ],
)
def test_nothing_is_written_for_what_is_not_the_agents(
    one: Installation, agent: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Another's host, team, deployment, machine, port or address, and whatever a commit would be refused for."""
    tip = one.repo.tip()
    answer = call(one, agent, "POST", "/api/v1/routes", wanted(**body))
    assert code(answer) == expected, answer.text
    assert one.repo.tip() == tip


def test_of_each_others_routes_agents_see_and_change_nothing(one: Installation) -> None:
    """Whoever asked is known by the key; another agent is refused, and so is a person."""
    host = {"hostname": f"mine.app.{DOMAIN}"}
    made = call(one, "vps-1", "POST", "/api/v1/routes", wanted(**host))
    assert made.status_code == 200, made.text
    wait_for(lambda: call(one, "vps-1", "GET", path_of(**host)).json().get("inService"), 15, what="the route")
    tip = one.repo.tip()
    for method in ("GET", "DELETE"):
        assert code(call(one, "vps-2", method, path_of(**host))) == (403, "not-yours")
        answer = one.client.request(method, path_of(**host), headers=one.headers())
        assert code(answer) == (403, "insufficient-scope")
    for name in ("taken", "web", "web-asked-xyz"):
        answer = call(one, "vps-1", "DELETE", f"/api/v1/routes/shop/{name}")
        assert answer.status_code == 404, answer.text
    assert one.repo.tip() == tip
    assert call(one, "vps-1", "DELETE", path_of(**host)).status_code == 200


def test_what_a_person_changed_is_the_persons(one: Installation) -> None:
    """A file that was edited is neither written over nor deleted: 409, and it stays as it is."""
    host = {"hostname": f"edited.app.{DOMAIN}"}
    assert call(one, "vps-1", "POST", "/api/v1/routes", wanted(**host)).status_code == 200
    path = f"{path_of(**host).removeprefix('/api/v1/')}.yaml"
    content = one.repo.show(path)
    edited = (content if isinstance(content, str) else content.decode()) + "# ours now\n"
    one.status_wait(one.push({path: edited}, "Take it over"))
    tip = one.repo.tip()
    assert code(call(one, "vps-1", "POST", "/api/v1/routes", wanted(**host))) == (409, "route-changed")
    assert code(call(one, "vps-1", "DELETE", path_of(**host))) == (409, "route-changed")
    assert one.repo.tip() == tip
    one.status_wait(one.push({path: None}, "Delete it"))


async def _until_refused(one: Installation) -> list[httpx.Response]:
    """Ask as vps-1 for what it may not have, until the answer is another one."""
    credentials = Credentials.load(one.agent_data("vps-1"))
    answers: list[httpx.Response] = []
    try:
        while len(answers) < 300 and (not answers or answers[-1].status_code == 403):
            answers.append(await credentials.call("POST", "/api/v1/routes", wanted(deployment="no")))
    finally:
        await credentials.close()
    return answers


def test_an_agent_that_asks_too_often_waits(tmp_path: Path) -> None:
    """After a burst an agent is told when to come again, and nobody else is."""
    with installation(tmp_path / "one", files(), traefik=False) as one:
        for name in ("vps-1", "vps-2"):
            assert one.enrol(name).returncode == 0
        one.status_wait(one.repo.tip() or "")
        *before, late = asyncio.run(_until_refused(one))
        assert len(before) >= 60
        assert (code(late), int(late.headers["retry-after"]) > 0) == ((429, "too-many-requests"), True)
        assert code(call(one, "vps-2", "POST", "/api/v1/routes", wanted())) == (403, "host-not-granted")


def test_by_pull_request_the_route_waits_on_a_branch(tmp_path: Path) -> None:
    """Where the fleet takes changes by pull request, so it does those of agents."""
    with installation(tmp_path / "one", files(), traefik=False) as one:
        assert one.enrol("vps-1").returncode == 0
        proposing = files(registration={"mode": "pull-request"})["fleet.yaml"]
        one.status_wait(one.push({"fleet.yaml": proposing}, "By pull request"))
        done = ask(one, "--deployment", "shop/web", "--hostname", HOST, "--plain", "--timeout", "5")
        assert done.returncode == 0, done.stderr
        assert "branch route/web-asked-" in done.stdout
        assert "waits to be merged" in done.stdout
