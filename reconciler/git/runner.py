"""One git process: started through GitPython in a worker thread, bounded, in a group of its own, always ended.

1. argv: ``git`` and its arguments.
2. environment: only what is listed here, and what the remote needs; configuration travels in it as well. Whatever else
   the control plane's environment holds is empty for git.
3. output: read as it comes, capped; error words come back cleaned.
4. end: on a time-out, a cap or a cancellation the whole process group gets SIGTERM (git then removes its locks and
   temporary files) and after a second SIGKILL.

GitPython costs nothing that can be measured beside ``subprocess`` here (1.3 ms for ``git version`` either way).
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from reconciler.errors import Broken, Transient
from reconciler.git.cleaning import cleaned
from reconciler.git.remote import Remote

CHUNK_BYTES: Final = 1 << 20
MAX_ERROR_BYTES: Final = 64 * 1024
GRACE_SECONDS: Final = 1.0
WORKERS: Final = 8
_NOT_FOUND: Final = 127

KEPT: Final = frozenset(
    {"PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"}
    | {"http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"}
)
"""Names that git may inherit: to find programs, certificates, the SSH agent and the way out."""

HARDENED: Final[Mapping[str, str]] = {
    "advice.detachedHead": "false",
    "core.askPass": "",
    "core.bigFileThreshold": "1m",  # larger blobs are streamed, so that a deflate bomb costs time and no memory
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "transfer.fsckObjects": "true",
}

Sink = Callable[[bytes], bool]
"""Takes a piece of output; False means: enough, end the process."""


@dataclass(frozen=True, slots=True)
class GitLimits:
    """What one git process may cost. Seconds and bytes."""

    head_seconds: float = 20.0
    fetch_seconds: float = 120.0
    push_seconds: float = 60.0
    local_seconds: float = 60.0
    max_pack_bytes: int = 512 * 1024 * 1024
    max_output_bytes: int = 64 * 1024 * 1024


DEFAULT_LIMITS: Final = GitLimits()


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. ``arguments`` come after ``git``; names in them stand behind ``--end-of-options``."""

    arguments: Sequence[str]
    seconds: float
    git_dir: Path | None = None
    remote: Remote | None = None
    stdin: bytes | None = None
    config: Mapping[str, str] | None = None
    variables: Mapping[str, str] | None = None
    max_output_bytes: int = 64 * 1024 * 1024
    max_file_bytes: int | None = None
    """Largest file that git may write; a pack that never ends dies of it."""
    sink: Sink | None = None
    program: str = "git"


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended. ``status`` is negative for a signal; ``words`` is cleaned stderr."""

    status: int
    stdout: bytes
    words: str
    stopped: bool = False
    """The sink had enough."""
    too_much: bool = False
    """More output than ``max_output_bytes``."""


class GitRunner:
    """Runs git processes for one mirror. ``home`` is a private directory that becomes ``HOME`` and the cwd."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._workers = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="git")
        self.on_finished: Callable[[str, float, bool], None] = lambda *_: None
        """Called with the git operation, the seconds that it took, and whether it failed."""

    async def run(self, command: Command) -> Finished:
        """Run to the end.

        Raises:
            Transient: it did not end in time (``GitTimeout``), or the machine has no room for it (``GitNotStarted``).
            Broken: git is missing, or a file that the remote names cannot be read.
        """
        job = _Job(command, self._home)
        future = asyncio.get_running_loop().run_in_executor(self._workers, job.run)
        begin, failed = time.monotonic(), True
        try:
            finished = await asyncio.shield(future)
            failed = finished.status not in (0, 1)  # 1 is an answer, such as "no ancestor"
        except asyncio.CancelledError:
            job.cancel()
            # Nobody may find the mirror busy with a process that belongs to nobody: wait for its end.
            with suppress(Exception):
                await future
            raise
        finally:
            self.on_finished(next(iter(command.arguments), command.program), time.monotonic() - begin, failed)
        return finished

    def close(self) -> None:
        """Let the threads go. Running processes are ended by cancelling their tasks."""
        self._workers.shutdown(wait=False)


