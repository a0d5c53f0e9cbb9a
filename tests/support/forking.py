"""Runs commands of the program in forks of a process that has imported it already, so that being killed costs little.

``python -m tests.support.forking`` reads requests as lines of JSON (words, log, namespace), answers the process id, and
says ``ended ID`` when a child has ended. Children are killed with it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.orphans import tied

ROOT: Final = Path(__file__).parents[2]
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_MODULES: Final = (
    "reconciler.__main__",
    "reconciler.commands.serve_command",
    "reconciler.app.running",
    "agent.building",
)


class Forked:
    """One command that runs: as much of :class:`subprocess.Popen` as tests of an installation use."""

    def __init__(self, forker: Forker, pid: int) -> None:
        self.pid = pid
        self._forker = forker

    def poll(self) -> int | None:
        return None if Path(f"/proc/{self.pid}/stat").exists() and not self._forker.ended(self.pid) else -1

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        del timeout
        self._forker.wait(self.pid)
        return -1


class Forker:
    """Starts commands. All from one thread."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            tied([sys.executable, "-m", "tests.support.forking"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._ended: set[int] = set()

    def start(self, words: Sequence[str | Path], log: Path, namespace: Path | None = None) -> Forked:
        """Run ``cloudlunacy WORDS``, with what it writes at the end of ``log``."""
        assert self._process.stdin is not None
        request = {"words": [str(word) for word in words], "log": str(log), "namespace": str(namespace or "")}
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return Forked(self, int(self._next("started")))

    def ended(self, pid: int) -> bool:
        """Say whether a child is known to have ended; its end is heard of by :meth:`wait`."""
        return pid in self._ended

    def wait(self, pid: int) -> None:
        while pid not in self._ended:
            self._ended.add(int(self._next("ended")))

    def _next(self, word: str) -> str:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            assert line, "what forks has ended"
            said, _, pid = line.strip().partition(" ")
            if said == word:
                return pid
            self._ended.add(int(pid))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _be(request["words"], request["log"], request["namespace"])
        _say(f"started {child}")


def _reap(*_: object) -> None:
    """Tell of every child that has ended."""
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(f"ended {pid}")


def _be(words: list[str], log: str, namespace: str) -> None:
    """Become the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with Path(log).open("ab") as output, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if namespace:
        with Path(namespace).open() as place:
            assert libc.setns(place.fileno(), _CLONE_NEWNET) == 0, "setns"
    code = 1
    try:
        code = importlib.import_module("reconciler.__main__").main(words)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main()
