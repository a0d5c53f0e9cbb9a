"""Compact JWS, read the strict way: what is decided before a signature is looked at, and by which key.

Reading has three steps, and each fails with a :class:`Refused` of status 401 and a code of its own:

1. shape: size, three base64url parts, a signature of 64 bytes, JSON objects without repeated members;
2. header: exactly ``alg`` ES256, the expected ``typ`` and the members that this kind of token may have. Whatever
   else a header offers (jku, x5u, x5c, crit, b64, zip, …) refuses the token instead of being followed (RFC 8725);
3. signature, with a key that the caller chose.

PyJWT signs and verifies; it does not look at ``typ`` and takes tokens without exp, so nothing else is left to it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from jwt import InvalidTokenError, PyJWS
from pydantic import ValidationError

from reconciler.errors import Refused
from schemas.jwk import PublicJwk, encode

ALGORITHM: Final = "ES256"
MAX_TOKEN: Final = 4096
"""Characters. The largest of our own tokens has about 1,000."""
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{86}")
_JWS: Final = PyJWS(algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token of the right shape and type whose signature nobody has checked yet."""

    token: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Unverified(typ={self.header.get('typ')!r})"


def refused(code: str, message: str, hint: str = "") -> Refused:
    """Make the answer to a token that is not good. ``message`` never repeats the token."""
    return Refused(message, status=401, code=code, hint=hint)


def read(token: str, *, typ: str, key_in_header: str) -> Unverified:
    """Take a token apart; steps 1 and 2. ``key_in_header`` is the one further member: ``kid``, ``jwk`` or "".

    Raises:
        Refused: ``malformed-token``, ``wrong-algorithm``, ``wrong-token-type``, ``unexpected-header``.
    """
    if len(token) > MAX_TOKEN:
        raise refused("malformed-token", f"The token is longer than {MAX_TOKEN} characters.")
    if _SHAPE.fullmatch(token) is None:
        raise refused("malformed-token", "The token is not a compact JWS of three base64url parts.")
    head, body, _ = token.split(".")
    header = _json_object(head, "header")
    if header.get("alg") != ALGORITHM:
        raise refused("wrong-algorithm", f"The token is not signed with {ALGORITHM}.")
    if header.get("typ") != typ:
        raise refused("wrong-token-type", f'The token is not of type "{typ}".')
    if header.keys() != {"alg", "typ", key_in_header} - {""}:
        raise refused("unexpected-header", f'The header of a token of type "{typ}" has other members than it may.')
    return Unverified(token, header, _json_object(body, "payload"))


def verify(unverified: Unverified, key: ec.EllipticCurvePublicKey) -> Mapping[str, Any]:
    """Check the signature (step 3) and return the claims.

    Raises:
        Refused: ``bad-signature``.
    """
    try:
        _JWS.decode_complete(unverified.token, key, algorithms=[ALGORITHM])
    except InvalidTokenError:
        raise refused("bad-signature", "The signature of the token does not fit.") from None
    return unverified.claims


def sign(payload: bytes, key: ec.EllipticCurvePrivateKey, *, typ: str, header: Mapping[str, Any]) -> str:
    """Return a compact JWS over ``payload`` with ES256 (RFC 7515)."""
    return _JWS.encode(payload, key, algorithm=ALGORITHM, headers={**header, "typ": typ})


def sign_claims(
    claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, *, typ: str, header: Mapping[str, Any]
) -> str:
    """Return a JWT (RFC 7519)."""
    return sign(json.dumps(claims, separators=(",", ":")).encode(), key, typ=typ, header=header)


def public_key(jwk: PublicJwk) -> ec.EllipticCurvePublicKey:
    """Build the key.

    Raises:
        Refused: ``bad-key`` when the point is not on the curve.
    """
    x, y = (int.from_bytes(_decode(part), "big") for part in (jwk.x, jwk.y))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise refused("bad-key", "The public key is not a point of the curve P-256.") from None


def jwk_of_header(unverified: Unverified) -> PublicJwk:
    """Return the public key that a token brings along. It proves nothing until its thumbprint is a known one.

    Raises:
        Refused: ``bad-key`` for anything but the four members of a P-256 public key.
    """
    try:
        return PublicJwk.model_validate(unverified.header.get("jwk"), strict=True)
    except ValidationError:
        raise refused("bad-key", "The jwk in the header is not a P-256 public key.") from None


def jwk_of(key: ec.EllipticCurvePublicKey) -> PublicJwk:
    """Write a P-256 key as a JWK."""
    numbers = key.public_numbers()
    x, y = (encode(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    return PublicJwk(kty="EC", crv="P-256", x=x, y=y)


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _json_object(part: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(part).decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise refused("malformed-token", f"The {what} of the token is not a JSON object.") from None
    if not isinstance(value, dict):
        raise refused("malformed-token", f"The {what} of the token is not a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
