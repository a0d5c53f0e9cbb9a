"""Requests without a pause: wrk, and what it says at its end."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.support.orphans import tied
from tests.support.parts import require


class Report:
    """What wrk says at its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.requests = int(self._number(r"(\d+) requests in"))
        self.bad_answers = int(self._number(r"Non-2xx or 3xx responses: (\d+)"))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        self.errors = sum(int(part) for part in errors.groups()) if errors is not None else 0

    def _number(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        return "0" if found is None else found[1]


class Load:
    """Clients that ask a URL for ``host``, each the next time as soon as it has its answer."""

    def __init__(self, url: str, host: str, clients: int = 4) -> None:
        host = f"Host: {host}"
        command: list[str | Path] = [
            require("wrk"),
            "-t1",
            f"-c{clients}",
            "-d200s",
            "--timeout",
            "5s",
            "-H",
            host,
            url,
        ]
        self._process = subprocess.Popen(tied(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self) -> Report:
        """SIGINT lets wrk say what it has counted."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=20)
        return Report(text)
