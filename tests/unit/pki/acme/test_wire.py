from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.acme.wire import renewal_id

AUTHORITY = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")


def certificate(serial: int, authority: x509.AuthorityKeyIdentifier | None) -> x509.Certificate:
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if authority is not None:
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize(
    ("serial", "name"),
    [
        (0x87654321, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"),  # the example of RFC 9773, 4.1
        (0x7F, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw"),
        (0x80, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIA"),
    ],
)
def test_the_name_of_a_certificate_in_renewal_information(serial: int, name: str) -> None:
    """Key identifier of the issuer and serial as in DER, whose first bit is never set, in base64url."""
    assert renewal_id(certificate(serial, x509.AuthorityKeyIdentifier(AUTHORITY, None, None))) == name


def test_a_certificate_without_a_key_identifier_has_no_such_name() -> None:
    """Then it is renewed by our own rule."""
    assert renewal_id(certificate(1, None)) is None
    issuer = [x509.DirectoryName(x509.Name([]))]
    assert renewal_id(certificate(1, x509.AuthorityKeyIdentifier(None, issuer, 1))) is None
