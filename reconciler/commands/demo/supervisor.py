"""Owns every process of the demo: starts them, notices when one dies, and ends them all, whatever happened.

Each is the leader of a session of its own, so that Ctrl-C reaches only the demo, which then ends them in order; should
the demo itself be killed, the kernel ends them. Nothing here waits without looking at signals and at the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from reconciler.commands.demo.folder import Folder
from reconciler.commands.demo.parts import Job, Part
from reconciler.errors import Broken, Refused, Transient

PAUSE: Final = 0.05
LAST_WORDS: Final = 1.0
"""Seconds in which the end of a part that does not answer shows."""
TAIL_LINES: Final = 15
JOB_SECONDS: Final = 90.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# prctl(PR_SET_PDEATHSIG, SIGTERM), then become the program; the demo may be gone before the call
_TIED_TO_US: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Interrupted(Exception):
    """Somebody asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(frozen=True, slots=True)
class _Child:
    part: Part
    process: subprocess.Popen[bytes]


class Supervisor:
    """Use as a context manager: leaving it ends every process, the last one first."""

    def __init__(self, folder: Folder, seconds: float) -> None:
        self._folder = folder
        self._deadline = time.monotonic() + seconds
        self._children: list[_Child] = []
        self._signal = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    # --- processes ----------------------------------------------------------------------------------------------

    def start(self, *parts: Part) -> None:
        """Start the parts side by side, and wait until each is ready.

        Raises:
            Broken: when one does not start, ends, or is not ready in time.
            Interrupted
        """
        for part in parts:
            self._children.append(_Child(part, self._spawn(part)))
        for part in parts:
            self.wait_until(part.ready, part.seconds, f"{part.name} is not ready (log: {self._folder.log(part.name)})")

    def finish(self, *jobs: Job) -> None:
        """Run commands side by side to their end.

        Raises:
            Broken: when one fails; the message has the last lines of its output.
            Interrupted
        """
        running: list[tuple[Job, subprocess.Popen[bytes]]] = []
        try:
            for job in jobs:
                running.append((job, self._spawn(job, job.stdin)))  # noqa: PERF401 - what runs must be known when one fails
            for job, process in running:
                self.wait_until(partial(_has_ended, process), JOB_SECONDS, f"{job.name} has not come to an end")
                if process.returncode:
                    raise Broken(f"{job.name} failed with status {process.returncode}. {self._tail(job.name)}")
        finally:
            for _, process in running:
                _end(process, grace=1.0)

    def _spawn(self, what: Part | Job, stdin: str = "") -> subprocess.Popen[bytes]:
        command = list(what.command)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _TIED_TO_US, str(os.getpid()), *command]
        try:
            with self._folder.log(what.name).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder.root,
                    env=dict(what.environment),
                    start_new_session=True,
                )
        except OSError as error:
            raise Broken(f"{what.name} cannot be started: {error}.") from None
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(stdin.encode())
        return process

    # --- waiting ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what speaks against going on.

        Raises:
            Interrupted
            Broken: when a part has ended.
        """
        if self._signal:
            raise Interrupted(self._signal)
        for child in self._children:
            status = child.process.poll()
            if status is not None:
                how = f"signal {-status}" if status < 0 else f"status {status}"
                raise Broken(f"{child.part.name} has ended with {how}. {self._tail(child.part.name)}")

    def require_alive(self) -> None:
        """As :meth:`check`, for when something that runs did not answer: its end may be told a moment later.

        Raises:
            Interrupted
            Broken: when a part has ended.
        """
        end = time.monotonic() + LAST_WORDS
        while time.monotonic() < end:
            self.check()
            time.sleep(PAUSE)

    def wait_until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait until the condition holds; a control plane that does not answer yet counts as no.

        Raises:
            Broken: ``otherwise``, when it does not hold in time, or a part has ended.
            Interrupted
        """
        end = time.monotonic() + seconds
        why = ""
        while True:
            self.check()
            try:
                if condition():
                    return
            except (Transient, Refused) as error:
                why = f" {error}"
            if time.monotonic() > self._deadline:
                raise Broken(f"{otherwise}, and the time is up.{why}", hint="Give it more with --timeout.")
            if time.monotonic() > end:
                raise Broken(f"{otherwise} after {seconds:g} s.{why}")
            time.sleep(PAUSE)

    @property
    def seconds_left(self) -> float:
        """Until the deadline of the whole."""
        return max(0.0, self._deadline - time.monotonic())

    def _tail(self, name: str) -> str:
        path = self._folder.log(name)
        lines = _last_lines(path)
        return f"The end of {path}:\n" + "\n".join(f"    {line}" for line in lines) if lines else f"{path} is empty."

    # --- ending -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process with its whole group, the last one first. Signals are only noted meanwhile."""
        while self._children:
            child = self._children[-1]
            _end(child.process, child.part.grace)
            self._children.pop()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM, time to end in order, then SIGKILL to whatever is left of the group."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []
