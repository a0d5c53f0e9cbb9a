"""What clients really get: after each renewal, and now and then, every front is asked for every certificate.

A front may have loaded a file and still show another certificate: one of another provider with the same names, or one
that an operator gave it. Nothing is done about it but to say so, because what is published is right.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from reconciler.errors import CloudLunacyError, Transient
from reconciler.observability.logs import get_logger
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.steps.certificates import Certificates
from reconciler.steps.fronts import Front
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event, EventStore
from reconciler.traefik.probe import probe_name, served_leaf
from schemas.certificate_status import ServedLeaf

log = get_logger(__name__)

LOOK_SECONDS: Final = 1.0
AGAIN: Final = dt.timedelta(minutes=10)
RETRY: Final = dt.timedelta(seconds=30)
"""Where the last look found another one, or none."""
AT_ONCE: Final = 8
"""Handshakes under way."""
PATIENCE: Final = 3.0
"""Seconds in which a front that shows the former one is asked again: it has the file, and may still be at it."""
PAUSE: Final = 0.2
_BUG: Final = "its answer met a bug; the log has the details."

_Place = tuple[str, int] | str
"""Host and port of an entry point, or why they are not known."""


def judged(front: str, name: str, expected: str, seen: str, at: dt.datetime) -> ServedLeaf:
    """Hold what a front presented against what is published. Both are SHA-256 as hex."""
    matches = seen == expected
    message = "" if matches else "The front shows another certificate than the one that is published."
    return ServedLeaf(front=front, name=name, checked_at=at, fingerprint=seen, matches=matches, message=message)


def due(
    pairs: Mapping[str, CertificatePair], probes: Mapping[str, tuple[ServedLeaf, ...]], now: dt.datetime
) -> tuple[str, ...]:
    """Return the certificates to ask for: those that are new, and those that were asked for long ago."""
    return tuple(
        name
        for name, pair in sorted(pairs.items())
        if not probes.get(name) or any(_is_stale(seen, pair.held.fingerprint, now) for seen in probes[name])
    )


def _is_stale(seen: ServedLeaf, expected: str, now: dt.datetime) -> bool:
    if seen.matches and seen.fingerprint != expected:
        return True  # it has been renewed since
    return abs(now - seen.checked_at) >= (AGAIN if seen.matches else RETRY)


class Probing:
    """Asks the fronts, and lays what they show where :meth:`Certificates.statuses` finds it."""

    def __init__(
        self,
        certificates: Certificates,
        fronts: Sequence[Front],
        published: Callable[[], Published],
        events: EventStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._certificates = certificates
        self._fronts = fronts
        self._published = published
        self._events = events
        self._clock = clock
        self._handshakes = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except CloudLunacyError as error:
                log.warning("what fronts show cannot be found out", error=str(error))
            except Exception:  # a bug must not end the task
                log.exception("looking at what fronts show ended by a bug, trying again")

    async def look(self) -> None:
        """Ask for what is due, once every front has loaded what is published."""
        published, certificates = self._published(), self._certificates
        fleet = published.state.fleet
        if not self._fronts or fleet is None or not published.confirmed:
            return
        pairs = {name: pair for name, pair in certificates.pairs.items() if self._is_published(name, pair)}
        names = due(pairs, certificates.probes, self._now())
        if not names:
            return
        point = fleet.spec.entry_points.https
        places = {front.name: await _place(front, point) for front in self._fronts}
        seen = await asyncio.gather(*(self._ask(name, pairs[name], places) for name in names))
        # what was renewed while it was asked for proves nothing
        found = {name: one for name, one in zip(names, seen, strict=True) if self._is_published(name, pairs[name])}
        former = certificates.probes
        certificates.probes = {name: one for name, one in former.items() if name in certificates.pairs} | found
        for name, one in found.items():
            await self._tell(name, former.get(name, ()), one)

    async def ask(self, name: str) -> tuple[ServedLeaf, ...]:
        """Ask every front for one certificate now; nothing where it is not published, or nobody can be asked."""
        fleet, pair = self._published().state.fleet, self._certificates.pairs.get(name)
        if not self._fronts or fleet is None or pair is None or not self._is_published(name, pair):
            return ()
        point = fleet.spec.entry_points.https
        found = await self._ask(name, pair, {front.name: await _place(front, point) for front in self._fronts})
        self._certificates.probes = {**self._certificates.probes, name: found}
        return found

    def _is_published(self, name: str, pair: CertificatePair) -> bool:
        """Say whether fronts are to show this pair by now: one that came just now is published soon."""
        return self._published().overlay.leaves.get(name) == pair.held.fingerprint

    async def _ask(self, name: str, pair: CertificatePair, places: Mapping[str, _Place]) -> tuple[ServedLeaf, ...]:
        async with self._handshakes:
            found = [await self._leaf(front.name, places[front.name], pair) for front in self._fronts]
        log.debug("fronts were asked for a certificate", certificate=name, matches=[one.matches for one in found])
        return tuple(found)

    async def _leaf(self, front: str, place: _Place, pair: CertificatePair) -> ServedLeaf:
        host, end = probe_name(pair.held.names), asyncio.get_running_loop().time() + PATIENCE
        if isinstance(place, str):
            return self._unanswered(front, host, place)
        while True:
            try:
                seen = await served_leaf(place, host)
            except Transient as error:
                return self._unanswered(front, host, str(error))
            except Exception:  # what one front answers concerns no other
                log.exception("looking at what a front shows ended by a bug", front=front, name=host)
                return self._unanswered(front, host, _BUG)
            found = judged(front, host, pair.held.fingerprint, seen, self._now())
            if found.matches or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(PAUSE)

    def _unanswered(self, front: str, host: str, why: str) -> ServedLeaf:
        text = f"The front could not be asked: {why}"
        return ServedLeaf(front=front, name=host, checked_at=self._now(), message=text)

    async def _tell(self, name: str, former: Sequence[ServedLeaf], found: Sequence[ServedLeaf]) -> None:
        """Tell once when a front begins to show another certificate."""
        wrong = {one.front for one in former if not one.matches and one.fingerprint}
        for one in found:
            if not one.matches and one.fingerprint and one.front not in wrong:
                text = f'The front "{one.front}" shows another one to clients of {one.name}: SHA-256 {one.fingerprint}.'
                log.warning("a front shows another certificate", certificate=name, front=one.front, name=one.name)
                event = Event(self._clock(), "CertificateNotServed", "warning", f"certificate/{name}", text)
                await self._events.append(event)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)


async def _place(front: Front, point: str) -> _Place:
    try:
        return await front.api.entry_point(point) or f'it has no entry point "{point}".'
    except CloudLunacyError as error:
        return str(error)
    except Exception:
        log.exception("asking a front for its entry points ended by a bug", front=front.name)
        return _BUG
