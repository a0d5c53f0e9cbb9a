"""Certificate revocation lists (RFC 5280, 5), for those who are not told otherwise. Pure.

Our own verifiers do not read them: an agent that is out is refused by name at once (docs/adr/0007).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from reconciler.pki.authority.profiles import SKEW, UNREADABLE, Issuer, authority_key_id

Reason = Literal[
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
LIFETIME: Final = dt.timedelta(days=7)
"""From one list to the latest time of the next."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that counts no more."""

    serial: int
    at: dt.datetime
    reason: Reason


def revocation_list(
    issuer: Issuer, revoked: Iterable[Revoked], *, number: int, now: dt.datetime
) -> x509.CertificateRevocationList:
    """Sign a list of what ``issuer`` has revoked; ``number`` must be larger than that of any list before."""
    begins = (now - SKEW).replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(begins)
        .next_update((now + LIFETIME).replace(microsecond=0))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(authority_key_id(issuer.certificate), critical=False)
    )
    for one in sorted(revoked, key=lambda each: (each.at, each.serial)):
        builder = builder.add_revoked_certificate(_entry(one))
    return builder.sign(issuer.key, hashes.SHA256())


def read(der: bytes, issuer: Issuer) -> x509.CertificateRevocationList | None:
    """Return a list of this issuer; None where it is damaged, or another's."""
    try:
        crl = x509.load_der_x509_crl(der)
        own = crl.issuer == issuer.certificate.subject and crl.is_signature_valid(issuer.key.public_key())
    except UNREADABLE:
        return None
    return crl if own else None


def still_says(crl: x509.CertificateRevocationList, revoked: Iterable[Revoked], now: dt.datetime) -> bool:
    """Say whether a list tells of all that is revoked, and has more than half its time left."""
    begins, ends = crl.last_update_utc, crl.next_update_utc
    if ends is None or not begins <= now < begins + (ends - begins) / 2:
        return False
    return {one.serial_number for one in crl} >= {one.serial for one in revoked}


def next_number(former: x509.CertificateRevocationList | None, now: dt.datetime) -> int:
    """Return the number of the next list. It holds the seconds too, so that it grows even when the former is lost."""
    seconds = int(now.timestamp())
    if former is None:
        return seconds
    return max(seconds, former.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1)


def _entry(revoked: Revoked) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revoked.serial)
        .revocation_date(revoked.at.replace(microsecond=0))
    )
    if revoked.reason != "unspecified":  # RFC 5280, 5.3.1: better absent than unspecified
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revoked.reason)), critical=False)
    return builder.build()
