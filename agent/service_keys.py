"""Fresh keys of services, and the requests that prove them."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from schemas.service_tls import KeyType


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A new key, and the request that proves it. Both PEM."""

    key_type: KeyType
    pem: bytes = field(repr=False)
    csr: str

    @classmethod
    def make(cls, key_type: KeyType) -> FreshKey:
        """Make a key; one of RSA takes up to seconds. The request names nothing: only its public key would count."""
        key = _key(key_type)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        csr = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, hashes.SHA256())
        return cls(key_type, pem, csr.public_bytes(serialization.Encoding.PEM).decode("ascii"))


def _key(key_type: KeyType) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    match key_type:
        case "p-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa-2048":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "rsa-4096":
            return rsa.generate_private_key(public_exponent=65537, key_size=4096)
