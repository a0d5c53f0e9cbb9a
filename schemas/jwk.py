"""Public keys as both sides write them: P-256 as a JWK (RFC 7517), known by its thumbprint (RFC 7638)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Model
from schemas.names import Thumbprint

Coordinate = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$"),
    Field(description="One coordinate, 32 bytes, base64url without padding (RFC 7518, 6.2.1)."),
]


class PublicJwk(Model):
    """A P-256 public key and nothing else: no private part, no hints where to look for another key.

    Whether the point lies on the curve is for the receiver to check; that takes more than the shape.
    """

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Coordinate
    y: Coordinate

    @property
    def thumbprint(self) -> str:
        """RFC 7638: SHA-256 of the required members in lexical order, without spaces; base64url."""
        members = {"crv": self.crv, "kty": self.kty, "x": self.x, "y": self.y}
        return encode(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


class SigningJwk(PublicJwk):
    """A key of the control plane's set; ``kid`` is its thumbprint."""

    kid: Thumbprint
    use: Literal["sig"] = "sig"
    alg: Literal["ES256"] = "ES256"


class JwkSet(Model):
    keys: Annotated[tuple[SigningJwk, ...], Field(max_length=16)]


def encode(value: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")
