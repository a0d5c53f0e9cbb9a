"""Runs a command, and ends whatever is left of it: ``python -m reconciler.commands.demo.reaper COMMAND…``.

Programs that an agent runs are made to outlive it. In the demo they end with the demo, so each agent runs below one of
these, which becomes the parent of everything below it that loses its own (prctl(2), ``PR_SET_CHILD_SUBREAPER``; Linux
only). When the command ends, or SIGTERM comes, also because the demo was killed: SIGTERM to the command, then to what
is left, which ends its own in order, then SIGKILL. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_ASKED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SIGNALS: Final = _ASKED | {signal.SIGCHLD}
_PAUSE: Final = 0.02
COMMAND_SECONDS: Final = 4.0
REST_SECONDS: Final = 5.0
"""For SIGTERM, and as much again for SIGKILL."""


class Reaper:
    """Owns the command and all that it leaves behind."""

    def __init__(self, argv: list[str]) -> None:
        self._command = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=[])
        self._code: int | None = None

    def run(self) -> int:
        """Return the exit code of the command, 128 + signal where it was killed."""
        asked = False
        while self._code is None and not asked:
            asked = signal.sigwaitinfo(_SIGNALS).si_signo in _ASKED
            self._reap()
        if self._code is None:
            os.kill(self._command, signal.SIGTERM)  # ours, and not waited for yet: it cannot be another's
            self._until(lambda: self._code is not None, COMMAND_SECONDS)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._end_all(number)
        return 1 if self._code is None else self._code

    def _end_all(self, number: int) -> None:
        """Send a signal to each child, also to those that come to us meanwhile, until there are none."""
        told: set[int] = set()
        deadline = time.monotonic() + REST_SECONDS
        while (found := _children()) and time.monotonic() < deadline:
            for pid in found:
                if pid not in told:
                    os.kill(pid, number)  # as above
            told |= set(found)
            self._reap()
            time.sleep(_PAUSE)

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._command:
                    code = os.waitstatus_to_exitcode(found[1])
                    self._code = 128 - code if code < 0 else code


def _children() -> list[int]:
    """Return our children, as proc(5) has them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            if int(text[text.rindex(b")") + 2 :].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def main() -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    return Reaper(sys.argv[1:]).run()


if __name__ == "__main__":
    sys.exit(main())
