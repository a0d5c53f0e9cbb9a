"""systemctl(1), for the one unit that is ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent.installing.layout import UNIT
from agent.installing.plan import Cannot

SECONDS: Final = 90.0


class Systemctl:
    """``root``: of the machine; another one than ``/`` is only prepared, so that nothing of it can be started."""

    def __init__(self, root: Path, *, now: bool) -> None:
        self._program = shutil.which("systemctl") or "systemctl"
        self._root = root
        self.now = now
        """Things may be started and asked."""

    def enabled(self) -> bool:
        return self._run("is-enabled", "--quiet", UNIT) == 0

    def active(self) -> bool:
        return self.now and self._run("is-active", "--quiet", UNIT) == 0

    def enable(self) -> None:
        self._must("enable", "--quiet", UNIT)

    def restart(self) -> None:
        self.reload()
        self._must("restart", UNIT)

    def reload(self) -> None:
        """Let systemd read units anew."""
        if self.now:
            self._must("daemon-reload")

    def stop(self) -> None:
        """Stop and disable it; programs that it runs go on (KillMode=process)."""
        if self.now and self.active():
            self._must("stop", UNIT)
        self._must("disable", "--quiet", UNIT)

    def status(self) -> str:
        """Return what the agent said last, in a few words; empty where that is not known."""
        if not self.now:
            return ""
        done = self._call("show", "--property=ActiveState,StatusText", UNIT)
        said = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        return ", ".join(text for text in (said.get("ActiveState", ""), said.get("StatusText", "")) if text)

    def _must(self, *words: str) -> None:
        done = self._call(*words)
        if done.returncode:
            why = (done.stderr or done.stdout).strip().splitlines()
            raise Cannot(f"systemctl {' '.join(words)} ended with {done.returncode}: {' '.join(why[-3:])[:500]}")

    def _run(self, *words: str) -> int:
        return self._call(*words).returncode

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        prepared = [] if self.now else [f"--root={self._root}"]
        try:
            return subprocess.run(
                [self._program, *prepared, *words], capture_output=True, text=True, check=False, timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Cannot(f"systemctl {words[0]} does not work: {error}.") from None
