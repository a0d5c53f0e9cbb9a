"""A throwaway Traefik: its own process group, an empty environment, loopback ports, a private directory.

It is started ahead of time and loads one candidate after the other. What it says on its log is the only source for why
a file was refused as a whole, because its API knows only objects.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from reconciler.errors import Transient
from reconciler.traefik.api import TraefikAPI
from reconciler.traefik.default_certificate import new_default_certificate

_PREFIX: Final = "cloudlunacy-preflight-"
_START_DEADLINE: Final = 15.0
_POLL: Final = 0.003
_SHARE: Final = 0.05
"""Each pause is this share of the time waited so far: answering takes time from loading."""
_LOG_LINES: Final = 50
_LONGEST_LINE: Final = 2**16
# prctl(PR_SET_PDEATHSIG, SIGKILL): when we are killed, so is the child; the parent may be gone before the call
_DIE_WITH_PARENT: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execve(sys.argv[2], sys.argv[2:], {})\n"
)


class StandbyLost(Exception):
    """It ended, or does not answer in time. The text says what it said last."""


class Standby:
    """One running Traefik. Make it with :meth:`start`, end it with :meth:`stop`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, api: TraefikAPI) -> None:
        self._process = process
        self._folder = folder
        self.api = api
        self._loaded = 0
        self._refusal: str | None = None
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._reader = asyncio.create_task(self._read_log(), name="preflight-log")

    @classmethod
    async def start(cls, binary: Path, entry_points: Collection[str]) -> Standby:
        """Start a Traefik with these entry points and wait until it has loaded a first, empty candidate.

        Raises:
            Transient: ``PreflightUnavailable`` with the reason, when it does not come up.
        """
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        standby: Standby | None = None
        try:
            (folder / "dynamic").mkdir()
            port = _free_port()
            configuration = json.dumps(_static(folder / "dynamic", entry_points, port))
            (folder / "static.yml").write_text(configuration, encoding="utf-8")
            # sorts after the candidate, whose own default certificate wins; without any each reload makes an RSA key
            stores = {"tls": {"stores": {"default": {"defaultCertificate": new_default_certificate()}}}}
            (folder / "dynamic" / "default.yml").write_text(json.dumps(stores), encoding="utf-8")
            process = await _spawn(binary, folder)
            standby = cls(process, folder, TraefikAPI(f"http://127.0.0.1:{port}", timeout=2.0))
            refusal = await standby.load("", _START_DEADLINE)
        except OSError as error:
            refusal = error.strerror or type(error).__name__
        except StandbyLost as error:
            refusal = str(error)
        except BaseException:
            await _discard(standby, folder)
            raise
        if refusal is None and standby is not None:
            return standby
        await _discard(standby, folder)
        raise Transient(f"the throwaway Traefik did not start: {refusal}", reason="PreflightUnavailable")

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def load(self, document: str, deadline: float) -> str | None:
        """Let it load ``document`` and wait until it has.

        Returns why it refused the file as a whole, None when it did not.

        Raises:
            StandbyLost: when it neither loads nor refuses it.
            OSError: when the directory cannot be written.
        """
        clock = asyncio.get_running_loop().time
        start = clock()
        self._loaded += 1
        mark = f"candidate-{os.getpid()}-{self._loaded}"
        self._refusal = None
        self._put(f"{document}{_mark(mark)}")
        while (waited := clock() - start) < deadline:
            with suppress(Transient):  # not listening yet, or gone: then `alive` or the clock says so
                if await self.api.exists("udp", "services", mark):
                    return None
            refusal = self._refused()
            if refusal is not None:
                return refusal
            if not self.alive:
                raise StandbyLost(
                    f"Traefik ended with status {self._process.returncode}. {self._last_words()}".rstrip()
                )
            await asyncio.sleep(max(_POLL, waited * _SHARE))
        raise StandbyLost(f"Traefik did not load it within {deadline:g} s. {self._last_words()}".rstrip())

    def forget(self) -> None:
        """Put an empty candidate in place, so that the last one's health checks end. Does not wait for it."""
        with suppress(OSError):
            self._loaded += 1
            self._put(_mark(f"candidate-{os.getpid()}-{self._loaded}"))

    async def stop(self) -> None:
        """End the whole process group and remove its files."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it keeps nothing that a gentler end would save
        await self._process.wait()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        await self.api.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, text: str) -> None:
        temporary = self._folder / "candidate"  # beside the watched directory: a file in it would be loaded
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._folder / "dynamic" / "candidate.yml")

    async def _read_log(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the limit: readline has dropped it
                continue
            if not line:
                return
            self._take(line.decode("utf-8", "replace").strip())

    def _take(self, line: str) -> None:
        try:
            said: Any = json.loads(line)
            level, provider = said.get("level"), said.get("providerName")
            text = str(said.get("error") or said.get("message") or "")
        except (ValueError, AttributeError):
            level, provider, text = "error", "", line
        if level not in ("error", "fatal", "panic"):
            return
        self._log.append(text[:1000])
        if provider == "file":
            # "collecting file configs: /…/candidate.yml: field not found, node: nope": the path says nothing
            self._refusal = text.rpartition("candidate.yml: ")[2][:1000]

    def _refused(self) -> str | None:
        return self._refusal

    def _last_words(self) -> str:
        return f"It said: {self._log[-1]}" if self._log else ""


def _sweep() -> None:
    """Remove what a control plane that was killed left behind: our user's folders whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if owner.isdecimal() and folder.lstat().st_uid == os.getuid() and not _runs(int(owner)):
                shutil.rmtree(folder)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


async def _spawn(binary: Path, folder: Path) -> asyncio.subprocess.Process:
    command = [str(binary), f"--configfile={folder / 'static.yml'}"]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={},
        start_new_session=True,
        limit=_LONGEST_LINE,
    )


async def _discard(standby: Standby | None, folder: Path) -> None:
    if standby is not None:
        await standby.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _static(directory: Path, entry_points: Collection[str], api_port: int) -> dict[str, Any]:
    """Traefik lets port 0 stand for any free port; only the API's must be known."""
    points: dict[str, Any] = {name: {"address": "127.0.0.1:0"} for name in entry_points}
    points["traefik"] = {"address": f"127.0.0.1:{api_port}"}
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": points,
        "api": {"insecure": True, "dashboard": False},
        "log": {"level": "WARN", "format": "json"},
        "providers": {"providersThrottleDuration": "1ms", "file": {"directory": str(directory), "watch": True}},
    }


def _mark(name: str) -> str:
    """A UDP service, which our documents never have, whose presence shows that this very text was loaded."""
    return f'udp:\n  services:\n    "{name}": {{"loadBalancer": {{"servers": []}}}}\n'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
