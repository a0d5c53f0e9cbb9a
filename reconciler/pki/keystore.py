"""The private keys of the control plane, as files under ``<data>/keys``.

What lies there (PEM, PKCS#8, sealed where the vault has a key; the directory 0700, the files 0600):

``<purpose>-current.pem``   signs, and verifies
``<purpose>-next.pem``      published ahead, so that verifiers know it before it signs
``<purpose>-previous.pem``  verifies what it signed before; while it is there, a rotation is under way and next is not
``age-identity.txt``        opens sealed values
``age-identity-next.txt``, ``age-identity-previous.txt``  open them too, while one follows the other

Purposes are separate keys: a signature made for one is worth nothing for another, whatever the ``typ`` says.
One key follows another as whole files, in steps that may be done again after a crash (:mod:`reconciler.pki.rotation`).
A missing file is made on first use. Two processes may do so at once: each writes its own file aside and links it to the
final name, which only one can; the other reads what won. What is found in clear is sealed once the vault has a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.errors import Broken
from reconciler.pki import jose
from reconciler.pki.private_files import make_private_directory, read_private, remove_private, write_private
from reconciler.pki.sealing import Keyring, Opener, new_identity
from reconciler.pki.vault import Vault
from schemas.jwk import JwkSet, PublicJwk, SigningJwk

__all__ = ["KeyStore", "Purpose", "Role", "SigningKey", "write_private"]

Purpose = Literal["access", "desired", "operator"]
"""access: access tokens; desired: the agents' documents; operator: the credential of the machine's own operator."""
Role = Literal["previous", "current", "next"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
_IDENTITY: Final = "age-identity"
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


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with whatever key of a purpose is the current one by then."""

    signing: Callable[[], SigningKey]

    def sign(self, payload: bytes, *, typ: str) -> str:
        """Return a compact JWS over ``payload``."""
        return self.signing().sign(payload, typ=typ)


class KeyStore:
    """Keys by purpose and role. Opening it makes what is missing. What changes is replaced as a whole, in any thread.

    Raises:
        Broken: when a file or the directory is open to others, damaged, sealed with another key than the vault's, or
            cannot be written.
    """

    def __init__(self, directory: Path, vault: Vault = _CLEAR) -> None:
        self._directory = directory
        self._vault = vault
        with self._writing():
            make_private_directory(directory)
            self._keys = {purpose: self._load(purpose) for purpose in get_args(Purpose)}
            self.opener = Keyring(self._identities())

    def __repr__(self) -> str:
        return f"KeyStore({str(self._directory)!r})"

    def signing(self, purpose: Purpose) -> SigningKey:
        """The key that signs now."""
        return self._keys[purpose]["current"]

    def signer(self, purpose: Purpose) -> Signer:
        """Return what signs for a purpose, for whoever keeps it."""
        return Signer(lambda: self.signing(purpose))

    def verifying(self, purpose: Purpose) -> Mapping[str, ec.EllipticCurvePublicKey]:
        """Key id → public key, of all roles."""
        return {key.kid: key.private.public_key() for key in self._keys[purpose].values()}

    def jwks(self, purpose: Purpose) -> JwkSet:
        """The public keys of one purpose, as a JWK Set (RFC 7517, 5)."""
        keys = {key.kid: key.public for key in self._keys[purpose].values()}
        return JwkSet(keys=tuple(SigningJwk(kid=kid, **key.model_dump()) for kid, key in keys.items()))

    def recipient(self) -> str:
        """The age recipient that secrets are sealed to."""
        return self.opener.recipient()

    def version(self) -> str:
        """Return what changes when any key gets another role."""
        signing = (f"{purpose}-{role}:{key.kid}" for purpose, keys in self._keys.items() for role, key in keys.items())
        opening = (f"age-{role}:{opener.recipient()}" for role, opener in self.opener.openers.items())
        return " ".join((*signing, *opening))

    # --- one follows another ----------------------------------------------------------------------------------------

    def prepare_next(self, purpose: Purpose, *, fresh: bool = False) -> None:
        """See to a next key; ``fresh``: another than the one that lay beside the current key all the time."""
        with self._writing():
            if fresh:
                write_private(self._path(purpose, "next"), self._vault.seal(purpose, _new_key_file()))
            self._reload(purpose)

    def promote_next(self, purpose: Purpose) -> None:
        """Let the next key sign; the former verifies on. A second time changes nothing."""
        path = partial(self._path, purpose)
        with self._writing():
            if path("next").exists():
                if self._keys[purpose]["next"].kid != self.signing(purpose).kid:
                    write_private(path("previous"), read_private(path("current")))
                    write_private(path("current"), read_private(path("next")))
                remove_private(path("next"))
            self._reload(purpose)

    def drop_former(self, purpose: Purpose) -> None:
        """Forget the former key, and make a next one."""
        with self._writing():
            remove_private(self._path(purpose, "previous"))
            self._reload(purpose)

    def next_recipient(self) -> str:
        """Return the age recipient of the next identity, which is made where there is none."""
        with self._writing():
            self._vault.read_or_create(self._identity("next"), _IDENTITY, _new_identity_file)
            self.opener.replace(self._identities())
        return self.opener.openers["next"].recipient()

    def promote_next_identity(self) -> None:
        """Let the next identity be the one that people seal to. A second time changes nothing."""
        path, openers = self._identity, self.opener.openers
        with self._writing():
            if "next" in openers:
                if openers["next"].recipient() != openers["current"].recipient():
                    write_private(path("previous"), read_private(path("current")))
                    write_private(path("current"), read_private(path("next")))
                remove_private(path("next"))
            self.opener.replace(self._identities())

    def drop_former_identity(self) -> None:
        """Forget the former identity: what is sealed to it alone can be opened by nobody here any more."""
        with self._writing():
            remove_private(self._identity("previous"))
            self.opener.replace(self._identities())

    # --- files ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Broken(f"The keys in {self._directory} cannot be used: {error.strerror}.") from error

    def _path(self, purpose: Purpose, role: Role) -> Path:
        return self._directory / f"{purpose}-{role}.pem"

    def _identity(self, role: Role) -> Path:
        return identity_file(self._directory, role)

    def _reload(self, purpose: Purpose) -> None:
        self._keys = {**self._keys, purpose: self._load(purpose)}

    def _load(self, purpose: Purpose) -> Mapping[Role, SigningKey]:
        keys: dict[Role, SigningKey] = {}
        is_rotating = self._path(purpose, "previous").exists()
        for role in ROLES:
            path = self._path(purpose, role)
            if path.exists() or role == "current" or (role == "next" and not is_rotating):
                content = self._vault.read_or_create(path, purpose, _new_key_file)
                keys[role] = SigningKey.of(_private_key(path, content))
        return keys

    def _identities(self) -> Mapping[str, Opener]:
        self._vault.read_or_create(self._identity("current"), _IDENTITY, _new_identity_file)
        order: tuple[Role, ...] = ("current", "next", "previous")
        there = {role: path for role in order if (path := self._identity(role)).exists()}
        stored = {role: self._vault.read(path, _IDENTITY) for role, path in there.items()}
        return {role: Opener(SecretStr(one.decode("ascii", "replace").strip())) for role, one in stored.items()}


def identity_file(directory: Path, role: Role) -> Path:
    """Return where an age identity lies."""
    return directory / ("age-identity.txt" if role == "current" else f"age-identity-{role}.txt")


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
