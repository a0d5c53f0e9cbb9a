"""Enrolment: from a request to an accepted entry of the outbox, and what to answer.

The order, and why (docs/adr/0006):

1. rate of the caller · 2. token, in constant time · 3. proof that the caller holds the key · 4. policy. Until here
   nothing is written, so a mistake costs no token.
5. ``use_token`` binds the token to the key's thumbprint, and the outbox takes the entry, in one durable transaction: of
   two keys one wins. The same key may do it again, and since the entry's id follows from the token's, that changes
   nothing: after a crash the agent tries again with the key it has kept.
6. The answer: 201 when the commit is on the remote, 202 when it is only queued. With 201 comes the certificate, where
   the request had a signing request; without one, or when it fails, the agent asks for it later, by its identity.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from reconciler.agents.certificates import AgentCertificates, Enrolled
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.agents.group_commit import CONFLICTED, PROPOSED, GroupCommitter, Job, Settled
from reconciler.agents.rates import Bucket, CallerBuckets
from reconciler.desired.agent_file import enrolment_edit
from reconciler.desired.edits import CommitRequest
from reconciler.errors import Refused
from reconciler.store.protocols import EnrolmentToken, Event, EventStore, OutboxEntry, TokenStore
from schemas.enrolment import (
    ENROLMENTS_PATH,
    MAX_TOKEN_TTL,
    TOKEN_ENDPOINT_PATH,
    Enrolment,
    EnrolmentRequest,
    EnrolmentState,
)
from schemas.fleet import Fleet
from schemas.jwk import JwkSet, PublicJwk
from schemas.names import unmapped
from schemas.objects import ObjectKey

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 10.0
"""After this a request is answered 202."""
GUESSES: Final = 60
GUESSES_PER_SECOND: Final = 0.5
_ENTRY_PREFIX: Final = "enrol-"


class VerifyProof(Protocol):
    """:func:`reconciler.pki.tokens.verify_enrolment_proof` is one."""

    def __call__(self, proof: str, *, key: PublicJwk, token_id: str, name: str, now: float) -> None: ...


class Enrolments:
    """Accepts enrolments and tells where they stand. ``fleet`` gives the fleet in service, None before the first."""

    def __init__(
        self,
        *,
        issuer: str,
        tokens: EnrolmentTokens,
        store: TokenStore,
        committer: GroupCommitter,
        directory: AgentDirectory,
        fleet: Callable[[], Fleet | None],
        verify_proof: VerifyProof,
        jwks: Callable[[], JwkSet],
        certificates: AgentCertificates,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer.rstrip("/")
        self._tokens = tokens
        self._store = store
        self._committer = committer
        self._directory = directory
        self._fleet = fleet
        self._verify_proof = verify_proof
        self._jwks = jwks
        self._certificates = certificates
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._callers = CallerBuckets(GUESSES, GUESSES_PER_SECOND)
        self._hourly = Bucket(1, 1)
        self._hourly_limit = 0

    async def enrol(self, request: EnrolmentRequest, *, peer: str) -> Enrolment:
        """Accept an enrolment. ``peer`` is the address of the caller.

        Raises:
            Refused: 400 signing request, 401 token or proof, 403 token spent or too late, or key locked out, 409 other
                identity, 422 address, 429, 503.
        """
        fleet = self._fleet_in_service()
        token = await self._authorise(request, peer)
        thumbprint = request.public_key.thumbprint
        if self._directory.barred(request.name, thumbprint):
            hint = "Enrol with a new key: give agent enrol an empty --data, and a new token."
            message = f'The key of agent "{request.name}" was locked out.'
            raise Refused(message, status=403, code="key-revoked", hint=hint)
        entry_id = f"{_ENTRY_PREFIX}{token.id}"
        if token.used_by == thumbprint and await self._standing(entry_id):
            if self._clock() < token.expires_at:  # an old token gives no right to a certificate once more
                self._note(token, request, thumbprint, token.expires_at - MAX_TOKEN_TTL)
            return await self._answer_in_time(token, thumbprint)
        check_policy(request, fleet, self._directory, peer)
        entry = _entry(entry_id, token, request, fleet, self._clock())
        await self._use(token, thumbprint, fleet.spec.registration.agents_per_hour, entry)
        self._committer.add(entry)
        self._note(token, request, thumbprint, entry.accepted_at)
        log.info("an enrolment was accepted", agent=request.name, token_id=token.id, thumbprint=thumbprint)
        return await self._answer_in_time(token, thumbprint)

    async def status(self, token_id: str, prove: Callable[[str], None]) -> Enrolment:
        """Tell where an enrolment stands. ``prove`` refuses a caller who does not hold the key of a thumbprint.

        Raises:
            Refused: 404 for an unknown enrolment, 503 right after the start, and what ``prove`` raises.
        """
        self._require_outbox()
        token = await self._store.token(token_id)
        if token is None or token.used_by is None:
            raise Refused("There is no such enrolment.", status=404, code="unknown-enrolment")
        prove(token.used_by)
        standing = await self._standing(f"{_ENTRY_PREFIX}{token_id}")
        if standing is None:
            hint = "Send the enrolment again."
            raise Refused("There is no such enrolment.", status=404, code="unknown-enrolment", hint=hint)
        return await self._with_certificate(self._describe(token, token.used_by, standing), token)

    def _fleet_in_service(self) -> Fleet:
        fleet = self._fleet()
        if fleet is None:
            raise Refused("No revision is in service yet.", status=503, code="not-ready", retry_after=2.0)
        self._require_outbox()
        return fleet

    def _require_outbox(self) -> None:
        if not self._committer.resumed.is_set():
            raise Refused("The outbox is still being read.", status=503, code="not-ready", retry_after=2.0)

    async def _authorise(self, request: EnrolmentRequest, peer: str) -> EnrolmentToken:
        guesses = self._callers.of(peer)
        if seconds := guesses.take(self._monotonic()):
            raise Refused("Too many attempts from here.", status=429, code="too-many-requests", retry_after=seconds)
        token = await self._tokens.check(request.token, request.name)
        self._verify_proof(
            request.proof, key=request.public_key, token_id=token.id, name=request.name, now=self._clock()
        )
        if request.csr is not None:
            self._certificates.check(request.csr)
        guesses.give_back()
        return token

    async def _use(self, token: EnrolmentToken, thumbprint: str, per_hour: int, entry: OutboxEntry) -> None:
        if per_hour != self._hourly_limit:
            self._hourly, self._hourly_limit = Bucket(per_hour, per_hour / 3600), per_hour
        if seconds := self._hourly.take(self._monotonic()):
            message = f"The fleet takes {per_hour} enrolments an hour (spec.registration.agentsPerHour)."
            raise Refused(message, status=429, code="too-many-enrolments", retry_after=seconds)
        if not await self._store.use_token(token.id, thumbprint, self._clock(), entry=entry):
            self._hourly.give_back()
            hint = "Make a new one with cloudlunacy token create."
            message = "The enrolment token was used by another key, or is too old."
            raise Refused(message, status=403, code="token-spent", hint=hint)

    async def _standing(self, entry_id: str) -> Settled | None:
        if self._committer.is_pending(entry_id):
            return _PENDING
        return await self._committer.wait(entry_id, 0)

    async def _answer_in_time(self, token: EnrolmentToken, thumbprint: str) -> Enrolment:
        settled = await self._committer.wait(f"{_ENTRY_PREFIX}{token.id}", self._answer_seconds)
        enrolment = self._describe(token, thumbprint, settled or _PENDING)
        if enrolment.state == "conflicted":
            raise Refused(enrolment.message, status=409, code="enrolment-conflict")
        return await self._with_certificate(enrolment, token)

    def _note(self, token: EnrolmentToken, request: EnrolmentRequest, thumbprint: str, at: float) -> None:
        self._certificates.note(token.agent, Enrolled(token.id, thumbprint, at, request.csr))

    async def _with_certificate(self, enrolment: Enrolment, token: EnrolmentToken) -> Enrolment:
        issued = await self._certificates.first(token.agent, token.id) if enrolment.state == "committed" else None
        if issued is None:
            return enrolment
        return enrolment.model_copy(update={"certificate": issued.certificate, "bundle": issued.bundle})

    def _describe(self, token: EnrolmentToken, thumbprint: str, settled: Settled) -> Enrolment:
        merged = self._directory.thumbprint(token.agent) == thumbprint
        return Enrolment(
            state=_state(settled, merged=merged),
            name=token.agent,
            thumbprint=thumbprint,
            revision=settled.revision,
            status_url=f"{self._issuer}{ENROLMENTS_PATH}/{token.id}",
            message=settled.outcome.removeprefix(CONFLICTED) if settled.outcome.startswith(CONFLICTED) else "",
            issuer=self._issuer,
            token_endpoint=f"{self._issuer}{TOKEN_ENDPOINT_PATH}",
            jwks=self._jwks(),
        )


_PENDING: Final = Settled("", None)


def _state(settled: Settled, *, merged: bool) -> EnrolmentState:
    if settled.outcome.startswith(CONFLICTED):
        return "conflicted"
    if settled.outcome == PROPOSED and not merged:
        return "proposed"
    return "committed" if settled.outcome else "pending"


def check_policy(request: EnrolmentRequest, fleet: Fleet, directory: AgentDirectory, peer: str) -> None:
    """Refuse what the agent may not say of itself.

    Raises:
        Refused: 409 ``identity-exists`` or ``address-taken``, 403 ``label-reserved``, 422 ``address-refused``.
    """
    found = directory.thumbprint(request.name)
    if found is not None and found != request.public_key.thumbprint:
        raise Refused(
            f'Agent "{request.name}" is enrolled with another key.',
            status=409,
            code="identity-exists",
            hint=f"Remove spec.identity from agents/{request.name}.yaml, then enrol again.",
        )
    reserved = {key for team in fleet.spec.teams for key in team.agent_selector} & request.labels.keys()
    if reserved:
        raise Refused(
            f'Teams select agents by the label "{min(reserved)}", so an agent may not give it to itself.',
            status=403,
            code="label-reserved",
            hint="Write the label into the agent's file instead.",
        )
    if not _may_claim(request.address, peer):
        raise Refused(
            f"{request.address} is no address that an agent may give for itself.",
            status=422,
            code="address-refused",
            hint=f"Give the machine's own IP address, or write agents/{request.name}.yaml by hand, then enrol.",
        )
    owner = directory.at(request.address)
    if owner is not None and request.name not in directory and not _is_loopback(request.address):
        raise Refused(
            f'{request.address} is the address of agent "{owner}".',
            status=409,
            code="address-taken",
            hint=f"If both are one machine, write agents/{request.name}.yaml by hand, then enrol.",
        )


def _may_claim(address: str, peer: str) -> bool:
    """An IP address of one machine. Loopback, and names (which may lead there at any time), from this machine only."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _is_loopback(peer)
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local or parsed.is_reserved:
        return False
    return not parsed.is_loopback or _is_loopback(peer)


