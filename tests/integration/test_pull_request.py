"""The way of a change by pull request, on real parts: git over HTTP, ``serve``, Traefik, the Action's own script.

Only GitHub itself is played, by a server that behaves as its documentation says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.fleet import Files, Installation, installation, start_files, web, web_host
from tests.support.forges import FakeGitHub
from tests.support.forges.fake import REPOSITORY, TOKEN, Asked
from tests.support.git_repos import git
from tests.support.git_server import GitServer, git_server
from tests.support.traefik import Backend, backends
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
MARKER = "[cloudlunacy:plan]:"


@dataclass
class World:
    """A state repo at GitHub, a control plane that follows it, and somebody with a clone."""

    github: FakeGitHub
    remote: GitServer
    one: Installation
    backend: Backend
    clone: Path

    def change(self, files: Files, message: str) -> str:
        """Commit to the branch ``change`` and push it."""
        for name, content in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        self.git("add", "--all")
        self.git("-c", "user.name=Ada", "-c", "user.email=ada@example.test", "commit", "--quiet", "-m", message)
        self.git("push", "--quiet", "origin", "HEAD:change")
        return self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        return git("-C", self.clone, *words)

    def review(self, asked: Asked, token: str = TOKEN, head: str = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """Run the Action's script as a runner does for an event of the pull request."""
        event, summary = self.clone.parent / "event.json", self.summary
        summary.write_text("")
        sides = {
            "head": {"sha": self.git("rev-parse", "HEAD"), "repo": {"full_name": head}},
            "base": {"sha": self.git("rev-parse", "origin/main"), "repo": {"full_name": REPOSITORY}},
        }
        event.write_text(json.dumps({"pull_request": {"number": asked.number, **sides}}))
        environment = {
            "PATH": os.environ["PATH"],
            "CLOUDLUNACY_BIN": str(Path(sys.executable).parent),
            "CLOUDLUNACY_BASE": "",
            "CLOUDLUNACY_OUT": str(self.clone.parent / "review"),
            "CLOUDLUNACY_FORGE_TOKEN": token,
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self.github.api,
            "GITHUB_SERVER_URL": "https://github.test",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "77",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        words = ["sh", str(ROOT / "ci/review.sh"), "."]
        return subprocess.run(
            words, env=environment, cwd=self.clone, capture_output=True, text=True, timeout=120, check=False
        )

    @property
    def summary(self) -> Path:
        return self.clone.parent / "summary.md"

    def posted(self, revision: str) -> list[str]:
        return [one.state for one in self.github.statuses if one.revision == revision]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    github = FakeGitHub()
    github.may_ask_who = False  # as with the token of a workflow
    token = folder / "token"
    token.write_text(TOKEN)
    fleet = documents.fleet(registration={"mode": "pull-request"})
    with github.listening() as api, git_server(folder) as remote, backends("app") as (backend,):
        file = folder / "forge.toml"
        file.write_text(f'kind = "github"\nurl = "{api}"\nrepository = "{REPOSITORY}"\ntoken-file = "{token}"\n')
        file.chmod(0o600)
        files = start_files("web", port=backend.port, fleet=fleet)
        environment = {"CLOUDLUNACY_FORGE_FILE": str(file)}
        url = remote.url_of(folder / "fleet" / "remote.git")
        with installation(folder / "fleet", files, repo_url=url, environment=environment) as one:
            clone = folder / "clone"
            git("clone", "--quiet", url, clone)
            git("-C", clone, "checkout", "--quiet", "-b", "change")
            yield World(github, remote, one, backend, clone)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("forge")) as one:
        yield one


