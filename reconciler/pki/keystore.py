"""The private keys of the control plane, as files under ``<data>/keys``.

What lies there (PEM, PKCS#8, sealed where the vault has a key; the directory 0700, the files 0600):

``<purpose>-current.pem``   signs, and verifies
``<purpose>-next.pem``      published ahead, so that verifiers know it before it signs
``<purpose>-previous.pem``  verifies what it signed before a rotation; absent until there was one
``age-identity.txt``        opens sealed values

Purposes are separate keys: a signature made for one is worth nothing for another, whatever the ``typ`` says.
A missing file is made on first use. Two processes may do so at once: each writes its own file aside and links it to the
final name, which only one can; the other reads what won. What is found in clear is sealed once the vault has a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.errors import Broken
from reconciler.pki import jose
from reconciler.pki.private_files import make_private_directory, write_private
from reconciler.pki.sealing import Opener, new_identity
from reconciler.pki.vault import Vault
from schemas.jwk import JwkSet, PublicJwk, SigningJwk

__all__ = ["KeyStore", "Purpose", "Role", "SigningKey", "write_private"]

Purpose = Literal["access", "desired", "operator"]
"""access: access tokens; desired: the agents' documents; operator: the credential of the machine's own operator."""
Role = Literal["previous", "current", "next"]
_CLEAR: Final = Vault()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An ES256 key pair; ``kid`` is the RFC 7638 thumbprint of its public part."""

    kid: str
    public: PublicJwk
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> SigningKey:
        public = jose.jwk_of(private.public_key())
        return cls(public.thumbprint, public, private)

    def sign(self, payload: bytes, *, typ: str) -> str:
        """Return a compact JWS over ``payload`` that names this key by ``kid``."""
        return jose.sign(payload, self.private, typ=typ, header={"kid": self.kid})

    def sign_claims(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return a JWT that names this key by ``kid``."""
        return jose.sign_claims(claims, self.private, typ=typ, header={"kid": self.kid})


class KeyStore:
    """Keys by purpose and role. Opening it makes what is missing.

    Raises:
        Broken: when a file or the directory is open to others, damaged, sealed with another key than the vault's, or
            cannot be written.
    """

    def __init__(self, directory: Path, vault: Vault = _CLEAR) -> None:
        self._directory = directory
        try:
            make_private_directory(directory)
            self._keys = {purpose: self._load(purpose, vault) for purpose in get_args(Purpose)}
            identity = vault.read_or_create(directory / "age-identity.txt", "age-identity", _new_identity_file)
        except OSError as error:
            raise Broken(f"The keys in {directory} cannot be used: {error.strerror}.") from error
        self.opener = Opener(SecretStr(identity.decode("ascii", "replace").strip()))

    def __repr__(self) -> str:
        return f"KeyStore({str(self._directory)!r})"

    def signing(self, purpose: Purpose) -> SigningKey:
        """The key that signs now."""
        return self._keys[purpose]["current"]

    def verifying(self, purpose: Purpose) -> Mapping[str, ec.EllipticCurvePublicKey]:
        """Key id → public key, of all roles."""
        return {key.kid: key.private.public_key() for key in self._keys[purpose].values()}

    def jwks(self, purpose: Purpose) -> JwkSet:
        """The public keys of one purpose, as a JWK Set (RFC 7517, 5)."""
        keys = (key.public for key in self._keys[purpose].values())
        return JwkSet(keys=tuple(SigningJwk(kid=key.thumbprint, **key.model_dump()) for key in keys))

    def recipient(self) -> str:
        """The age recipient that secrets are sealed to."""
        return self.opener.recipient()

    def _load(self, purpose: Purpose, vault: Vault) -> dict[Role, SigningKey]:
        keys: dict[Role, SigningKey] = {}
        roles: tuple[Role, ...] = get_args(Role)
        for role in roles:
            path = self._directory / f"{purpose}-{role}.pem"
            if role != "previous" or path.exists():
                keys[role] = SigningKey.of(_private_key(path, vault.read_or_create(path, purpose, _new_key_file)))
        return keys


def _private_key(path: Path, content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Broken(f"{path} does not hold a P-256 private key.", hint="Restore it from a backup.")
    return key


def _new_key_file() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_identity_file() -> bytes:
    return f"{new_identity().get_secret_value()}\n".encode()
