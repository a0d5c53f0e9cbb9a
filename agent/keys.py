"""The agent's key: made on the machine, kept there, known to others by its RFC 7638 thumbprint.

``<data>/key.pem`` (PKCS#8, mode 0600) is written once, before the key is first used, so that an enrolment that was cut
off can be repeated with the same key.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt import PyJWS

from schemas import tokens
from schemas.jwk import PublicJwk, encode

KEY_FILE: Final = "key.pem"
_JWS: Final = PyJWS(algorithms=["ES256"])


class Unusable(Exception):
    """Something on this machine keeps the agent from working. The message says what, and what to do."""


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A P-256 key pair that signs proofs; what each kind of proof is for, ``schemas.tokens`` says."""

    public: PublicJwk
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def thumbprint(self) -> str:
        return self.public.thumbprint

    @classmethod
    def load(cls, data: Path) -> AgentKey:
        """Read the key.

        Raises:
            Unusable: when it is missing, open to others or damaged.
        """
        path = data / KEY_FILE
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}. Enrol this machine first.") from None
        if mode & 0o077:
            raise Unusable(f"{path} is open to other users (mode {mode:04o}). Run chmod 600 {path}.")
        try:
            private = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise Unusable(f"{path} does not hold a P-256 private key. Delete it and enrol this machine again.")
        return cls(_jwk(private.public_key()), private)

    @classmethod
    def load_or_create(cls, data: Path) -> AgentKey:
        """Read the key, or make one; of two processes that do so at once, both end with the same key.

        Raises:
            Unusable
        """
        path = data / KEY_FILE
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                aside = write_aside(path, _new_key())
                with suppress(FileExistsError):
                    os.link(aside, path)
                aside.unlink()
                sync_directory(data)
        except OSError as error:
            raise Unusable(f"{path} cannot be written: {error.strerror}.") from None
        return cls.load(data)

    def sign(self, claims: Mapping[str, Any], *, typ: str, with_jwk: bool) -> str:
        """Return a JWT; with ``with_jwk`` the header carries the public key."""
        header: dict[str, Any] = {"typ": typ, **({"jwk": self.public.model_dump()} if with_jwk else {})}
        return _JWS.encode(json.dumps(claims).encode(), self.private, algorithm="ES256", headers=header)

    def enrolment_proof(self, *, token_id: str, name: str, now: float) -> str:
        """Prove possession of the key to the control plane that gave the token."""
        claims = {"token": token_id, "name": name, "iat": int(now), "jti": _new_id()}
        return self.sign(claims, typ=tokens.ENROLMENT_PROOF, with_jwk=False)

    def client_assertion(self, *, name: str, issuer: str, now: float) -> str:
        """Say who this is to the token endpoint of ``issuer`` (RFC 7523)."""
        me = f"{tokens.AGENT_PREFIX}{name}"
        times = {"iat": int(now), "exp": int(now + tokens.ASSERTION_LIFETIME)}
        claims = {"iss": me, "sub": me, "aud": issuer, **times, "jti": _new_id()}
        return self.sign(claims, typ=tokens.CLIENT_ASSERTION, with_jwk=True)

    def dpop_proof(self, method: str, url: str, *, now: float, access_token: str | None = None) -> str:
        """Prove possession for one request (RFC 9449)."""
        claims = {"htm": method, "htu": tokens.target_uri(url), "iat": int(now), "jti": _new_id()}
        if access_token is not None:
            claims["ath"] = tokens.token_hash(access_token)
        return self.sign(claims, typ=tokens.DPOP_PROOF, with_jwk=True)


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file of mode 0600, durably and in one step."""
    write_aside(path, content).replace(path)
    sync_directory(path.parent)


def write_aside(path: Path, content: bytes) -> Path:
    """Write ``content`` durably beside ``path``, mode 0600, and return where."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return aside


def sync_directory(directory: Path) -> None:
    """Make renames and links in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_id() -> str:
    return secrets.token_urlsafe(16)


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _jwk(key: ec.EllipticCurvePublicKey) -> PublicJwk:
    numbers = key.public_numbers()
    return PublicJwk(
        kty="EC", crv="P-256", x=encode(numbers.x.to_bytes(32, "big")), y=encode(numbers.y.to_bytes(32, "big"))
    )
