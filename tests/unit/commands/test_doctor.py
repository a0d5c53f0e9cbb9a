from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from reconciler.commands.doctor import (
    AcmeFacts,
    Answer,
    Check,
    DirectoryFacts,
    Facts,
    Fault,
    examine,
    format_checks,
    healthy,
)
from reconciler.commands.doctor_facts import collect, entry_points_of, find_traefik
from reconciler.commands.trust import DAY
from reconciler.errors import Transient
from schemas.objects import ADAPTERS
from tests.support import parts
from tests.support.waiting import wait_for

GOOD = Facts(
    python=(3, 12, 1),
    now=1_800_000_000.0,
    git="git version 2.39.5\n",
    traefik="Version:      3.7.15\nCodename:     x\n",
    traefik_path="/usr/bin/traefik",
    open_files=65536,
    inotify=(128, 65536),
    data=DirectoryFacts(Path("/data"), 0o700, writable=True),
    clear_keys=(),
    acme=AcmeFacts("/etc/acme.toml"),
    watched=DirectoryFacts(Path("/watched"), 0o755, writable=True, loadable=("cloudlunacy.yml",)),
    own_file="cloudlunacy.yml",
    wanted_entry_points=("web", "websecure"),
    api=Answer("3.7.15", ("web", "websecure"), 0.4),
    severing="",
    remote=(True, "0123abc"),
)


def only_bad(facts: Facts) -> list[Check]:
    return [check for check in examine(facts) if check.status != "ok"]


def test_a_sound_installation_has_nothing_but_ok() -> None:
    """Fourteen checks, each with a word on what was found."""
    checks = examine(GOOD)
    assert [check.status for check in checks] == ["ok"] * 14
    assert healthy(checks)


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        (replace(GOOD, python=(3, 10, 9)), "fail", "Python 3.10.9 is too old"),
        (replace(GOOD, git=None), "fail", "git cannot be run"),
        (replace(GOOD, git="git version 2.30.2"), "fail", "git 2.30.2 is too old"),
        (replace(GOOD, traefik=None, traefik_path=None), "fail", "no program traefik was found"),
        (replace(GOOD, traefik=None), "fail", "/usr/bin/traefik cannot be run"),
        (replace(GOOD, traefik="Version:      3.7.2"), "fail", "(/usr/bin/traefik) is 3.7.2, which is too old"),
        (replace(GOOD, traefik="Version:      2.11.0"), "fail", "(/usr/bin/traefik) is 2.11.0, which is too old"),
        (replace(GOOD, clear_keys=("access-current.pem", "x")), "warn", "2 files with private keys are not sealed"),
        (replace(GOOD, own_certificate=GOOD.now + 8 * DAY), "warn", "ends in 8.0 days"),
        (replace(GOOD, own_certificate=GOOD.now - 1), "fail", "has expired"),
        (replace(GOOD, authority_waits=("The root is offline.", "Sign.")), "warn", "The root is offline."),
        (replace(GOOD, data=DirectoryFacts(Path("/d"), 0o700, writable=False)), "fail", "/d cannot be written"),
        (replace(GOOD, data=DirectoryFacts(Path("/d"), 0o755, writable=True)), "warn", "mode 0755"),
        (replace(GOOD, acme=AcmeFacts("/a", Fault("/a is no TOML.", "Mend it."))), "fail", "/a is no TOML."),
        (replace(GOOD, acme=AcmeFacts("/a", None, (Fault("/h is gone.", "Mend it."),))), "warn", "/h is gone."),
        (replace(GOOD, now=0.0), "fail", "years behind"),
        (replace(GOOD, api=Answer("3.7.15", ("web", "websecure"), -86400.0)), "warn", "differ by 86400 s"),
        (replace(GOOD, open_files=256), "fail", "may open 256 files"),
        (replace(GOOD, open_files=1024), "warn", "may open 1024 files"),
        (replace(GOOD, inotify=(16, 8192)), "warn", "Only 16 inotify instances"),
        (replace(GOOD, severing="only Linux can"), "warn", "when their route or agent goes: only Linux can."),
        (replace(GOOD, watched=DirectoryFacts(Path("/w"), None, writable=True)), "fail", "/w does not exist"),
        (replace(GOOD, watched=DirectoryFacts(Path("/w"), 0o755, writable=False)), "fail", "/w cannot be written"),
        (
            replace(GOOD, above_watched=DirectoryFacts(Path("/"), 0o755, writable=False)),
            "fail",
            "/ cannot be written; ",
        ),
        (
            replace(GOOD, watched=DirectoryFacts(Path("/w"), 0o755, writable=True, loadable=("a.toml", "b/c.yml"))),
            "warn",
            "files that are not ours: a.toml, b/c.yml. One broken file",
        ),
        (replace(GOOD, api="connection refused"), "fail", "does not answer: connection refused"),
        (
            replace(GOOD, api=Answer("3.6.0", ("web", "websecure"), 0.0)),
            "fail",
            "The Traefik that runs is 3.6.0, which is too old",
        ),
        (replace(GOOD, api=Answer("dev", ("web", "websecure"), 0.0)), "fail", "not Traefik's API"),
        (
            replace(GOOD, api=Answer("3.7.15", ("traefik", "web"), 0.0)),
            "fail",
            "no entry point websecure; it has traefik",
        ),
        (replace(GOOD, remote=(False, "The remote does not answer.")), "fail", "The remote does not answer."),
    ],
)
def test_each_fault_is_named_with_a_remedy(facts: Facts, status: str, words: str) -> None:
    """One fault gives one line that is not ok, and it says what to do."""
    (check,) = only_bad(facts)
    assert check.status == status
    assert words in check.message
    assert check.hint


