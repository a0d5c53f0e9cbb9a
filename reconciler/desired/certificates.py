"""The certificates that a state wants, the ones that its routes need, and the routes that have to wait for one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from reconciler.desired.claims import covered
from reconciler.desired.coverage import FRONT_CLIENT, certificate_of, ends_tls, implicit_certificates
from reconciler.desired.finding import Finding
from reconciler.desired.state import State
from schemas.certificate import Certificate, CertificateSpec
from schemas.objects import ObjectKey

PENDING: Final = "certificate-pending"
NO_REASONS: Final[Mapping[str, str]] = {}


def desired_certificates(state: State) -> dict[str, CertificateSpec]:
    """Return what shall exist: name → what it says. Quarantined objects in their last good version, and the implicit.

    One of these is for fronts as clients. What ``provided`` names is in a secret; the others are issued.
    """
    if state.fleet is None:
        return {}
    found = {}
    for key in state.objects:
        if key.kind == "Certificate":  # a look at the key is a tenth of one at the object
            one = state.objects[key]
            assert isinstance(one, Certificate)
            found[key.name] = one.spec
    for pattern, name in implicit_certificates(state.fleet).items():
        if not state.claims.at("certificate", pattern):
            found[name] = CertificateSpec(dns_names=(pattern,), issuer="internal")
    found[FRONT_CLIENT] = CertificateSpec(dns_names=(f"fronts.{state.fleet.spec.domain}",), issuer="internal")
    return found


def certificates_in_use(state: State) -> dict[ObjectKey, frozenset[str]]:
    """Return the names of the certificates that each route in service needs."""
    if state.fleet is None:
        return {}
    found = {}
    for key, served in state.served.items():
        if ends_tls(served.object):
            names = (certificate_of(claim.pattern, state.claims, state.fleet) for claim in served.claims)
            found[key] = frozenset(name for name in names if name is not None)
    return found


def pending(
    state: State,
    touched: Iterable[ObjectKey],
    held: Mapping[str, Collection[str]],
    why: Mapping[str, str] = NO_REASONS,
) -> dict[ObjectKey, Finding]:
    """Return the routes that came or changed and whose certificate is not there yet, with what is to be said of each.

    Given to :func:`reconciler.desired.settle.settle` as ``refused`` it keeps them out until the certificate is there.
    ``held``: names of the certificates that are there, and the DNS names in each. ``why``: what holds others up, in
    words.
    """
    found: dict[ObjectKey, Finding] = {}
    for key in touched:
        served = state.served.get(key)
        if served is None or served.retained or state.fleet is None or not ends_tls(served.object):
            continue
        for claim in served.claims:
            name = certificate_of(claim.pattern, state.claims, state.fleet)
            if name is not None and not covered(claim.pattern, held.get(name, ())):
                reason = f": {why[name]}" if name in why else ""
                text = f'the certificate "{name}" for "{claim.pattern}" is not there yet{reason}.'
                hint = (
                    "The route comes by itself once it is there; cloudlunacy certificate show NAME tells how far it is."
                )
                found[key] = Finding(key.path, PENDING, text, hint, claim.field)
                break
    return found
