"""Applies what the agent's own item says: whom to trust (``schemas.trust``), from the next connection and document on.

In order: the item is checked → what was believed until now is replaced on disk, then in memory → the roots beside the
agent's certificate too → a certificate under a retired authority is asked for anew. Each may be done twice.

An agent that pinned an authority of somebody else, such as a proxy's, keeps it: its connections end there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pydantic import ValidationError

from agent.certificate_files import UNREADABLE, CertificateFiles
from agent.keys import Unusable
from agent.services import RecordingService
from schemas.jwk import JwkSet
from schemas.session import Item, ItemResult, digest_of
from schemas.trust import MEMBER, TRUST_APPLIED, Trust

Leave = Callable[[frozenset[str], float], None]
"""Retired authorities, seconds: get another certificate in place of one under these."""


class Believer(Protocol):
    """:class:`agent.credentials.Credentials`."""

    @property
    def ca(self) -> str | None: ...

    async def believe(self, ca: str | None, jwks: JwkSet) -> None: ...


class TrustService:
    """The service for the agent itself. ``leave``: whoever holds certificates of the control plane's authority."""

    kinds: Final = frozenset({"Agent"})

    def __init__(self, believer: Believer, files: CertificateFiles | None = None, leave: Sequence[Leave] = ()) -> None:
        self._believer = believer
        self._files = files
        self._leave = leave
        self._record = RecordingService(self.kinds)

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        results = await self._record.apply(items)
        return [await self._one(item, result) for item, result in zip(items, results, strict=True)]

    async def _one(self, item: Item, result: ItemResult) -> ItemResult:
        if result.state != "Applied" or MEMBER not in item.spec:
            return result
        try:
            trust = Trust.model_validate(item.spec[MEMBER])
            roots = _certificates(trust.bundle)
        except (ValidationError, ssl.SSLError, *UNREADABLE):
            return ItemResult(id=item.id, state="Failed", reason="BadTrust", message="Whom to trust cannot be read.")
        try:
            await self._believer.believe(next_ca(self._believer.ca, trust.bundle, roots), trust.jwks)
            if self._files is not None:
                await asyncio.to_thread(self._files.rebundle, trust.bundle.encode())
        except (Unusable, OSError) as error:
            message = f"Whom to trust cannot be written down: {error}"
            return ItemResult(id=item.id, state="Failed", reason="NotPersisted", message=message)
        for leave in self._leave:
            leave(frozenset(trust.retired), trust.replace_within)
        message = f"{len(roots)} root(s) and {len(trust.jwks.keys)} key(s): {digest_of(item.spec[MEMBER])}"
        return ItemResult(id=item.id, state="Applied", reason=TRUST_APPLIED, message=message)


def next_ca(present: str | None, bundle: str, roots: Sequence[x509.Certificate]) -> str | None:
    """Return what connections are verified with from now on. ``roots`` are those of ``bundle``.

    The bundle follows what the control plane's authority was known by: one of its roots, or what one of them signed.
    """
    if present is None:
        return None
    pinned = _certificates(present)
    is_ours = any(one in roots or any(_signed_by(one, root) for root in roots) for one in pinned)
    return bundle if is_ours else present


def _certificates(pem: str) -> list[x509.Certificate]:
    """Raises ssl.SSLError or one of UNREADABLE when there is none, or one that TLS cannot use."""
    ssl.create_default_context(cadata=pem)
    return x509.load_pem_x509_certificates(pem.encode())


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
