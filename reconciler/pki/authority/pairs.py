"""A certificate and its private key in one file, so that they are replaced together or not at all.

The certificate comes first, in clear, for everybody's tools; the key follows as PKCS #8, sealed where the vault has a
key, and is absent where it lies elsewhere (an offline root).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from reconciler.errors import Broken
from reconciler.pki.authority.profiles import UNREADABLE, Issuer, PrivateKey
from reconciler.pki.private_files import read_private, write_private
from reconciler.pki.vault import Vault, is_sealed, sealed

_END: Final = b"-----END CERTIFICATE-----\n"
_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, or without."""

    certificate: x509.Certificate
    key: PrivateKey | None = field(default=None, repr=False)
    sealed: bool = False
    """How the key lies in the file. Without a key here, the vault has none to open it: enough to look, not to sign."""

    @property
    def complete(self) -> bool:
        """Whether the file has the key."""
        return self.key is not None or self.sealed

    def issuer(self) -> Issuer | None:
        """Return who can sign with it; None where the key is not here.

        Raises:
            Broken: when it is sealed and cannot be opened.
        """
        if self.sealed and self.key is None:
            raise sealed(self.certificate.subject.rfc4514_string())
        return None if self.key is None else Issuer(self.certificate, self.key)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def save(path: Path, pair: Pair, purpose: str, vault: Vault) -> None:
    """Write the file, mode 0600, in one step."""
    content = pem(pair.certificate)
    if pair.key is not None:
        content += vault.seal(purpose, key_pem(pair.key))
    write_private(path, content)


def load(path: Path, purpose: str, vault: Vault) -> Pair:
    """Read the file; a key that is found in clear is sealed when the vault has a key.

    Raises:
        Broken: when it is damaged, open to others, sealed with another key, or holds two that do not belong together.
        OSError: when it cannot be read, or not be replaced.
    """
    certificate, end, rest = read_private(path).partition(_END)
    if not end:
        raise _damaged(path)
    read = read_certificate(certificate + end)
    if read is None:
        raise _damaged(path)
    if not rest:
        return Pair(read)
    if is_sealed(rest) and not vault.sealing:
        return Pair(read, sealed=True)
    key = read_key(vault.open(purpose, rest))
    if key is None:
        raise _damaged(path)
    if not same_key(key.public_key(), read.public_key()):
        raise Broken(f"{path} holds a key that is not the certificate's.", hint="Restore it from a backup.")
    pair = Pair(read, key, sealed=vault.sealing)
    if vault.wants(rest):
        save(path, pair, purpose, vault)
    return pair


def read_certificate(content: bytes) -> x509.Certificate | None:
    """Return the first certificate of PEM, None where there is none of which every part can be read.

    The parser is lazy: it takes a certificate whose key or extensions are nonsense, and raises once one looks at them.
    """
    try:
        certificate = x509.load_pem_x509_certificate(content)
        certificate.public_key()
        list(certificate.extensions)
        certificate.subject.rfc4514_string()
    except UNREADABLE:
        return None
    return certificate if certificate.serial_number > 0 else None  # RFC 5280, 4.1.2.2


def read_key(content: bytes, passphrase: bytes | None = None) -> PrivateKey | None:
    """Return a P-256, P-384 or RSA key (2048 bits or more) from PEM; None where it is none, or the passphrase wrong."""
    try:
        key = serialization.load_pem_private_key(content, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return key
    return key if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS else None


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return the key as PKCS #8, encrypted when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM, one after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def same_key(one: object, other: object) -> bool:
    """Say whether two public keys are equal."""
    return one == other


def _damaged(path: Path) -> Broken:
    return Broken(f"{path} does not hold a certificate and its key.", hint="Restore it from a backup.")
