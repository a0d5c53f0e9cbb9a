"""Turns what the control plane reports into lines for a person: each thing once, as it is reached. Opens nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from reconciler.commands.status_formats import approve_command, stage_line
from schemas.api import EventView
from schemas.status import STAGES, RevisionState, RevisionStatus, Stage

_COLOURS: Final = {"Converged": "\x1b[32m", "Held": "\x1b[33m", "Failed": "\x1b[31m", "problem": "\x1b[31m"}
_RESET: Final = "\x1b[0m"


@dataclass(slots=True)
class _Told:
    """What was said of one revision."""

    stages: set[Stage] = field(default_factory=set)
    problems: set[str] = field(default_factory=set)
    last: tuple[RevisionState, str] | None = None


class Narrator:
    """Remembers what was said already."""

    def __init__(self, target: str, *, colour: bool = False) -> None:
        self._target = target
        """The options by which a command reaches the control plane."""
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
        if status.state == "Superseded":  # told in passing, by the revision that came after it
            if told.last != (status.state, status.reason):
                told.last = (status.state, status.reason)
                yield f"  (“{status.commit.subject}” is superseded)"
            return
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
        elif status.state != "Progressing":
            yield self._tinted(status.state, f"  {status.state} {status.reason}{message}")
            if command := approve_command(status, self._target):
                yield f"  To approve: {command}"
        elif not status.reason.startswith("Waiting"):  # those follow from the stages
            yield f"  waiting {status.reason}{message}"

    def _tinted(self, tone: str, text: str) -> str:
        colour = _COLOURS.get(tone, "") if self._colour else ""
        return f"{colour}{text}{_RESET if colour else ''}"


def event_line(event: EventView) -> str | None:
    """Return what happened beside the way of a commit; None for what the stages tell already."""
    if event.type.startswith("Revision"):
        return None
    who = f" of {event.subject.removeprefix('agent/')}" if event.subject.startswith("agent/") else ""
    return f"\n{event.time.strftime('%H:%M:%S')}  {event.type}{who}: {event.message}"
