"""Orders at ACME servers, under way in the background: one task for each certificate, and what to say of it meanwhile.

The decisions are elsewhere: :mod:`reconciler.pki.renewal` says which certificate is to be ordered now, the ledger of
:mod:`reconciler.pki.acme` whether the server may be asked. Here is who waits for the server, and who is told.

An order is given up when nobody wants the certificate any more, or wants another one: its terms are looked up again at
each :meth:`AcmeOrders.ask`. The key is kept until the certificate is there, so that what a crash cuts off is gone on
with. The ACME library is imported when the first order is to be placed, or the first renewal to be asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.desired.acme_terms import OrderTerms
from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.observability.acme_metrics import AcmeMetrics
from reconciler.observability.logs import get_logger
from reconciler.pki.authority.pairs import key_pem
from reconciler.pki.certificate_pair import CertificatePair, NoPair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import Delay, Desired, Source
from reconciler.store.protocols import Event, EventStore

log = get_logger(__name__)

UNDER_WAY: Final = "OrderUnderWay"
PATIENCE: Final = timedelta(minutes=10)
"""When to look again at an order that is under way. Nobody has to wait for it: its end is told."""
SOON: Final = timedelta(seconds=1)
LATER: Final = timedelta(hours=1)
TICK_SECONDS: Final = 1.0
SUGGESTION_SECONDS: Final = 60.0
"""Between looks whether a server is to be asked when it wants a certificate renewed; it says how often itself. What is
new is asked for at once."""


class Workshop(Protocol):
    """What :class:`reconciler.pki.acme.issuers.Issuers` does, as far as it is used here."""

    async def issue(self, terms: OrderTerms, key: ec.EllipticCurvePrivateKey, replaces: x509.Certificate | None) -> str:
        """Return a chain."""
        ...

    async def forgive(self, terms: OrderTerms) -> None:
        """Let no back-off hold the next attempt."""
        ...

    def not_before(self, terms: OrderTerms) -> datetime | None:
        """Return when the next attempt may be made."""
        ...

    async def renewal(self, terms: OrderTerms, certificate: x509.Certificate) -> datetime:
        """Return when to renew."""
        ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    terms: OrderTerms
    began: datetime
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Held:
    """Why nothing is tried. ``terms``: those that were tried; with others there is no reason to wait."""

    terms: OrderTerms | None
    delay: Delay
    mended: bool = False
    """Somebody says that what failed was mended."""


@dataclass(frozen=True, slots=True)
class _Suggested:
    fingerprint: str
    at: datetime


@dataclass(frozen=True, slots=True)
class _Delivered:
    fingerprint: str
    until: datetime


class AcmeOrders:
    """Implements ``Orders`` of :mod:`reconciler.steps.certificates`, whose threads may call all but ``ask``.

    Args:
        terms: name → the terms on which it is to be ordered, None for what nobody orders (any more).
        pairs: keeps the keys of orders that are under way.
        load: imports the library and returns what orders; called once, in a thread.
    """

    def __init__(
        self,
        terms: Callable[[str], OrderTerms | None],
        pairs: CertificateStore,
        load: Callable[[], Workshop],
        *,
        events: EventStore,
        metrics: AcmeMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._terms = terms
        self._pairs = pairs
        self._load = load
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._workshop: Workshop | None = None
        self._loading = asyncio.Lock()
        self._attempts: dict[str, _Attempt] = {}
        self._holds: dict[str, _Held] = {}
        self._have: dict[str, CertificatePair] = {}
        self._suggested: dict[str, _Suggested] = {}
        self._asked: dict[str, str] = {}
        """Certificate → fingerprint of the one that its server was asked about."""
        self._delivered: dict[str, _Delivered] = {}
        self._given_up: set[asyncio.Task[None]] = set()
        self.finished: Callable[[str, CertificatePair], None] = lambda _name, _pair: None
        """Called with each certificate that was issued; set once."""
        self.changed: Callable[[], None] = lambda: None
        """Called when :meth:`delays` or :meth:`suggested` say something else; set once."""
        metrics.under_way_of(lambda: len(self._attempts))

    # --- what the loop asks -------------------------------------------------------------------------------------

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        """Order what is wanted and not under way, and give up what has other terms now, or none."""
        for name, attempt in list(self._attempts.items()):
            if self._terms(name) != attempt.terms:
                self._give_up(name, attempt)
        now = self._now()
        standing = self._standing(now)
        for name, desired in wanted.items():
            if name in self._attempts or name in standing or self._is_delivered(name, now):
                continue
            terms = self._terms(name)
            if terms is None or terms.directory != desired.source.directory or set(terms.names) != set(desired.names):
                # it is not published yet, and what is published says how it is ordered
                self._holds[name] = _Held(None, Delay(now + SOON, "NotPublished", "The certificate is not published."))
                continue
            held = self._holds.pop(name, None)
            mended = held is not None and (held.mended or held.terms not in (None, terms))
            task = asyncio.create_task(self._order(name, terms, mended=mended), name=f"acme {name}")
            self._attempts[name] = _Attempt(terms, now, task)

    async def retry(self, name: str, actor: str) -> bool:
        """Let no back-off hold an order any longer: somebody says that something was mended. False: nothing waits."""
        held = self._holds.get(name)
        if held is None or held.terms is None or name in self._attempts:
            return False
        self._holds[name] = _Held(held.terms, Delay(self._now(), held.delay.reason, held.delay.message), mended=True)
        self.changed()
        text = f"{actor} wants it to be ordered now."
        await self._tell(Event(self._clock(), "CertificateRetried", "info", _subject(name), text, actor=actor))
        return True

    def delays(self) -> Mapping[str, Delay]:
        """Say what is under way, and what has to wait and why."""
        now = self._now()
        found = dict(self._standing(now))
        for name, attempt in list(self._attempts.items()):
            found[name] = Delay(now + PATIENCE, UNDER_WAY, _said_of(attempt))
        return found

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, datetime]:
        """Return when servers want certificates of theirs renewed. Nothing is renewed before its server was asked."""
        self._have = {name: pair for name, pair in held.items() if pair.held.source.issuer == "acme"}
        found = {}
        for name, pair in self._have.items():
            known = self._suggested.get(name)
            if known is not None and known.fingerprint == pair.held.fingerprint:
                found[name] = known.at
            elif self._is_unasked(name, pair):
                found[name] = self._now() + timedelta(seconds=SUGGESTION_SECONDS)
        return found

    def _is_unasked(self, name: str, pair: CertificatePair) -> bool:
        return self._asked.get(name) != pair.held.fingerprint

    def _is_delivered(self, name: str, now: datetime) -> bool:
        """Say whether what an order brought has not been seen among what is held yet: it is not ordered twice."""
        delivered, have = self._delivered.get(name), self._have.get(name)
        if delivered is None:
            return False
        if delivered.until <= now or (have is not None and have.held.fingerprint == delivered.fingerprint):
            del self._delivered[name]
            return False
        return True

    def _standing(self, now: datetime) -> Mapping[str, Delay]:
        """Return the delays that hold: not over, and nothing has changed that they are about."""
        return {
            name: held.delay
            for name, held in list(self._holds.items())
            if held.delay.until > now and (held.terms is None or held.terms == self._terms(name))
        }

    # --- the tasks ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask servers for ever when they want their certificates renewed."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                new = any(self._is_unasked(name, pair) for name, pair in list(self._have.items()))
                if new or loop.time() - looked >= SUGGESTION_SECONDS:
                    looked = loop.time()
                    await self.look_at_renewals()
            except Exception:  # a bug must not end the task: orders and challenges go on
                log.exception("asking when to renew certificates ended by a bug, trying again")

    async def look_at_renewals(self) -> None:
        """Ask once, where a server is to be asked now."""
        news = False
        for name, pair in list(self._have.items()):
            former, terms = self._suggested.get(name), self._terms(name)
            if terms is not None and name not in self._attempts:
                await self._ask_about(name, pair, terms)
            news |= self._is_unasked(name, pair) or self._suggested.get(name) != former
            self._asked[name] = pair.held.fingerprint
        if news:
            self.changed()

    async def _ask_about(self, name: str, pair: CertificatePair, terms: OrderTerms) -> None:
        try:
            certificate = x509.load_pem_x509_certificate(pair.chain.encode())
            at = await (await self._loaded()).renewal(terms, certificate)
        except CloudLunacyError as error:
            log.warning("when to renew a certificate cannot be asked", certificate=name, error=str(error))
        except Exception:  # what one server answers concerns no other certificate
            log.exception("asking when to renew a certificate ended by a bug", certificate=name)
        else:
            self._suggested[name] = _Suggested(pair.held.fingerprint, at)

    async def close(self) -> None:
        """End every order. What was placed is gone on with after the next start."""
        tasks = [*self._given_up, *(attempt.task for attempt in self._attempts.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self, name: str, attempt: _Attempt) -> None:
        del self._attempts[name]
        attempt.task.cancel()
        self._given_up.add(attempt.task)
        attempt.task.add_done_callback(self._given_up.discard)
        log.info("an order is given up: nobody wants it on these terms any more", certificate=name)

    async def _loaded(self) -> Workshop:
        async with self._loading:
            if self._workshop is None:
                self._workshop = await asyncio.to_thread(self._load)
            return self._workshop

    async def _order(self, name: str, terms: OrderTerms, *, mended: bool) -> None:
        """Order one certificate, tell of it, and remember when to try again where it fails.

        ``mended``: the last attempt failed, and something about it is said otherwise now.
        """
        log.info("a certificate is ordered", certificate=name, server=_host(terms.directory), by=terms.challenge)
        try:
            await self._attempt(name, terms, mended=mended)
        except Exception:
            log.exception("an order ended by a bug", certificate=name)
            text = "A bug ended the order; the log has the details."
            self._holds[name] = _Held(terms, Delay(self._now() + LATER, "InternalError", text))
            self._metrics.ordered("InternalError", 0)
        mine = self._attempts.get(name)
        if mine is not None and mine.task is asyncio.current_task():
            del self._attempts[name]
        self.changed()

    async def _attempt(self, name: str, terms: OrderTerms, *, mended: bool) -> None:
        try:
            began = self._clock()
            if mended:
                await (await self._loaded()).forgive(terms)
            pair = await self._ordered(name, terms)
            self._metrics.ordered("issued", self._clock() - began)
            self._delivered[name] = _Delivered(pair.held.fingerprint, self._now() + PATIENCE)
            self.finished(name, pair)
        except (Transient, Rejected, Broken) as error:
            await self._failed(name, terms, error)

    async def _ordered(self, name: str, terms: OrderTerms) -> CertificatePair:
        workshop = await self._loaded()
        key = await asyncio.to_thread(self._pairs.waiting_key, name)
        held = self._have.get(name)
        replaced = None
        if held is not None and held.held.source == Source("acme", terms.directory):
            replaced = x509.load_pem_x509_certificate(held.chain.encode())
        chain = await workshop.issue(terms, key, replaced)
        try:
            pair = CertificatePair.read(chain, key_pem(key).decode(), Source("acme", terms.directory))
            pair.must_be_for(terms.names)
        except NoPair as problem:
            text = f"{_host(terms.directory)} issued something that cannot be served: {problem}."
            raise Transient(text, reason="AcmeAnswerMalformed") from None
        return pair

    async def _failed(self, name: str, terms: OrderTerms, error: Transient | Rejected | Broken) -> None:
        now = self._now()
        until: datetime | None = None
        with suppress(CloudLunacyError):
            until = (await self._loaded()).not_before(terms)
        reason = getattr(error, "reason", "Broken")
        self._holds[name] = _Held(terms, Delay(until or now + LATER, reason, str(error)))
        self._metrics.ordered(reason, 0)
        if reason not in ("AcmeBackOff", "AcmeBudget"):
            again = f" The next attempt is at {until or now + LATER:%Y-%m-%d %H:%M:%S} UTC."
            await self._tell(Event(self._clock(), "CertificateFailed", "warning", _subject(name), f"{error}{again}"))
        log.warning("an order failed", certificate=name, reason=reason, error=str(error), not_before=str(until))

    async def _tell(self, event: Event) -> None:
        try:
            await self._events.append(event)
        except CloudLunacyError as error:
            log.warning("an event cannot be written", error=str(error))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _said_of(attempt: _Attempt) -> str:
    how = f"{_host(attempt.terms.directory)} is asked for it since {attempt.began:%Y-%m-%d %H:%M:%S} UTC"
    return f"{how}; its names are proven by {attempt.terms.challenge}."


def _subject(name: str) -> str:
    return f"certificate/{name}"


def _host(directory: str) -> str:
    return directory.removeprefix("https://").partition("/")[0]
