"""The authority as it serves what runs on agents: an item of a document and a signing request in, PEM out.

Holders are ``agent/<agent>/<team>/<deployment>``, so that revoking the agent revokes what is below it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Refused
from reconciler.pki.authority import profiles, requests
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Names
from reconciler.pki.authority.profiles import PublicKey
from reconciler.pki.authority.revocation import Reason
from reconciler.pki.permitting import require_permitted
from schemas.certificates_api import AgentCertificate
from schemas.names import seconds
from schemas.service_tls import KeyType, ServiceCertificate


class ServiceIssuer:
    """``lifetime`` may shorten what items say. Calls block."""

    def __init__(self, authority: Authority, *, lifetime: Callable[[float], float] = lambda wanted: wanted) -> None:
        self._authority = authority
        self._lifetime = lifetime

    def issue(
        self, domain: str, agent: str, service: str, wanted: ServiceCertificate, *, csr: str, now: float
    ) -> AgentCertificate:
        """Sign for ``service`` (``<team>/<deployment>``) on ``agent``.

        Raises:
            Refused: 400 ``bad-csr``; 409 ``name-not-permitted``; 503 ``domain-not-permitted``.
            Broken: when the authority cannot sign.
        """
        key, at = requests.public_key_of_csr(csr.encode("utf-8", "replace"), for_service=True), _time(now)
        if key_type(key) != wanted.key_type:
            message = f"The key of the signing request is not {wanted.key_type}, as the document says."
            raise Refused(message, status=400, code="bad-csr")
        names = Names(dns=wanted.dns_names)
        require_permitted(self._authority, domain, names, at)
        lifetime = dt.timedelta(seconds=self._lifetime(seconds(wanted.lifetime)))
        holder = f"agent/{agent}/{service}"
        leaf = self._authority.issue(profiles.service(names, lifetime), key, holder=holder, now=at)
        ends = leaf.certificate.not_valid_after_utc.timestamp()
        return AgentCertificate(certificate=leaf.pem, bundle=self._authority.bundle().pem, not_after=ends)

    def revoke(self, agent: str, reason: Reason, now: float) -> int:
        """Revoke all that is good of an agent's, its services' included; return how many that were."""
        return len(self._authority.revoke_holder(f"agent/{agent}", reason, _time(now)))


def key_type(key: PublicKey) -> KeyType | None:
    """Return what kind of key it is; None for one that no service may have."""
    kinds: dict[tuple[str, int], KeyType] = {
        ("ec", 256): "p-256",
        ("ec", 384): "p-384",
        ("rsa", 2048): "rsa-2048",
        ("rsa", 4096): "rsa-4096",
    }
    return kinds.get(("ec" if isinstance(key, ec.EllipticCurvePublicKey) else "rsa", key.key_size))


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
