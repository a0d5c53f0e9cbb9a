"""Routes for certificates; shapes in ``schemas.certificates_api`` and ``schemas.certificate_status``.

``POST /api/v1/agents/certificate``  access token and DPoP proof of an agent  200 :class:`AgentCertificate`
``GET  /api/v1/certificates``        scope read                               200 :class:`CertificateList`
``POST /api/v1/certificates/{name}/retry``  scope operate                  202 :class:`Accepted`
``GET  /.well-known/ca.pem``         no credentials                           200 ``application/x-pem-file``
``GET  /.well-known/crl.der``        no credentials                           200 ``application/pkix-crl``
``GET  /.well-known/crl/KEY.der``    no credentials                           200 the same, 404
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography import x509
from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.certificates import AgentCertificates
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.pki.authority.authority import Authority
from reconciler.web.bodies import json_answer, read_json, tagged_answer
from reconciler.web.endpoint import Endpoint
from schemas.api import Accepted
from schemas.certificate_status import LIST_PATH, RETRY_PATH, CertificateList, CertificateStatus
from schemas.certificates_api import (
    BUNDLE_PATH,
    CERTIFICATE_PATH,
    CRL_PATH,
    ISSUER_CRL_PATH,
    AgentCertificate,
    CertificateRequest,
)
from schemas.text import visible

CACHED_SECONDS: Final = 3600.0
"""How long caches may keep a list of revocations: never beyond its own end, and no revocation is late by more."""


class CertificateApi:
    """The endpoints; ``endpoints()`` is the table.

    ``statuses``: how the certificates of fronts stand. ``retry`` takes name and actor and ends the back-off of an
    order; False where none waits.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        certificates: AgentCertificates,
        authority: Authority,
        statuses: Callable[[], Sequence[CertificateStatus]] = tuple,
        retry: Callable[[str, str], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._certificates = certificates
        self._authority = authority
        self._statuses = statuses
        self._retry = retry
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("POST", CERTIFICATE_PATH, "A new certificate for the agent that asks", self.certificate, "agent",
                     request=CertificateRequest, response=AgentCertificate),
            Endpoint("GET", LIST_PATH, "How the certificates of fronts stand", self.listing, "read",
                     response=CertificateList, headers=("ETag",)),
            Endpoint("POST", RETRY_PATH, "Order a certificate now, whatever the back-off", self.retry, "operate",
                     response=Accepted, status=202),
            Endpoint("GET", BUNDLE_PATH, "Roots to trust (PEM)", self.bundle),
            Endpoint("GET", CRL_PATH, "List of revocations (RFC 5280, 5; DER)", self.crl),
            Endpoint("GET", ISSUER_CRL_PATH, "That of the intermediate with this key id, a former one too",
                     self.issuer_crl),
        )  # fmt: skip

    async def certificate(self, request: Request) -> Response:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require("agent")
        wanted = await read_json(request, CertificateRequest)
        return json_answer(await self._certificates.issue(identity.name, identity.thumbprint, wanted.csr))

    async def listing(self, request: Request) -> Response:
        self._caller(request, "read")
        return tagged_answer(request, CertificateList(certificates=tuple(self._statuses())))

    async def retry(self, request: Request) -> Response:
        caller, name = self._caller(request, "operate"), request.path_params["name"]
        if self._retry is None or not await self._retry(name, str(caller)):
            hint = "cloudlunacy certificate list shows which there are, and what holds them up."
            raise Refused(
                f'no order of a certificate "{visible(name)[:64]}" waits.', status=409, code="nothing-waits", hint=hint
            )
        return json_answer(Accepted(accepted=True, message="the next attempt is now"), 202)

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity

    async def bundle(self, _: Request) -> Response:
        bundle = await asyncio.to_thread(self._authority.bundle)
        return Response(bundle.pem, headers={"Cache-Control": "no-cache"}, media_type="application/x-pem-file")

    async def crl(self, _: Request) -> Response:
        return await self._list("")

    async def issuer_crl(self, request: Request) -> Response:
        return await self._list(request.path_params["key"])

    async def _list(self, key: str) -> Response:
        now = self._clock()
        der = await asyncio.to_thread(self._authority.crl, dt.datetime.fromtimestamp(now, dt.UTC), key)
        ends = x509.load_der_x509_crl(der).next_update_utc
        seconds = 0.0 if ends is None else max(0.0, min(CACHED_SECONDS, ends.timestamp() - now))
        headers = {"Cache-Control": f"public, max-age={seconds:.0f}"}
        return Response(der, headers=headers, media_type="application/pkix-crl")
