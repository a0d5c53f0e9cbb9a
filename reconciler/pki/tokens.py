"""Issue and verify tokens. Pure: clock, randomness and keys are arguments, and every refusal is a ``Refused``.

Each verifier does the same in the same order: shape and header (:mod:`reconciler.pki.jose`), the key, the signature,
then the claims. A key that a token brings along (``jwk``) counts for nothing until its thumbprint equals one that is
known from elsewhere: the enrolled one, or the one that the access token is bound to.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki import claims, jose
from reconciler.pki.jose import refused
from reconciler.pki.keystore import SigningKey
from schemas import tokens
from schemas.jwk import PublicJwk

VerifyingKeys = Mapping[str, ec.EllipticCurvePublicKey]
_NO_THUMBPRINT: Final = "-" * 43


@dataclass(frozen=True, slots=True)
class Proven:
    """Who made a one-time token, and until when its id has to be remembered."""

    name: str
    thumbprint: str
    jti: str
    accepted_until: float


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says."""

    name: str
    scopes: frozenset[str]
    thumbprint: str
    accepted_until: float
    """POSIX seconds."""


def verify_enrolment_proof(proof: str, *, key: PublicJwk, token_id: str, name: str, now: float) -> None:
    """Check that the holder of ``key`` signed this enrolment.

    Raises:
        Refused: 401; ``wrong-token`` or ``wrong-name`` when it was made for another enrolment.
    """
    unverified = jose.read(proof, typ=tokens.ENROLMENT_PROOF, key_in_header="")
    said = jose.verify(unverified, jose.public_key(key))
    claims.check(said, claims.ENROLMENT_PROOF, now)
    claims.require_equal(said, "token", token_id, "wrong-token")
    claims.require_equal(said, "name", name, "wrong-name")


def verify_client_assertion(
    assertion: str, *, issuer: str, enrolled: Callable[[str], str | None], now: float
) -> Proven:
    """Check an agent's assertion (RFC 7523, 3): iss = sub = ``agent:<name>``, aud = ``issuer``, at most 60 s long.

    ``enrolled`` gives the thumbprint of an agent, None where there is no such agent. An unknown agent and a wrong key
    are the same refusal, so that nobody can ask for names.

    Raises:
        Refused: 401.
    """
    unverified = jose.read(assertion, typ=tokens.CLIENT_ASSERTION, key_in_header="jwk")
    key = jose.jwk_of_header(unverified)
    said = jose.verify(unverified, jose.public_key(key))
    until = claims.check(said, claims.CLIENT_ASSERTION, now)
    claims.require_equal(said, "aud", issuer, "wrong-audience")
    claims.require_equal(said, "iss", claims.text(said, "sub"), "wrong-issuer")
    name = _name(said, tokens.AGENT_PREFIX)
    if not hmac.compare_digest(key.thumbprint, enrolled(name) or _NO_THUMBPRINT):
        raise refused(
            "unknown-agent",
            "No agent of this name and key is in service.",
            "Right after an enrolment it takes until the commit is published; otherwise enrol again with a new token.",
        )
    return Proven(name, key.thumbprint, claims.text(said, "jti"), until)


def issue_access_token(
    key: SigningKey,
    *,
    issuer: str,
    name: str,
    thumbprint: str,
    now: float,
    jti: str,
    lifetime: float = tokens.ACCESS_LIFETIME,
) -> str:
    """Make an access token (RFC 9068) of 10 minutes, bound to the agent's key (RFC 7800, 3.1; RFC 9449, 6.1)."""
    subject = f"{tokens.AGENT_PREFIX}{name}"
    said = {
        "iss": issuer,
        "aud": issuer,
        "sub": subject,
        "client_id": subject,
        "iat": int(now),
        "exp": int(now + lifetime),
        "jti": jti,
        "scope": tokens.AGENT_SCOPE,
        "cnf": {"jkt": thumbprint},
    }
    return key.sign_claims(said, typ=tokens.ACCESS_TOKEN)


