"""Bare repositories to be the remote, written by the git program itself and by nothing of the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.parts import require
from tests.support.waiting import wait_for

EPOCH = 1_750_000_000


def git(*arguments: str | Path, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run git; return what it prints, without the last line feed."""
    program = require("git")
    finished = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, check=False, env={**os.environ, **(env or {})}
    )
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")
    return finished.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


@dataclass
class BareRepo:
    """A bare repository. Each commit gets a second of its own, so that ids do not depend on the clock."""

    path: Path
    branch: str = "main"
    _commits: int = field(default=0, init=False)

    @classmethod
    def create(cls, path: Path, branch: str = "main") -> BareRepo:
        git("init", "--quiet", "--bare", f"--initial-branch={branch}", path)
        return cls(path, branch)

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        *,
        message: str = "Change",
        branch: str | None = None,
        parent: str | None = None,
        modes: Mapping[str, str] | None = None,
    ) -> str:
        """Write ``files`` (None deletes) on the branch, or on ``parent`` wherever the branch was; return the id."""
        self._commits += 1
        ref = f"refs/heads/{branch or self.branch}"
        who = f"Committer <committer@example.test> {EPOCH + self._commits} +0000"
        text = message.encode()
        stream = [f"commit {ref}\nauthor {who}\ncommitter {who}\ndata {len(text)}\n".encode(), text, b"\n"]
        start = parent or self.tip(branch)
        if start:
            stream.append(f"from {start}\n".encode())
        for path, content in files.items():
            stream.append(_change(path, content, (modes or {}).get(path, "100644")))
        self.fast_import(b"".join(stream))
        return self.tip(branch) or ""

    def commit_on_nothing(self, files: Mapping[str, str | bytes | None], *, message: str = "Another start") -> str:
        """Rewrite the branch to one commit without a parent; return its id."""
        git("-C", self.path, "update-ref", "-d", f"refs/heads/{self.branch}")
        return self.commit(files, message=message)

    def fast_import(self, stream: bytes) -> None:
        git("-C", self.path, "fast-import", "--quiet", "--force", stdin=stream)

    def tip(self, branch: str | None = None) -> str | None:
        refs = git("-C", self.path, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch or self.branch}")
        return refs or None

    def set_tip(self, revision: str, branch: str | None = None) -> None:
        """Point the branch anywhere, as a force-push does."""
        git("-C", self.path, "update-ref", f"refs/heads/{branch or self.branch}", revision)

    def log(self, branch: str | None = None) -> list[str]:
        """Return the subjects, newest first."""
        return git("-C", self.path, "log", "--format=%s", branch or self.branch).split("\n")

    def show(self, path: str, branch: str | None = None) -> str:
        return git("-C", self.path, "show", f"{branch or self.branch}:{path}")

    def files(self, branch: str | None = None) -> list[str]:
        return git("-C", self.path, "ls-tree", "-r", "--name-only", branch or self.branch).split("\n")

    def blobs(self, revision: str) -> dict[str, str]:
        """Return path → blob of a revision's files."""
        lines = git("-C", self.path, "ls-tree", "-r", "--format=%(objectname) %(path)", revision).split("\n")
        return {path: blob for blob, _, path in (line.partition(" ") for line in lines)}

    def push_on_top(self, files: Mapping[str, str | bytes | None], *, message: str = "Change") -> str:
        """Commit as a push without force does: on top of the tip, and again when somebody else was faster."""
        while True:
            tip = self.tip() or ""
            revision = self.commit(files, message=message, branch=f"{self.branch}-next", parent=tip)
            program = require("git")
            command: list[str | Path] = [
                program,
                "-C",
                self.path,
                "update-ref",
                f"refs/heads/{self.branch}",
                revision,
                tip,
            ]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return revision

    def install_hook(self, name: str, script: str) -> None:
        hook = self.path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        hook.chmod(0o755)


def _change(path: str, content: str | bytes | None, mode: str) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    quoted = b'"' + b"".join(_quoted(byte) for byte in name) + b'"'
    if content is None:
        return b"D " + quoted + b"\n"
    data = content.encode() if isinstance(content, str) else content
    if mode == "160000":
        return b"M 160000 " + data + b" " + quoted + b"\n"
    return b"M " + mode.encode() + b" inline " + quoted + b"\ndata %d\n%b\n" % (len(data), data)


def _quoted(byte: int) -> bytes:
    return bytes([byte]) if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte


def processes_of(directory: Path) -> Sequence[int]:
    """Return the ids of all processes, orphans too, whose HOME lies in ``directory``."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(variable.startswith(b"HOME=" + os.fsencode(directory)) for variable in variables):
            found.append(int(environment.parent.name))
    return found


def wait_until_ended(directory: Path) -> None:
    """Fail unless every process whose HOME lies in ``directory`` ends at once: the kernel takes a moment to kill."""
    wait_for(lambda: not processes_of(directory), 3.0, what="the end of all git processes")
