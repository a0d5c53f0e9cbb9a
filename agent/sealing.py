"""Secrets at rest on this machine: sealed with a key that follows from the agent's own.

Whoever has one file of the agent, or a backup of it, has nothing without ``key.pem``. AES-256-GCM; the context, such as
what the text is of, is authenticated with it, so that no sealed text passes for another.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES: Final = 12


class BadSeal(Exception):
    """What is sealed was damaged, is of another context, or of another key."""


class Sealer:
    """Seals and opens for one agent."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        der = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        derive = HKDF(hashes.SHA256(), 32, salt=None, info=b"cloudlunacy agent: secrets at rest")
        self._cipher = AESGCM(derive.derive(der))

    def seal(self, text: bytes, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises BadSeal."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise BadSeal(f"what is kept of {context} is not sealed with this agent's key") from None
