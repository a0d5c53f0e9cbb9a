"""Which document one connected agent should have, which it was sent, and which of its reports count. PURE.

Words:
  wanted    the newest document that was offered; an older one never takes its place
  unsent    the one document that waits while something is being written; a newer one replaces it
  known     documents that this agent can rightly report on: what was sent here, and what its hello proved equal
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from schemas.session import Hello, Report

KNOWN_DOCUMENTS: Final = 16
"""Sent documents that are remembered; an agent that reports on an older one is too late to matter."""


class Wanted(NamedTuple):
    """A document that the agent should have. ``jws`` is called at most once, and only if it is really sent."""

    generation: int
    digest: str
    jws: Callable[[], str]


class Delivery:
    """The documents of one connection."""

    __slots__ = ("_held", "_known", "_named", "_reported", "unsent", "wanted")

    def __init__(self) -> None:
        self.wanted: Wanted | None = None
        self.unsent: Wanted | None = None
        self._held: str | None = None
        """Digest of what the agent has, or will have once it took what was sent; None where unknown."""
        self._named: str | None = None
        """Digest of what the agent knows to be wanted, by the welcome or because it was sent."""
        self._known: dict[int, str] = {}
        self._reported = 0
        """Newest generation that a report was accepted for."""

    def want(self, offer: Wanted, *, active: bool) -> None:
        """Take an offer, unless it is older than what is wanted. Before hello nothing is to be sent."""
        if self.wanted is not None and offer.generation <= self.wanted.generation:
            return
        self.wanted = offer
        if active:
            # what it has is sent all the same if it does not know that it is wanted: what that offers depends on it
            self.unsent = None if offer.digest == self._held == self._named else offer

    def greeted(self, hello: Hello) -> None:
        """Find out what the agent has, and whether it is to be sent something."""
        wanted = self.wanted
        self._held = hello.applied_digest
        if wanted is None:
            return
        self._named = wanted.digest
        if wanted.digest == hello.applied_digest:
            self._know(hello.applied_generation, wanted.digest)
            self._know(wanted.generation, wanted.digest)
        if wanted.digest != hello.applied_digest or wanted.generation > hello.applied_generation:
            self.unsent = wanted  # the same content too: under its number nothing older can come back

    def take(self) -> str:
        """Return the JWS of the document that is to be sent, which counts as sent then.

        Raises what signing raises; the document is dropped then.
        """
        offer, self.unsent = self.unsent, None
        assert offer is not None
        jws = offer.jws()
        self._held = self._named = offer.digest
        self._know(offer.generation, offer.digest)
        return jws

    def judge(self, report: Report) -> str:
        """Return why a report counts for nothing; an empty text where it counts."""
        if report.outcome == "refused" and report.generation == 0 and report.digest is None:
            # The agent could not even tell which document it refused; it says nothing about what is applied.
            return ""
        digest = self._known.get(report.generation)
        if digest is None:
            return "UnknownGeneration"
        if report.generation < self._reported:
            return "OlderGeneration"
        if report.digest != digest:
            return "ForeignDigest"
        self._reported = report.generation
        if report.outcome == "refused" and digest == self._held:
            self._held = None
        return ""

    def _know(self, generation: int, digest: str) -> None:
        self._known[generation] = digest
        if len(self._known) > KNOWN_DOCUMENTS:
            del self._known[next(iter(self._known))]
