"""Requests and answers of the API for certificates.

``POST /api/v1/agents/certificate``  an agent, with a token bound to its key  → :class:`AgentCertificate`
``GET  /.well-known/ca.pem``         no credentials                           → the roots to trust, PEM
``GET  /.well-known/crl.der``        no credentials                           → list of revocations (RFC 5280, 5), DER
``GET  /.well-known/crl/KEY.der``    no credentials                           → that of one issuer, by its key id in hex
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import StringConstraints

from schemas.base import Model

CERTIFICATE_PATH: Final = "/api/v1/agents/certificate"
BUNDLE_PATH: Final = "/.well-known/ca.pem"
CRL_PATH: Final = "/.well-known/crl.der"
ISSUER_CRL_PATH: Final = "/.well-known/crl/{key}.der"

SigningRequest = Annotated[str, StringConstraints(max_length=8192)]
"""A certificate signing request (RFC 2986) in PEM. Its public key counts, and nothing else of it."""


class CertificateRequest(Model):
    """Ask for a certificate for the key that signed ``csr``; make a fresh one each time."""

    csr: SigningRequest


class AgentCertificate(Model):
    """``certificate`` is the leaf and its chain, ``bundle`` the roots to trust, both PEM."""

    certificate: str
    bundle: str
    not_after: float
    """POSIX seconds."""
