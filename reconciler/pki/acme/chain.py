"""What is sent to be certified, and whether what came back is that. Nothing of a server's text is taken over unread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.authority.profiles import UNREADABLE

MAX_CERTIFICATES: Final = 10


class OtherKeyError(Exception):
    """A certificate is for another key than ours."""


class NoChainError(Exception):
    """A text is not a chain for exactly the names that were asked for."""


def request_for(names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """Make a CSR with the names as subjectAltName and an empty subject (RFC 8555, 7.4)."""
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(alternative, critical=True).sign(key, hashes.SHA256())


def checked_chain(pem: str, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> str:
    """Return the chain, the certificate first, written anew: nothing that stood between the certificates stays.

    Raises:
        OtherKeyError, NoChainError
    """
    try:
        chain = x509.load_pem_x509_certificates(pem.encode())
        public = chain[0].public_key()
        alternative = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        raise NoChainError from None
    if public != key.public_key():
        raise OtherKeyError
    got = [name.value.lower() if isinstance(name, x509.DNSName) else "" for name in alternative]
    if len(chain) > MAX_CERTIFICATES or set(got) != {name.lower() for name in names}:
        raise NoChainError
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in chain)
