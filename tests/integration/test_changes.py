"""Changes by people on the real parts: ``serve``, a git remote, Traefik; by the API and by commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.git_repos import git
from tests.support.waiting import wait_for
from tests.unit.changes.plane import AGENT, ROUTE, ROUTE_PATH

OBJECT = f"/api/v1/objects/{ROUTE_PATH}"
WEB = ROUTE.replace("web.example.com", f"web.app.{documents.DOMAIN}")
FILES: dict[str, bytes | str | None] = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": AGENT.format(name="vps-1", number=1),
    "agents/vps-2.yaml": AGENT.format(name="vps-2", number=2),
    ROUTE_PATH: WEB,
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("changes") / "one", FILES) as running:
        running.status_wait(running.repo.tip() or "")
        yield running


def send(one: Installation, method: str, path: str, *scopes: str, **options: Any) -> httpx.Response:
    headers = {**one.headers(*scopes), **options.pop("headers", {})}
    return one.client.request(method, path, headers=headers, **options)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def settle(one: Installation) -> None:
    """Bring the branch back to what the test began with, and wait until that is served."""
    revision = one.repo.commit(FILES, message="As before")
    one.status_wait(revision)
    wait_for(lambda: send(one, "GET", OBJECT).json()["revision"] == revision, 60)


def test_an_object_is_read_and_written(one: Installation) -> None:
    """GET answers text, state and an entity tag; PUT with that tag is a commit that is served; without it nothing."""
    settle(one)
    read = send(one, "GET", OBJECT, "read")
    assert read.status_code == 200
    shown, tag = read.json(), read.headers["etag"]
    assert (shown["state"], shown["text"], tag) == ("InService", WEB, f'"{shown["blob"]}"')
    assert [item["path"] for item in shown["referencesOut"]] == ["agents/vps-1.yaml", "agents/vps-2.yaml"]
    assert send(one, "GET", OBJECT, headers={"If-None-Match": tag}).status_code == 304
    after = WEB.replace("weight: 3", "weight: 9")
    yaml = {"Content-Type": "application/yaml"}
    assert code(send(one, "PUT", OBJECT, content=after, headers=yaml)) == (428, "precondition-required")
    assert code(send(one, "PUT", OBJECT, "read", content=after, headers=yaml)) == (403, "insufficient-scope")
    done = send(one, "PUT", OBJECT, content=after, headers={**yaml, "If-Match": tag}, params={"message": "Nine"})
    assert (done.status_code, done.json()["state"]) == (200, "committed"), done.text
    revision = done.json()["revision"]
    assert one.status_wait(revision)["state"] == "Converged"
    assert git("-C", one.repo.path, "log", "-1", "--format=%s %an", revision) == "Nine local"
    again = send(one, "PUT", OBJECT, content=WEB, headers={**yaml, "If-Match": tag})
    assert code(again) == (412, "changed-since")
    patched = send(one, "PATCH", OBJECT, json={"metadata": {"labels": {"a": "b"}}},
                   headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip
    assert patched.json()["state"] == "committed", patched.text
    assert send(one, "GET", OBJECT).json()["desired"]["metadata"]["labels"] == {"a": "b"}
    history = send(one, "GET", f"{OBJECT}/history", "read").json()["commits"]
    assert [item["subject"] for item in history[:2]] == ["Change route shop/web", "Nine"]
    assert history[0]["actor"] == "operator:local"


def test_problems_come_back_as_ci_says_them(one: Installation) -> None:
    """A refused change names each problem with its line, and nothing is committed."""
    settle(one)
    before = one.repo.tip()
    body = {"edits": [{"path": ROUTE_PATH, "text": WEB.replace("vps-2", "vps-9")}]}
    refused = send(one, "POST", "/api/v1/changes", json=body)
    assert code(refused) == (422, "change-refused")
    assert [(item["line"], item["code"]) for item in refused.json()["problems"]] == [(12, "unknown-agent")]
    check = send(one, "POST", "/api/v1/changes/check", json=body).json()
    assert [item["code"] for item in check["blocking"]] == ["unknown-agent"]
    foreign = {"edits": [{"path": "README.md", "text": "x"}]}
    assert code(send(one, "POST", "/api/v1/changes", json=foreign)) == (422, "not-an-object")
    assert one.repo.tip() == before


def test_the_commands(one: Installation) -> None:
    """Traffic is moved, an agent cordoned and let work again, and a revision taken back, each by a commit."""
    settle(one)
    moved = one.cli("route", "weights", "shop/web", "vps-1:8081=10", "vps-2:8081=90")
    assert moved.stdout.startswith("Move traffic of shop/web: committed as"), moved.stderr
    assert one.cli("object", "get", ROUTE_PATH).stdout.count("weight: ") == 2
    revision = one.repo.tip() or ""
    checked = one.cli("rollback", revision[:12], "--check")
    assert "update routes/shop/web.yaml" in checked.stdout, checked.stderr
    back = one.cli("rollback", revision[:12])
    assert back.stdout.startswith('Revert "Move traffic of shop/web": committed'), back.stderr
    assert one.repo.show(ROUTE_PATH) + "\n" == WEB
    assert one.cli("agent", "cordon", "vps-2").returncode == 0
    assert "state: cordoned" in one.repo.show("agents/vps-2.yaml")
    assert one.cli("agent", "uncordon", "vps-2").returncode == 0
    assert one.repo.show("agents/vps-2.yaml") + "\n" == AGENT.format(name="vps-2", number=2)
    wrong = one.cli("route", "weights", "shop/web", "vps-7:1=3")
    assert (wrong.returncode, "vps-1:8081, vps-2:8081" in wrong.stderr) == (1, True)
    assert one.cli("object", "delete", ROUTE_PATH).returncode == 1
    assert one.cli("object", "delete", ROUTE_PATH, "--force").returncode == 0
    assert ROUTE_PATH not in one.repo.files()


def test_a_request_that_is_sent_again_is_answered_as_before(one: Installation) -> None:
    """By its Idempotency-Key, though what If-Match names is not there any more; another key finds that changed."""
    settle(one)
    tag = send(one, "GET", OBJECT).headers["etag"]
    for method, options in (
        ("PUT", {"content": WEB.replace("weight: 3", "weight: 8"), "type": "application/yaml"}),
        ("PATCH", {"content": '{"metadata": {"labels": {"a": "c"}}}', "type": "application/merge-patch+json"}),
        ("DELETE", {"content": "", "type": "text/plain"}),
    ):
        headers = {"If-Match": tag, "Idempotency-Key": "again", "Content-Type": options["type"]}
        first, second = (send(one, method, OBJECT, content=options["content"], headers=headers) for _ in range(2))
        assert (first.status_code, first.json()["state"]) == (200, "committed"), first.text
        assert (second.status_code, second.json()["id"]) == (200, first.json()["id"]), second.text
        assert second.json()["revision"] == first.json()["revision"] == one.repo.tip()
        other = send(one, method, OBJECT, content=options["content"], headers=headers | {"Idempotency-Key": "other"})
        if method != "DELETE":
            assert code(other) == (412, "changed-since")
            tag = send(one, "GET", OBJECT).headers["etag"]
        else:
            assert code(other) == (404, "unknown-object")


def test_accepted_before_a_kill_is_committed_after(one: Installation) -> None:
    """While the remote refuses, a change is kept on disk; whoever is started next brings it there, once."""
    settle(one)
    one.repo.install_hook("pre-receive", "echo 'index.lock: cannot lock ref' >&2; exit 1")
    body = {"edits": [{"path": ROUTE_PATH, "text": WEB.replace("weight: 3", "weight: 7")}], "message": "Seven"}
    kept = send(one, "POST", "/api/v1/changes", json=body, headers={"Idempotency-Key": "seven"}, timeout=60)
    assert (kept.status_code, kept.json()["state"]) == (202, "pending"), kept.text
    one.kill()
    (one.repo.path / "hooks" / "pre-receive").unlink()
    one.start()
    wait_for(lambda: one.repo.log()[0] == "Seven", 60)
    again = send(one, "POST", "/api/v1/changes", json=body, headers={"Idempotency-Key": "seven"}, timeout=60)
    assert (again.status_code, again.json()["revision"]) == (200, one.repo.tip()), again.text
    assert one.repo.log().count("Seven") == 1
