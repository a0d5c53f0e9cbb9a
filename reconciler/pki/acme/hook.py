"""``dns-01`` by a program of the operator: ``PROGRAM present|cleanup DOMAIN VALUE``.

``VALUE`` belongs into the TXT record ``_acme-challenge.DOMAIN``, beside those that are there; it may begin with ``-``.
``present`` returns once the public name servers answer it. Exit status 0 says that it went well, anything else that it
did not; the last line of stderr is repeated to people.

The path comes from the settings of the control plane and from nowhere else. The program gets an argument list, no
shell, an environment of two names, no input, and a process group that is ended with it, or when its time is up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.solver import Challenge
from schemas.text import visible

ENVIRONMENT: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
MAX_TAIL: Final = 16 * 1024
MAX_WORDS: Final = 400
GRACE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HookSettings:
    """``program`` is absolute. ``seconds``: how long one call may take."""

    program: Path
    seconds: float = 120.0


class Hook:
    """A solver.

    Raises:
        Broken: the program is none, or others than its owner could change it.
    """

    type: Final = "dns-01"

    def __init__(self, settings: HookSettings) -> None:
        self._settings = settings
        _check(settings.program)

    async def present(self, challenge: Challenge) -> None:
        """Run the program with ``present``."""
        await self._run("present", challenge)

    async def cleanup(self, challenge: Challenge) -> None:
        """Run the program with ``cleanup``."""
        await self._run("cleanup", challenge)

    async def _run(self, verb: str, challenge: Challenge) -> None:
        program = self._settings.program
        _check(program)  # it may have been replaced meanwhile
        what = f"The hook {program} ({verb} {challenge.domain})"
        # a file, and no pipe: what the program leaves running may hold a pipe open for ever
        with tempfile.TemporaryFile() as stderr:
            status = await self._status(stderr, (verb, challenge.domain, challenge.txt_value))
            words = _last_line(stderr)
        if status is None:
            raise Transient(
                f"{what} did not end within {self._settings.seconds:g} s and was stopped. {words}".rstrip(),
                reason="HookTimeout",
            )
        if status != 0:
            how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            raise Rejected(f"{what} {how}: {words or 'it said nothing'}.", reason="HookFailed")

    async def _status(self, stderr: IO[bytes], arguments: tuple[str, ...]) -> int | None:
        """Run the program to its end; None when it had to be stopped."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._settings.program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",
                env=dict(ENVIRONMENT),
                start_new_session=True,
            )
        except OSError as error:
            what = f"The hook {self._settings.program} could not be started"
            raise Broken(f"{what}: {error.strerror}.", hint="Look at its first line.") from error
        try:
            async with asyncio.timeout(self._settings.seconds):
                return await process.wait()
        except TimeoutError:
            return None
        finally:
            await _end_group(process)


def _check(program: Path) -> None:
    if not program.is_absolute():
        raise Broken(f"The hook {program} is not named by its whole path.")
    try:
        found = program.stat()
    except OSError as error:
        raise Broken(f"The hook {program} cannot be used: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode) or not os.access(program, os.X_OK):
        raise Broken(f"The hook {program} is no program.", hint=f"Run chmod +x {program}.")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.geteuid()):
        raise Broken(
            f"The hook {program} can be changed by other users.",
            hint=f"Run chown root {program} && chmod 755 {program}.",
        )


def _last_line(stderr: IO[bytes]) -> str:
    """Return the last line that was written, cleaned and short."""
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - MAX_TAIL))
    lines = stderr.read(MAX_TAIL).decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return visible(last)[:MAX_WORDS].rstrip(".")


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End what is left of the process group: politely while the program runs, for good in the end."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
