"""Pages of agents, deployments and databases, put together."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.agents.joining import Doorway
from reconciler.changes.documents import set_agent_state
from reconciler.changes.service import Changes
from reconciler.desired.edits import EditConflict
from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.application import Part
from reconciler.web.pages.agent_pages import AgentPages, AgentSources, Cordon
from reconciler.web.pages.database_pages import DatabasePages
from reconciler.web.pages.deployment_pages import DeploymentPages, DeploymentSources
from reconciler.web.pages.enrol_pages import EnrolPages
from reconciler.web.pages.kit import Site
from reconciler.web.pages.log_pages import LogPages
from reconciler.web.pages.placement import Placements
from schemas.api import FrontStatus
from schemas.changes_api import Change, ChangeAnswer, FileEdit
from schemas.objects import ObjectKey

if TYPE_CHECKING:
    from reconciler.app.certificate import OwnCertificate
    from reconciler.app.serving import Serving

PORT_SECONDS: Final = 60.0
"""For so long a front's port is taken for known: it changes with Traefik's static configuration alone."""
ASK_SECONDS: Final = 2.0


def agent_pages(plane: Serving, site: Site) -> tuple[Part, ...]:
    """Return every part that answers about agents and what runs there."""
    placements, deployments = Placements(), plane._deployments  # noqa: SLF001 - the composition root holds them
    store, certificates = plane._store, plane._certificates  # noqa: SLF001
    sources = DeploymentSources(
        control=plane,
        seen=deployments.seen,
        history=plane.measuring.history,
        tracker=plane._tracker,  # noqa: SLF001
        rollout=plane.rollouts.api(site.authenticator).status,
        pauses=plane.rollouts.pauses,
        commands=deployments.commands,
        errands=deployments.errands,
        events=store,
    )
    agents = AgentSources(
        control=plane,
        known=plane.measuring,
        drains=plane.health.observing,
        revocations=plane._access.revocations,  # noqa: SLF001
        events=store,
        seen=deployments.seen,
        cordon=cordoner(plane.changes),
        certificate=certificates.newest,
    )

    async def doorway() -> Doorway:
        return await asyncio.to_thread(doorway_of, plane.issuer, plane.certificate)

    return (
        EnrolPages(
            site, control=plane, tokens=EnrolmentTokens(store), doorway=doorway, placements=placements
        ),  # before /agents/{name}, for new is no name there
        AgentPages(site, agents, placements),
        LogPages(site, sources),
        DeploymentPages(site, sources, placements),
        DatabasePages(site, sources, placements, MongoDBPort(plane.fronts)),
    )


def cordoner(changes: Changes) -> Cordon:
    """Return what commits that an agent is cordoned, or is not any more."""

    async def cordon(name: str, is_cordoned: bool, identity: Identity) -> ChangeAnswer:
        path = ObjectKey("Agent", "", name).path
        text = await changes.text(path)
        if text is None:
            raise Refused(f"{path} is not on the branch any more.", status=404, code="unknown-agent")
        try:
            edited = set_agent_state(path, text, "cordoned" if is_cordoned else "active")
        except EditConflict as conflict:
            raise Refused(str(conflict), status=409, code="conflicted") from None
        message = f"{'Cordon' if is_cordoned else 'Uncordon'} agent {name}"
        return await changes.submit(Change(edits=(FileEdit(path=path, text=edited),), message=message), identity)

    return cordon


def doorway_of(issuer: str, certificate: OwnCertificate) -> Doorway:
    """Say how new agents reach the control plane. One that serves without TLS has it from what stands before it."""
    if certificate.context is None or certificate.served is None:
        return Doorway(issuer)
    root = certificate.authority.bundle().pem.partition("-----END CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(root[0] + root[1])
    key = certificate.served.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = f"sha256//{base64.b64encode(hashlib.sha256(key).digest()).decode()}"
    return Doorway(issuer, hashlib.sha256(der).hexdigest(), pin)


class MongoDBPort:
    """Where clients reach databases, as the fronts said last; they are asked once a minute, and not waited for long."""

    def __init__(
        self, fronts: Callable[[], Awaitable[Sequence[FrontStatus]]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fronts = fronts
        self._monotonic = monotonic
        self._known: int | None = None
        self._until = 0.0

    async def __call__(self) -> int | None:
        """Return it; None where no front has said it yet."""
        if self._monotonic() >= self._until:
            self._until = self._monotonic() + PORT_SECONDS
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    found = [one.mongodb_port for one in await self._fronts()]
                self._known = next(filter(None, found), self._known)
            except (CloudLunacyError, TimeoutError):
                pass  # what was known still counts
        return self._known