class _Job:
    """The life of one process, in a worker thread; ``cancel`` comes from another thread."""

    def __init__(self, command: Command, home: Path) -> None:
        self._command = command
        self._home = home
        self._cancelled = threading.Event()
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._stopped = self._too_much = False

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> Finished:
        try:
            return self._run()
        except OSError as error:
            what = f"{self._command.program} could not be started: {error.strerror or error}"
            raise Transient(f"{what}.", reason="GitNotStarted") from error

    def _run(self) -> Finished:
        command = self._command
        secrets = command.remote.secrets() if command.remote else ()
        deadline = time.monotonic() + command.seconds
        with ExitStack() as stack:
            process = self._start(_stdin_file(stack, command.stdin, self._home))
            stack.callback(_close, process)
            try:
                in_time = self._read_all(process, deadline)
                if in_time and not self._stopped and not self._too_much:
                    in_time = _ends(process, deadline)
            finally:
                _end_group(process)
        words = cleaned(bytes(self._stderr), secrets=secrets)
        if process.returncode == _NOT_FOUND and not self._stdout and "No such file" in words:
            raise Broken(f"The program {command.program} is not installed: {words}", hint="Install it.")
        if not in_time:
            what = " ".join([command.program, *command.arguments[:1]])
            raise Transient(f"{what} did not end within {command.seconds:g} s. {words}".rstrip(), reason="GitTimeout")
        return Finished(process.returncode, bytes(self._stdout), words, self._stopped, self._too_much)

    def _start(self, stdin: IO[bytes] | None) -> subprocess.Popen[bytes]:
        """Start through GitPython, imported late: its import runs ``git version`` and fails where git is missing."""
        try:
            from git.cmd import Git  # noqa: PLC0415
            from git.exc import GitCommandNotFound  # noqa: PLC0415
        except ImportError:
            raise Broken("The program git is not installed.", hint="Install git.") from None
        self._home.mkdir(parents=True, exist_ok=True)
        try:
            environment = _environment(self._command, self._home)
            foreign = os.environ.keys() - KEPT - environment.keys()
            argv = _argv(self._command, foreign)
            started = Git(str(self._home)).execute(
                argv,
                istream=stdin,  # type: ignore[arg-type]
                as_process=True,
                # GitPython hands the whole environment on: a name can be made empty there, and not be taken away
                env=dict.fromkeys(foreign, "") | environment,
                start_new_session=True,
            )
        except GitCommandNotFound:
            raise Broken(f"The program {argv[0]} is not installed.", hint="Install it.") from None
        assert isinstance(started, Git.AutoInterrupt)
        process = started.proc
        assert process is not None
        # GitPython's wrapper would signal the process once more when it is collected.
        started.proc = None
        return process

    def _read_all(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Read both streams to their end; False when time is up or the caller has gone."""
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                selector.register(stream, selectors.EVENT_READ, stream is process.stdout)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0 or self._cancelled.is_set():
                    return False
                # A cancellation is seen within this tick; output wakes the thread at once.
                for key, _ in selector.select(min(left, 0.1)):
                    chunk = os.read(key.fd, CHUNK_BYTES)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif not self._take(chunk, is_stdout=key.data):
                        return True
        return True

    def _take(self, chunk: bytes, *, is_stdout: bool) -> bool:
        if not is_stdout:
            self._stderr += chunk[: MAX_ERROR_BYTES - len(self._stderr)]
            return True
        if self._command.sink is not None:
            self._stopped = not self._command.sink(chunk)
            return not self._stopped
        self._stdout += chunk
        self._too_much = len(self._stdout) > self._command.max_output_bytes
        return not self._too_much


def _argv(command: Command, foreign: Iterable[str]) -> list[str]:
    argv = [command.program, *command.arguments]
    # git takes some of its own names for set although they are empty; ``env`` takes them away, for a millisecond
    unset = [part for name in sorted(foreign) if name.startswith("GIT_") for part in ("-u", name)]
    if unset:
        argv = ["env", *unset, *argv]
    if command.max_file_bytes is None:
        return argv
    # POSIX counts in blocks of 512 bytes.
    return ["sh", "-c", 'ulimit -f "$1" && shift && exec "$@"', "sh", str(command.max_file_bytes // 512 + 1), *argv]


def _environment(command: Command, home: Path) -> dict[str, str]:
    config = dict(HARDENED)
    variables = {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_CEILING_DIRECTORIES": str(home.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LANGUAGE": "C",
        "LC_ALL": "C.UTF-8",
    }
    if command.remote is not None:
        variables |= command.remote.environment()
        config |= command.remote.config()
    if command.git_dir is not None:
        variables["GIT_DIR"] = str(command.git_dir)
    config |= command.config or {}
    for index, (key, value) in enumerate(config.items()):
        variables[f"GIT_CONFIG_KEY_{index}"] = key
        variables[f"GIT_CONFIG_VALUE_{index}"] = value
    return variables | {"GIT_CONFIG_COUNT": str(len(config))} | dict(command.variables or {})


def _stdin_file(stack: ExitStack, content: bytes | None, home: Path) -> IO[bytes] | None:
    """Put ``content`` into a file without a name: a pipe could block both sides."""
    if content is None:
        return None
    home.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context(tempfile.TemporaryFile(dir=home))  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file


def _ends(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the leader to end, without reaping it: its id then still names the group."""
    with suppress(AttributeError, OSError):  # AttributeError: not Linux
        descriptor = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                return bool(selector.select(max(0.0, deadline - time.monotonic())))
        finally:
            os.close(descriptor)
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))
    return process.returncode is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End every process of the group, politely, then for good; reap the leader."""
    if process.returncode is None:
        if not _ends(process, 0.0):
            _signal_group(process, signal.SIGTERM)
            _ends(process, time.monotonic() + GRACE_SECONDS)
        _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