def test_what_was_not_asked_for_is_not_judged() -> None:
    """Without directories, API and remote only the machine itself is looked at."""
    asked = replace(GOOD, data=None, clear_keys=None, acme=None, watched=None, api=None, severing=None, remote=None)
    facts = replace(asked, open_files=None, inotify=None)
    assert [check.name for check in examine(facts)] == ["python", "git", "traefik", "clock"]


def test_keys_in_clear_are_found_where_they_lie(tmp_path: Path) -> None:
    """Before there is any key nothing is judged; the certificate that nobody trusts does not count."""
    before = collect(data=tmp_path).clear_keys
    (tmp_path / "keys").mkdir()
    for name in ("access-current.pem", "default-certificate.pem"):
        (tmp_path / "keys" / name).write_text("-----BEGIN PRIVATE KEY-----")

    assert before is None
    assert collect(data=tmp_path).clear_keys == ("access-current.pem",)


def test_warnings_leave_the_installation_healthy() -> None:
    """Only a failure makes the command end with 1."""
    assert healthy([Check("a", "ok", "x"), Check("b", "warn", "y", "z")])
    assert not healthy([Check("a", "fail", "x", "z")])


def test_text_is_a_table_with_hints_below() -> None:
    """Columns are aligned, and a hint stands below the message it belongs to."""
    checks = [Check("git", "ok", "git 2.39"), Check("data directory", "warn", "open", "chmod 700")]
    assert format_checks(checks, "text") == (
        "ok    git             git 2.39\n"
        "warn  data directory  open\n"
        "                      chmod 700\n"
    )  # fmt: skip
    assert "\x1b[33mwarn\x1b[0m" in format_checks(checks, "text", colour=True)


def test_json_says_what_the_table_says() -> None:
    """For a machine: the verdict, and every check with its four fields."""
    assert json.loads(format_checks([Check("git", "fail", "gone", "install")], "json")) == {
        "healthy": False,
        "checks": [{"name": "git", "status": "fail", "message": "gone", "hint": "install"}],
    }


def test_entry_points_of_a_fleet_are_listed_once() -> None:
    """Those of HTTP, HTTPS and MongoDB, and the further ones for TCP."""
    fleet = ADAPTERS["Fleet"].validate_python(
        {
            "apiVersion": "cloudlunacy/v1",
            "kind": "Fleet",
            "metadata": {"name": "f"},
            "spec": {"domain": "example.com", "entryPoints": {"http": "in", "tcp": {"a": "amqp", "b": "amqp"}}},
        }
    )
    assert fleet.kind == "Fleet"
    assert entry_points_of(fleet) == ("in", "websecure", "mongodb", "amqp")


