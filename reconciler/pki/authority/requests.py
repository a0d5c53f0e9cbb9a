"""Certificate signing requests (PKCS #10): those of agents and services, and our own to an offline root. Pure.

Of a request that somebody else made only the public key counts. Its subject and its extensions are not even looked at:
what a certificate says comes from its profile. The signature proves that the sender has the private key.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from reconciler.errors import Refused
from reconciler.pki.authority.names import Permitted
from reconciler.pki.authority.profiles import UNREADABLE, PrivateKey, PublicKey

MAX_REQUEST: Final = 8 * 1024
"""Bytes, PEM or DER. A request with an RSA key of 4096 bits has 1.7 KiB."""
MAX_AUTHORITY_REQUEST: Final = 64 * 1024
"""Bytes. Ours to the root carry what shall be permitted."""
_RSA_BITS: Final = range(2048, 4097)
_EXPONENT: Final = 65537


def public_key_of_csr(request: bytes, *, for_service: bool = False) -> PublicKey:
    """Return the public key of a request, PEM or DER, whose sender proved to have the private one.

    An agent's key is P-256, as all keys of ours. A service of an agent may be an old program: for it P-384 and RSA of
    2048 to 4096 bits (exponent 65537) are taken too. The key is judged before its signature is computed with.

    Raises:
        Refused: 400 ``bad-csr``.
    """
    csr = _parse(request, MAX_REQUEST)
    key = _public_key(csr)
    if not _taken(key, for_service=for_service):
        wanted = "P-256, P-384 or RSA with 2048 to 4096 bits" if for_service else "P-256"
        raise _bad(f"The key of the signing request is not {wanted}.")
    _prove(csr)
    return key


def request_for_intermediate(key: PrivateKey, permitted: Permitted) -> bytes:
    """Return the PEM of a request to the root, which names what shall be permitted."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CloudLunacy intermediate")])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    builder = builder.add_extension(permitted.extension(), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request_for_intermediate(request: bytes) -> tuple[PublicKey, Permitted]:
    """Return what such a request asks for; a person decides whether it gets it.

    Raises:
        Refused: 400 ``bad-csr``.
    """
    csr = _parse(request, MAX_AUTHORITY_REQUEST)
    key = _public_key(csr)
    if not _taken(key, for_service=False):
        raise _bad("The key of the signing request is not P-256.")
    _prove(csr)
    try:
        constraints = csr.extensions.get_extension_for_class(x509.NameConstraints).value
        return key, Permitted.read(constraints)
    except UNREADABLE:
        raise _bad("The signing request does not say which names the intermediate shall sign.") from None


def _parse(request: bytes, most: int) -> x509.CertificateSigningRequest:
    if len(request) > most:
        raise _bad(f"The signing request is larger than {most} bytes.")
    try:
        if request.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_csr(request)
        return x509.load_der_x509_csr(request)
    except UNREADABLE:
        raise _bad("This is no certificate signing request (PKCS #10, PEM or DER).") from None


def _public_key(csr: x509.CertificateSigningRequest) -> PublicKey:
    try:
        key = csr.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _bad("The key of the signing request cannot be read.") from None
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise _bad("The key of the signing request is neither an elliptic-curve nor an RSA key.")
    return key


def _taken(key: PublicKey, *, for_service: bool) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1) if for_service else ec.SECP256R1)
    return for_service and key.key_size in _RSA_BITS and key.public_numbers().e == _EXPONENT


def _prove(csr: x509.CertificateSigningRequest) -> None:
    try:
        good = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        good = False
    if not good:
        raise _bad("The signing request is not signed with its own key.")


def _bad(message: str) -> Refused:
    return Refused(message, status=400, code="bad-csr", hint="Make a new request, with a fresh P-256 key.")
