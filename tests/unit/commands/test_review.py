"""``cloudlunacy review``: checks and plan as one comment, at every forge, from CI's own variables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reconciler.cli import COMMANDS, run
from reconciler.commands.review_comment import MARKER, MOST, Reviewed, comment_of
from schemas.plan import ObjectChange, Plan, TrafficChange
from schemas.problem import Problem
from tests.support import documents
from tests.support.fleet import start_files, web
from tests.support.forges import KINDS, FakeForge
from tests.support.forges.fake import REPOSITORY, TOKEN
from tests.support.git_repos import BareRepo, git

EVIL = "@everyone </details><img src=x> [x](https://evil.test) `|` https://evil.test #1"
CI = ("GITHUB_", "GITLAB_", "GITEA_", "BITBUCKET_", "CI_", "CLOUDLUNACY_")


def plan(**more: object) -> Plan:
    return Plan.model_validate({"base": "", "revision": "", "checksum": "", **more})


def environment(fake: FakeForge, base: str, folder: Path) -> dict[str, str]:
    """What the CI of each forge sets for pull request 1."""
    if fake.kind == "gitlab":
        return {
            "GITLAB_CI": "true", "CI_API_V4_URL": fake.api, "CI_PROJECT_PATH": REPOSITORY,
            "CI_MERGE_REQUEST_IID": "1", "CI_MERGE_REQUEST_DIFF_BASE_SHA": base, "CI_COMMIT_SHA": "a" * 40,
        }  # fmt: skip
    if fake.kind == "bitbucket":
        return {
            "BITBUCKET_BUILD_NUMBER": "3", "BITBUCKET_REPO_FULL_NAME": REPOSITORY, "BITBUCKET_PR_ID": "1",
            "BITBUCKET_PR_DESTINATION_BRANCH": "main", "BITBUCKET_API_URL": fake.api,
        }  # fmt: skip
    side = {"sha": base, "repo": {"full_name": REPOSITORY}}
    (folder / "event.json").write_text(json.dumps({"pull_request": {"number": 1, "head": side, "base": side}}))
    return {
        "GITHUB_ACTIONS": "true", "GITHUB_API_URL": fake.api, "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        **({"FORGEJO_ACTIONS": "true"} if fake.kind == "gitea" else {}),
    }  # fmt: skip


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what the CI that runs these tests says of itself."""
    for name in [one for one in os.environ if one.startswith(CI)]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A clone of a state repo with one route more than its main branch."""
    folder = tmp_path_factory.mktemp("repo")
    repo = BareRepo.create(folder / "remote.git")
    base = repo.commit(start_files("web"))
    git("clone", "--quiet", repo.path, folder / "clone")
    (folder / "clone/routes/shop/new.yaml").write_bytes(web("new", 8081))
    return folder / "clone", base


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_forge_gets_one_comment(
    kind: str, clone: tuple[Path, str], tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    """From the variables of its CI; a second run updates it, a run on files of another posts the same."""
    fake = KINDS[kind]()
    fake.ask("change")
    with fake.listening():
        for name, value in {**environment(fake, clone[1], tmp_path), "CLOUDLUNACY_FORGE_TOKEN": TOKEN}.items():
            clean.setenv(name, value)
        assert run(COMMANDS, ["review", str(clone[0]), "--out", str(tmp_path / "out")]) == 0
        assert run(COMMANDS, ["review", "--from", str(tmp_path / "out")]) == 0
    (comment,) = fake.comments
    assert f"new.app.{documents.DOMAIN}" in comment.body
    assert MARKER in comment.body
    assert ("<details" in comment.body) is (kind != "bitbucket")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "plan.json", "plan.md", "problems.json", "validate.xml",
    }  # fmt: skip


def test_by_hand_it_prints_and_posts_nothing(
    clone: tuple[Path, str], clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of CI there is no pull request."""
    assert run(COMMANDS, ["review", str(clone[0]), "--base", clone[1]]) == 0
    said = capsys.readouterr().err
    assert "5 objects checked, no problems." in said
    assert "1 to create, 0 to update, 0 to delete" in said
    assert "No comment: this run is for no pull request." in said


def test_a_base_that_is_not_there_fails_the_run(
    clone: tuple[Path, str], clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan was asked for and there is none; an option in its place is taken for a name."""
    for base in ("no-such-branch", "--upload-pack=touch broken"):
        assert run(COMMANDS, ["review", str(clone[0]), f"--base={base}"]) == 1
        assert "No plan:" in capsys.readouterr().err


def test_links_of_the_pull_request_lead_nowhere(
    clone: tuple[Path, str], tmp_path: Path, clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written takes the place of a link; a folder that is one is refused."""
    clean.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("own")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plan.md").symlink_to(victim)
    (tmp_path / "out/validate.xml").symlink_to(tmp_path / "made")
    assert run(COMMANDS, ["review", str(clone[0]), "--out", "out"]) == 0
    assert victim.read_text() == "own"
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out/plan.md").is_symlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for folder in ("link", "link/out"):
        assert run(COMMANDS, ["review", str(clone[0]), "--out", folder]) != 0
        assert "is a link, or lies behind one" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("text", ["[]", "{}", '{"problems": 1}', "no", '{"problems": [], "objects": "x"}'])
def test_files_of_another_kind_are_refused(tmp_path: Path, clean: pytest.MonkeyPatch, text: str) -> None:
    """What a run left that anybody may have changed is read as data, or not at all."""
    (tmp_path / "problems.json").write_text(text)
    assert run(COMMANDS, ["review", "--from", str(tmp_path)]) == 1


def test_nothing_of_the_repository_is_markup() -> None:
    """Not in a path, a host, a field or a message; at Bitbucket there is no HTML at all."""
    change = ObjectChange(action="update", kind="Route", name="x", path=EVIL, fields=(EVIL,))
    traffic = TrafficChange(host=EVIL, entry_point="web", action="changed", before=EVIL, after=EVIL, effects=(EVIL,))
    problem = Problem(file=EVIL, code="x", message=EVIL, hint=EVIL)
    reviewed = Reviewed((problem,), 1, plan(changes=(change,), traffic=(traffic,)))
    for html in (True, False):
        for line in comment_of(reviewed, html=html).splitlines():
            if "everyone" in line:
                outside = "".join(line.split("``")[::2])
                assert not set("@<[#") & set(outside), line
                assert "evil" not in outside
    assert "<details" not in comment_of(reviewed, html=False)


def test_a_giant_plan_fits_into_every_comment() -> None:
    """Cut between lines, with a note, the marker and the commit still at the end."""
    changes = tuple(
        ObjectChange(action="create", kind="Route", name="x", path="routes/" + "y" * 290) for _ in range(150)
    )
    problems = tuple(Problem(file="z" * 290, code="x", message="m" * 290) for _ in range(150))
    reviewed = Reviewed(problems, 1, plan(changes=changes))
    for limit in (32_768, 65_536, 1_000_000):
        body = comment_of(reviewed, revision="a" * 40, limit=limit)
        assert len(body) <= min(limit, MOST)
        assert "*The rest is cut" in body
        assert body.endswith(f"For commit `{'a' * 12}`.\n\n{MARKER}")
        assert body.count("<details") == body.count("</details>")
