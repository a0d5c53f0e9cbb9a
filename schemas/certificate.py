"""A certificate that fronts serve (``certificates/<name>.yaml``), issued here, elsewhere, or provided."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Document, Model
from schemas.names import Duration, HostPattern, Name, seconds
from schemas.secret import SecretKey

SHORTEST: Final = 3600.0
"""Seconds that a certificate must be asked for."""


class CertificateUsage(Model):
    """Which agents are told of the certificate. They write that down and get neither it nor its key, which is the
    fronts' alone; what serves TLS on an agent has spec.tls of its deployment.
    """

    agents: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()


class AcmeOrder(Model):
    """How an ACME server is asked. What is left out is as the fleet's ``acme`` says."""

    directory: Name | None = None
    """One of the fleet's ``acme.directories``."""
    challenge: Literal["http-01", "dns-01"] | None = None
    """How the names are proven; a wildcard needs dns-01."""


class ProvidedPair(Model):
    """Chain and private key that come from elsewhere, both PEM, sealed in a secret of a team."""

    team: Name
    """Owner of the secret. It must own every host of ``dnsNames``."""
    secret: Name
    certificate: SecretKey = "tls.crt"
    """Key of the secret that holds the chain, the certificate first."""
    private_key: SecretKey = "tls.key"
    """Key of the secret that holds the private key."""


class CertificateSpec(Model):
    dns_names: Annotated[tuple[HostPattern, ...], Field(min_length=1, max_length=100)]
    issuer: Literal["internal", "acme", "provided"]
    """internal: the control plane's own authority; acme: an ACME server; provided: it lies in a secret."""
    acme: AcmeOrder | None = None
    """For issuer acme."""
    provided: ProvidedPair | None = None
    """For issuer provided."""
    used_by: CertificateUsage = CertificateUsage()
    lifetime: Duration = "2160h"
    """Asked-for validity, 1h at least: each renewal is a reload of every front. An ACME server may decide otherwise."""
    renew_before: Duration = "720h"
    """Renewed when less than this is left."""

    @model_validator(mode="after")
    def _renewal_fits(self) -> Self:
        if seconds(self.lifetime) < SHORTEST:
            raise ValueError(f"lifetime {self.lifetime} is shorter than 1h")
        if seconds(self.renew_before) >= seconds(self.lifetime):
            raise ValueError(f"renewBefore {self.renew_before} must be shorter than lifetime {self.lifetime}")
        return self

    @model_validator(mode="after")
    def _fits_its_issuer(self) -> Self:
        if self.acme is not None and self.issuer != "acme":
            raise ValueError(f"acme is for issuer acme, this is issuer {self.issuer}")
        if (self.provided is not None) != (self.issuer == "provided"):
            raise ValueError("issuer provided and the field provided go together")
        if self.issuer == "provided":
            if self.used_by.agents:
                raise ValueError("usedBy is for issuers internal and acme: a provided key stays on the fronts")
            if self.model_fields_set & {"lifetime", "renew_before"}:
                raise ValueError("lifetime and renewBefore are for certificates that the control plane renews")
        return self


class Certificate(Document):
    kind: Literal["Certificate"]
    spec: CertificateSpec
