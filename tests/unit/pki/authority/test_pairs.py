"""Certificates and keys as PEM: what is read, and what is taken for unreadable."""

from __future__ import annotations

import ssl
import warnings

from cryptography.hazmat.primitives import serialization

from reconciler.pki.authority import pairs
from tests.support.certificates import new_root


def test_a_serial_that_is_not_positive_is_no_certificate_of_ours() -> None:
    """RFC 5280, 4.1.2.2 asks for a positive one; the parser only warns of another."""
    certificate = new_root().certificate
    content = bytearray(certificate.public_bytes(serialization.Encoding.DER))
    serial = certificate.serial_number
    content[content.index(serial.to_bytes(serial.bit_length() // 8 + 1, "big"))] |= 0x80
    pem = ssl.DER_cert_to_PEM_cert(bytes(content)).encode()
    assert pairs.read_certificate(pem) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pairs.read_certificate(pem) is None
    assert pairs.read_certificate(certificate.public_bytes(serialization.Encoding.PEM)) == certificate
