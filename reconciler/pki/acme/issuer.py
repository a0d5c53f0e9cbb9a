"""A certificate from the names that it is for: may we, staging first, order, remember.

1. Back-off holds every attempt (:mod:`schedule`).
2. The first time for a set of names, an order at the staging directory must come to its end, where there is one. What
   does not work is found there, where it costs nothing.
3. The order at the production directory is counted and kept on disk before it is placed; its URL once it is known. An
   attempt that was cut off goes on with it.
4. Failures of either are counted, and say when the next attempt may be made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.pki.acme import schedule
from reconciler.pki.acme.client import Journal, OrderRequest
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.schedule import BUDGET, Budget, History, Lifetime, NameSet, Wait
from reconciler.pki.acme.solver import Solver
from reconciler.pki.acme.wire import Directory, Suggestion
from schemas.text import visible

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate to be issued. ``key`` should be the same one after a crash, so that the order can be gone on with.

    ``replaces`` is the certificate that this one renews.
    """

    names: tuple[str, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    solver: Solver
    replaces: x509.Certificate | None = None


def _now() -> datetime:
    return datetime.now(UTC)


class Orders(Protocol):
    """What :class:`~reconciler.pki.acme.client.AcmeClient` does, as far as it is used here."""

    @property
    def directory(self) -> Directory:
        """Where orders go."""
        ...

    async def obtain(self, request: OrderRequest, journal: Journal) -> str:
        """Return a chain."""
        ...

    async def suggestion(self, certificate: x509.Certificate) -> Suggestion:
        """Ask when to renew."""
        ...


class Issuer:
    """Orders at one production directory; ``staging`` is tried first. ``at_once``: orders under way at a time."""

    def __init__(
        self,
        production: Orders,
        file: LedgerFile,
        *,
        staging: Orders | None = None,
        budget: Budget = BUDGET,
        at_once: int = 2,
        clock: Callable[[], datetime] = _now,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        self._production = production
        self._staging = staging
        self._file = file
        self._budget = budget
        self._clock = clock
        self._random = randomness
        self._places = asyncio.Semaphore(at_once)
        self._under_way: set[NameSet] = set()
        self._ledger = file.load()

    def not_before(self, names: Iterable[str]) -> datetime | None:
        """Return when the next attempt for these names may be made, None for now."""
        wait = self._wait(schedule.name_set(names))
        return None if wait is None else wait.until

    async def forgive(self, names: Iterable[str]) -> None:
        """Let no back-off hold the next attempt: somebody has mended something. Budgets hold it on.

        Raises:
            Broken: what must be remembered cannot be written.
        """
        which = schedule.name_set(names)
        if self._ledger.of(which).wait_until is not None:
            await self._change(which, schedule.forgiven)

    async def issue(self, wanted: Wanted) -> str:
        """Return a chain, PEM, the certificate for ``wanted.key`` first.

        Raises:
            Transient: later; ``retry_after`` says when. ``AcmeBackOff`` and ``AcmeBudget``: nobody was asked now.
            Rejected: a person must mend something; ``not_before`` says when the next attempt may be made.
            Broken: what must be remembered cannot be written; then nothing is ordered.
        """
        names = schedule.name_set(wanted.names)
        wanted = replace(wanted, names=tuple(dict.fromkeys(wanted.names)))  # servers refuse a name that comes twice
        if names in self._under_way:
            raise Transient(f"An order for {visible(names)} is under way.", reason="AcmeUnderWay")
        self._under_way.add(names)
        try:
            async with self._places:
                self._hold(names)
                return await self._attempt(names, wanted)
        finally:
            self._under_way.discard(names)

    async def renewal(self, names: Iterable[str], certificate: x509.Certificate, renew_before: timedelta) -> datetime:
        """Return when to renew a certificate; asks the server now and then.

        Raises:
            Broken: what must be remembered cannot be written.
        """
        which, now = schedule.name_set(names), self._clock()
        lifetime = Lifetime(
            certificate.fingerprint(hashes.SHA256()).hex(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
        known = self._ledger.of(which).renewal
        renewal = schedule.renewal_of(known, lifetime, renew_before, now, self._random())
        if renewal.ask_at <= now < lifetime.not_after:
            window = retry_after = None
            try:
                said = await self._production.suggestion(certificate)
                window, retry_after = said.window, said.retry_after
            except (Transient, Rejected) as error:
                log.info("the ACME server suggests no time to renew", names=which, why=str(error))
            renewal = schedule.suggested(renewal, lifetime, window, now, self._random(), retry_after=retry_after)
        if renewal != known:
            await self._change(which, lambda history: replace(history, renewal=renewal))
        return renewal.at

    async def _attempt(self, names: NameSet, wanted: Wanted) -> str:
        try:
            await self._rehearse(names, wanted)
            request = OrderRequest(
                wanted.names, wanted.key, wanted.solver, self._ledger.of(names).order_url, wanted.replaces
            )
            chain = await self._production.obtain(request, _Kept(self, names))
        except _HeldError as held:
            raise held.error from None
        except (Transient, Rejected, Broken) as error:
            await self._failed(names, error)
            raise
        await self._change(names, schedule.succeeded)
        log.info("the ACME server issued a certificate", names=names, server=self._production.directory.host)
        return chain

    async def _rehearse(self, names: NameSet, wanted: Wanted) -> None:
        if self._staging is None or self._ledger.of(names).rehearsed:
            return
        key = await asyncio.to_thread(ec.generate_private_key, ec.SECP256R1())
        await self._staging.obtain(OrderRequest(wanted.names, key, wanted.solver), _Unkept())
        await self._change(names, schedule.rehearsal_succeeded)
        log.info("the staging server issued a certificate", names=names, server=self._staging.directory.host)

    async def _failed(self, names: NameSet, error: Transient | Rejected | Broken) -> None:
        asked = error.retry_after if isinstance(error, Transient) else None
        now = self._clock()
        await self._change(names, lambda history: schedule.failed(history, now, self._random(), retry_after=asked))
        until = self._ledger.of(names).wait_until
        if isinstance(error, Transient) and until is not None:
            error.retry_after = (until - now).total_seconds()
        log.warning("the ACME server issued no certificate", names=names, why=str(error), not_before=str(until))

    def _wait(self, names: NameSet) -> Wait | None:
        """Say what holds an attempt: a budget does not, where an order is under way that can be gone on with."""
        now = self._clock()
        self._ledger = self._ledger.seen_at(now, self._budget)
        history = self._ledger.of(names)
        wait = schedule.may_try(history, now)
        if wait is None and not history.order_url:
            wait = schedule.may_order(self._ledger, names, self._budget, now)
        return wait

    def _hold(self, names: NameSet) -> None:
        wait = self._wait(names)
        if wait is not None:
            raise self.held(names, wait)

    def held(self, names: NameSet, wait: Wait) -> Transient:
        """Make the error for an order that is not placed."""
        return Transient(
            f"No order for {visible(names)} is placed before {wait.until:%Y-%m-%d %H:%M:%S} UTC: {wait.why}.",
            reason=wait.reason,
            retry_after=(wait.until - self._clock()).total_seconds(),
        )

    async def count_order(self, names: NameSet) -> None:
        """Count an order that is about to be placed.

        Raises:
            _HeldError: the budget is spent.
        """
        now = self._clock()
        wait = schedule.may_order(self._ledger, names, self._budget, now)
        if wait is not None:
            raise _HeldError(self.held(names, wait))
        await self._change(names, lambda history: schedule.ordered(history, now))

    async def keep_order(self, names: NameSet, url: str) -> None:
        """Keep the URL of the order under way; "" when there is none any more."""
        await self._change(names, lambda history: replace(history, order_url=url))

    async def _change(self, names: NameSet, change: Callable[[History], History]) -> None:
        # nothing is awaited between reading and writing, so that orders at the same time lose nothing of each other
        self._ledger = self._ledger.having(names, change(self._ledger.of(names)))
        await self._file.save(self._ledger)


class _HeldError(CloudLunacyError):
    """The budget was spent while the order was prepared. It is no failure: nobody was asked."""

    def __init__(self, error: Transient) -> None:
        super().__init__(error.message)
        self.error = error


class _Kept:
    """The journal of orders at the production directory."""

    def __init__(self, issuer: Issuer, names: NameSet) -> None:
        self._issuer = issuer
        self._names = names

    async def before_order(self) -> None:
        await self._issuer.count_order(self._names)

    async def placed(self, url: str) -> None:
        await self._issuer.keep_order(self._names, url)

    async def closed(self) -> None:
        await self._issuer.keep_order(self._names, "")


class _Unkept:
    """The journal of rehearsals: each is placed anew."""

    async def before_order(self) -> None:
        return

    async def placed(self, url: str) -> None:
        del url

    async def closed(self) -> None:
        return
