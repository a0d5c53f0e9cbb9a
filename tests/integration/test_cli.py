"""The commands as a shell runs them: help, output, exit codes, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import reconciler
from reconciler import __main__ as program
from schemas.objects import key_of_path
from tests.support import documents
from tests.support.fleet import Installation, command, installation, run_cli, start_files, web
from tests.support.git_repos import git

EXAMPLE = Path(reconciler.__file__).parents[1] / "state-repo-example"
CLOSED = "http://127.0.0.1:9"
COMMANDS = [entry.name for entry in program.COMMANDS]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("cli") / "one", start_files("web"), traefik=False) as running:
        yield running


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a state repo with the example in it."""
    path = tmp_path / "clone"
    shutil.copytree(EXAMPLE, path)
    git("-C", path, "init", "-q", "--initial-branch=main")
    git("-C", path, "add", "-A")
    git("-C", path, "commit", "-q", "-m", "Start")
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A state repo with three mistakes in three files."""
    path = tmp_path / "broken"
    shutil.copytree(EXAMPLE, path)
    web_route = path / "routes/shop/web.yaml"
    web_route.write_text(web_route.read_text().replace("agent: vps-1", "agent: vsp-1"))
    (path / "routes/shop/api.yaml").write_text("a: [")
    (path / "routes/shop/link.yaml").symlink_to("/etc/passwd")
    return path


def in_process(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run a command without a process of its own; also returns what argparse ends with."""
    try:
        code = program.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["token", "create"], ["agent", "enrol"],
                                   ["agent", "run"]])  # fmt: skip
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """--help prints what the command is for, on stdout, with exit code 0."""
    code, out, err = in_process(capsys, *words, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: cloudlunacy")


def test_the_overview_says_of_each_command_what_its_own_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands, which imports none of them, agrees with each command's own words."""
    overview = in_process(capsys, "--help")[1]
    for entry in program.COMMANDS:
        chosen = in_process(capsys, "--help", entry.name)[1]  # this command is loaded, and lists itself
        line = next(line for line in chosen.splitlines() if line.split()[:1] == [entry.name])
        assert line in overview.splitlines(), entry.name


def test_help_loads_no_server() -> None:
    """Help and validate start without the parts that only the server needs."""
    check = "import sys; from reconciler.__main__ import main\ntry: main({arguments!r})\nexcept SystemExit: pass\n"
    check += "heavy = {{'uvicorn', 'starlette', 'reconciler.app', 'websockets', 'sqlite3'}} & set(sys.modules)\n"
    check += "sys.stderr.write(' '.join(sorted(heavy)))"
    for arguments in (["--help"], ["validate", str(EXAMPLE)]):
        done = subprocess.run([sys.executable, "-c", check.format(arguments=arguments)], capture_output=True, text=True,
                              cwd=EXAMPLE.parent, check=True)  # fmt: skip
        assert done.stderr.splitlines()[-1:] in ([], ["24 objects checked, no problems."]), done.stderr


# --- validate -----------------------------------------------------------------------------------------------------


def test_validate_finds_nothing_in_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """A good state repo: nothing on stdout, a sentence on stderr, exit code 0."""
    objects = sum(key_of_path(path.relative_to(EXAMPLE).as_posix()) is not None for path in EXAMPLE.rglob("*.yaml"))
    assert in_process(capsys, "validate", EXAMPLE) == (0, "", f"{objects} objects checked, no problems.\n")


def test_validate_reports_every_problem_at_once(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    """Each problem with file, line, column, code, reason and remedy, in every format; exit code 1."""
    code, out, err = in_process(capsys, "validate", broken)
    assert code == 1
    line = 'unknown-agent: backend names agent "vsp-1", which does not exist. Did you mean "vps-1"?'
    assert f"routes/shop/web.yaml:13:15 {line}" in out
    assert {problem.split(":")[0] for problem in out.splitlines()} == {
        "routes/shop/api.yaml", "routes/shop/link.yaml", "routes/shop/web.yaml"}  # fmt: skip
    assert "3 errors in 3 files" in err
    code, out, err = in_process(capsys, "validate", broken, "--format", "json")
    report = json.loads(out)
    assert (code, err, len(report["problems"]), report["objects"]) == (1, "", 3, 25)
    assert report["problems"][-1].keys() == {
        *("file", "line", "column", "code", "severity", "message", "hint", "object")
    }  # fmt: skip
    code, out, _ = in_process(capsys, "validate", broken, "--format", "github")
    assert (code, len(out.splitlines())) == (1, 3)
    assert all(line.startswith("::error file=routes/shop/") for line in out.splitlines())
    code, out, _ = in_process(capsys, "validate", broken, "--format", "sarif")
    assert (code, json.loads(out)["version"], len(json.loads(out)["runs"][0]["results"])) == (1, "2.1.0", 3)
    code, out, _ = in_process(capsys, "validate", broken, "--format", "junit")
    assert (code, len(ET.fromstring(out).findall(".//failure"))) == (1, 3)


def test_validate_takes_revisions(clone: Path) -> None:
    """A revision, also one with a slash in its name, is checked without a work tree."""
    git("-C", clone, "branch", "feature/one")
    git("-C", clone, "update-ref", "refs/remotes/origin/main", "HEAD")
    (clone / "routes/shop/web.yaml").write_text("a: [")
    for name in ("HEAD", "main", "feature/one", "origin/main"):
        assert run_cli("validate", name, cwd=clone).returncode == 0, name
    assert run_cli("validate", cwd=clone).returncode == 1


def test_validate_of_thousands_of_files_is_bounded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A repo with 2,000 broken files gives 2,000 problems."""
    (tmp_path / "routes/shop").mkdir(parents=True)
    (tmp_path / "fleet.yaml").write_bytes(documents.fleet())
    for number in range(2000):
        (tmp_path / f"routes/shop/r-{number}.yaml").write_bytes(web(f"r-{number}", 80).replace(b"spec", b"sepc"))
    code, out, _ = in_process(capsys, "validate", tmp_path, "--format", "json")
    assert code == 1
    assert {p["file"] for p in json.loads(out)["problems"]} == {f"routes/shop/r-{n}.yaml" for n in range(2000)}


# --- plan ---------------------------------------------------------------------------------------------------------


def test_plan_against_a_revision(capsys: pytest.CaptureFixture[str], clone: Path) -> None:
    """Exit code 0 without a change, 2 with one, 1 when it cannot be told; text, Markdown and JSON say the same."""
    assert in_process(capsys, "plan", clone, "--base", "main") == (0, "No change.\n", "")
    route = clone / "routes/shop/web.yaml"
    route.write_text(route.read_text().replace("port: 8081", "port: 8082"))
    code, out, err = in_process(capsys, "plan", clone, "--base", "main")
    assert (code, err) == (2, "")
    assert "~ Route shop/web  (spec.backends[0].port)" in out
    assert "changes backend" in out
    assert out.endswith("0 to create, 1 to update, 0 to delete; 1 host(s) and 0 agent(s) affected.\n")
    plan = json.loads(in_process(capsys, "plan", clone, "--base", "HEAD", "--format", "json")[1])
    assert [(change["action"], change["path"]) for change in plan["changes"]] == [("update", "routes/shop/web.yaml")]
    assert "### CloudLunacy plan" in in_process(capsys, "plan", clone, "--base", "main", "--format", "markdown")[1]
    assert in_process(capsys, "plan", clone, "--base", "nope")[0] == 1


def test_plan_against_what_is_published(capsys: pytest.CaptureFixture[str], one: Installation, tmp_path: Path) -> None:
    """With --data the plan is against what the control plane has in service."""
    for path, content in start_files("web").items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(content)  # type: ignore[arg-type]
    assert in_process(capsys, "plan", tmp_path / "repo", "--data", one.data) == (0, "No change.\n", "")
    (tmp_path / "repo/routes/shop/new.yaml").write_bytes(web("new", 8081))
    code, out, _ = in_process(capsys, "plan", tmp_path / "repo", "--data", one.data)
    assert code == 2
    assert "+ Route shop/new" in out


# --- status, token, doctor, render, schemas, init --------------------------------------------------------------------


def test_status_waits_for_what_is_to_come(capsys: pytest.CaptureFixture[str], one: Installation) -> None:
    """--wait ends with 0 when the revision is live, with 1 when the time is over."""
    revision = one.push({"routes/shop/waited.yaml": web("waited", 8081)})
    code, out, err = in_process(capsys, "status", revision, "--data", one.data, "--wait", "--format", "json")
    assert (code, err) == (0, "")
    status = json.loads(out)
    assert (status["revision"], status["state"]) == (revision, "Converged")
    assert {"revision", "generation", "state", "reason", "message", "stages", "agents", "quarantined"} <= status.keys()
    assert in_process(capsys, "status", revision[:9], "--data", one.data)[0] == 0
    code, _, err = in_process(capsys, "status", "0" * 40, "--data", one.data, "--wait", "--timeout", "0.3")
    assert code == 1
    assert err == (
        f"cloudlunacy: the control plane does not know revision {'0' * 40}. "
        "Was it pushed to the branch that it follows?\n"
    )


def test_a_token_is_all_that_is_printed(capsys: pytest.CaptureFixture[str], one: Installation) -> None:
    """token create prints the token alone on stdout; a bad time or name is refused."""
    code, out, err = in_process(capsys, "token", "create", "--agent", "vps-7", "--data", one.data)
    assert code == 0
    assert out.count("\n") == 1
    assert out.strip() not in err
    assert in_process(capsys, "token", "create", "--agent", "vps-7", "--ttl", "1d", "--data", one.data)[0] == 2
    assert in_process(capsys, "token", "create", "--agent", "vps-7", "--ttl", "16m", "--data", one.data)[0] == 1
    assert in_process(capsys, "token", "create", "--agent", "../x", "--data", one.data)[0] == 1


def test_render_writes_both_parts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """render writes the static and the dynamic configuration and names the files."""
    code, out, err = in_process(capsys, "render", EXAMPLE, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(tmp_path / "out/traefik.yml"), str(tmp_path / "out/dynamic/cloudlunacy.yml")]
    assert all(Path(line).stat().st_size for line in out.splitlines())


def test_init_makes_what_validate_accepts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A new state repo has no problems."""
    assert in_process(capsys, "init", tmp_path / "new")[0] == 0
    assert in_process(capsys, "validate", tmp_path / "new")[0] == 0
    assert in_process(capsys, "schemas", "--out", tmp_path / "schemas")[0] == 0
    assert len(list((tmp_path / "schemas").glob("*.json"))) >= 6


# --- mistakes -----------------------------------------------------------------------------------------------------

MISTAKES: list[list[str]] = [
    ["validate", "missing"],
    ["validate", "a/b"],
    ["validate", "a" * 5000],
    ["validate", "/dev/null"],
    ["validate", "--", "--upload-pack=touch x"],
    ["validate", "\udcff"],
    ["plan", "missing", "--base", "main"],
    ["plan", str(EXAMPLE), "--base=--output=x"],
    ["plan", str(EXAMPLE), "--server", CLOSED],
    ["render", "missing", "--out", "out"],
    ["render", str(EXAMPLE), "--out", "/dev/null"],
    ["render", str(EXAMPLE), "--out", "out", "--address", "nonsense"],
    ["status", "--server", CLOSED],
    ["status", "--server", "nonsense"],
    ["status", "--server", "http://[::1"],
    ["status", "--server", "http://a\x01b"],
    ["status", "--server", "ftp://example.test"],
    ["status", "--data", "missing"],
    ["status", "../../etc", "--server", CLOSED],
    ["approve", "x", "--server", CLOSED],
    ["token", "create", "--agent", "a", "--server", CLOSED],
    ["init", str(EXAMPLE)],
    ["init", "/dev/null/x"],
    ["schemas", "--out", "/dev/null/x"],
    ["doctor", "--state-repo", "missing"],
    ["serve", "--repo", "/srv/x", "--data", "/dev/null/x"],
    ["agent", "run", "--data", "missing"],
    ["agent", "enrol", "--server", "nonsense", "--token", "t", "--name", "n", "--data", "agent"],
    ["agent", "enrol", "--server", CLOSED, "--token", "t", "--name", "n", "--data", "agent", "--timeout", "0"],
]
MISUSED: list[list[str]] = [
    ["--repo", "x"],
    ["--repo", "ext::sh -c true"],
    ["--listen", "nonsense"],
    ["--listen", "127.0.0.1:99999"],
    ["--listen", "0.0.0.0:7300"],
    ["--listen", "[::]:7300"],
    ["--listen", ":7300"],
    ["--listen", "0.0.0.0:7300", "--plain-http", "--public-url", "https://control.example.test"],
    ["--public-url", "nonsense"],
    ["--branch", "a b"],
    ["--poll", "0"],
    ["--poll", "nan"],
    ["--poll", "-1"],
    ["--push-burst", "0"],
    ["--traefik-file", "x"],
    ["--traefik-file", "x", "--traefik-api", "nonsense"],
]
USAGE: list[list[str]] = [
    [],
    ["nonsense"],
    ["validate", "--format", "xml"],
    ["plan"],
    ["plan", "--base", "a", "--server", "b"],
    ["status"],
    ["status", "--server", CLOSED, "--timeout", "nan"],
    ["status", "--server", CLOSED, "--timeout", "soon"],
    ["token"],
    ["serve"],
    ["agent"],
]


@pytest.mark.parametrize("arguments", MISUSED, ids=lambda words: " ".join(words)[:60])
def test_flags_that_make_no_sense_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    """Exit code 2, one line on stderr, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    repo = [] if "--repo" in arguments else ["--repo", "/srv/fleet.git"]
    code, out, err = in_process(capsys, "serve", *repo, "--data", "data", *arguments)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1), err
    assert err.startswith("cloudlunacy: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", MISTAKES, ids=lambda words: " ".join(words)[:60])
def test_a_mistake_is_answered_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    """Exit code 1, nothing on stdout, one line on stderr that begins with the program's name."""
    monkeypatch.chdir(tmp_path)
    code, out, err = in_process(capsys, *arguments)
    assert (code, out) == (1, ""), err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("cloudlunacy: ")


@pytest.mark.parametrize("arguments", USAGE, ids=lambda words: " ".join(words)[:60])
def test_wrong_usage_ends_with_two(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Wrong arguments: exit code 2, usage on stderr."""
    code, out, err = in_process(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: cloudlunacy")


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b"\xff\xfe"])
def test_a_stranger_is_no_control_plane(capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    """Another server at the address is recognised, whatever it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        for words in (["status"], ["plan", str(EXAMPLE)]):
            code, out, err = in_process(capsys, *words, "--server", f"http://127.0.0.1:{server.server_address[1]}")
            assert (code, out) == (1, "")
            assert "is no control plane of this version" in err
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_without_a_token_the_server_says_what_is_missing(capsys: pytest.CaptureFixture[str], one: Installation) -> None:
    """Without credentials the answer names both ways to have some."""
    code, _, err = in_process(capsys, "status", "--server", one.url, "--ca-file", str(one.ca))
    assert code == 1
    assert "CLOUDLUNACY_TOKEN_FILE" in err


def test_a_reader_that_leaves_is_no_error(broken: Path) -> None:
    """When whoever reads the output has enough, the command ends without a word."""
    process = subprocess.Popen(
        command("validate", broken, "--format", "sarif"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=EXAMPLE.parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(20) == 1
    assert said == ""


def test_names_that_no_encoding_knows_are_shown(broken: Path) -> None:
    """A file name that is not UTF-8 is reported like any other, also where only ASCII can be printed."""
    (broken / "routes/shop" / os.fsdecode(b"\xff\xfe.yaml")).write_text("x")
    done = run_cli("validate", broken, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert "routes/shop/\\udcff\\udcfe.yaml:1:1 misplaced-file: " in done.stdout
    assert "Traceback" not in done.stderr