def test_a_change_from_pull_request_to_live(shared: World) -> None:
    """One comment with plan and checks follows each push; merged, the commit is live and says so, once."""
    github, one = shared.github, shared.one
    shared.change({"routes/shop/new.yaml": web("new", shared.backend.port)}, "Add new")
    asked = github.ask("change")

    done = shared.review(asked)
    assert done.returncode == 0, done.stderr
    (comment,) = github.comments
    assert f"`{web_host('new')}`" in comment.body
    assert "`routes/shop/new.yaml`" in comment.body
    assert "**Checks**: ✅ 5 objects, no problems." in comment.body
    assert "by [this run](https://github.test/platform/fleet/actions/runs/77)" in comment.body
    assert MARKER in comment.body
    assert web_host("new") in shared.summary.read_text()

    broken = web("new", shared.backend.port).replace(b"vps-1", b"vsp-1")
    shared.change({"routes/shop/new.yaml": broken}, "Break it")
    done = shared.review(asked)
    assert done.returncode == 1
    assert "::error file=routes/shop/new.yaml,line=1," in done.stdout
    assert [found.id for found in github.comments] == [comment.id]
    assert "❌ 5 objects, 1 error" in comment.body

    tip = shared.change({"routes/shop/new.yaml": web("new", shared.backend.port)}, "Mend it")
    assert shared.review(asked).returncode == 0
    assert [found.id for found in github.comments] == [comment.id]
    assert f"For commit `{tip[:12]}`" in comment.body
    assert "✅" in comment.body

    shared.git("push", "--quiet", "origin", "HEAD:main")  # merged
    assert one.status_wait(tip)["state"] == "Converged"
    assert one.get("new").status_code == 200
    wait_for(lambda: "success" in shared.posted(tip), 90, what="the status of the commit")
    status = github.statuses[-1]
    assert (status.state, status.description, status.name) == ("success", "In service everywhere.", "cloudlunacy")
    assert status.url == f"{one.url}/revisions/{tip}"
    one.restart()
    later = one.live({"routes/shop/later.yaml": web("later", shared.backend.port)}, "Add later")["revision"]
    wait_for(lambda: "success" in shared.posted(later), 90, what="the status of the next commit")
    assert shared.posted(tip).count("success") == 1


def test_a_fork_gets_no_comment_but_a_plan(shared: World) -> None:
    """Its run has no token that may write; the page of the run shows the plan, and the job is not failed by it."""
    before = len(shared.github.requests)
    done = shared.review(Asked(99, "change", "main"), token="", head="stranger/fleet")
    assert done.returncode == 0, done.stderr
    assert "it comes from a fork" in done.stderr
    assert "### CloudLunacy plan" in shared.summary.read_text()
    reviews = [one for one in shared.github.requests[before:] if "/issues/" in one]
    assert reviews == []


def test_a_comment_that_cannot_be_posted_fails_nobody(shared: World) -> None:
    """The run warns with what the forge said, without the token, and goes by its checks."""
    done = shared.review(Asked(99, "change", "main"), token="no-such-token")
    assert done.returncode == 0, done.stderr
    assert "::warning title=CloudLunacy::The plan could not be posted:" in done.stdout
    assert "no-such-token" not in done.stdout + done.stderr


def test_an_enrolment_asks_for_its_merge(shared: World) -> None:
    """In mode pull-request there is one pull request for it, which the timeline names, also after a restart."""
    one, github = shared.one, shared.github
    done = one.enrol("vps-3", "--timeout", "1")

    def told() -> list[str]:
        events = one.ask("/events", limit=1000)["events"]
        return [event["message"] for event in events if event["type"] == "PullRequestOpened"]

    wait_for(told, 90, what=f"the event\n{done.stderr}")
    one.restart()
    (asked,) = (asked for asked in github.pulls if asked.branch == "enrol/vps-3")
    page = f"https://github.test/platform/fleet/pull/{asked.number}"
    assert told() == [f"Pull request {asked.number} asks for Enrol agent vps-3: {page}"]
    assert (asked.title, asked.base) == ("Enrol agent vps-3", "main")
    assert "vps-3 proved that it holds the key" in asked.body
