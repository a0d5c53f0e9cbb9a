"""A certificate that the control plane issues and renews (``certificates/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Document, Model
from schemas.names import Duration, HostPattern, Name, seconds


class CertificateUsage(Model):
    """Where the certificate is installed, besides the routes whose hosts it covers."""

    agents: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()


class CertificateSpec(Model):
    dns_names: Annotated[tuple[HostPattern, ...], Field(min_length=1, max_length=100)]
    issuer: Literal["internal", "acme"]
    used_by: CertificateUsage = CertificateUsage()
    lifetime: Duration = "2160h"
    """Asked-for validity; an ACME server may decide otherwise."""
    renew_before: Duration = "720h"
    """Renewed when less than this is left."""

    @model_validator(mode="after")
    def _renewal_fits(self) -> Self:
        if seconds(self.renew_before) >= seconds(self.lifetime):
            raise ValueError(f"renewBefore {self.renew_before} must be shorter than lifetime {self.lifetime}")
        return self


class Certificate(Document):
    kind: Literal["Certificate"]
    spec: CertificateSpec
