"""Keeps one program running: a small process of its own for each instance, so that nothing depends on the agent.

``python -I -S -c '…' DIRECTORY`` with a directory of :mod:`agent.deployments.process_files`. In order: take the lock →
start the program → say so on standard output, once → write down what it says until it ends → end whatever it left →
start it again after a pause, if it is kept, else say how it ended. SIGTERM asks it to end everything in order; should
the keeper be killed, the kernel ends the program. Standard library only, and little of it, for there are as many of
these as there are instances.

The program leads a session and a group of its own. The keeper is the parent of all that lose theirs (subreaper), so
nothing that a program began escapes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from agent.deployments.process_entry import enter, leave_root
from agent.deployments.process_files import CHANGES, KEPT, Record, Status, opened, take_lock
from agent.deployments.process_log import RotatingLog
from agent.deployments.process_table import children, has_followers, signal_group

STARTED: Final = "started"
CANNOT: Final = "cannot "
"""Begins the line that says why nothing could be started."""
BUSY: Final = "busy"

_LOCK_SECONDS: Final = 3.0
_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_STEADY_SECONDS: Final = 30.0
"""A program that ran so long begins its pauses anew."""
_CONFINE_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.02
_BLOCK: Final = 64 * 1024
_LOST: Final = 255
"""Exit code of a child that is not there any more; nobody else waits for ours, so it should not come to that."""
_KILLED: Final = frozenset({128 + signal.SIGKILL, 128 + signal.SIGTERM})
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

_prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: -1)  # Linux has it


class CannotStart(Exception):
    pass


def pause_after(ended: int, ran: float) -> tuple[int, float]:
    """Return how often it ended in quick succession, this time included, and the seconds until it is started again."""
    ended = 1 if ran >= _STEADY_SECONDS else ended + 1
    return ended, min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2.0 ** min(ended - 1, 16))


class Running(NamedTuple):
    child: int
    """Our own: the program, or what confines it."""
    leader: int
    """Of the group that is asked to end; the same, or the first process inside the confinement."""
    began: float


class Keeper:
    def __init__(self, directory: Path, record: Record) -> None:
        self._directory = directory
        self._program = record.program
        self._log = RotatingLog(directory)
        self._said = False
        self._stopping = False
        self._restarts = 0
        self._starts = 0
        self._output, self._input = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._input, True)  # a program expects to wait when nobody reads
        self._woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def run(self) -> None:
        """Keep the program until it is to end, or has and is not kept."""
        ended, status = 0, Status("exited")
        while not self._stopping:
            try:
                running = self._start()
            except CannotStart as error:
                status = self._not_started(str(error))
            else:
                status = self._watch(running)
            if self._stopping or not (self._directory / KEPT).exists():
                break
            ended, pause = pause_after(ended, status.ran or 0.0)
            self._restarts += 1
            self._tell(status._replace(state="restarting", restarts=self._restarts))
            self._note(f"ended with {status.exit_code}; started again in {pause:g} s")
            self._wait(time.monotonic() + pause, lambda: self._stopping)
        self._tell(status._replace(state="exited", restarts=self._restarts))
        self._log.close()

    def _not_started(self, why: str) -> Status:
        self._answer(CANNOT + why)
        self._note(why)
        return Status("exited", exit_code=127, ran=0.0)

    def _watch(self, running: Running) -> Status:
        """See a program through to its end, and to the end of everything that it began."""
        self._starts += 1
        started = f"{os.getpid()}.{self._starts}.{time.time():.3f}"
        status = Status("running", started, running.leader, self._restarts)
        self._tell(status)
        self._answer(STARTED)
        code = self._wait_for(running.child, None, lambda: self._stopping)
        if code is None:
            code = self._ask_to_end(running)
        if code is None:
            os.kill(running.child, signal.SIGKILL)  # ours, and not waited for yet: it cannot be another's
            code = self._wait_for(running.child, None, lambda: False)
        oom = self._end_the_rest()
        self._read_output()
        assert code is not None
        killed = code in _KILLED and not oom
        ran = time.monotonic() - running.began
        return status._replace(pid=0, exit_code=code, killed=killed, ran=round(ran, 3))

    def _ask_to_end(self, running: Running) -> int | None:
        """Send SIGTERM, and wait for its grace; return the exit code where it ended in time."""
        code, deadline = None, time.monotonic() + _CONFINE_SECONDS
        while running.leader != running.child and not has_followers(running.leader) and code is None:
            if time.monotonic() > deadline:
                return None
            code = self._wait_for(
                running.child, time.monotonic() + _LOOK_SECONDS, lambda: False
            )  # nobody is inside yet
        if code is not None:
            return code
        signal_group(running.leader, signal.SIGTERM)
        return self._wait_for(running.child, time.monotonic() + self._program.grace, lambda: False)

    def _end_the_rest(self) -> bool:
        """Kill whatever is left; who loses a parent becomes our child. Say whether memory had run out."""
        oom = _out_of_memory(self._program.cgroup)
        if self._program.cgroup:
            with contextlib.suppress(OSError):
                Path(self._program.cgroup, "cgroup.kill").write_text("1")
        while found := children(os.getpid()):
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            for pid in found:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        return oom

    # --- starting -----------------------------------------------------------------------------------------------

    def _start(self) -> Running:
        """Raises CannotStart."""
        program = self._program
        began = time.monotonic()
        if not program.confined:
            child = self._spawn(program.argv)
            return Running(child, child, began)
        told, teller = os.pipe2(0)
        gate, opener = os.pipe2(0)
        for mine in (told, opener):
            os.set_inheritable(mine, False)
        bwrap, *rest = program.argv
        try:
            with opened(rest, program) as (words, _):
                child = self._spawn([bwrap, "--info-fd", str(teller), "--block-fd", str(gate), *words])
            os.close(teller)
            teller = -1
            inner = _inner(told)
            if inner:
                self._limit(inner)
                os.write(opener, b"1")
            return Running(child, inner or child, began)
        finally:
            for descriptor in (told, teller, gate, opener):
                if descriptor >= 0:
                    os.close(descriptor)

    def _limit(self, pid: int) -> None:
        """Limit what waits inside its confinement. It is below our own child, so it is still the one that it was."""
        with contextlib.suppress(OSError):
            if self._program.cgroup:
                Path(self._program.cgroup, "cgroup.procs").write_text(str(pid))
        if self._program.entry is None:
            self._limit_each(pid)
            return
        child = os.fork()  # as its user, for which nothing more is needed; root in a container may lack the right
        if child == 0:
            try:
                leave_root(self._program.entry)
                self._limit_each(pid)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def _limit_each(self, pid: int) -> None:
        for name, value in self._program.limits.items():
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, getattr(resource, name), (value, value))

    def _spawn(self, argv: list[str]) -> int:
        """Return the child, which has become the program. Raises CannotStart."""
        failed, failure = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._become(argv, parent, failure)
        os.close(failure)
        with open(failed, "rb") as answer:  # noqa: PTH123  a descriptor
            why = answer.read()
        if why:
            os.waitpid(child, 0)
            raise CannotStart(why.decode("utf-8", "replace"))
        return child

    def _become(self, argv: list[str], parent: int, failure: int) -> NoReturn:
        program = self._program
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for descriptor, wanted in ((nothing, 0), (self._input, 1), (self._input, 2)):
                os.dup2(descriptor, wanted)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.umask(0o022)
            if program.entry is not None:
                enter(program.entry)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            if not program.confined:
                os.chdir(program.directory)
                _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                self._limit(os.getpid())
            os.execvpe(argv[0], argv, program.first_env)  # noqa: S606  no shell is wanted
        except OSError as error:
            os.write(failure, f"{argv[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)

    # --- waiting ------------------------------------------------------------------------------------------------

    def _wait_for(self, child: int, until: float | None, enough: Callable[[], bool]) -> int | None:
        """Wait for the end of a child; return its exit code, None where time was up or it was enough before that."""
        found: list[int] = []

        def over() -> bool:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)  # also those that were left to us
                except ChildProcessError:
                    found.append(_LOST)
                    return True
                if pid == 0:
                    return bool(found) or enough()
                if pid == child:
                    code = os.waitstatus_to_exitcode(status)
                    found.append(128 - code if code < 0 else code)

        self._wait(until, over)
        return found[0] if found else None

    def _wait(self, until: float | None, over: Callable[[], bool]) -> None:
        """Write down what the program says until it is over, or until then (monotonic)."""
        while not over():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            for descriptor, _ in self._poll.poll(None if left is None else left * 1000):
                if descriptor == self._output:
                    self._read_output(once=True)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, _BLOCK)

    def _read_output(self, *, once: bool = False) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._log.write(os.read(self._output, _BLOCK))
                if once:
                    return

    # --- saying -------------------------------------------------------------------------------------------------

    def _tell(self, status: Status) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end what runs
            status.write(self._directory)
        with contextlib.suppress(OSError):  # without an agent nobody reads
            pipe = os.open(self._directory.parents[2] / CHANGES, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(pipe, b".")
            finally:
                os.close(pipe)

    def _note(self, text: str) -> None:
        self._log.write(f"[{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}]\n".encode())

    def _answer(self, line: str) -> None:
        """Tell the agent that started us, the first time."""
        if not self._said:
            self._said = True
            answer(line)


def answer(line: str) -> None:
    """Say a line on standard output, and be done with it: who started us may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _inner(told: int) -> int:
    """Return the process id of what bubblewrap confined, 0 where it ended before that."""
    found = b""
    while select.select([told], [], [], _CONFINE_SECONDS)[0] and (piece := os.read(told, 4096)):
        found += piece
        with contextlib.suppress(ValueError):
            return int(json.loads(found)["child-pid"])
    return 0


def _out_of_memory(cgroup: str) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        if cgroup:
            events = Path(cgroup, "memory.events").read_text().split()
            return int(events[events.index("oom_kill") + 1]) > 0
    return False


def main(directory: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while not take_lock(directory):  # the one before it may be about to end
        if time.monotonic() > deadline:
            answer(BUSY)
            return
        time.sleep(0.02)
    try:
        record = Record.read(directory)
    except (OSError, ValueError) as error:
        answer(f"{CANNOT}its record cannot be read: {type(error).__name__}")
        return
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Keeper(directory, record).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