def test_directories_are_looked_at_and_left_alone(tmp_path: Path) -> None:
    """Mode and foreign files are found, at any depth, and nothing is made."""
    watched = tmp_path / "watched"
    Path(watched, "sub").mkdir(parents=True)
    for name in ("ours.yml", ".hidden.yaml", "sub/deep.toml", "notes.txt"):
        Path(watched, name).write_text("")
    data = tmp_path / "data"
    data.mkdir(mode=0o750)
    facts = collect(data=data, traefik_file=watched / "ours.yml")
    assert facts.data == DirectoryFacts(data, 0o750, writable=True)
    assert facts.watched is not None
    assert facts.watched.loadable == (".hidden.yaml", "ours.yml", "sub/deep.toml")
    assert collect(data=tmp_path / "a" / "b").data == DirectoryFacts(tmp_path / "a" / "b", None, writable=True)
    assert not Path(tmp_path, "a").exists()


def test_a_file_in_place_of_a_directory_is_not_writable(tmp_path: Path) -> None:
    """It neither ends the command nor counts as sound."""
    Path(tmp_path, "file").write_text("")
    facts = collect(data=tmp_path / "file", traefik_file=tmp_path / "file" / "ours.yml")
    assert facts.data == DirectoryFacts(tmp_path / "file", None, writable=False)
    assert facts.watched == DirectoryFacts(tmp_path / "file", None, writable=False)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "no address", "http://[", "ftp://x"])
def test_an_api_that_cannot_be_asked_gives_a_reason(address: str) -> None:
    """Nobody listening and a wrong address both give words, not a traceback."""
    facts = collect(traefik_api=address)
    assert isinstance(facts.api, str)
    assert facts.api


def test_the_remote_is_asked_through_the_given_function() -> None:
    """Its error becomes the words of the check."""

    def away() -> str:
        raise Transient("The remote does not answer.")

    assert collect(remote_head=lambda: "0123abc").remote == (True, "0123abc")
    assert collect(remote_head=away).remote == (False, "The remote does not answer.")


def test_a_program_that_does_not_run_is_a_fact(tmp_path: Path) -> None:
    """A file that is no program counts as no Traefik."""
    program = tmp_path / "traefik"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    facts = collect(traefik_binary=str(program))
    assert (facts.traefik, facts.traefik_path) == (None, str(program))
    assert find_traefik(str(tmp_path / "missing")) is None


@pytest.fixture
def traefik_api(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        api, web = (listener.getsockname()[1] for listener in (free, other))
    arguments = [f"--entrypoints.traefik.address=127.0.0.1:{api}", f"--entrypoints.web.address=127.0.0.1:{web}"]
    process = subprocess.Popen(
        [parts.require("traefik"), "--api.insecure=true", "--global.sendanonymoususage=false", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{api}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/api/version", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_for(answers, 20, what="Traefik's API")
        yield url
    finally:
        process.kill()
        process.wait()


def test_a_real_traefik_is_asked(traefik_api: str) -> None:
    """Version, entry points and clock come from the running program."""
    facts = collect(traefik_api=traefik_api, entry_points=["web", "websecure"])
    assert isinstance(facts.api, Answer)
    assert facts.api.entry_points == ("traefik", "web")
    assert facts.api.clock_ahead is not None
    assert abs(facts.api.clock_ahead) < 60
    bad = [check for check in examine(facts) if check.name in ("traefik", "Traefik's API", "entry points")]
    assert [check.status for check in bad] == ["ok", "ok", "fail"]


def test_the_machine_that_runs_the_tests_is_looked_at() -> None:
    """The facts about it are real ones."""
    facts = collect()
    assert facts.python == sys.version_info[:3]
    assert facts.git is not None
    if Path("/proc/sys/fs/inotify").is_dir():
        assert facts.inotify is not None
    if os.name == "posix":
        assert facts.open_files is not None
