"""What an ID token must be before anybody is let in by it, and who that is then. PURE: keys and clock are arguments.

1. form: three parts, an algorithm of the list (never ``none``, never one with a shared key), no type of another token;
2. signature, by a key of the provider that is made for this algorithm; keys that the token brings along count nothing;
3. claims: issuer, audience and authorized party, times, and the nonce of this very attempt
   (OpenID Connect Core 1.0, 3.1.3.7; RFC 8725).
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwk, jwt
from joserfc.errors import InvalidClaimError, JoseError, MissingClaimError

from reconciler.access.sessions import Person
from reconciler.errors import Refused
from schemas.text import visible
from schemas.tokens import LEEWAY

ALGORITHMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
}
"""Algorithm → type of its keys."""
MAX_TOKEN: Final = 64 * 1024
MAX_AGE: Final = 600.0
"""A token is made for an answer; an older one comes from somewhere else."""
MIN_RSA_BITS: Final = 2048
MAX_KEYS: Final = 100
MAX_GROUPS: Final = 2000
LONGEST_GROUP: Final = 256
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}")
_MAIL: Final = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}")
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say. ``now``: POSIX seconds."""

    issuer: str
    client_id: str
    nonce: str
    now: float


class UnknownKeyError(Refused):
    """It may be signed with a key that the provider made since its keys were read."""


def verify(token: str, keys: Sequence[Mapping[str, Any]], expected: Expected, access_token: str = "") -> dict[str, Any]:
    """Return the claims of a good token. ``keys``: JWKs of the provider (RFC 7517).

    Raises:
        UnknownKeyError: no key of the provider fits; read them anew, once.
        Refused: 403 ``login-refused``, with what is wrong.
    """
    header = _header(token)
    key = _key(header, keys)
    try:
        decoded = jwt.decode(token, key, algorithms=[str(header["alg"])])
    except (JoseError, ValueError, TypeError):
        raise refused("its signature does not fit") from None
    claims: dict[str, Any] = decoded.claims
    _require_times(claims, expected.now)
    try:
        CodeIDToken(
            claims,
            decoded.header,
            {
                "iss": {"essential": True, "value": expected.issuer},
                "aud": {"essential": True, "value": expected.client_id},
            },
            {"nonce": expected.nonce, "client_id": expected.client_id, "access_token": access_token},
        ).validate(now=int(expected.now), leeway=int(LEEWAY))
    except (InvalidClaimError, MissingClaimError) as error:
        raise refused(f"its claim {visible(str(getattr(error, 'claim', '') or error))[:80]} is wrong") from None
    except (JoseError, ValueError, TypeError, AttributeError, OverflowError):
        raise refused("its claims are wrong") from None
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        raise refused("its claim sub is wrong")
    return claims


def _header(token: str) -> Mapping[str, Any]:
    if len(token) > MAX_TOKEN or _SHAPE.fullmatch(token) is None:
        raise refused("it is no signed token")
    part = token.partition(".")[0]
    try:
        header = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("alg") not in ALGORITHMS:
        raise refused("its algorithm is none that counts here")
    if str(header.get("typ", "JWT")).lower() != "jwt" or "crit" in header or "b64" in header:
        raise refused("it is a token of another type")
    return header


def _key(header: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> jwk.RSAKey | jwk.ECKey:
    """Find the one key that a token may be signed with."""
    kid, algorithm = header.get("kid"), str(header["alg"])
    fitting = [
        one
        for one in keys[:MAX_KEYS]
        if one.get("kty") == ALGORITHMS[algorithm]
        and one.get("use", "sig") == "sig"
        and one.get("alg", algorithm) == algorithm
        and (kid is None or one.get("kid") == kid)
    ]
    if len(fitting) != 1:
        raise UnknownKeyError(
            "The ID token is not good: no single key of the provider fits it.", status=403, code="login-refused"
        )
    public = {name: value for name, value in fitting[0].items() if name in ("kty", "n", "e", "crv", "x", "y")}
    if ALGORITHMS[algorithm] == "RSA" and len(str(public.get("n", ""))) * 6 < MIN_RSA_BITS:  # base64url, 6 bits each
        raise refused(f"the provider's key for it has less than {MIN_RSA_BITS} bits")
    try:
        return (jwk.ECKey if ALGORITHMS[algorithm] == "EC" else jwk.RSAKey).import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        raise refused("the provider's key for it cannot be read") from None


def _require_times(claims: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "iat"):
        value = claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise refused(f"its claim {name} is wrong")
    if claims["exp"] + LEEWAY <= now:
        raise refused("it has expired")
    if claims["iat"] < now - MAX_AGE - LEEWAY:
        raise refused("it was made too long ago")


def refused(why: str) -> Refused:
    """Return the refusal of an answer of the provider. ``why`` never repeats a token."""
    return Refused(
        f"The ID token is not good: {why}.",
        status=403,
        code="login-refused",
        hint="Begin again at /login. Where that does not help, the provider or its settings here are wrong.",
    )


def groups_of(claims: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    """Return the groups that a claim names; None where there is no such claim. ``claim`` may be a path with dots."""
    found: Any = claims.get(claim)
    if found is None and "." in claim:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        return None
    listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    groups = dict.fromkeys(one for one in listed if isinstance(one, str) and 0 < len(one) <= LONGEST_GROUP)
    return tuple(groups)[:MAX_GROUPS]


def person_of(claims: Mapping[str, Any], issuer: str, groups: tuple[str, ...]) -> Person:
    """Return who somebody is. The name has an ``@`` always, so that it is none of a link or a token.

    It is the mail address where the provider vouches for it, else the user name at the provider: people may choose
    what else a provider tells of them, and could choose somebody else's address.
    """
    mail = claims.get("email")
    is_vouched = claims.get("email_verified") is True and isinstance(mail, str) and _MAIL.fullmatch(mail) is not None
    user = claims.get("preferred_username")
    chosen = user if isinstance(user, str) and user.strip() else str(claims["sub"])
    name = str(mail) if is_vouched else f"{_UNUSUAL.sub('-', chosen)[:64]}@{urlsplit(issuer).netloc}"
    full = claims.get("name")
    shown = " ".join(visible(full).replace("<", "").replace(">", "").split())[:80] if isinstance(full, str) else ""
    return Person(name, shown, str(mail) if is_vouched else "", issuer, str(claims["sub"]), groups)
