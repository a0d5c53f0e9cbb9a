"""A control plane that takes enrolments, on a disk and a remote that outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.agents.certificates import AgentCertificates, Issuer, Reason
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.enrolment import Enrolments, compose, recorder
from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.agents.group_commit import GroupCommitter, Pusher, Timing
from reconciler.agents.rates import Bucket
from reconciler.errors import Refused
from reconciler.pki.tokens import verify_enrolment_proof
from schemas.certificates_api import AgentCertificate
from schemas.enrolment import EnrolmentRequest
from schemas.fleet import Fleet
from schemas.jwk import JwkSet
from tests.support.memory_remote import MemoryRemote
from tests.support.memory_store import Disk, MemoryStore
from tests.support.tokens import ISSUER, NOW, jwk, jws, new_key

FAST = Timing(linger=0.001, linger_most=0.02, first_pause=0.001, longest_pause=0.01, tell=0.0)


def fleet(**spec: Any) -> Fleet:
    document = {"apiVersion": "cloudlunacy/v1", "kind": "Fleet", "metadata": {"name": "example"}}
    return Fleet.model_validate({**document, "spec": {"domain": "cloudlunacy.test", **spec}})


def request(
    key: ec.EllipticCurvePrivateKey, token: str, name: str = "vps-9", now: float = NOW, **changed: Any
) -> EnrolmentRequest:
    claims = {"token": token.split(".", maxsplit=1)[0], "name": name, "iat": now, "jti": "j"}
    proof = jws(key, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)
    said = {"token": token, "name": name, "publicKey": jwk(key), "proof": proof, "address": "10.0.0.9", **changed}
    return EnrolmentRequest.model_validate(said)


class NoAuthority:
    """Signs nothing yet."""

    def check(self, csr: str) -> None:
        """Take any."""

    def issue(self, domain: str, name: str, csr: str, now: float) -> AgentCertificate:
        raise Refused("There is no authority.", status=503, code="domain-not-permitted", retry_after=1.0)

    def last(self, name: str) -> tuple[float, float | None] | None:
        return None

    def holders(self, now: float) -> Mapping[str, float]:
        return {}

    def revoke(self, name: str, reason: Reason, now: float) -> int:
        return 0


def known_directory() -> AgentDirectory:
    """A directory of a control plane in which no agent is in service yet."""
    directory = AgentDirectory()
    directory.update({})
    return directory


@dataclass
class World:
    """What survives a crash: the disk, and the remote. ``now`` is the clock."""

    disk: Disk = field(default_factory=Disk)
    remote: MemoryRemote = field(default_factory=MemoryRemote)
    fleet: Fleet = field(default_factory=fleet)
    directory: AgentDirectory = field(default_factory=known_directory)
    now: float = NOW
    woken: int = 0
    issuer: Issuer = field(default_factory=NoAuthority)
    answer_seconds: float = 5.0

    def wake(self) -> None:
        self.woken += 1


@dataclass
class Plane:
    """One process on that world."""

    store: Any
    tokens: EnrolmentTokens
    committer: GroupCommitter
    enrolments: Enrolments
    certificates: AgentCertificates
    world: World

    async def token(self, name: str = "vps-9", ttl: float = 900.0) -> str:
        return (await self.tokens.create(name, ttl=ttl, created_by="operator:test", now=self.world.now)).token

    async def check(self, token: str, name: str = "vps-9") -> object:
        return await self.tokens.check(SecretStr(token), name)


@asynccontextmanager
async def plane(
    world: World,
    *,
    pace: Bucket | None = None,
    store: Any = None,
    pusher: Pusher | None = None,
    tell: float = FAST.tell,
) -> AsyncIterator[Plane]:
    """Open a process; ``store`` and ``pusher`` stand in place of those in memory."""
    store = store or MemoryStore(world.disk)
    tokens = EnrolmentTokens(store)
    committer = GroupCommitter(
        store,
        pusher or world.remote,
        partial(compose, branch="main"),
        pace=pace or Bucket(1000, 1000),
        timing=replace(FAST, tell=tell),
        on_settled=recorder(store, world.wake, lambda: world.now),
        clock=lambda: world.now,
    )
    certificates = AgentCertificates(world.issuer, world.directory, lambda: world.fleet, store, clock=lambda: world.now)
    enrolments = Enrolments(
        issuer=ISSUER,
        tokens=tokens,
        store=store,
        committer=committer,
        directory=world.directory,
        fleet=lambda: world.fleet,
        verify_proof=verify_enrolment_proof,
        jwks=lambda: JwkSet(keys=()),
        certificates=certificates,
        answer_seconds=world.answer_seconds,
        clock=lambda: world.now,
    )
    task = asyncio.create_task(committer.run())
    await committer.resumed.wait()
    try:
        yield Plane(store, tokens, committer, enrolments, certificates, world)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


KEY, OTHER = new_key(), new_key()


PEER = "192.0.2.7"


def run(scenario: Callable[[Plane], Awaitable[object]], world: World | None = None, **options: Any) -> World:
    world = world or World()

    async def main() -> None:
        async with plane(world, **options) as one:
            await scenario(one)

    asyncio.run(main())
    return world


async def refusal(call: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.status, caught.value.code
