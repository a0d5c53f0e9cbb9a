"""Certificates of agents: who gets one, how often, and whose count no more (docs/adr/0021).

The way of one: signing request → rate of the agent → :func:`refusal` decides → signed and listed (durable) → told of in
the timeline → handed out, unless the agent was revoked meanwhile. An agent that has lost its place in git is revoked
here by a task of its own, so that a disk that is full for a while delays the list of revocations and forgets nobody.
Nothing waits for that list: whoever is out is refused by name, at once (docs/adr/0007).

Words:
  applicant   who asks, as git and the tokens know it
  enrolled    used a token and got no certificate for it yet; the only way back once the last certificate has ended
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

import structlog

from reconciler.agents.directory import AgentDirectory
from reconciler.agents.rates import CallerBuckets
from reconciler.errors import CloudLunacyError, Refused
from reconciler.store.protocols import Event, EventStore
from schemas.certificates_api import AgentCertificate
from schemas.fleet import Fleet

log = structlog.get_logger(__name__)

BURST: Final = 6
PER_SECOND: Final = 1 / 600
"""An agent renews twice a day, and tries again when an answer was lost."""
COMING: Final = 3600.0
"""Seconds that a committed enrolment may take until it is in service."""
NOT_READY_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 600.0
"""Between two looks for whom nobody revoked."""
MAX_ENROLMENTS: Final = 10_000

Reason = Literal["cessationOfOperation", "privilegeWithdrawn", "superseded"]


@dataclass(frozen=True, slots=True)
class Last:
    """The newest certificate of an agent. Times are POSIX seconds."""

    ends: float
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A token that was used by a key. ``served``: a certificate was issued for it."""

    token_id: str
    thumbprint: str
    at: float
    csr: str | None = None
    served: bool = False


@dataclass(frozen=True, slots=True)
class Applicant:
    """``thumbprint`` is of the key that was proven, ``in_service`` of the one that git names, if it names one."""

    name: str
    thumbprint: str
    in_service: str | None
    quarantined: bool
    enrolled: Enrolled | None = None
    barred: bool = False
    """An operator has locked this key out."""


def refusal(applicant: Applicant, last: Last | None, now: float) -> Refused | None:
    """Say why an agent gets no certificate, None where it gets one. PURE."""
    enrolled = applicant.enrolled
    if applicant.quarantined:
        return Refused("This agent is quarantined by its file.", status=403, code="agent-quarantined")
    if applicant.barred or (applicant.in_service != applicant.thumbprint and not _is_coming(applicant, last, now)):
        hint = "Enrol it again with a new token."
        return Refused("This agent is not in service any more.", status=403, code="agent-revoked", hint=hint)
    if last is not None and now > last.ends and (enrolled is None or enrolled.served):
        return Refused(
            f'The last certificate of agent "{applicant.name}" has ended, so it cannot be renewed.',
            status=403,
            code="certificate-expired",
            hint="Enrol the agent again with a token: cloudlunacy token create, then cloudlunacy agent enrol.",
        )
    return None


def _is_coming(applicant: Applicant, last: Last | None, now: float) -> bool:
    """An enrolment is on its way into service; whoever was revoked since it began is not."""
    enrolled = applicant.enrolled
    if applicant.in_service is not None or enrolled is None or enrolled.thumbprint != applicant.thumbprint:
        return False
    revoked_since = last is not None and last.revoked_at is not None and last.revoked_at >= enrolled.at
    return now <= enrolled.at + COMING and not revoked_since


class Issuer(Protocol):
    """:class:`reconciler.pki.agent_issuer.AgentIssuer`. Calls block; what they did is on disk when they return."""

    def check(self, csr: str) -> None:
        """Refuse what is no signing request that proves a P-256 key.

        Raises:
            Refused: 400 ``bad-csr``.
        """
        ...

    def issue(self, domain: str, name: str, csr: str, now: float) -> AgentCertificate:
        """Raises Refused (400 ``bad-csr``; 503 while the names may not be signed yet) and Broken."""
        ...

    def last(self, name: str) -> tuple[float, float | None] | None:
        """Return end and time of revocation of the agent's newest certificate."""
        ...

    def holders(self, now: float) -> Mapping[str, float]:
        """Return the agents that have a good certificate, and when the newest of each was issued."""
        ...

    def revoke(self, name: str, reason: Reason, now: float) -> int:
        """Revoke all that is good of an agent's; return how many that were."""
        ...


