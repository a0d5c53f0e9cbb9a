"""The authority as those who look after agents need it: names and times in, PEM out.

Of a signing request only the public key is taken. A certificate says what the fleet's domain and the agent's name make
of it, whatever its request asked for. A domain that the authority may not sign for yet is permitted when its first
certificate is asked for; where that waits for a person, agents are asked to come back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

from reconciler.pki.authority import profiles, requests
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.revocation import Reason
from reconciler.pki.permitting import require_permitted
from schemas.certificates_api import AgentCertificate


class AgentIssuer:
    """``lifetime`` is that of the certificates. Calls block."""

    def __init__(self, authority: Authority, *, lifetime: dt.timedelta = profiles.AGENT_LIFETIME) -> None:
        self._authority = authority
        self._lifetime = lifetime

    def check(self, csr: str) -> None:
        """Refuse what is no signing request that proves a P-256 key.

        Raises:
            Refused: 400 ``bad-csr``.
        """
        requests.public_key_of_csr(_bytes(csr))

    def issue(self, domain: str, name: str, csr: str, now: float) -> AgentCertificate:
        """Sign for the agent ``name`` of the fleet ``domain``.

        Raises:
            Refused: 400 ``bad-csr``; 503 ``domain-not-permitted``.
            Broken: when the authority cannot sign.
        """
        key, at = requests.public_key_of_csr(_bytes(csr)), _time(now)
        profile = replace(profiles.agent(domain, name), lifetime=self._lifetime)
        require_permitted(self._authority, domain, profile.names, at)
        leaf = self._authority.issue(profile, key, holder=_holder(name), now=at)
        ends = leaf.certificate.not_valid_after_utc.timestamp()
        return AgentCertificate(certificate=leaf.pem, bundle=self._authority.bundle().pem, not_after=ends)

    def last(self, name: str) -> tuple[float, float | None] | None:
        """Return when the agent's newest certificate ends and when it was revoked, in POSIX seconds."""
        found = self._authority.latest(_holder(name))
        if found is None:
            return None
        return found.not_after.timestamp(), None if found.revoked_at is None else found.revoked_at.timestamp()

    def holders(self, now: float) -> Mapping[str, float]:
        """Return the agents that have a good certificate, those of their services included, and the newest's issue."""
        found: dict[str, float] = {}
        for holder, issued in self._authority.holders(_time(now)).items():
            kind, _, rest = holder.partition("/")
            if kind == "agent":
                name = rest.partition("/")[0]
                found[name] = max(found.get(name, 0.0), issued.at.timestamp())
        return found

    def revoke(self, name: str, reason: Reason, now: float) -> int:
        """Revoke all that is good of an agent's, its services' included; return how many that were."""
        return len(self._authority.revoke_holder(_holder(name), reason, _time(now)))


def _holder(name: str) -> str:
    return f"agent/{name}"


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _bytes(csr: str) -> bytes:
    return csr.encode("utf-8", "replace")
