"""Takes documents and makes them true, one at a time; the newest wins.

What happens to a document, in order: :meth:`Applier.take` verifies it and compares its generation with what is held →
it waits, in one place, where a newer one replaces it → it is saved → the services apply it → the marker is saved → the
outcome is reported. What fails is tried again, later and later, until it works or something newer comes. A document
that is refused changes nothing but is reported.

The floor is the newest generation that was ever taken here. It outlives a damaged file, because the marker has it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from agent.backoff import Backoff
from agent.documents import UNKNOWN_KEY, Applied, DocumentStore, Keys, Refusal, verify
from agent.left_behind import way_back
from agent.reporting import Outcome
from agent.services import Service
from schemas.session import UNSUPPORTED, Document, Item, ItemResult

log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    jws: str
    document: Document


class Applier:
    """``report`` hears every outcome, ``hold`` of each document before it is applied; both are called from the loop and
    must not block.
    """

    def __init__(
        self,
        store: DocumentStore,
        services: Sequence[Service],
        *,
        agent: str,
        keys: Keys,
        report: Callable[[Outcome], None],
        clock: Callable[[], datetime],
        random: Callable[[], float],
        backoff: Backoff | None = None,
        hold: Callable[[Document], None] = lambda _document: None,
    ) -> None:
        self.settled = asyncio.Event()
        """Set after the first attempt to apply what was on disk, or when there was nothing."""
        self.damage: Refusal | None = None
        """Why the document that was found on disk was set aside."""
        self.outcome: Outcome | None = None
        """Of the held document; None while its first attempt is under way."""
        self._store = store
        self._services = services
        self._agent = agent
        self._keys = keys
        self._report = report
        self._hold = hold
        self._clock = clock
        self._random = random
        self._backoff = backoff or Backoff(base=1.0, cap=300.0, stable=0.0)
        self._waiting: _Taken | None = None
        self._held: Document | None = None
        self._marker = Applied(0, None)
        self._wake = asyncio.Event()
        self._busy = False
        self._retry: asyncio.TimerHandle | None = None

    @property
    def applied(self) -> Applied:
        """What the control plane may take for applied: nothing, while the document itself is missing."""
        return self._marker if self._held is not None else Applied(self._marker.generation, None)

    @property
    def held(self) -> Document | None:
        """The document that is in force, applied or not yet."""
        return self._held

    @property
    def idle(self) -> bool:
        """Nothing is being applied, nothing waits and nothing has to be tried again now."""
        return not self._busy and not self._wake.is_set()

    def load(self) -> None:
        """Take what is on disk, before anything else.

        Raises:
            OSError: when the directory cannot be read.
        """
        found = self._store.load(self._agent, self._keys)
        self._held, self._marker, self.damage = found.document, found.applied, found.damage
        if found.damage is not None:
            log.error("the document on disk was set aside: %s", found.damage)
        if found.document is None:
            self.settled.set()
        else:
            self._hold(found.document)
            self._wake.set()

    def take(self, jws: str) -> Document | None:
        """Verify a document that came; keep it for :meth:`run` and return it, or report why not."""
        try:
            document = verify(jws, agent=self._agent, keys=self._keys, now=self._clock())
            is_new = self._is_new(document)
        except Refusal as refusal:
            message = refusal.message
            if refusal.reason == UNKNOWN_KEY:
                message = f"{message} {way_back(self._agent)}"
            log.warning("generation %d was refused: %s: %s", refusal.generation, refusal.reason, message)
            self._report(Outcome(refusal.generation, refusal.digest, "refused", refusal.reason, message))
            return None
        if is_new:
            self._waiting = _Taken(jws, document)
            self._backoff.succeeded()
            self._wake.set()
        elif self.outcome is not None and self._waiting is None:
            self._report(self.outcome)
        return document

    def again(self) -> None:
        """Apply the held document once more, and report: a service has something new to say of it."""
        if self._held is not None:
            self._wake.set()

    async def run(self) -> None:
        """Apply what there is, for ever."""
        while True:
            self._busy = False
            await self._wake.wait()
            self._wake.clear()
            self._busy = True
            if self._retry is not None:
                self._retry.cancel()
            if self._waiting is not None and not await self._save(self._waiting):
                self._try_later()
                continue
            if self._held is None:
                continue
            self.outcome = await self._attempt(self._held)
            if self.outcome.outcome == "applied":
                self._backoff.succeeded()
            else:
                self._try_later()
            self.settled.set()
            self._report(self.outcome)

    def _is_new(self, document: Document) -> bool:
        """Compare with the newest that was taken; False for that same one.

        Raises:
            Refusal: ``OlderGeneration``, ``ConflictingDocument``.
        """
        newest = self._waiting.document if self._waiting is not None else self._held
        known = [self._marker, *([Applied(newest.generation, newest.digest)] if newest is not None else [])]
        floor = max(known, key=lambda applied: applied.generation)
        if document.generation < floor.generation:
            raise Refusal("OlderGeneration", f"Generation {floor.generation} was taken already.", document)
        if document.generation == floor.generation and document.digest != floor.digest:
            raise Refusal("ConflictingDocument", "That generation was taken with other content.", document)
        return newest is None or document.generation > newest.generation

    async def _save(self, taken: _Taken) -> bool:
        try:
            await asyncio.to_thread(self._store.save, taken.jws)
        except OSError as error:
            log.error("generation %d cannot be kept: %s", taken.document.generation, error.strerror)  # noqa: TRY400
            self._report(_outcome(taken.document, "failed", "NotPersisted", f"The disk refused it: {error.strerror}."))
            return False
        self._held, self.outcome = taken.document, None
        self._hold(taken.document)
        if self._waiting is taken:
            self._waiting = None
        return True

    async def _attempt(self, document: Document) -> Outcome:
        results: list[ItemResult] = []
        served: set[str] = set()
        for service in self._services:
            items = tuple(item for item in document.items if item.kind in service.kinds)
            served |= service.kinds
            results += await _apply(service, items)
        results += [
            ItemResult(id=item.id, state="Failed", reason="Unsupported", message=f"{item.kind} is not served here.")
            for item in document.items
            if item.kind not in served
        ]
        states = {result.state for result in results}
        if "Failed" in states:
            return _outcome(document, "failed", "ItemsFailed", items=results)
        if "Progressing" in states:
            return _outcome(document, "progressing", items=results)
        return await self._mark(document, results)

    async def _mark(self, document: Document, results: Sequence[ItemResult]) -> Outcome:
        applied = Applied(document.generation, document.digest)
        if applied != self._marker:
            try:
                await asyncio.to_thread(self._store.mark_applied, applied)
            except OSError as error:
                return _outcome(document, "failed", "NotPersisted", f"The disk refused the marker: {error.strerror}.")
            self._marker = applied
        if idle := not_run(results):
            return _outcome(document, "applied", UNSUPPORTED, idle, items=results)
        return _outcome(document, "applied", items=results)

    def _try_later(self) -> None:
        pause = self._backoff.next(self._random(), at_least=0.5)
        self._retry = asyncio.get_running_loop().call_later(pause, self._wake.set)


def not_run(results: Iterable[ItemResult]) -> str:
    """Say which items are applied and run nowhere here (ADR 44): the first with its reason, the others by name."""
    idle = [result for result in results if result.reason == UNSUPPORTED]
    if not idle:
        return ""
    others = ", ".join(one.id for one in idle[1:])
    return f"{idle[0].id}: {idle[0].message}" + (f" Nor does it run {others}." if others else "")


async def _apply(service: Service, items: tuple[Item, ...]) -> list[ItemResult]:
    """Let one service apply its items; whatever goes wrong in it is theirs alone. Every item gets a result."""
    try:
        results = {result.id: result for result in await service.apply(items)}
    except Exception as error:
        log.exception("the service for %s failed", ", ".join(sorted(service.kinds)))
        failure = f"The service failed with {type(error).__name__}; its log says more."
        return [ItemResult(id=item.id, state="Failed", reason="ServiceFailed", message=failure) for item in items]
    missing = "The service said nothing about it."
    return [
        results.get(item.id) or ItemResult(id=item.id, state="Failed", reason="NoResult", message=missing)
        for item in items
    ]


def _outcome(
    document: Document, outcome: str, reason: str = "", message: str = "", items: Sequence[ItemResult] = ()
) -> Outcome:
    return Outcome(document.generation, document.digest, outcome, reason, message, tuple(items))  # type: ignore[arg-type]
