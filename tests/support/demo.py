"""``cloudlunacy demo`` as a person runs it, in a process group of its own, with everything below one directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.support.orphans import tied
from tests.support.waiting import wait_for

DEADLINE: Final = 120.0
UP: Final = "Below, each push is told stage by stage."


class RunningDemo:
    """A demo in a directory of its own, in a process group of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory / "demo"
        self._output = directory / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                tied(
                    [
                        *(sys.executable, "-m", "reconciler", "demo", "--free-ports", "--dir", str(self.directory)),
                        *("--timeout", str(DEADLINE), *options),
                    ]
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.said
            return text in self.said

        wait_for(found, DEADLINE, what=text)

    def end(self, number: int) -> int:
        """Send a signal to the demo alone; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def children(self) -> dict[str, psutil.Process]:
        """Everything that lives in the demo's directory, by command line: the demo itself does not."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                if process.pid != self.process.pid and (
                    str(self.directory) in line or Path(process.cwd()).is_relative_to(self.directory)
                ):
                    found[line] = process
        return found

    def child(self, words: str) -> psutil.Process:
        return next(process for line, process in self.children().items() if words in line)

    @property
    def data(self) -> Path:
        """The control plane's ``--data``."""
        return self.directory / "data"

    @property
    def work(self) -> Path:
        """The clone to edit in."""
        return self.directory / "work"

    def git(self, *arguments: str) -> str:
        """Run git in the clone; return what it says."""
        words = ["git", "-C", str(self.work), *arguments]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def push(self, message: str, files: Mapping[str, str | None]) -> str:
        """Commit files (None deletes one) on top of the remote's branch; return the revision."""
        self.git("pull", "--quiet", "--rebase")
        for path, text in files.items():
            file = self.work / path
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet")
        return self.git("rev-parse", "HEAD")

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        for process in self.children().values():
            with suppress(psutil.Error):
                process.kill()
