"""On which terms a certificate of issuer ``acme`` is ordered: what its object says, and for the rest the fleet's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from reconciler.desired.certificates import desired_certificates
from reconciler.desired.state import State
from schemas.certificate import CertificateSpec
from schemas.fleet import Fleet
from schemas.names import seconds

ChallengeType = Literal["http-01", "dns-01"]


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """``directory`` and ``staging`` are URLs; ``staging`` is "" where there is none. ``contact``: mail addresses."""

    names: tuple[str, ...]
    directory: str
    staging: str
    challenge: ChallengeType
    contact: tuple[str, ...]
    terms_agreed: bool
    """The fleet says that the terms of service of its ACME servers are agreed to."""
    renew_before: timedelta


def order_terms(spec: CertificateSpec, fleet: Fleet) -> OrderTerms | None:
    """Return the terms; None for another issuer, and where the fleet has no such directory (any more)."""
    acme, order = fleet.spec.acme, spec.acme
    if spec.issuer != "acme":
        return None
    directory = acme.directories.get((order.directory if order is not None else None) or acme.usual_directory)
    if directory is None:
        return None
    return OrderTerms(
        names=spec.dns_names,
        directory=directory.url,
        staging=directory.staging or "",
        challenge=_challenge(spec, fleet),
        contact=(acme.email,) if acme.email else (),
        terms_agreed=acme.terms_agreed,
        renew_before=timedelta(seconds=seconds(spec.renew_before)),
    )


def wants_http01(state: State) -> bool:
    """Say whether fronts must lead ``/.well-known/acme-challenge/`` to the control plane."""
    fleet = state.fleet
    if fleet is None:
        return False
    specs = desired_certificates(state).values()
    return any(spec.issuer == "acme" and _challenge(spec, fleet) == "http-01" for spec in specs)


def _challenge(spec: CertificateSpec, fleet: Fleet) -> ChallengeType:
    said = (spec.acme.challenge if spec.acme is not None else None) or fleet.spec.acme.challenge
    if said is not None:
        return said
    return "dns-01" if any(name.startswith("*.") for name in spec.dns_names) else "http-01"
