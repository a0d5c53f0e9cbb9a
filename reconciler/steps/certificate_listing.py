"""How each certificate of a state stands, for people: what is wanted, held, planned and held up. Decides nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.desired.certificates import desired_certificates
from reconciler.desired.state import State
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.renewal import INTERNAL, Delay, Desired, Keep, Source, Wait
from schemas.certificate import CertificateSpec
from schemas.certificate_status import CertificateStatus, ServedLeaf
from schemas.fleet import Fleet
from schemas.names import seconds

WARN: Final = dt.timedelta(days=30)
"""A provided pair that ends so soon wants a person: nobody else renews it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the state, each by name of the certificate."""

    pairs: Mapping[str, CertificatePair]
    planned: Mapping[str, Keep | Wait]
    delays: Mapping[str, Delay]
    probes: Mapping[str, tuple[ServedLeaf, ...]]


def desired_of(spec: CertificateSpec, fleet: Fleet) -> Desired | None:
    """Return what :func:`reconciler.pki.renewal.actions` looks at.

    None for what is left as it is: a provided certificate, and one of an ACME server that the fleet names no more.
    """
    if spec.issuer == "provided" or (spec.issuer == "acme" and not directory_of(spec, fleet)):
        return None
    return Desired(
        names=spec.dns_names,
        lifetime=dt.timedelta(seconds=seconds(spec.lifetime)),
        renew_before=dt.timedelta(seconds=seconds(spec.renew_before)),
        source=INTERNAL if spec.issuer == "internal" else Source("acme", directory_of(spec, fleet)),
    )


def directory_of(spec: CertificateSpec, fleet: Fleet) -> str:
    """Return the URL of the ACME server's directory.

    Empty for another issuer, and where the fleet has no such directory: a certificate in its last good version may name
    one that is gone.
    """
    named = spec.acme.directory if spec.acme is not None else None
    found = fleet.spec.acme.directories.get(named or fleet.spec.acme.usual_directory)
    return found.url if found is not None and spec.issuer == "acme" else ""


def listing(state: State, known: Known, now: dt.datetime) -> tuple[CertificateStatus, ...]:
    """Return one entry for each certificate that is wanted or held, in order of name."""
    assert state.fleet is not None
    specs = desired_certificates(state)
    found = []
    for name in sorted(specs.keys() | known.pairs.keys()):
        spec, pair = specs.get(name), known.pairs.get(name)
        if spec is not None:
            is_orphan = spec.issuer == "acme" and not directory_of(spec, state.fleet)
            said = _orphan(spec, pair) if is_orphan else _wanted(name, spec, pair, known, now)
            issuer, directory, names = spec.issuer, directory_of(spec, state.fleet), spec.dns_names
        else:
            assert pair is not None
            issuer, directory = pair.held.source
            names = pair.held.names
            said = {"state": "Retained", "message": "No object wants it any more; a route in service still needs it."}
        held = {} if pair is None else _held(pair)
        found.append(
            CertificateStatus(
                name=name,
                issuer=issuer,
                directory=directory,
                dns_names=names,
                probe=known.probes.get(name, ()),
                **held,
                **said,
            )
        )
    return tuple(found)


def _held(pair: CertificatePair) -> dict[str, Any]:
    held = pair.held
    return {"not_before": held.not_before, "not_after": held.not_after, "fingerprint": held.fingerprint}


def _orphan(spec: CertificateSpec, pair: CertificatePair | None) -> dict[str, Any]:
    named = spec.acme.directory if spec.acme is not None else None
    text = f'fleet.yaml has no ACME directory "{named}" any more, so nobody issues or renews it.'
    return {"state": "Pending" if pair is None else "Due", "reason": "unknown-directory", "message": text}


def _wanted(
    name: str, spec: CertificateSpec, pair: CertificatePair | None, known: Known, now: dt.datetime
) -> dict[str, Any]:
    plan, delay = known.planned.get(name), known.delays.get(name)
    if pair is None:
        reason, message, until = ("missing", "It is about to be made.", None) if delay is None else _delay(delay)
        return {"state": "Pending", "reason": reason, "message": message, "next_look": until}
    if pair.held.not_after <= now:
        text = (
            "Put a newer pair into its secret."
            if spec.provided is not None
            else "It is served for want of a newer one."
        )
        reason, message, until = ("expired", text, None) if delay is None else _delay(delay)
        return {"state": "Expired", "reason": reason, "message": message, "next_look": until}
    if spec.provided is not None:
        return _provided(pair, delay, now)
    if isinstance(plan, Wait):
        message = plan.reason if delay is None else delay.message or delay.reason
        return {"state": "Due", "reason": plan.due, "message": message, "next_look": plan.until}
    return {"state": "Good", "next_look": None if plan is None else plan.until}


def _provided(pair: CertificatePair, delay: Delay | None, now: dt.datetime) -> dict[str, Any]:
    if delay is not None:
        reason, message, until = _delay(delay)
        return {"state": "Due", "reason": reason, "message": message, "next_look": until}
    if pair.held.not_after - now < WARN:
        text = f"It ends on {pair.held.not_after:%Y-%m-%d}, and nobody renews it: put a newer pair into its secret."
        return {"state": "Due", "reason": "renewal-due", "message": text}
    return {"state": "Good"}


def _delay(delay: Delay) -> tuple[str, str, dt.datetime]:
    return delay.reason, delay.message or delay.reason, delay.until
