"""Which certificate serves a host, and which hosts lose theirs by a change (docs/adr/0023).

A certificate serves the hosts that its DNS names cover; an exact name comes before a wildcard, as Traefik chooses. Each
DNS name is in one Certificate only (a claim), and whether a host may be served at all is the route's matter: a
certificate gives nobody a host. For apps below ``app.<domain>`` and databases below ``mongodb.<domain>`` there are two
*implicit* certificates of the fleet's own authority, which give way to a Certificate object with the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from reconciler.desired.claims import Claim, ClaimIndex, covered
from reconciler.desired.finding import Finding
from reconciler.desired.traefik_model import RESERVED
from schemas.certificate import Certificate
from schemas.fleet import Fleet
from schemas.objects import AnyObject, ObjectKey
from schemas.route import Route

IN_USE: Final = "certificate-in-use"
FRONT_CLIENT: Final = f"{RESERVED}fronts"
"""The certificate by which fronts prove themselves to agents whose routes ask for it. No host is served with it."""
_MOST_NAMED: Final = 5


class Loss(NamedTuple):
    """A host of a route in service that no certificate would cover."""

    host: str
    route: ObjectKey


def implicit_certificates(fleet: Fleet) -> dict[str, str]:
    """Return the implicit certificates: DNS name → name, which no object can have."""
    return {f"*.{part}.{fleet.spec.domain}": f"{RESERVED}{part}" for part in ("app", "mongodb")}


def certificate_of(host: str, claims: ClaimIndex, fleet: Fleet) -> str | None:
    """Name the certificate that serves a host or a wildcard host; None where none covers it."""
    patterns = [host] if host.startswith("*.") else [host, f"*.{host.partition('.')[2]}"]
    for pattern in patterns:
        for claim in claims.at("certificate", pattern):
            return claim.owner.name
    suffix = f".{fleet.spec.domain}"
    if not patterns[-1].endswith(suffix):
        return None
    return implicit_certificates(fleet).get(patterns[-1])


def losses(former: Certificate, users: Iterable[Claim], claims: ClaimIndex, fleet: Fleet) -> list[Loss]:
    """List the hosts that ``former`` covered and nothing covers any more. ``users``: claims of hosts where TLS ends."""
    names = frozenset(former.spec.dns_names)
    return sorted(
        {
            Loss(claim.pattern, claim.owner)
            for claim in users
            if covered(claim.pattern, names) and certificate_of(claim.pattern, claims, fleet) is None
        }
    )


def users_of(certificate: Certificate, claims: ClaimIndex, fleet: Fleet) -> Iterator[Claim]:
    """Yield the claims of hosts that a certificate covers, whether routes end TLS there or not."""
    points = fleet.spec.entry_points
    scopes = ["http", *(f"tcp:{point}" for point in sorted({points.mongodb, *points.tcp.values()}))]
    for name in certificate.spec.dns_names:
        for scope in scopes:
            yield from claims.at(scope, name)
            if name.startswith("*."):
                yield from claims.below(scope, name[2:])


def ends_tls(found: AnyObject) -> bool:
    """Say whether an object is a route at which TLS ends."""
    return isinstance(found, Route) and found.spec.tls.mode == "terminate"


def still_in_use(key: ObjectKey, lost: list[Loss]) -> Finding:
    """Say who needs the names of a certificate that are about to go."""
    named = ", ".join(f'"{one.host}" ({one.route.path})' for one in lost[:_MOST_NAMED])
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    text = f"without the former version of this certificate these hosts would lose TLS: {named}{more}."
    hint = "It stays in service. Change or delete the routes first, or cover the hosts by another certificate."
    return Finding(key.path, IN_USE, text, hint, ("spec", "dnsNames"))


def missing(path: str, host: str, field: tuple[str | int, ...]) -> Finding:
    """Say that no certificate covers a host of a route, and what to add."""
    name = host.replace("*.", "any-").replace(".", "-")[:63].strip("-")
    text = f'no certificate covers "{host}".'
    hint = (
        f"Add certificates/{name}.yaml: {{apiVersion: cloudlunacy/v1, kind: Certificate, metadata: {{name: {name}}}, "
        f'spec: {{dnsNames: ["{host}"], issuer: internal}}}}. Or leave TLS out with tls: {{mode: none}}.'
    )
    return Finding(path, "no-certificate", text, hint, field)
