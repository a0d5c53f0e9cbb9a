"""What each agent should have, signed once when it is first needed. PURE: clocks and signer are arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple

from reconciler.agents.documents import LIFETIME, Signer, WantedDocument, sign_document

log = logging.getLogger(__name__)


class _Signed(NamedTuple):
    document: WantedDocument
    jws: str
    at: float


@dataclass(slots=True)
class MailboxCounters:
    """Grow only; for metrics."""

    signed: int = 0
    stale: int = 0
    """Documents that came after a newer one."""


class Mailboxes:
    """One for each agent: the newest document, and its signature for as long as somebody may ask for it."""

    def __init__(self, signer: Signer, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.counters = MailboxCounters()
        self._signer = signer
        self._clock = clock
        self._monotonic = monotonic
        self._wanted: dict[str, WantedDocument] = {}
        self._signed: dict[str, _Signed] = {}

    def wanted(self, name: str) -> WantedDocument | None:
        return self._wanted.get(name)

    def put(self, name: str, document: WantedDocument) -> bool:
        """Make it the wanted one; True when its content is new. One that does not follow the wanted one is left out."""
        known = self._wanted.get(name)
        if known is not None and known.digest == document.digest:
            self._wanted[name] = max(known, document, key=attrgetter("generation"))
            return False
        if known is not None and document.generation <= known.generation:
            self.counters.stale += 1
            log.error("generation %d for %s does not follow %d", document.generation, name, known.generation)
            return False
        self._wanted[name] = document
        self._signed.pop(name, None)
        return True

    def forget(self, name: str) -> None:
        self._wanted.pop(name, None)
        self._signed.pop(name, None)

    def applied(self, name: str, digest: str | None) -> None:
        """The agent has it: nobody will ask for the signature again soon, so its memory is given back."""
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.digest == digest:
            self._signed.pop(name, None)

    def jws(self, name: str, document: WantedDocument) -> str:
        """Sign once for each document, and again when half of its lifetime is over.

        Raises:
            Rejected: as :func:`sign_document`.
        """
        now = self._monotonic()
        signed = self._signed.get(name)
        if signed is None or signed.document is not document or now - signed.at > LIFETIME.total_seconds() / 2:
            time_of_issue = datetime.fromtimestamp(self._clock(), UTC)
            signed = _Signed(document, sign_document(name, document, self._signer, time_of_issue), now)
            self._signed[name] = signed
            self.counters.signed += 1
        return signed.jws