def _is_loopback(address: str) -> bool:
    try:
        return unmapped(ipaddress.ip_address(address)).is_loopback
    except ValueError:
        return False


def _entry(entry_id: str, token: EnrolmentToken, request: EnrolmentRequest, fleet: Fleet, now: float) -> OutboxEntry:
    payload = {
        "name": request.name,
        "thumbprint": request.public_key.thumbprint,
        "address": request.address,
        "capabilities": list(request.capabilities),
        "labels": dict(request.labels),
        "version": request.version,
        "token": token.id,
        "domain": fleet.spec.domain,
        "mode": fleet.spec.registration.mode,
    }
    return OutboxEntry(entry_id, "enrolment", payload, now)


def compose(entry: OutboxEntry, *, branch: str) -> Job:
    """Turn an accepted enrolment into its commit on ``branch``, or on ``enrol/<name>`` in mode pull-request.

    Raises:
        KeyError, TypeError, ValueError: when the payload is not one of ours.
    """
    said = entry.payload
    name, thumbprint = str(said["name"]), str(said["thumbprint"])
    request = CommitRequest(
        id=entry.id,
        path=ObjectKey("Agent", "", name).path,
        edit=enrolment_edit(
            name,
            thumbprint,
            address=str(said["address"]),
            capabilities=[str(capability) for capability in said["capabilities"]],
            labels={str(key): str(value) for key, value in said["labels"].items()},
        ),
        subject=f"Enrol agent {name}",
        body=f"{name} proved that it holds the key {thumbprint}.",
        author_name=name,
        author_email=f"{name}@agents.{said['domain']}",
        time=datetime.fromtimestamp(entry.accepted_at, UTC),
        trailers={"CloudLunacy-Token": str(said["token"]), "CloudLunacy-Thumbprint": thumbprint},
    )
    if said["mode"] == "pull-request":
        return Job(request, f"enrol/{name}", base=branch, proposal=True)
    return Job(request, branch)


def recorder(
    events: EventStore, wake: Callable[[], None], clock: Callable[[], float] = time.time
) -> Callable[[OutboxEntry, Settled], Awaitable[None]]:
    """Return the listener that writes the event of a settled enrolment and wakes who looks for new commits."""

    async def record(entry: OutboxEntry, settled: Settled) -> None:
        wake()
        name = str(entry.payload.get("name", ""))
        conflicted = settled.outcome.startswith(CONFLICTED)
        await events.append(
            Event(
                time=clock(),
                type="EnrolmentConflicted" if conflicted else "AgentEnrolled",
                severity="warning" if conflicted else "info",
                subject=f"agent/{name}",
                message=settled.outcome.removeprefix(CONFLICTED) if conflicted else f"{name} enrolled.",
                revision=settled.revision or "",
                actor=f"agent:{name}",
            )
        )

    return record
