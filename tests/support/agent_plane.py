"""The HTTP side of a control plane for enrolment and tokens, in memory: real routes, real keys, a fake remote."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML
from starlette.applications import Starlette
from starlette.types import ASGIApp

from reconciler.agents.certificates import AgentCertificates
from reconciler.pki.agent_issuer import AgentIssuer
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.keystore import KeyStore
from reconciler.pki.operator_credential import OperatorCredential
from reconciler.pki.replay import ReplayCache
from reconciler.pki.token_endpoint import TokenEndpoint
from reconciler.web.agent_api import AgentApi
from reconciler.web.certificate_api import CertificateApi
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from reconciler.web.problem import HANDLERS
from schemas.agent import Agent
from tests.support.tokens import ISSUER
from tests.unit.agents.enrolling import Plane, World, plane


@dataclass
class Served:
    plane: Plane
    app: ASGIApp
    authenticator: Authenticator
    operator: OperatorCredential
    keys: KeyStore
    authority: Authority

    @property
    def certificates(self) -> AgentCertificates:
        return self.plane.certificates

    def transport(self, peer: str = "192.0.2.7") -> httpx.ASGITransport:
        return httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(peer, 1))

    def client(self, peer: str = "192.0.2.7") -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport(peer), base_url=ISSUER)

    def operator_headers(self, *scopes: str) -> dict[str, str]:
        return self.operator.headers(self.plane.world.now, frozenset(scopes))

    def publish(self) -> frozenset[str]:
        """Bring into service what the remote's branch holds; what lost its place is revoked."""
        gone = self.plane.world.directory.update(agents_of(self.plane.world.remote.main))
        self.certificates.revoke(gone)
        return gone


def agents_of(files: dict[str, bytes]) -> dict[str, Agent]:
    yaml: Any = YAML(typ="safe", pure=True)
    agents = [Agent.model_validate(yaml.load(content.decode())) for content in files.values()]
    return {agent.metadata.name: agent for agent in agents}


@asynccontextmanager
async def served(data: Path, world: World | None = None, **options: Any) -> AsyncIterator[Served]:
    """Run one on ``data``; its authority is made when it is not there."""
    world = world or World()
    keys = KeyStore(data / "keys")
    began = dt.datetime.fromtimestamp(world.now, dt.UTC)
    authority = Authority.open_or_found(
        data / "keys", permitted=permitted_for(domain=world.fleet.spec.domain), now=began
    )
    world.issuer = AgentIssuer(authority)
    async with plane(world, **options) as one:
        replays = ReplayCache()
        authenticator = Authenticator(issuer=ISSUER, origins=(), keys=keys, agents=world.directory, replays=replays)
        endpoint = TokenEndpoint(keys=keys, agents=world.directory, authenticator=authenticator, replays=replays)
        one.enrolments._jwks = lambda: keys.jwks("desired")
        api = AgentApi(
            authenticator=authenticator,
            enrolments=one.enrolments,
            tokens=one.tokens,
            endpoint=endpoint,
            keys=keys,
            clock=lambda: world.now,
        )
        more = CertificateApi(
            authenticator=authenticator, certificates=one.certificates, authority=authority, clock=lambda: world.now
        )
        routes = routes_of((*api.endpoints(), *more.endpoints()))
        app = Limits(Starlette(routes=routes, exception_handlers=dict(HANDLERS)))
        operator = OperatorCredential.write(data, address=ISSUER, issuer=ISSUER, keys=keys)
        revoking = asyncio.create_task(one.certificates.run())
        try:
            yield Served(one, app, authenticator, operator, keys, authority)
        finally:
            revoking.cancel()
            with suppress(asyncio.CancelledError):
                await revoking
