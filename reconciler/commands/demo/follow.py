"""Each push's stages as they are reached: the control plane's stream, told line by line."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

import httpx
from pydantic import ValidationError

from reconciler.commands.client import Target
from reconciler.commands.status_formats import stage_line
from reconciler.errors import Broken
from schemas.status import STAGES, RevisionState, RevisionStatus, Stage

PAUSE: Final = 0.1
RECONNECT_SECONDS: Final = 1.0
_DATA: Final = "data: "
_COLOURS: Final = {"Converged": "\x1b[32m", "Held": "\x1b[33m", "Failed": "\x1b[31m", "problem": "\x1b[31m"}
_RESET: Final = "\x1b[0m"


@dataclass(slots=True)
class _Told:
    """What was said of one revision."""

    stages: set[Stage] = field(default_factory=set)
    problems: set[str] = field(default_factory=set)
    last: tuple[RevisionState, str] | None = None


class Narrator:
    """Turns records into lines, each thing once. Opens nothing."""

    def __init__(self, approve: str, *, colour: bool = False) -> None:
        self._approve = approve
        """How `cloudlunacy approve` is called here."""
        self._colour = colour
        self._told: dict[str, _Told] = {}
        self._last = ""

    def know(self, status: RevisionStatus) -> None:
        """Take what this record says as told."""
        for _ in self.lines(status):
            pass

    def lines(self, status: RevisionStatus) -> Iterator[str]:
        """Return what is new in the record."""
        told = self._told.setdefault(status.revision, _Told())
        if not status.commit.subject and not any(status.stages.values()):
            return  # nobody has read the commit yet
        new = [*self._stages(status, told), *self._problems(status, told), *self._state(status, told)]
        if new and status.revision != self._last:
            self._last = status.revision
            yield f"\n{status.revision[:12]}  “{status.commit.subject}” by {status.commit.author}"
        yield from new

    def _stages(self, status: RevisionStatus, told: _Told) -> Iterator[str]:
        before: datetime | None = None
        for stage in STAGES:
            at = status.stages.get(stage)
            if at is None:
                continue
            if stage not in told.stages:
                told.stages.add(stage)
                yield stage_line(stage, at, before)
            before = at

    def _problems(self, status: RevisionStatus, told: _Told) -> Iterator[str]:
        for problem in status.quarantined:
            if str(problem) not in told.problems:
                told.problems.add(str(problem))
                yield self._tinted("problem", f"  {problem}")

    def _state(self, status: RevisionStatus, told: _Told) -> Iterator[str]:
        current = (status.state, status.reason)
        if current == told.last or (status.state == "Converged" and status.stages.get("applied") is None):
            return
        told.last = current
        message = f": {status.message}" if status.message else ""
        if status.state == "Converged":
            times = [at for at in status.stages.values() if at is not None]
            took = (max(times) - min(times)).total_seconds() * 1000 if times else 0.0
            generation = f"generation {status.generation}" if status.generation else "nothing to publish"
            yield self._tinted(status.state, f"  Converged in {took:.0f} ms, {generation}{message}")
        elif status.state == "Superseded":
            yield f"  superseded by {status.superseded_by[:12]}"
        elif status.state != "Progressing":
            message = message.replace("cloudlunacy approve", self._approve)
            yield self._tinted(status.state, f"  {status.state} {status.reason}{message}")
        elif not status.reason.startswith("Waiting"):  # those follow from the stages
            yield f"  waiting {status.reason}{message}"

    def _tinted(self, tone: str, text: str) -> str:
        colour = _COLOURS.get(tone, "") if self._colour else ""
        return f"{colour}{text}{_RESET if colour else ''}"


class Stream:
    """Reads ``/api/v1/stream`` in a thread, and again when it breaks. Use as a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._found: queue.Queue[RevisionStatus] = queue.Queue()
        self._ended = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="demo-stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, so that the control plane need not wait for us when it ends."""
        self._ended.set()
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(RECONNECT_SECONDS)

    def next(self, seconds: float) -> RevisionStatus | None:
        """Return the next change of a record, None when there is none in that time."""
        with suppress(queue.Empty):
            return self._found.get(timeout=seconds)
        return None

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(httpx.HTTPError, Broken, ValidationError):
                self._read()
            self._ended.wait(RECONNECT_SECONDS)

    def _read(self) -> None:
        url = f"{self._target.server}/api/v1/stream"
        timeout = httpx.Timeout(10.0, read=60.0)  # the control plane says every 15 s that it is still there
        with (
            httpx.Client(timeout=timeout, trust_env=False) as client,
            client.stream("GET", url, headers=self._target.headers()) as answer,
        ):
            answer.raise_for_status()
            self._socket = answer.extensions["network_stream"].get_extra_info("socket")
            for line in answer.iter_lines():
                if line.startswith(_DATA):
                    self._found.put(RevisionStatus.model_validate_json(line.removeprefix(_DATA)))
                if self._ended.is_set():
                    return


def follow(stream: Stream, narrator: Narrator, say: Callable[[str], None], check: Callable[[], None]) -> None:
    """Tell what comes until ``check`` raises."""
    while True:
        check()
        status = stream.next(PAUSE)
        if status is not None:
            for line in narrator.lines(status):
                say(line)
