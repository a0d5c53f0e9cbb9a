"""Tell a service on this machine that its certificate is a new one: by signal, or by a command.

What may be told is granted by the machine (:mod:`agent.grants`). The id in a pid file is believed only as far as its
owner could signal that process himself; root and the agent's user may name any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from pathlib import Path
from typing import Final

from agent.grants import Denied, ServiceGrants
from schemas.service_tls import Reload

SECONDS: Final = 30.0
"""For a command."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotTold(Exception):
    """Nobody was told. ``reason`` is a CamelCase word, the message a sentence."""

    def __init__(self, message: str, reason: str = "NotTold") -> None:
        super().__init__(message)
        self.reason = reason


async def tell(reload: Reload, grants: ServiceGrants, *, service: str, directory: Path) -> None:
    """Tell ``service`` (``<team>/<deployment>``), whose files are in ``directory``.

    Raises:
        NotTold: with the reason ``NotRunning`` where there is nobody to tell, ``NotGranted`` where the machine does not
            allow it.
    """
    try:
        if reload.command is not None:
            environment = {"PATH": _PATH, "CLOUDLUNACY_SERVICE": service, "CLOUDLUNACY_DIRECTORY": str(directory)}
            await _run(reload.command, grants.command(reload.command), environment)
        elif reload.pid_file is not None:
            granted = Path(grants.pid_file(reload.pid_file))
            await asyncio.to_thread(_signal, Path(reload.pid_file), granted, f"SIG{reload.signal}")
    except Denied as denied:
        raise NotTold(str(denied), "NotGranted") from None


async def _run(name: str, command: tuple[str, ...], environment: dict[str, str]) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,  # what it has to say it says on stderr, which is this agent's
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotTold(f'Command "{name}" cannot be started: {getattr(error, "strerror", None) or error}.') from None
    try:
        async with asyncio.timeout(SECONDS):
            code = await process.wait()
    except TimeoutError:
        raise NotTold(f'Command "{name}" took longer than {SECONDS:.0f} s and was ended.') from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code:
        raise NotTold(f'Command "{name}" ended with status {code}.')


def _signal(path: Path, granted: Path, name: str) -> None:
    pid, owner = _read(path, granted)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        raise NotTold(f"Process {pid} of {path} does not run.", "NotRunning") from None
    except OSError as error:
        raise NotTold(f"Process {pid} of {path} cannot be signalled: {error.strerror}.") from None
    try:
        if owner not in (0, os.geteuid()) and Path(f"/proc/{pid}").stat().st_uid != owner:
            raise NotTold(f"Process {pid} does not belong to the owner of {path}.")
        signal.pidfd_send_signal(process, signal.Signals[name])
    except (ProcessLookupError, FileNotFoundError):
        raise NotTold(f"Process {pid} of {path} does not run.", "NotRunning") from None
    except OSError as error:
        raise NotTold(f"Process {pid} of {path} cannot be signalled: {error.strerror}.") from None
    finally:
        os.close(process)


def _read(path: Path, granted: Path) -> tuple[int, int]:
    """Return the process id, and the user whose word it is."""
    try:
        if path.parent.resolve(strict=True) != granted.resolve(strict=True) / path.parent.relative_to(granted):
            raise NotTold(f"{path} lies behind a symbolic link.")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotTold(f"There is no {path}, so the service does not run.", "NotRunning") from None
    except OSError as error:
        raise NotTold(f"{path} cannot be read: {error.strerror}.") from None
    try:
        status, text = os.fstat(descriptor), os.read(descriptor, 32).strip()
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or not text.isdigit() or not 1 < int(text) < 2**31:
        raise NotTold(f"{path} holds no process id.")
    if int(text) == os.getpid():
        raise NotTold(f"{path} holds the id of this agent.")
    return int(text), status.st_uid
