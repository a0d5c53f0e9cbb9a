"""Certificates for agents in tests, from an authority of the test's own."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from agent.certificate import Fresh
from reconciler.pki.agent_issuer import AgentIssuer
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from schemas.certificates_api import AgentCertificate

DOMAIN = "cloudlunacy.test"


def issuer(keys: Path, *, now: float, seconds: float = 86_400.0) -> AgentIssuer:
    """Return one that may sign for :data:`DOMAIN`; what it signs lives for ``seconds``."""
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    authority = Authority.open_or_found(keys, permitted=permitted_for(domain=DOMAIN), now=at)
    return AgentIssuer(authority, lifetime=dt.timedelta(seconds=seconds))


def pair(one: AgentIssuer, name: str, now: float) -> tuple[Fresh, AgentCertificate]:
    """Return a key and the certificate for it."""
    fresh = Fresh.make()
    return fresh, one.issue(DOMAIN, name, fresh.csr, now)
