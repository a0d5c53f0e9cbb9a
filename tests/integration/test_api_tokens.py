"""Tokens of people and CI on the real ``serve``, by the real commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Installation, installation, run_cli, start_files


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("tokens") / "one", start_files(), traefik=False) as running:
        yield running


def made(one: Installation, *options: str) -> str:
    done = one.cli("token", "create", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def elsewhere(one: Installation, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody on another machine, who has a token in a file."""
    path = one.folder / "token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    return run_cli(*arguments, "--server", one.url, "--ca-file", str(one.ca), env={"CLOUDLUNACY_TOKEN_FILE": str(path)})


def test_ci_plans_with_a_token_that_is_good_for_nothing_else(one: Installation, tmp_path: Path) -> None:
    """`plan --server` works with scope plan; status, approvals and tokens do not, and a sentence says which scope."""
    token = made(one, "--for", "ci", "--scope", "plan", "--name", "plans")
    subprocess.run(["git", "clone", "-q", one.repo.path, tmp_path / "clone"], check=True)
    planned = elsewhere(one, token, "plan", str(tmp_path / "clone"))
    assert planned.returncode == 0, planned.stderr
    for words in (
        ["status"],
        ["approve", f"sha256:{'0' * 64}"],
        ["agent", "revoke", "vps-1", "--yes"],
        ["token", "list"],
        ["token", "create", "--for", "ci", "--scope", "read"],
        ["token", "create", "--agent", "x"],
    ):
        refused = elsewhere(one, token, *words)
        assert refused.returncode == 1, words
        assert "This needs the scope" in refused.stderr, words


def test_a_token_is_listed_used_and_ended_at_once(one: Installation) -> None:
    """The list shows scopes and the last use; after `token revoke` the next call is refused, also after a kill."""
    token = made(one, "--for", "person", "--scope", "read,approve", "--expires", "12h", "--name", "ann")
    assert elsewhere(one, token, "status").returncode == 0
    listed = one.cli("token", "list")
    (row,) = [line.split() for line in listed.stdout.splitlines() if line.startswith("ann ")]
    assert row[2:5] == ["person", "approve,read", "good"]
    assert row[-1] != "never"
    assert token.partition(".")[2] not in listed.stdout
    assert one.cli("token", "revoke", "ann").stdout.startswith("ann (")
    for _ in range(2):
        refused = elsewhere(one, token, "status")
        assert (refused.returncode, 'The token "ann" was revoked.' in refused.stderr) == (1, True)
        one.restart()
    events = one.ask("/events", limit=1000)["events"]
    told = [(event["type"], event["actor"]) for event in events if event["subject"] == f"token/{row[1]}"]
    assert ("TokenCreated", "operator:local") in told
    assert ("TokenRevoked", "operator:local") in told


def test_a_token_given_in_place_of_its_name_is_ended_and_repeated_nowhere(one: Installation) -> None:
    """Somebody who found a token somewhere has nothing else; neither the terminal nor a log gets it."""
    token = made(one, "--for", "ci", "--scope", "read", "--name", "leaked")
    secret = token.partition(".")[2]
    done = one.cli("token", "revoke", token)
    assert (done.returncode, done.stdout.startswith("leaked (")) == (0, True), done.stderr
    unknown = one.cli("token", "revoke", f"clt_{'0' * 20}.{secret}")
    assert (unknown.returncode, "There is no token" in unknown.stderr) == (1, True)
    assert secret not in done.stdout + done.stderr + unknown.stdout + unknown.stderr + one.log()
    assert elsewhere(one, token, "status").returncode == 1


def test_a_person_with_operate_locks_an_agent_out_in_their_name(one: Installation) -> None:
    """The commit's author is the holder of the token."""
    token = made(one, "--for", "person", "--scope", "operate", "--name", "bob")
    done = elsewhere(one, token, "agent", "revoke", "vps-2", "--quarantine", "--yes")
    assert done.returncode == 0, done.stderr
    author = subprocess.run(
        ["git", "-C", one.repo.path, "log", "-1", "--format=%an <%ae>", "main"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert author.stdout.strip() == "bob <bob@people.localhost>"


def test_the_answer_is_json_when_asked_for(one: Installation) -> None:
    """What the API says, the token included; the list never has it."""
    answer = json.loads(made(one, "--for", "ci", "--scope", "enrol", "--format", "json"))
    assert answer["token"].startswith(f"clt_{answer['id']}.")
    assert (answer["kind"], answer["scopes"], answer["state"]) == ("ci", ["enrol"], "good")
    listed = json.loads(one.cli("token", "list", "--format", "json").stdout)["tokens"]
    assert "token" not in next(token for token in listed if token["id"] == answer["id"])
    enrols = elsewhere(one, answer["token"], "token", "create", "--agent", "vps-9")
    assert enrols.returncode == 0, enrols.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--for", "ci"], "good for something"),
        (["--for", "ci", "--scope", "read", "--ttl", "15m"], "--ttl does not go with --for"),
        (["--agent", "x", "--scope", "read"], "--scope does not go with --agent"),
        (["--for", "ci", "--scope", "validate"], "validate needs no token"),
        (["--for", "ci", "--scope", "admin"], '"admin" is no scope'),
        (["--for", "robot", "--scope", "read"], "invalid choice"),
        (["--for", "ci", "--scope", "read", "--expires", "soon"], "write 30d or 12h"),
        ([], "one of the arguments --agent --for is required"),
    ],
)
def test_a_wrong_use_is_a_sentence(one: Installation, words: list[str], sentence: str) -> None:
    """Exit 2, and what to write instead."""
    done = one.cli("token", "create", *words)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_too_long_a_life_is_told(one: Installation) -> None:
    """What only the control plane judges is a sentence too."""
    done = one.cli("token", "create", "--for", "ci", "--scope", "read", "--expires", "400d")
    assert (done.returncode, "366 days at most" in done.stderr) == (1, True)