class AgentCertificates:
    """``fleet`` gives the fleet in service, None before the first."""

    def __init__(
        self,
        issuer: Issuer,
        directory: AgentDirectory,
        fleet: Callable[[], Fleet | None],
        events: EventStore,
        *,
        burst: float = BURST,
        per_second: float = PER_SECOND,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._directory = directory
        self._fleet = fleet
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._buckets = CallerBuckets(burst, per_second)
        self._enrolled: OrderedDict[str, Enrolled] = OrderedDict()
        self._revoked: dict[str, Reason] = {}
        self._knows = False
        """The directory knows who is in service."""
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()
        """What is decided still holds when it is signed."""

    # --- enrolment ------------------------------------------------------------------------------------------------

    def check(self, csr: str) -> None:
        """Refuse a bad signing request before it costs a token.

        Raises:
            Refused: 400 ``bad-csr``.
        """
        self._issuer.check(csr)

    def note(self, name: str, enrolled: Enrolled) -> None:
        """Remember that an agent used a token. The same token again brings the newer request, and no other right."""
        known = self._enrolled.pop(name, None)
        if known is not None and known.token_id == enrolled.token_id:
            enrolled = replace(known, csr=enrolled.csr or known.csr)
        elif known is not None and known.at > enrolled.at:
            enrolled = known
        self._enrolled[name] = enrolled
        if len(self._enrolled) > MAX_ENROLMENTS:
            self._enrolled.popitem(last=False)

    async def first(self, name: str, token_id: str) -> AgentCertificate | None:
        """Return the certificate that goes with an enrolment; None where there is none to be had just now.

        It is no reason to refuse the enrolment: the agent asks again, by its identity.
        """
        enrolled = self._enrolled.get(name)
        if enrolled is None or enrolled.token_id != token_id or enrolled.csr is None:
            return None
        try:
            return await self.issue(name, enrolled.thumbprint, enrolled.csr)
        except CloudLunacyError as error:
            log.warning("an enrolment goes on without a certificate", agent=name, why=str(error))
            return None

    # --- certificates ---------------------------------------------------------------------------------------------

    async def issue(self, name: str, thumbprint: str, csr: str) -> AgentCertificate:
        """Issue a certificate to the agent ``name``, which proved the key of ``thumbprint``.

        Raises:
            Refused: 400 ``bad-csr``, 403 as :func:`refusal` says, 429 ``too-many-certificates``, 503.
            Broken: when the authority cannot sign.
        """
        fleet = self._fleet()
        if fleet is None:
            message = "No revision is in service yet."
            raise Refused(message, status=503, code="not-ready", retry_after=NOT_READY_SECONDS)
        self._issuer.check(csr)
        if seconds := self._buckets.of(name).take(self._monotonic()):
            message = "This agent asked for too many certificates."
            raise Refused(message, status=429, code="too-many-certificates", retry_after=seconds)
        async with self._turn:
            await self._revoke_waiting()
            await self._require(name, thumbprint)
            now = self._clock()
            issued = await asyncio.to_thread(self._issuer.issue, fleet.spec.domain, name, csr, now)
            enrolled = self._enrolled.get(name)
            if enrolled is not None and enrolled.thumbprint == thumbprint:
                self._enrolled[name] = replace(enrolled, served=True)
        await self._tell("CertificateIssued", name, f"{name} has a certificate until {_utc(issued.not_after)}.")
        if name in self._revoked:
            raise Refused("This agent is not in service any more.", status=403, code="agent-revoked")
        return issued

    async def newest(self, name: str) -> tuple[float, float | None] | None:
        """Return end and time of revocation of the agent's newest certificate; None where there is none."""
        return await asyncio.to_thread(self._issuer.last, name)

    async def _require(self, name: str, thumbprint: str) -> None:
        found = await asyncio.to_thread(self._issuer.last, name)
        applicant = Applicant(
            name,
            thumbprint,
            self._directory.thumbprint(name),
            self._directory.quarantined(name),
            self._enrolled.get(name),
            barred=self._directory.barred(name, thumbprint),
        )
        refused = refusal(applicant, None if found is None else Last(*found), self._clock())
        if refused is not None:
            log.info("a certificate was refused", agent=name, code=refused.code)
            raise refused

    # --- revocation -----------------------------------------------------------------------------------------------

    def revoke(self, names: Iterable[str]) -> None:
        """Revoke what these agents have, soon. Call it when the directory knows why: the reason is taken from it.

        Call it with nobody, too, once the directory knows who is in service: whom an earlier process had no time to
        revoke is found then.
        """
        if not self._knows:
            self._knows = True
            self._more.set()
        for name in names:
            self._enrolled.pop(name, None)
            self._revoked[name] = self._reason(name)
            self._more.set()

    async def revoke_now(self, name: str, reason: Reason) -> int | None:
        """Revoke what an agent has, and return how many; None where that has to wait for the disk, and goes on."""
        self._enrolled.pop(name, None)
        self._revoked[name] = reason
        try:
            async with self._turn:
                counts = await self._revoke_waiting()
        except CloudLunacyError as error:
            log.warning("certificates cannot be revoked yet", agents=[name], error=str(error))
            return None
        finally:
            if self._revoked:
                self._more.set()
        return counts.get(name, 0)

    def enrolled_key(self, name: str) -> str | None:
        """Return the key of an enrolment that may be on its way into service."""
        enrolled = self._enrolled.get(name)
        return None if enrolled is None else enrolled.thumbprint

    async def run(self) -> None:
        """Revoke for ever. A disk that is full today may not be tomorrow."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._more.wait()
            try:
                async with self._turn:
                    await self._find_forgotten()
                    await self._revoke_waiting()
                if self._revoked:  # by a bug
                    await asyncio.sleep(RETRY_SECONDS)
                    self._more.set()
            except CloudLunacyError as error:
                log.warning("certificates cannot be revoked yet", agents=sorted(self._revoked), error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # a bug must not end the task
                log.exception("revoking certificates ended by a bug, trying again", agents=sorted(self._revoked))
                await asyncio.sleep(RETRY_SECONDS)

    async def _find_forgotten(self) -> None:
        """Find whom a process that was killed after a publication did not revoke (docs/adr/0021).

        A young certificate of somebody who is unknown may be of an enrolment that is on its way into service.
        """
        if not self._knows or self._fleet() is None:
            return
        now = self._clock()
        for name, issued in (await asyncio.to_thread(self._issuer.holders, now)).items():
            key = self._directory.published(name)
            gone = key is None and issued + COMING < now
            if gone or self._directory.quarantined(name) or (key is not None and self._directory.barred(name, key)):
                self._revoked.setdefault(name, self._reason(name))

    async def _revoke_waiting(self) -> dict[str, int]:
        """Return agent → how many were revoked. Whom a bug keeps from it stays, and no other waits for that.

        Raises:
            CloudLunacyError: the disk.
        """
        counts: dict[str, int] = {}
        stuck: set[str] = set()
        while waiting := next((one for one in self._revoked.items() if one[0] not in stuck), None):
            name, reason = waiting
            try:
                counts[name] = count = await asyncio.to_thread(self._issuer.revoke, name, reason, self._clock())
                if count:
                    await self._tell("CertificateRevoked", name, f"{count} of {name} revoked: {reason}.", "warning")
                self._revoked.pop(name, None)
            except CloudLunacyError:
                raise
            except Exception:
                log.exception("revoking a certificate ended by a bug", agent=name)
                stuck.add(name)
        self._more.clear()
        return counts

    def _reason(self, name: str) -> Reason:
        if self._directory.quarantined(name):
            return "privilegeWithdrawn"
        return "superseded" if name in self._directory else "cessationOfOperation"

    async def _tell(self, kind: str, name: str, message: str, severity: Literal["info", "warning"] = "info") -> None:
        actor = f"agent:{name}" if severity == "info" else ""
        await self._events.append(Event(self._clock(), kind, severity, f"agent/{name}", message, actor=actor))


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
