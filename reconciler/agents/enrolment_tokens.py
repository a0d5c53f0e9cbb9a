"""One-time tokens for enrolment, ``id.secret``: made for one name, for at most 15 minutes, stored as a hash.

The id (80 random bits) finds the row; the secret (192 random bits) is compared by its SHA-256 in constant time. A plain
hash is enough, since nobody can guess such a secret from it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

from pydantic import SecretStr

from reconciler.errors import Refused
from reconciler.store.protocols import EnrolmentToken, TokenStore
from schemas.enrolment import MAX_TOKEN_TTL, NewToken

_FORM: Final = re.compile(r"([0-9a-f]{20})\.([A-Za-z0-9_-]{32})")
_NO_HASH: Final = "0" * 64


class EnrolmentTokens:
    """Makes and checks tokens. Using one up is the store's compare-and-set."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def create(self, agent: str, *, ttl: float, created_by: str, now: float) -> NewToken:
        """Make a token for ``agent``; the answer is the only place where it ever stands in clear.

        Raises:
            Refused: 422 ``ttl-too-long``.
        """
        if not 0 < ttl <= MAX_TOKEN_TTL:
            raise Refused(
                f"A token lives for {MAX_TOKEN_TTL / 60:.0f} minutes at most.", status=422, code="ttl-too-long"
            )
        token_id, secret = secrets.token_hex(10), secrets.token_urlsafe(24)
        await self._store.add_token(EnrolmentToken(token_id, agent, _hash(secret), created_by, now + ttl))
        return NewToken(token=f"{token_id}.{secret}", id=token_id, agent=agent, expires_at=now + ttl)

    async def check(self, token: SecretStr, agent: str) -> EnrolmentToken:
        """Return the stored token that ``token`` is the secret of. Whether it is still good is not asked here.

        Raises:
            Refused: 401 ``bad-token``, the same for an unknown id and a wrong secret; 403 ``token-for-another-agent``.
        """
        form = _FORM.fullmatch(token.get_secret_value())
        stored = None if form is None else await self._store.token(form[1])
        offered = _hash("" if form is None else form[2])
        if not hmac.compare_digest(offered, _NO_HASH if stored is None else stored.secret_sha256) or stored is None:
            hint = "Make a new one with cloudlunacy token create."
            raise Refused("The enrolment token is not valid.", status=401, code="bad-token", hint=hint)
        if stored.agent != agent:
            raise Refused("The enrolment token is for another agent.", status=403, code="token-for-another-agent")
        return stored


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
