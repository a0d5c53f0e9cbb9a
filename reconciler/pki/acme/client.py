"""One order, from its beginning or from where a crash left it, to the chain (RFC 8555, 7.4).

1. read the directory, register the account (a server that knows it says so, one that forgot it registers it anew);
2. go on with the order that was under way, or count a new one, place it and keep its URL;
3. for each authorization that is not valid yet: present the answer, say so, wait until the server has looked;
4. finalize with a CSR of the caller's key, wait until the certificate is issued, download it;
5. check that it is for that key and exactly those names.

The library blocks: each exchange runs in a thread, bounded by :class:`WireLimits`; between them the order can be
cancelled, and all of it has a deadline. What was presented is taken away in the end, whatever happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import CloudLunacyError, Rejected, Transient
from reconciler.pki.acme.blocking import in_thread
from reconciler.pki.acme.chain import NoChainError, OtherKeyError, checked_chain, request_for
from reconciler.pki.acme.failures import NotFound, refusal
from reconciler.pki.acme.solver import Challenge, Solver
from reconciler.pki.acme.wire import (
    Account,
    Authorization,
    Directory,
    Offer,
    Order,
    Suggestion,
    Wire,
    WireLimits,
)
from schemas.text import visible

Seen = TypeVar("Seen", Order, Authorization)
log = structlog.get_logger(__name__)
_PENDING: Final = frozenset({"pending"})
_FINALIZED: Final = frozenset({"processing", "ready"})
"""Some servers still say ready for a moment after they have taken the CSR."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one order may take. Seconds."""

    order_seconds: float = 300.0
    cleanup_seconds: float = 30.0
    poll_first: float = 0.5
    poll_most: float = 10.0
    """Pauses between polls double from the first to this, unless the server says Retry-After."""
    wire: WireLimits = field(default_factory=WireLimits)


