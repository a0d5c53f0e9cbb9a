"""Which forge a remote belongs to, what the settings' file says, and what a run of CI is for."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Broken
from reconciler.forges.ci import Run, run_of
from reconciler.forges.forge import Place
from reconciler.forges.places import place_of
from reconciler.forges.settings_file import read_settings

GITHUB = Place("github", "https://api.github.com", "platform/fleet")


@pytest.mark.parametrize(
    ("remote", "place"),
    [
        ("https://github.com/platform/fleet.git", GITHUB),
        ("git@github.com:platform/fleet.git", GITHUB),
        ("ssh://git@github.com:22/platform/fleet", GITHUB),
        ("https://gitlab.com/a/b/fleet.git", Place("gitlab", "https://gitlab.com/api/v4", "a/b/fleet")),
        (
            "https://gitlab.example.com:8443/a/fleet",
            Place("gitlab", "https://gitlab.example.com:8443/api/v4", "a/fleet"),
        ),
        ("git@gitea.example.com:a/fleet", Place("gitea", "https://gitea.example.com/api/v1", "a/fleet")),
        ("ssh://git@forgejo.lan:2222/a/fleet", Place("gitea", "https://forgejo.lan/api/v1", "a/fleet")),
        ("https://codeberg.org/a/fleet", Place("gitea", "https://codeberg.org/api/v1", "a/fleet")),
        ("git@bitbucket.org:a/fleet.git", Place("bitbucket", "https://api.bitbucket.org/2.0", "a/fleet")),
        ("https://github.corp.test/a/fleet", Place("github", "https://github.corp.test/api/v3", "a/fleet")),
    ],
)
def test_kind_and_place_follow_from_the_remote(remote: str, place: Place) -> None:
    """Public forges by their names, others where the host is called after what it runs."""
    assert place_of(remote) == place


@pytest.mark.parametrize("remote", ["https://git.example.com/a/b", "/srv/fleet.git", "file:///srv/fleet.git", "", "x"])
def test_what_does_not_follow_is_asked_for(remote: str) -> None:
    """The error names the file and what to write there; with all of it said, the remote does not matter."""
    with pytest.raises(Broken, match="Write kind, url and repository"):
        place_of(remote)
    place = place_of(remote, kind="gitea", api="https://git.example.com/api/v1/", repository="a/b")
    assert place == Place("gitea", "https://git.example.com/api/v1", "a/b")


@pytest.mark.parametrize(
    ("api", "repository"),
    [
        ("http://git.example.com/api/v1", "a/b"),
        ("https://user:secret@git.example.com", "a/b"),
        ("https://git.example.com/?x=1", "a/b"),
        ("file:///etc/passwd", "a/b"),
        ("https://git.example.com\n", "a/b"),
        ("https://git.example.com", "a"),
        ("https://git.example.com", "../b"),
        ("https://git.example.com", "a/b/c"),
        ("https://git.example.com", "a/b?x"),
        ("https://git.example.com", "a/..b"),
    ],
)
def test_neither_url_nor_repository_may_lead_elsewhere(api: str, repository: str) -> None:
    """The token goes over TLS to one host, and to one repository there."""
    with pytest.raises(Broken) as caught:
        place_of("", kind="gitea", api=api, repository=repository)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_remote_is_a_place_or_a_sentence(remote: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(Broken):
        assert place_of(remote).repository


def settings(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "forge.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_may_say_no_more_than_the_token(tmp_path: Path) -> None:
    """The rest follows from the remote; a token that is replaced in its file counts at once, and is not shown."""
    token = tmp_path / "token"
    token.write_text("first\n")
    path = settings(tmp_path, f'token-file = "{token}"\n')
    place, access = read_settings(path, "git@github.com:platform/fleet.git")
    assert (place, access.token()) == (GITHUB, "first")
    token.write_text("second\n")
    assert access.token() == "second"
    assert "second" not in repr(access)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "token-file"),
        ("token-file = 7", "token-file"),
        ('token-file = "/nowhere/token"', "cannot be read"),
        ('token-file = "TOKEN"\nkind = "sourceforge"', "kind"),
        ('token-file = "TOKEN"\nsecret = "hunter2"', "secret"),
        ("hunter2", "no TOML"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_without_its_values(tmp_path: Path, text: str, said: str) -> None:
    """A person learns which line to mend; no value is repeated."""
    (tmp_path / "token").write_text("t")
    path = settings(tmp_path, text.replace("TOKEN", str(tmp_path / "token")))
    with pytest.raises(Broken, match=said) as caught:
        read_settings(path, "git@github.com:platform/fleet.git")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"2 words", b"one\ntwo", b"\xff\xfe", b"x" * 20_000])
def test_a_token_is_one_line(tmp_path: Path, content: bytes) -> None:
    """What could not be a header is refused before it is sent, and is not repeated."""
    (tmp_path / "token").write_bytes(content)
    path = settings(tmp_path, f'token-file = "{tmp_path / "token"}"\n')
    with pytest.raises(Broken, match="token") as caught:
        read_settings(path, "git@github.com:platform/fleet.git")
    assert "2 words" not in str(caught.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """It may name what gets in."""
    with pytest.raises(Broken, match="open to other users"):
        read_settings(settings(tmp_path, "", 0o644), "git@github.com:platform/fleet.git")


# --- CI ---------------------------------------------------------------------------------------------------------------

ACTIONS = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_API_URL": "https://api.github.com",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "platform/fleet",
    "GITHUB_RUN_ID": "9",
    "GITHUB_SHA": "c" * 40,
    "GITHUB_STEP_SUMMARY": "/tmp/summary",
}


def event(head: str = "platform/fleet") -> bytes:
    sides = {
        "head": {"sha": "a" * 40, "repo": {"full_name": head}},
        "base": {"sha": "b" * 40, "repo": {"full_name": "platform/fleet"}},
    }
    return json.dumps({"pull_request": {"number": 7, **sides}}).encode()


def test_a_run_of_github_actions() -> None:
    """The event says what the pull request is, and whether it comes from a fork."""
    assert run_of(ACTIONS, event()) == Run(
        GITHUB,
        7,
        False,
        "b" * 40,
        "a" * 40,
        "https://github.com/platform/fleet/actions/runs/9",
        "/tmp/summary",
        "github",
    )
    assert run_of(ACTIONS, event("stranger/fleet")).is_fork
    assert run_of(ACTIONS, event().replace(b'{"full_name": "stranger/fleet"}', b"null")).number == 7
    push = run_of(ACTIONS, b'{"ref": "refs/heads/main"}')
    assert (push.number, push.revision, push.is_fork) == (None, "c" * 40, False)


def test_a_run_of_gitea_actions() -> None:
    """It sets the same variables, and one more."""
    found = run_of({**ACTIONS, "GITEA_ACTIONS": "true", "GITHUB_API_URL": "https://git.test/api/v1"}, event())
    assert found.place == Place("gitea", "https://git.test/api/v1", "platform/fleet")


def test_a_run_of_gitlab_ci() -> None:
    """Merge requests of other projects are forks."""
    variables = {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": "https://gitlab.test/api/v4",
        "CI_PROJECT_PATH": "a/b/fleet",
        "CI_MERGE_REQUEST_IID": "12",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": "b" * 40,
        "CI_COMMIT_SHA": "a" * 40,
        "CI_JOB_URL": "https://gitlab.test/a/b/fleet/-/jobs/1",
    }
    found = run_of(variables)
    assert found.place == Place("gitlab", "https://gitlab.test/api/v4", "a/b/fleet")
    assert (found.number, found.base, found.is_fork) == (12, "b" * 40, True)


def test_a_run_of_bitbucket_pipelines() -> None:
    """The base is the branch that the pull request is for."""
    variables = {
        "BITBUCKET_BUILD_NUMBER": "3",
        "BITBUCKET_REPO_FULL_NAME": "a/fleet",
        "BITBUCKET_PR_ID": "4",
        "BITBUCKET_PR_DESTINATION_BRANCH": "main",
        "BITBUCKET_COMMIT": "a" * 40,
    }
    found = run_of(variables)
    assert found.place == Place("bitbucket", "https://api.bitbucket.org/2.0", "a/fleet")
    assert (found.number, found.base) == (4, "origin/main")


def test_outside_of_ci_there_is_nothing() -> None:
    """A person runs it by hand."""
    assert run_of({}) == Run()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["pull_request", "number", "head", "base", "repo", "sha", "full_name"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_event_is_read(document: Any) -> None:
    """What it does not say is empty; nothing is raised."""
    found = run_of(ACTIONS, json.dumps(document).encode())
    assert found.number is None or found.number >= 0


def test_variables_that_make_no_sense_are_named() -> None:
    """A repository that is none does not become part of a URL."""
    with pytest.raises(Broken, match="name no repository"):
        run_of({**ACTIONS, "GITHUB_REPOSITORY": "../../user"})
