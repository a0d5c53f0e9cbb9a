"""``cloudlunacy secret`` as a shell runs it: what it writes, what it says, and that no clear value stays anywhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import secrets
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from reconciler import __main__ as program
from reconciler.desired.secret_file import new_file
from reconciler.pki.identities import identities_of_file
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import Opener, count_recipients, new_identity, seal
from tests.support import documents
from tests.support.fleet import _python_path, command, installation, run_cli, start_files, web
from tests.support.git_repos import git
from tests.support.process_list import process_arguments
from tests.support.traefik import backends
from tests.support.waiting import wait_for

CANARY = "canary-value-7d1e"
OTHER = "canary-other-93fa"
HTPASSWD = "admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # the password is "secret"
PATH = "secrets/shop/db.yaml"
SHM = Path("/dev/shm")


@dataclass
class Repo:
    """A work tree, the data directory of its control plane, and the identity that lies in a safe."""

    folder: Path
    data: Path
    safe: Path
    environment: dict[str, str]

    @property
    def recipients(self) -> list[str]:
        return [KeyStore(self.data / "keys").recipient(), identities_of_file(self.safe)[0].recipient()]

    def recipients_are(self, *recipients: str) -> None:
        (self.folder / "fleet.yaml").write_bytes(documents.fleet(recipients=list(recipients)))

    def process(self, *arguments: str | Path, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command as a process of its own."""
        return subprocess.run(
            command("secret", *arguments),
            cwd=self.folder,
            env=self.environment,
            input=typed,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def run(self, *arguments: str | Path, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command in this process, which takes a tenth of the time."""
        words = ["secret", *map(str, arguments)]
        streams = [io.TextIOWrapper(io.BytesIO(content), encoding="utf-8") for content in (typed, b"", b"")]
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment),
            mock.patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]),
        ):
            try:
                code = program.main(words)
            except SystemExit as end:
                code = int(end.code or 0)
        out, err = (stream.detach().getvalue() for stream in streams[1:])
        return subprocess.CompletedProcess(words, code, out, err)

    def seal(self, value: str, *arguments: str, key: str = "password") -> subprocess.CompletedProcess[bytes]:
        return self.run("seal", "shop/db", key, *arguments, typed=value.encode())

    def reveal(self, key: str, *identity: str | Path) -> bytes:
        done = self.run("reveal", "shop/db", key, *(identity or ("--data", self.data)))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def values(self) -> dict[str, str]:
        return {key: self.reveal(key).decode() for key in self.keys()}

    def keys(self) -> list[str]:
        said = self.run("reveal", "shop/db", "--data", self.data).stdout.decode()
        return [line.partition(":")[0] for line in said.splitlines()]

    def armour(self, key: str = "password") -> str:
        text = (self.folder / PATH).read_text().partition(f"    {key}: |\n")[2]
        return "\n".join(line.strip() for line in text.partition("-----END")[0].splitlines()) + "\n-----END"

    def edit(self, *lines: str, own_process: bool = False) -> subprocess.CompletedProcess[bytes]:
        """Edit with a program in place of a person: Python, to which ``file`` is the path."""
        editor = self.folder.parent / "editor.py"
        head = ["import os, pathlib, sys", "file = pathlib.Path(sys.argv[-1])",
                f"pathlib.Path({str(self.report)!r}).write_text(str(file))"]  # fmt: skip
        editor.write_text("\n".join([*head, *lines]))
        self.environment["EDITOR"] = shlex.join([sys.executable, str(editor)])
        return (self.process if own_process else self.run)("edit", "shop/db", "--data", self.data)

    @property
    def report(self) -> Path:
        return self.folder.parent / "report"

    def nothing_stayed(self) -> bool:
        """Whether the private directory of the last edit is gone."""
        return not Path(self.report.read_text()).parent.exists()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    folder = tmp_path / "repo"
    folder.mkdir()
    safe = tmp_path / "safe"
    safe.write_text(new_identity().get_secret_value())
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    one = Repo(folder, tmp_path / "data", safe, {**environment, "PYTHONPATH": _python_path()})
    one.recipients_are(*one.recipients)
    return one


def files_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def on_terminal(repo: Repo, *arguments: str | Path, answers: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
    """Run with a terminal as all three streams; type each answer when its question is there."""
    ours, theirs = pty.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.ONLCR
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    process = subprocess.Popen(
        command("secret", *arguments),
        cwd=repo.folder,
        env=repo.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said, waiting = "", list(answers)
    with suppress(OSError):  # the end of a terminal
        while some := os.read(ours, 4096):
            said += some.decode()
            if waiting and said.endswith(waiting[0][0]):
                os.write(ours, waiting.pop(0)[1].encode())
    os.close(ours)
    return process.wait(30), said


# --- seal and reveal ----------------------------------------------------------------------------------------------


def test_what_is_sealed_is_revealed_again(repo: Repo) -> None:
    """A new file is made, valid, sealed to every recipient, and what to commit is said; nothing says the value."""
    done = repo.process("seal", "shop/db", "password", typed=CANARY.encode())
    assert done.returncode == 0
    assert done.stdout.decode() == f"{PATH}: password is sealed to 2 recipients.\n"
    assert f"git add {PATH} && git commit" in done.stderr.decode()
    assert repo.reveal("password") == repo.reveal("password", "--identity", repo.safe) == CANARY.encode()
    assert count_recipients(repo.armour()) == 2
    assert run_cli("validate", repo.folder).returncode == 0
    assert CANARY.encode() not in done.stdout + done.stderr + b"".join(files_below(repo.folder).values())


def test_a_second_value_leaves_the_first_alone(repo: Repo) -> None:
    """Comments and other values stay; the named one is replaced."""
    repo.seal(CANARY)
    path = repo.folder / PATH
    path.write_text(path.read_text().replace("  sealed:\n", "  # of the shop\n  sealed:\n"))
    first = repo.armour()
    repo.seal(OTHER, key="uri")
    assert repo.armour() == first
    repo.seal("new", key="uri")
    assert repo.armour() == first
    assert repo.values() == {"password": CANARY, "uri": "new"}
    assert "  # of the shop\n" in path.read_text()


@pytest.mark.parametrize(
    ("given", "options", "sealed"),
    [
        ("x\n", (), "x"),
        ("x\r\n", (), "x"),
        ("x\n\n", (), "x\n"),
        ("x\r", (), "x\r"),
        ("x", (), "x"),
        ("one\ntwo\n", (), "one\ntwo"),
        ("x\n", ("--keep-newline",), "x\n"),
        ("x\r\n", ("--keep-newline",), "x\r\n"),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_one_line_end_is_left_out_unless_it_is_kept(
    repo: Repo, given: str, options: tuple[str, ...], sealed: str, from_file: bool
) -> None:
    """``echo`` adds a line end that is no part of a password; what is left out is said."""
    file = repo.folder.parent / "value"
    file.write_bytes(given.encode())
    source = ("--value-file", str(file)) if from_file else ()
    done = repo.seal("" if from_file else given, *source, *options)
    assert done.returncode == 0
    assert ("line end" in done.stderr.decode()) == (given != sealed)
    assert repo.reveal("password") == sealed.encode()


def test_a_value_is_typed_twice_at_a_terminal(repo: Repo) -> None:
    """It is not shown, and two that differ are refused."""
    ask, again = "Value (not shown): ", "The same again: "
    arguments = ("seal", "shop/db", "password")
    code, said = on_terminal(repo, *arguments, answers=[(ask, f"{CANARY}\n"), (again, f"{CANARY}\n")])
    assert code == 0
    assert CANARY not in said
    assert repo.reveal("password") == CANARY.encode()
    code, said = on_terminal(repo, *arguments, answers=[(ask, "one\n"), (again, "other\n")])
    assert code == 1
    assert "The two values differ" in said
    assert repo.reveal("password") == CANARY.encode()


def test_a_terminal_is_shown_no_escape_codes_and_a_warning(repo: Repo) -> None:
    """Whoever sealed a value does not decide what the terminal of its reader does."""
    repo.seal(f"{CANARY}\n\x1b]0;owned\x07", "--keep-newline")
    code, said = on_terminal(repo, "reveal", "shop/db", "password", "--data", repo.data)
    assert code == 0
    assert said.endswith(f"{CANARY}\n\\x1b]0;owned\\x07\n")
    assert "This is a secret" in said
    assert "\x1b" not in said


def test_without_a_key_only_names_are_shown(repo: Repo) -> None:
    """Which values there are, and whether this identity opens them."""
    repo.seal(CANARY)
    repo.recipients_are(repo.recipients[1])
    repo.seal(OTHER, key="uri")
    done = repo.run("reveal", "shop/db", "--data", repo.data)
    assert done.stdout.decode() == "password: can be opened\nuri: cannot be opened\n"


def test_the_recipient_is_printed(repo: Repo) -> None:
    """What goes into fleet.yaml, from the data directory or from a file."""
    ours, safe = repo.recipients
    assert repo.run("recipient", "--data", repo.data).stdout.decode() == f"{ours}\n"
    assert repo.run("recipient", "--identity", repo.safe).stdout.decode() == f"{safe}\n"


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "arguments", "sentence"),
    [
        ({"fleet.yaml": documents.fleet()}, ("seal", "shop/db", "k"), "has no recipients.*secret recipient --data"),
        ({"fleet.yaml": b"x: [canary"}, ("seal", "shop/db", "k"), "fleet.yaml is not valid"),
        ({"fleet.yaml": None}, ("seal", "shop/db", "k"), "holds no state repo"),
        ({}, ("seal", "shp/db", "k"), 'has no team "shp".*Did you mean "shop"'),
        ({}, ("seal", "shop/db", "k", "--value-file", "missing"), "should hold it cannot be read: No such file"),
        ({PATH: b"kind: Secret\nspec: {sealed: {a: canary}}\n"}, ("seal", "shop/db", "k"), "without changing its form"),
        ({PATH: b"kind: Secret\nspec:\n  sealed:\n    a: canary\n"}, ("seal", "shop/db", "k"), "is not valid"),
        ({PATH: b"canary: ["}, ("seal", "shop/db", "k"), "cannot be read as YAML"),
        ({PATH: b"canary: ["}, ("edit", "shop/db"), "is not valid"),
        ({PATH: b"kind: Secret\nspec: {sealed: {a: canary}}\n"}, ("reveal", "shop/db", "a"), "is not valid"),
        ({}, ("reveal", "shop/db", "a"), f"There is no {PATH}.*secret seal shop/db KEY"),
        ({}, ("edit", "shop/db"), f"There is no {PATH}"),
        ({PATH: documents.secret("db", "pass")}, ("reveal", "shop/db", "pas"), 'no key "pas".*Did you mean "pass"'),
        ({PATH: documents.secret("db", "pass")}, ("reveal", "shop/db", "pass"), "pass: the value cannot be opened"),
        ({PATH: documents.secret("db", "pass")}, ("edit", "shop/db"), "pass: the value cannot be opened"),
        ({PATH: documents.secret("db", "pass")}, ("rotate",), "Nothing was written"),
        ({PATH: b"kind: Secret, sealed: canary"}, ("rotate",), "Nothing was written"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    repo: Repo, files: dict[str, bytes | None], arguments: tuple[str, ...], sentence: str
) -> None:
    """Exit code 1, why and what to do, and nothing of what a file or the value holds."""
    for path, content in files.items():
        (repo.folder / path).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            (repo.folder / path).unlink()
        else:
            (repo.folder / path).write_bytes(content)
    before = files_below(repo.folder)
    identity = () if arguments[0] == "seal" else ("--data", repo.data)
    done = repo.run(*arguments, *identity, typed=CANARY.encode())
    said = done.stderr.decode()
    assert done.returncode == 1
    assert done.stdout == b""
    assert re.search(sentence, said), said
    assert "canary" not in said
    assert "Traceback" not in said
    assert files_below(repo.folder) == before


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xffcanary", "not UTF-8"),
        (b"canary" * 20_000, "more than 65,536"),
        (b"canary" * 10_000, "is not valid"),
    ],
)
def test_a_value_that_is_none_is_refused(repo: Repo, value: bytes, sentence: str) -> None:
    """Nothing, no text, and more than a file may have."""
    done = repo.run("seal", "shop/db", "password", typed=value)
    assert done.returncode == 1
    assert sentence in done.stderr.decode()
    assert b"canary" not in done.stderr
    assert not (repo.folder / "secrets").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("seal", "../db", "k"),
        ("seal", "shop", "k"),
        ("seal", "shop/DB", "k"),
        ("seal", "shop/db", "-k!"),
        ("seal", "shop/db", "a/b"),
        ("seal", "shop/db", "k", "value"),
        ("reveal", "shop/db", "k"),
        ("rotate",),
        (),
    ],
)
def test_wrong_usage_is_told_as_such(repo: Repo, arguments: tuple[str, ...]) -> None:
    """Exit code 2; a value has no place among the arguments."""
    assert repo.run(*arguments, typed=b"x").returncode == 2


def test_links_are_not_followed(repo: Repo, tmp_path: Path) -> None:
    """A link in a checkout leads no value, and no write, out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (repo.folder / "secrets").symlink_to(outside)
    done = repo.seal(CANARY)
    assert done.returncode == 1
    assert "links are not followed" in done.stderr.decode()
    (repo.folder / "secrets").unlink()
    (repo.folder / "secrets/shop").mkdir(parents=True)
    (repo.folder / PATH).symlink_to(outside / "db.yaml")
    assert repo.seal(CANARY).returncode == 1
    assert list(outside.iterdir()) == []


# --- edit ---------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_sealed_again(repo: Repo) -> None:
    """Values come and go in the editor; those that stay keep their armour to the byte."""
    repo.seal(CANARY)
    repo.seal("5", key="port")
    repo.seal("old", key="gone")
    before = repo.armour()
    done = repo.edit(
        "file.write_text(file.read_text().replace('port: 5', 'port: 0123\\nnew: no').replace('gone: old', ''))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{PATH}: gone is taken out.\n{PATH}: port is sealed.\n{PATH}: new is sealed.\n"
    assert repo.armour() == before
    assert repo.values() == {"password": CANARY, "port": "0123", "new": "no"}
    assert CANARY.encode() not in done.stdout + done.stderr


def test_the_editor_works_on_a_private_file_of_which_nothing_stays(repo: Repo) -> None:
    """Mode 0600 in a directory 0700 in memory; copies that the editor leaves are gone with it."""
    repo.seal(CANARY)
    facts = repo.folder.parent / "facts"
    done = repo.edit(
        "text = file.read_text()",
        "modes = [f'{path.stat().st_mode & 0o777:o}' for path in (file, file.parent)]",
        f"pathlib.Path({str(facts)!r}).write_text(' '.join([*modes, str({CANARY!r} in text)]))",
        "file.with_name('db.yaml~').write_text(text)",
        "file.with_name('.db.yaml.swp').write_text(text)",
        "file.write_text(text.replace('canary', 'changed'))",
    )
    assert done.returncode == 0, done.stderr
    assert facts.read_text().split() == ["600", "700", "True"]
    assert Path(repo.report.read_text()).is_relative_to(SHM) or not SHM.is_dir()
    assert repo.nothing_stayed()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ((), "No value was changed"),
        (("file.write_text(file.read_text() + '# a remark')",), "No value was changed"),
        (("sys.exit(3)",), "ended with code 3"),
        (("file.write_text('password: [canary')",), "not written as KEY: VALUE"),
        (("file.write_text('password: x\\nport: \"\"')",), 'value of "port" is empty'),
        (("file.write_text('')",), "holds no value"),
        (("file.unlink()",), "cannot be read"),
        (("file.write_bytes(b'password: \\xff')",), "cannot be read"),
        (("file.write_bytes(b'password: ' + b'x' * 2_000_000)",), "is larger than"),
        (("file.write_text('password: ' + 'x' * 60_000)",), "would be larger"),
    ],
)
def test_an_edit_that_fails_changes_nothing_and_leaves_nothing(
    repo: Repo, lines: tuple[str, ...], sentence: str
) -> None:
    """A sentence, exit code 1; the file is as it was, and the clear text is gone."""
    repo.seal(CANARY)
    before = files_below(repo.folder)
    done = repo.edit(*lines)
    assert done.returncode == 1
    assert sentence in done.stderr.decode()
    assert b"canary" not in done.stderr
    assert files_below(repo.folder) == before
    assert repo.nothing_stayed()


def test_an_editor_that_is_not_there_is_told(repo: Repo) -> None:
    """By its name, with the variable that names it."""
    repo.seal(CANARY)
    repo.environment["VISUAL"] = "no-such-editor --wait"
    done = repo.run("edit", "shop/db", "--data", repo.data)
    assert done.returncode == 1
    assert "no-such-editor cannot be started" in done.stderr.decode()


def test_somebody_elses_change_meanwhile_is_not_overwritten(repo: Repo) -> None:
    """A file that is another after the edit is left as it is."""
    repo.seal(CANARY)
    path = repo.folder / PATH
    done = repo.edit("file.write_text('password: x')", f"path = pathlib.Path({str(path)!r})",
                     "path.write_text(path.read_text() + '# other\\n')")  # fmt: skip
    assert done.returncode == 1
    assert "changed by somebody else" in done.stderr.decode()
    assert repo.values() == {"password": CANARY}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_clear_text_is_removed_when_the_command_is_ended(repo: Repo, number: signal.Signals) -> None:
    """The editor ends, and the private directory is gone."""
    repo.seal(CANARY)
    ready = repo.folder.parent / "ready"
    editor = repo.folder.parent / "editor.py"
    editor.write_text(
        "import sys, os, pathlib, signal\n"
        f"ready = pathlib.Path({str(ready)!r})\n"
        "ready.with_suffix('.new').write_text(f'{os.getpid()} {sys.argv[-1]}')\n"
        "ready.with_suffix('.new').rename(ready)\n"
        "signal.pause()\n"
    )
    repo.environment["EDITOR"] = shlex.join([sys.executable, str(editor)])
    process = subprocess.Popen(
        command("secret", "edit", "shop/db", "--data", repo.data), cwd=repo.folder, env=repo.environment
    )
    wait_for(ready.exists, 30, what="the editor")
    pid, where = ready.read_text().split()
    assert CANARY in Path(where).read_text()
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert not Path(where).parent.exists()
    assert not Path("/proc", pid).exists()


def test_a_mistake_may_be_mended_at_a_terminal(repo: Repo) -> None:
    """What was typed is not lost: the editor opens again with it."""
    repo.seal(CANARY)
    repo.edit("text = file.read_text()",
              "file.write_text('password: [new' if 'new' not in text else text.replace('[', ''))")  # fmt: skip
    code, said = on_terminal(repo, "edit", "shop/db", "--data", repo.data, answers=[("Edit again? [Y/n] ", "\n")])
    assert code == 0, said
    assert repo.values() == {"password": "new"}


# --- rotate -------------------------------------------------------------------------------------------------------


def test_a_new_recipient_opens_everything_and_a_former_one_nothing(repo: Repo) -> None:
    """Every value of every file is sealed to exactly the present recipients; comments stay."""
    repo.seal(CANARY)
    repo.seal(OTHER, key="uri")
    (repo.folder / "secrets/data").mkdir()
    (repo.folder / "secrets/data/x.yaml").write_bytes(new_file("x", {"k": seal(OTHER, repo.recipients)}) + b"# end\n")
    third = repo.folder.parent / "third"
    third.write_text(new_identity().get_secret_value())
    recipient = repo.run("recipient", "--identity", third).stdout.decode().strip()
    repo.recipients_are(repo.recipients[0], recipient)
    done = repo.run("rotate", "--data", repo.data)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == ["secrets/data/x.yaml", PATH]
    assert "3 values in 2 files sealed to 2 recipients" in done.stderr.decode()
    assert "Git keeps what they were" in done.stderr.decode()
    assert repo.reveal("uri", "--identity", third) == OTHER.encode()
    assert repo.run("reveal", "shop/db", "uri", "--identity", repo.safe).returncode == 1
    assert (repo.folder / "secrets/data/x.yaml").read_text().endswith("# end\n")
    assert CANARY.encode() not in done.stdout + done.stderr


def test_what_is_known_to_be_right_is_left_alone(repo: Repo) -> None:
    """Where the identity of each recipient is at hand, a second run changes nothing; otherwise all is sealed again."""
    repo.seal(CANARY)
    both = ("--identity", repo.safe, "--identity", repo.data / "keys/age-identity.txt")
    before = files_below(repo.folder)
    done = repo.run("rotate", *both)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "Nothing to do. 1 value left as it was." in done.stderr.decode()
    assert files_below(repo.folder) == before
    assert repo.run("rotate", "--data", repo.data).returncode == 0
    assert files_below(repo.folder) != before


def test_all_or_nothing(repo: Repo) -> None:
    """One value that cannot be opened stops all, and each that stands in the way is named."""
    repo.seal(CANARY)
    (repo.folder / "secrets/shop/a.yaml").write_bytes(documents.secret("a", "one"))
    (repo.folder / "secrets/shop/z.yaml").write_bytes(b"kind: [")
    before = files_below(repo.folder)
    done = repo.run("rotate", "--data", repo.data)
    assert done.returncode == 1
    assert "secrets/shop/a.yaml, one: the value cannot be opened" in done.stderr.decode()
    assert "secrets/shop/z.yaml is not valid" in done.stderr.decode()
    assert files_below(repo.folder) == before


def test_who_locks_themselves_out_is_told(repo: Repo) -> None:
    """Rotating away from one's own identity is allowed, and said."""
    repo.seal(CANARY)
    repo.recipients_are(repo.recipients[1])
    done = repo.run("rotate", "--data", repo.data)
    assert done.returncode == 0
    assert "is no recipient of the fleet" in done.stderr.decode()
    assert repo.reveal("password", "--identity", repo.safe) == CANARY.encode()


# --- on the real parts --------------------------------------------------------------------------------------------


def test_clear_values_are_nowhere(repo: Repo) -> None:
    """After every action: not in the work tree, in git, in an output, or among the arguments of any process."""
    first, second = f"canary-{secrets.token_hex(8)}", f"canary-{secrets.token_hex(8)}"
    source = repo.folder.parent / "value"
    source.write_text(second)
    git("-C", repo.folder, "init", "-q", "--initial-branch=main")
    with process_arguments() as seen:
        outputs = [
            repo.process("seal", "shop/db", "password", typed=first.encode()),
            repo.process("seal", "shop/db", "again", "--value-file", source),
        ]
        git("-C", repo.folder, "add", "-A")
        git("-C", repo.folder, "commit", "-q", "-m", "Seal")
        outputs += [
            repo.edit("text, new = file.read_text().splitlines(), pathlib.Path('../value').read_text()",
                      "file.write_text('password: ' + new)", own_process=True),
            repo.edit("file.write_text('password: [' + pathlib.Path('../value').read_text())", own_process=True),
            repo.process("rotate", "--data", repo.data),
            repo.process("rotate", "--identity", source),
            repo.process("reveal", "shop/db", "--data", repo.data),
            repo.process("reveal", "shop/db", "nothing", "--data", repo.data),
        ]  # fmt: skip
        git("-C", repo.folder, "add", "-A")
        git("-C", repo.folder, "commit", "-q", "-m", "Rotate")
    assert [done.returncode for done in outputs] == [0, 0, 0, 1, 0, 1, 0, 1]
    assert repo.reveal("password") == second.encode()
    assert any("secret seal" in arguments for arguments in seen), "no command was seen; then nothing was looked at"
    objects = git("-C", repo.folder, "cat-file", "--batch-check", "--batch-all-objects")
    stored = "".join(git("-C", repo.folder, "cat-file", "-p", line.split()[0]) for line in objects.splitlines())
    assert "AGE ENCRYPTED FILE" in stored
    places = {
        "git": stored,
        "arguments": "\n".join(seen),
        "outputs": "".join(f"{done.stdout!r}{done.stderr!r}" for done in outputs),
        "files": "".join(map(repr, files_below(repo.folder, repo.data).values())),
    }
    assert {place for place, text in places.items() if first in text or second in text} == set()
    assert repo.nothing_stayed()


def test_the_control_plane_opens_what_was_sealed(tmp_path: Path) -> None:
    """From the recipient on its machine to a password that Traefik asks for; and again after a rotation."""
    with backends("app") as (app,), installation(tmp_path / "one", start_files("web", port=app.port)) as one:
        work = tmp_path / "work"
        work.mkdir()
        recipient = one.cli("secret", "recipient").stdout.strip()
        extra = Opener(new_identity()).recipient()
        (work / "fleet.yaml").write_bytes(documents.fleet(recipients=[recipient]))
        value = tmp_path / "htpasswd"
        value.write_text(f"{HTPASSWD}\n")
        arguments = ("secret", "seal", "shop/users", "all", "--dir", work, "--value-file", value)
        assert run_cli(*arguments).returncode == 0
        sealed = (work / "secrets/shop/users.yaml").read_bytes()
        protected = web("admin", app.port, middlewares=[{"basicAuth": {"secret": {"name": "users", "key": "all"}}}])
        files = {"secrets/shop/users.yaml": sealed, "routes/shop/admin.yaml": protected}
        assert not one.live(files)["quarantined"]
        assert one.get("admin").status_code == 401
        (work / "fleet.yaml").write_bytes(documents.fleet(recipients=[recipient, extra]))
        assert one.cli("secret", "rotate", "--dir", work).returncode == 0
        again = (work / "secrets/shop/users.yaml").read_bytes()
        assert again != sealed
        assert HTPASSWD.partition("}")[2] in one.published.read_text()
        assert not one.live({"secrets/shop/users.yaml": again})["quarantined"]
        assert one.get("admin").status_code == 401
        assert HTPASSWD not in one.log()


def test_a_secret_in_clear_is_a_warning_that_keeps_nothing_out(tmp_path: Path) -> None:
    """validate ends with 0 and names the place; no format of its output holds the value."""
    (tmp_path / "deployments/shop").mkdir(parents=True)
    (tmp_path / "agents").mkdir()
    (tmp_path / "fleet.yaml").write_bytes(documents.fleet())
    (tmp_path / "agents/vps-1.yaml").write_bytes(documents.agent("vps-1"))
    deployment = documents.deployment("web", "vps-1", env={"DB_PASSWORD": CANARY, "URI": f"redis://:{CANARY}@cache"})
    (tmp_path / "deployments/shop/web.yaml").write_bytes(deployment)
    for style in ("text", "json", "github", "sarif", "junit"):
        done = run_cli("validate", tmp_path, "--format", style)
        assert done.returncode == 0
        assert "plain-secret" in done.stdout
        assert CANARY not in done.stdout + done.stderr
    found = json.loads(run_cli("validate", tmp_path, "--format", "json").stdout)["problems"]
    assert [problem["severity"] for problem in found] == ["warning", "warning"]
