"""The claims of each kind of token: which must be there, of what type, how long they hold. The clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.pki.jose import refused
from schemas import tokens

MAX_TEXT: Final = 512
MAX_ID: Final = 128
_LATEST: Final = 2.0**40
"""A date that nobody means; keeps sums of claims finite."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of token has to look like. Every claim named here is required."""

    typ: str
    key_in_header: str
    texts: tuple[str, ...]
    expires: bool
    """True: ``exp`` is required; False: the token is good for ``lifetime`` after ``iat``."""
    lifetime: float
    """The longest that a token of this kind may live, in seconds."""


ENROLMENT_PROOF: Final = Kind(tokens.ENROLMENT_PROOF, "", ("token", "name", "jti"), False, tokens.PROOF_LIFETIME)
CLIENT_ASSERTION: Final = Kind(
    tokens.CLIENT_ASSERTION, "jwk", ("iss", "sub", "aud", "jti"), True, tokens.ASSERTION_LIFETIME
)
ACCESS_TOKEN: Final = Kind(
    tokens.ACCESS_TOKEN, "kid", ("iss", "sub", "aud", "jti", "client_id", "scope"), True, tokens.ACCESS_LIFETIME
)
DPOP_PROOF: Final = Kind(tokens.DPOP_PROOF, "jwk", ("htm", "htu", "jti"), False, tokens.PROOF_LIFETIME)
OPERATOR_TOKEN: Final = Kind(
    tokens.OPERATOR_TOKEN, "kid", ("iss", "sub", "aud", "jti", "scope"), True, tokens.OPERATOR_LIFETIME
)


def check(claims: Mapping[str, Any], kind: Kind, now: float) -> float:
    """Check presence, types and times; return when the token stops being accepted.

    Raises:
        Refused: ``missing-claim``, ``bad-claim``, ``expired``, ``not-yet-valid``, ``lives-too-long``.
    """
    for name in kind.texts:
        text(claims, name)
    issued = _time(claims, "iat")
    ends = _time(claims, "exp") if kind.expires else issued + kind.lifetime
    starts = max(issued, _time(claims, "nbf") if "nbf" in claims else issued)
    if ends - issued > kind.lifetime:
        raise refused("lives-too-long", f"A token of this kind may live for {kind.lifetime:.0f} s at most.")
    if ends <= now - tokens.LEEWAY:
        raise refused("expired", "The token is too old.", "Check the clock of the sender, or get a new one.")
    if starts > now + tokens.LEEWAY:
        raise refused("not-yet-valid", "The token is dated in the future.", "Check the clock of the sender.")
    return ends + tokens.LEEWAY


def text(claims: Mapping[str, Any], name: str) -> str:
    """Return a claim that must be a text.

    Raises:
        Refused: ``missing-claim`` or ``bad-claim``.
    """
    if name not in claims:
        raise refused("missing-claim", f'The token lacks the claim "{name}".')
    value = claims[name]
    if not isinstance(value, str) or not value or len(value) > (MAX_ID if name == "jti" else MAX_TEXT):
        raise refused("bad-claim", f'The claim "{name}" of the token is not a text of the right length.')
    return value


def require_equal(claims: Mapping[str, Any], name: str, wanted: str, code: str) -> None:
    """Refuse with ``code`` where a claim is not exactly ``wanted``."""
    if text(claims, name) != wanted:
        raise refused(code, f'The claim "{name}" of the token is not the one that is needed here.')


def _time(claims: Mapping[str, Any], name: str) -> float:
    if name not in claims:
        raise refused("missing-claim", f'The token lacks the claim "{name}".')
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LATEST:
        raise refused("bad-claim", f'The claim "{name}" of the token is not a date (RFC 7519, NumericDate).')
    return float(value)
