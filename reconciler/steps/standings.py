"""How each deployment stands on each agent, as far as the agent has said it of the document that it should have.

Kept in memory alone: an agent that connects says again what it has applied, and is handed what it has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from reconciler.steps.passing import Published
from schemas.session import Hello, Report

ItemState = Literal["Applied", "Progressing", "Failed"]


@dataclass(frozen=True, slots=True)
class Standing:
    """``since``: POSIX seconds at which the agent first said so."""

    state: ItemState
    reason: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class _Heard:
    """What an agent said of a document. ``generation``: in which it had that document, by our account."""

    digest: str
    generation: int
    items: Mapping[str, Standing] = field(default_factory=dict)
    whole: Standing | None = None
    """Of items that it did not name."""


UNKNOWN: Final = (0, "")


class Standings:
    """``published`` says which document each agent should have. A :class:`reconciler.observer.Watching`."""

    def __init__(self, published: Callable[[], Published], clock: Callable[[], float]) -> None:
        self._published = published
        self._clock = clock
        self._begun = clock()
        self._heard: dict[str, _Heard] = {}
        self._present: set[str] = set()
        self._left: dict[str, float] = {}
        self.on_news: Callable[[str], None] = lambda _: None
        """Told of an agent of which something new is known."""

    # --- what the observer says ---------------------------------------------------------------------------------

    def connected(self, name: str, hello: Hello, now: float) -> None:
        self._present.add(name)
        self._left.pop(name, None)
        generation, digest = self._published().agents.get(name, UNKNOWN)
        known = self._heard.get(name)
        if not digest or hello.applied_digest != digest:
            self._heard.pop(name, None)  # it is handed its document, and says then how it stands
        elif known is None or known.digest != digest:
            self._heard[name] = _Heard(digest, generation, whole=Standing("Applied", "", "", now))
        self.on_news(name)

    def disconnected(self, name: str, now: float) -> None:
        self._present.discard(name)
        self._left[name] = now
        self.on_news(name)

    def reported(self, name: str, report: Report, now: float) -> None:
        """Take in a report on the document that the agent should have; one on another is of the past."""
        generation, digest = self._published().agents.get(name, UNKNOWN)
        if not digest or report.digest not in (digest, None):
            return
        known = self._heard.get(name, _Heard("", 0))
        items = {}
        for result in report.items:
            said = Standing(result.state, result.reason, result.message, now)
            items[result.id] = _same_or(known.items.get(result.id), said)
        whole = None
        if not report.items:
            state: ItemState = {"applied": "Applied", "progressing": "Progressing"}.get(report.outcome, "Failed")  # type: ignore[assignment]
            whole = _same_or(known.whole, Standing(state, report.reason, report.message, now))
        self._heard[name] = _Heard(digest, generation, items, whole)
        self.on_news(name)

    # --- what is known ------------------------------------------------------------------------------------------

    def of(self, agent: str, item: str, since: int = 0) -> Standing | None:
        """Say how an item stands, None where nothing is known. ``since``: generation in which the agent got it."""
        heard = self._heard.get(agent)
        if heard is None:
            return None
        _, digest = self._published().agents.get(agent, UNKNOWN)
        if heard.digest != digest and heard.generation < since:
            return None  # that was about what it had before
        return heard.items.get(item, heard.whole)

    def away(self, agent: str) -> float | None:
        """Say for how many seconds an agent has not been there, None where it is.

        Who was there before this process began counts from its beginning: everybody is given time to come back.
        """
        if agent in self._present:
            return None
        return max(0.0, self._clock() - self._left.get(agent, self._begun))


def _same_or(known: Standing | None, said: Standing) -> Standing:
    """Keep the time at which it was said first."""
    if known is not None and replace(said, since=known.since) == known:
        return known
    return said
