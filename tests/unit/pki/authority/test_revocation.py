"""Lists of revocations."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from reconciler.pki.authority.names import permitted_for
from reconciler.pki.authority.revocation import LIFETIME, Revoked, next_number, read, revocation_list, still_says
from tests.support.certificates import NOW, new_intermediate, new_root

ISSUER = new_intermediate(new_root(), permitted_for(domain="fleet.test"))
STOLEN = Revoked(5, NOW - dt.timedelta(hours=1), "keyCompromise")
GONE = Revoked(3, NOW, "unspecified")


def test_a_list_has_what_rfc_5280_wants() -> None:
    """Number, key id, both times; a reason only where there is one."""
    crl = revocation_list(ISSUER, [GONE, STOLEN], number=7, now=NOW)
    reasons = {
        one.serial_number: [
            extension.value.reason for extension in one.extensions if isinstance(extension.value, x509.CRLReason)
        ]
        for one in crl
    }

    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert (crl.next_update_utc, crl.last_update_utc) == (NOW + LIFETIME, NOW - dt.timedelta(minutes=5))
    assert reasons == {5: [x509.ReasonFlags.key_compromise], 3: []}


def test_a_list_is_used_until_half_its_time_has_passed() -> None:
    """Then it is signed anew, and so it is when the clock was put back before its date."""
    crl = revocation_list(ISSUER, [STOLEN], number=1, now=NOW)

    assert still_says(crl, [STOLEN], NOW)
    assert still_says(crl, [STOLEN], NOW + LIFETIME / 2 - dt.timedelta(minutes=10))
    assert not still_says(crl, [STOLEN], NOW + LIFETIME / 2)
    assert not still_says(crl, [STOLEN], NOW - dt.timedelta(days=2))


def test_a_list_that_lacks_one_or_is_by_another_does_not_count() -> None:
    """A revocation makes a new list; so does a new key."""
    crl = revocation_list(ISSUER, [STOLEN], number=1, now=NOW)
    other = new_intermediate(new_root(), permitted_for(domain="fleet.test"))

    der = crl.public_bytes(serialization.Encoding.DER)

    assert not still_says(crl, [STOLEN, GONE], NOW)
    assert still_says(crl, [], NOW)
    assert read(der, ISSUER) == crl
    assert read(der, other) is None
    assert read(der[:-1], ISSUER) is read(b"", ISSUER) is None
    assert read(der.replace(b"\x02\x01\x01\x30", b"\x02\x01\x48\x30", 1), ISSUER) is None  # of no version


def test_numbers_grow_also_when_the_list_or_the_time_is_lost() -> None:
    """The number holds the seconds; with the former list at hand it grows even under a clock that goes back."""
    crl = revocation_list(ISSUER, [], number=next_number(None, NOW), now=NOW)

    assert next_number(None, NOW + dt.timedelta(seconds=1)) > next_number(None, NOW)
    assert next_number(crl, NOW - dt.timedelta(days=2)) == next_number(None, NOW) + 1
