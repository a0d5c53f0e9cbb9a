"""Certificates of what runs on agents: which requests are answered with one (docs/adr/0027).

The way of one: the item is looked up in the document that this agent should have → rate of the service → signed, with
the names and the life that the item says, and listed (durable) → handed out, unless the agent has lost its place
meanwhile. Of the request its public key counts, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

import structlog
from pydantic import ValidationError

from reconciler.agents.documents import WantedDocument
from reconciler.agents.rates import CallerBuckets
from reconciler.agents.session import Answered
from reconciler.errors import CloudLunacyError, Refused
from reconciler.store.protocols import Event, EventStore
from schemas.certificates_api import AgentCertificate
from schemas.fleet import Fleet
from schemas.service_tls import ServiceCertificate, service_of
from schemas.session import CertificateRequest

log = structlog.get_logger(__name__)

BURST: Final = 5
PER_SECOND: Final = 1 / 600
"""A service renews every half an hour at most, and asks again when an answer was lost."""
NOT_READY_SECONDS: Final = 5.0
BROKEN_SECONDS: Final = 60.0
NEVER_SECONDS: Final = 3600.0
"""For what only a new document changes; with that the agent asks anew at once."""


class ServiceIssuer(Protocol):
    """:class:`reconciler.pki.service_issuer.ServiceIssuer`. Calls block; what they did is on disk when they return."""

    def issue(
        self, domain: str, agent: str, service: str, wanted: ServiceCertificate, *, csr: str, now: float
    ) -> AgentCertificate:
        """Raises Refused (400 ``bad-csr``; 409, 503 where the names may not be signed) and Broken."""
        ...

    def revoke(self, agent: str, reason: Literal["privilegeWithdrawn"], now: float) -> int:
        """Revoke all that is good of an agent's, its services' included; return how many that were."""
        ...


class ServiceCertificates:
    """``in_service`` says whether an agent is let in at this moment; ``fleet`` gives the fleet in service."""

    def __init__(
        self,
        issuer: ServiceIssuer,
        in_service: Callable[[str], bool],
        fleet: Callable[[], Fleet | None],
        events: EventStore,
        *,
        burst: float = BURST,
        per_second: float = PER_SECOND,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._in_service = in_service
        self._fleet = fleet
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._buckets = CallerBuckets(burst, per_second)

    async def answer(self, agent: str, document: WantedDocument | None, request: CertificateRequest) -> Answered:
        """Return the certificate, or why there is none. Raises nothing."""
        try:
            issued = await self._issue(agent, wanted_of(document, request), request)
        except Refused as refused:
            log.info("a service certificate was refused", agent=agent, item=request.id, code=refused.code)
            said = f"{refused} {refused.hint}".strip() if refused.hint else str(refused)
            pause = refused.retry_after or NEVER_SECONDS
            return Answered(request.id, reason=_word(refused.code), message=said[:1000], retry_seconds=pause)
        except CloudLunacyError as error:
            log.warning("a service certificate cannot be issued", agent=agent, item=request.id, error=str(error))
            message = "The authority cannot sign just now; the log of the control plane says why."
            return Answered(request.id, reason="Unavailable", message=message, retry_seconds=BROKEN_SECONDS)
        except Exception:
            log.exception("a service certificate failed by a bug", agent=agent, item=request.id)
            message = "The control plane failed; its log says more."
            return Answered(request.id, reason="Unavailable", message=message, retry_seconds=BROKEN_SECONDS)
        return Answered(request.id, issued.certificate, issued.bundle)

    async def _issue(self, agent: str, wanted: ServiceCertificate, request: CertificateRequest) -> AgentCertificate:
        fleet, service = self._fleet(), service_of(request.id)
        if fleet is None or service is None:
            raise Refused("The fleet is not known yet.", status=503, code="not-ready", retry_after=NOT_READY_SECONDS)
        seconds = self._buckets.of(f"{agent}/{request.id}").take(self._monotonic())
        if seconds:
            message = "This service was given several certificates a moment ago."
            raise Refused(message, status=429, code="too-many-certificates", retry_after=seconds)
        self._require_in_service(agent)
        name = "/".join(service)
        issued = await asyncio.to_thread(
            self._issuer.issue, fleet.spec.domain, agent, name, wanted, csr=request.csr, now=self._clock()
        )
        if not self._in_service(agent):  # since it was asked; whoever revoked it may have come before the signature
            await asyncio.to_thread(self._issuer.revoke, agent, "privilegeWithdrawn", self._clock())
            self._require_in_service(agent)
        await self._tell(agent, name, issued)
        return issued

    def _require_in_service(self, agent: str) -> None:
        if not self._in_service(agent):
            raise Refused("This agent is not in service any more.", status=403, code="agent-revoked")

    async def _tell(self, agent: str, service: str, issued: AgentCertificate) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(issued.not_after))
        message = f"{service} on {agent} has a certificate until {until}."
        event = Event(self._clock(), "CertificateIssued", "info", f"agent/{agent}", message, actor=f"agent:{agent}")
        await self._events.append(event)


def wanted_of(document: WantedDocument | None, request: CertificateRequest) -> ServiceCertificate:
    """Return what the document says of the item that a request is for. PURE.

    Raises:
        Refused: ``not-wanted``, ``older-document``.
    """
    items = document.items() if document is not None and service_of(request.id) is not None else ()
    item = next((one for one in items if one.id == request.id), None)
    try:
        wanted = ServiceCertificate.model_validate(item.spec) if item is not None else None
    except ValidationError:
        wanted = None
    if item is None or wanted is None:
        raise Refused("This agent's document names no such certificate.", status=403, code="not-wanted")
    if item.digest != request.digest:
        message = "A newer document says something else of this certificate."
        raise Refused(message, status=409, code="older-document", retry_after=NOT_READY_SECONDS)
    return wanted


def _word(code: str) -> str:
    """Turn ``bad-csr`` into ``BadCsr``, as reasons are written."""
    return "".join(part.capitalize() for part in code.split("-"))