def verify_access_token(token: str, *, keys: VerifyingKeys, issuer: str, now: float) -> Access:
    """Check a token of ours.

    Raises:
        Refused: 401.
    """
    _, said = _verify_by_kid(token, claims.ACCESS_TOKEN, keys)
    until = claims.check(said, claims.ACCESS_TOKEN, now)
    claims.require_equal(said, "iss", issuer, "wrong-issuer")
    claims.require_equal(said, "aud", issuer, "wrong-audience")
    claims.require_equal(said, "client_id", claims.text(said, "sub"), "wrong-subject")
    confirmation = said.get("cnf")
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise refused("missing-claim", 'The token is not bound to a key (claim "cnf" with member "jkt").')
    return Access(_name(said, tokens.AGENT_PREFIX), _scopes(said), claims.text(confirmation, "jkt"), until)


def verify_dpop_proof(proof: str, *, method: str, url: str, access_token: str | None, now: float) -> Proven:
    """Check a proof for one request (RFC 9449, 4.3) but for its novelty; ``name`` is empty.

    ``access_token`` is the token that the request carries, None where it carries none.

    Raises:
        Refused: 401.
    """
    unverified = jose.read(proof, typ=tokens.DPOP_PROOF, key_in_header="jwk")
    key = jose.jwk_of_header(unverified)
    said = jose.verify(unverified, jose.public_key(key))
    until = claims.check(said, claims.DPOP_PROOF, now)
    claims.require_equal(said, "htm", method, "wrong-target")
    if _target(claims.text(said, "htu")) != _target(url):
        raise refused("wrong-target", "The proof was made for another URL.")
    if access_token is not None:
        claims.require_equal(said, "ath", tokens.token_hash(access_token), "wrong-token")
    return Proven("", key.thumbprint, claims.text(said, "jti"), until)


def issue_operator_token(
    key: SigningKey, *, issuer: str, name: str, scopes: frozenset[str], now: float, jti: str, lifetime: float = 60.0
) -> str:
    """Make a token with the operator's own key, for a request or a few."""
    subject = f"{tokens.OPERATOR_PREFIX}{name}"
    said = {
        "iss": subject,
        "sub": subject,
        "aud": issuer,
        "iat": int(now),
        "exp": int(now + lifetime),
        "jti": jti,
        "scope": " ".join(sorted(scopes)),
    }
    return key.sign_claims(said, typ=tokens.OPERATOR_TOKEN)


def verify_operator_token(token: str, *, keys: VerifyingKeys, issuer: str, now: float) -> Access:
    """Check an operator's token; ``thumbprint`` is the operator's key id.

    Raises:
        Refused: 401.
    """
    key_id, said = _verify_by_kid(token, claims.OPERATOR_TOKEN, keys)
    until = claims.check(said, claims.OPERATOR_TOKEN, now)
    claims.require_equal(said, "aud", issuer, "wrong-audience")
    claims.require_equal(said, "iss", claims.text(said, "sub"), "wrong-issuer")
    return Access(_name(said, tokens.OPERATOR_PREFIX), _scopes(said), key_id, until)


def _verify_by_kid(token: str, kind: claims.Kind, keys: VerifyingKeys) -> tuple[str, Mapping[str, Any]]:
    unverified = jose.read(token, typ=kind.typ, key_in_header="kid")
    key_id = unverified.header["kid"]
    key = keys.get(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise refused("unknown-key", "The token is signed with a key that is not known here.", "Get a new token.")
    return str(key_id), jose.verify(unverified, key)


def _name(said: Mapping[str, Any], prefix: str) -> str:
    subject = claims.text(said, "sub")
    if not subject.startswith(prefix) or subject == prefix:
        raise refused("wrong-subject", f'The claim "sub" of the token does not start with "{prefix}".')
    return subject.removeprefix(prefix)


def _scopes(said: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(claims.text(said, "scope").split(" ")) - {""}


def _target(url: str) -> str:
    try:
        return tokens.target_uri(url)
    except ValueError:
        raise refused("wrong-target", "The proof or the request names no absolute URL.") from None