class Journal(Protocol):
    """What the caller remembers of orders, durably."""

    async def before_order(self) -> None:
        """Count an order, before it is placed.

        Raises:
            Transient: none may be placed now.
        """
        ...

    async def placed(self, url: str) -> None:
        """Keep the URL of the order that was placed: it is gone on with after a crash."""
        ...

    async def closed(self) -> None:
        """Forget that URL: the order has failed, or is not there any more."""
        ...


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One certificate that is wanted. ``order_url``: an order that may still be under way, "" for none.

    ``replaces`` is the certificate that is renewed: a server that suggests when to renew counts it against no limit.
    """

    names: tuple[str, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    solver: Solver
    order_url: str = ""
    replaces: x509.Certificate | None = None


class AcmeClient:
    """Orders from one directory with one account. Orders may run at the same time."""

    def __init__(self, directory: Directory, account: Account, *, limits: ClientLimits | None = None) -> None:
        self.directory = directory
        """Where orders go."""
        self._account = account
        self._limits = limits or ClientLimits()

    async def obtain(self, request: OrderRequest, journal: Journal) -> str:
        """Return a chain, PEM, the certificate for the key of the request first.

        Raises:
            Transient: trying again will help, from where this came to.
            Rejected: a person must mend something.
            Broken: the file with the CA cannot be read.
        """
        order = _Ordering(self.directory, self._account, self._limits, request, journal)
        try:
            async with asyncio.timeout(self._limits.order_seconds):
                return await order.run()
        except TimeoutError:
            raise order.too_late(None) from None

    async def suggestion(self, certificate: x509.Certificate) -> Suggestion:
        """Ask when the server wants a certificate renewed. Its window is None where the server does not say.

        Raises:
            Transient, Rejected, Broken: the server could not be asked.
        """
        async with _open(self.directory, self._account, self._limits) as wire:
            try:
                return await in_thread(wire.renewal_info, certificate)
            except NotFound:
                return Suggestion(None, None)


@asynccontextmanager
async def _open(directory: Directory, account: Account, limits: ClientLimits) -> AsyncIterator[Wire]:
    wire = Wire(directory, account, limits.wire)
    try:
        try:
            await in_thread(wire.open)
        except NotFound as error:
            raise Rejected(
                f"The ACME server {directory.host} has no directory at {directory.url}: {error}.",
                reason="AcmeDirectoryMissing",
                hint="Look at the URL.",
            ) from None
        yield wire
    finally:
        wire.close()


class _Ordering:
    """The steps of one order."""

    def __init__(
        self, directory: Directory, account: Account, limits: ClientLimits, request: OrderRequest, journal: Journal
    ) -> None:
        self._open = partial(_open, directory, account, limits)
        self._limits = limits
        self._request = request
        self._solver = request.solver
        self._journal = journal
        self._who = f"The ACME server {directory.host}"
        self._for = ", ".join(request.names)
        self._deadline = asyncio.get_running_loop().time() + limits.order_seconds

    async def run(self) -> str:
        """Do all of it, on a wire of its own."""
        self._refuse_impossible()
        async with self._open() as self._wire:
            try:
                await in_thread(self._wire.register)
                return await self._resumed() or await self._anew()
            except NotFound as error:
                await self._journal.closed()
                raise Transient(
                    f"{self._who} lost the order for {self._for} while it was under way: {error}.",
                    reason="AcmeOrderLost",
                ) from None

    def too_late(self, retry_after: float | None) -> Transient:
        """Make the error for a deadline that has passed, or would before the server wants to be asked again."""
        return Transient(
            f"{self._who} did not bring the order for {self._for} to its end within "
            f"{self._limits.order_seconds:g} s; the next attempt goes on with it.",
            reason="AcmeTimeout",
            retry_after=retry_after,
        )

    def _refuse_impossible(self) -> None:
        wildcards = [name for name in self._request.names if name.startswith("*.")]
        if wildcards and self._solver.type == "http-01":
            raise Rejected(
                f"No ACME server takes http-01 for {', '.join(wildcards)}: wildcards need dns-01.",
                reason="AcmeChallengeUnavailable",
                hint="Set up dns-01 (RFC 2136 or a hook), or name the hosts one by one.",
            )

    async def _resumed(self) -> str:
        """Go on with the order that was placed before; "" where that leads nowhere."""
        if not self._request.order_url:
            return ""
        try:
            order = await in_thread(self._wire.order, self._request.order_url)
        except (NotFound, Rejected):  # forgotten, or of another account
            order = None
        if order is not None and order.status != "invalid":
            with suppress(OtherKeyError):  # it was finalized with a key that the caller has no more
                return await self._to_the_end(order)
        await self._journal.closed()
        return ""

    async def _anew(self) -> str:
        await self._journal.before_order()
        order = await in_thread(self._wire.new_order, self._request.names, self._request.replaces)
        await self._journal.placed(order.url)
        try:
            return await self._to_the_end(order)
        except OtherKeyError:
            await self._journal.closed()
            raise Transient(
                f"{self._who} issued a certificate for another key than that of the request.",
                reason="AcmeAnswerMalformed",
            ) from None

    async def _to_the_end(self, order: Order) -> str:
        wire, request = self._wire, self._request
        if order.status == "pending":
            await self._authorize(order)
            order = await self._settled(lambda: wire.order(order.url), None, busy=_PENDING)
        if order.status == "ready":
            csr = await in_thread(request_for, request.names, request.key)
            order = await in_thread(wire.finalize, order, csr)
        order = await self._settled(lambda: wire.order(order.url), order, busy=_FINALIZED)
        if order.status != "valid":
            await self._journal.closed()
            raise refusal(order.problem, f"{self._who} issued nothing for {self._for}", retry_after=order.retry_after)
        pem = await in_thread(wire.certificate, order.certificate)
        try:
            return checked_chain(pem, request.names, request.key)
        except NoChainError:
            await self._journal.closed()
            raise Transient(
                f"{self._who} answered with something else than a certificate for exactly {self._for}.",
                reason="AcmeAnswerMalformed",
            ) from None

    async def _authorize(self, order: Order) -> None:
        """Have every authorization made valid. Two of one order may concern the same record (``x`` and ``*.x``)."""
        self._refuse_foreign(len(order.authorizations) > len(self._request.names))
        found = {url: await in_thread(self._wire.authorization, url) for url in order.authorizations}
        ours = {name.lower().removeprefix("*.") for name in self._request.names}
        self._refuse_foreign(any(each.domain not in ours for each in found.values()))
        waiting = {url: self._offer(each) for url, each in found.items() if each.status != "valid"}
        presented: list[Challenge] = []
        try:
            for offer in waiting.values():
                assert offer.challenge is not None
                presented.append(offer.challenge)
                await self._solver.present(offer.challenge)
            for offer in waiting.values():
                if offer.status == "pending":
                    await in_thread(self._wire.answer, offer)
            for url in waiting:
                await self._validated(url)
        finally:
            await self._take_away(presented)

    def _refuse_foreign(self, foreign: bool) -> None:
        """No server has us write records, or run a program, for a name that was not ordered."""
        if foreign:
            raise Transient(
                f"{self._who} wants other names proved than those of the order for {self._for}.",
                reason="AcmeAnswerMalformed",
            )

    def _offer(self, authorization: Authorization) -> Offer:
        for offer in authorization.offers:
            if offer.type == self._solver.type and offer.challenge is not None:
                return offer
        offered = ", ".join(sorted(visible(offer.type) for offer in authorization.offers)) or "nothing"
        raise Rejected(
            f"{self._who} does not offer {self._solver.type} for {visible(authorization.domain)}; it offers {offered}.",
            reason="AcmeChallengeUnavailable",
        )

    async def _validated(self, url: str) -> None:
        seen = await self._settled(lambda: self._wire.authorization(url), None, busy=_PENDING)
        if seen.status == "valid":
            return
        await self._journal.closed()
        error = refusal(
            next((each.body.error for each in seen.offers if each.body.error is not None), None),
            f"{self._who} does not accept the {self._solver.type} answer of {visible(seen.domain)}",
            retry_after=seen.retry_after,
        )
        if isinstance(error, Rejected):
            error.reason = "AcmeChallengeFailed"
        raise error

    async def _settled(self, look: Callable[[], Seen], seen: Seen | None, *, busy: frozenset[str]) -> Seen:
        """Look until the status is no longer one of ``busy``. ``seen``: a first look that was had already."""
        pause = self._limits.poll_first
        while True:
            seen = await in_thread(look) if seen is None else seen
            if seen.status not in busy:
                return seen
            seconds = max(seen.retry_after or pause, self._limits.poll_first)
            if seconds >= self._deadline - asyncio.get_running_loop().time():
                raise self.too_late(seen.retry_after)
            await asyncio.sleep(seconds)
            pause, seen = min(2 * pause, self._limits.poll_most), None

    async def _take_away(self, presented: Sequence[Challenge]) -> None:
        for challenge in presented:
            try:
                async with asyncio.timeout(self._limits.cleanup_seconds):
                    await self._solver.cleanup(challenge)
            except (CloudLunacyError, TimeoutError) as error:
                log.warning(
                    "what proved a name could not be cleared away",
                    domain=challenge.domain,
                    type=self._solver.type,
                    why=str(error),
                )
