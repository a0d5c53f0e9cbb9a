"""Tokens of people and CI: ``clt_<id>.<secret>``, with scopes and an end, stored as a hash (docs/adr/0029).

All that are known are kept in memory, so that a request is judged without asking the disk; what changes is on the disk
before it counts. A plain SHA-256 is enough, since nobody can guess 256 random bits from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

import structlog
from pydantic import SecretStr

from reconciler.errors import CloudLunacyError, Refused
from reconciler.pki.jose import refused
from reconciler.store.protocols import ApiToken, ApiTokenStore, Event, EventStore
from schemas.access_api import (
    API_TOKEN_PREFIX,
    LONGEST_SECONDS,
    ApiTokenRequest,
    ApiTokenView,
    NewApiToken,
    seconds_of,
    without_secret,
)
from schemas.names import NAME_PATTERN

log = structlog.get_logger(__name__)

MAX_TOKENS: Final = 1000
"""That may be good at once, and that are known altogether: the one that ended first makes room."""
LOOK_SECONDS: Final = 10.0
USE_SECONDS: Final = 60.0
"""To this the last use is known on disk."""
KEPT_SECONDS: Final = 90 * 86_400.0
"""After its end a token can be seen in the list for so long."""
_FORM: Final = re.compile(r"clt_([0-9a-f]{20})\.([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(NAME_PATTERN)
_NO_HASH: Final = "0" * 64
_HINT: Final = "Make a new one on the machine of the control plane: cloudlunacy token create --for ci --data DIR"


class Store(ApiTokenStore, EventStore, Protocol):
    """What has to be remembered."""


class ApiTokens:
    """``load`` before anybody is let in; ``run`` is a task of the application."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._tokens: dict[str, ApiToken] = {}
        self._used: dict[str, float] = {}
        """Token → time of its last use, where the disk does not know it yet."""
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up the tokens that an earlier process made."""
        self._tokens = {one.id: one for one in await self._store.api_tokens()}

    # --- checking -------------------------------------------------------------------------------------------------

    def check(self, token: str, now: float) -> ApiToken:
        """Return whose token this is.

        Raises:
            Refused: 401 ``bad-token``, the same for an unknown id and a wrong secret; ``token-revoked``, ``expired``.
        """
        form = _FORM.fullmatch(token)
        found = None if form is None else self._tokens.get(form[1])
        offered = _hash("" if form is None else form[2])
        if not hmac.compare_digest(offered, _NO_HASH if found is None else found.secret_sha256) or found is None:
            raise refused("bad-token", "The token is not known here.", _HINT)
        if found.revoked_at is not None:
            raise refused("token-revoked", f'The token "{found.name}" was revoked.', _HINT)
        if found.expires_at <= now:
            raise refused("expired", f'The token "{found.name}" has expired.', _HINT)
        self._used[found.id] = now
        return found

    def is_good(self, token_id: str, now: float) -> bool:
        """Say whether a token that was good still is."""
        found = self._tokens.get(token_id)
        return found is not None and _state(found, now) == "good"

    def view(self, token: ApiToken) -> ApiTokenView:
        """Describe a token without its secret."""
        used = max(token.last_used_at or 0.0, self._used.get(token.id, 0.0))
        return ApiTokenView(
            id=token.id,
            name=token.name,
            kind=token.kind,
            scopes=token.scopes,
            team=token.team,
            state=_state(token, self._clock()),
            created_by=token.created_by,
            created_at=_utc(token.created_at),
            expires_at=_utc(token.expires_at),
            last_used_at=_utc(used // USE_SECONDS * USE_SECONDS) if used else None,
        )

    def views(self) -> tuple[ApiTokenView, ...]:
        """Describe all, oldest first."""
        return tuple(self.view(one) for one in self._tokens.values())

    # --- changing -------------------------------------------------------------------------------------------------

    async def create(self, wanted: ApiTokenRequest, *, by: str) -> NewApiToken:
        """Make a token; the answer is the only place where it ever stands in clear.

        Raises:
            Refused: 422 ``lives-too-long``; 409 ``name-taken``, ``too-many-tokens``.
        """
        seconds = seconds_of(wanted.expires)
        if seconds > LONGEST_SECONDS:
            text = f"A token lives for {LONGEST_SECONDS / 86_400:.0f} days at most."
            raise Refused(text, status=422, code="lives-too-long")
        async with self._turn:
            now, token_id, secret = self._clock(), secrets.token_hex(10), secrets.token_urlsafe(32)
            name = wanted.name or f"{wanted.kind}-{token_id[:6]}"
            self._require_allowed(name, now)
            await self._make_room(now)
            scopes = tuple(sorted(set(wanted.scopes)))
            team = wanted.team or ""
            token = ApiToken(token_id, name, wanted.kind, scopes, _hash(secret), by, now, now + seconds, team=team)
            await self._store.save_api_token(token)
            self._tokens[token_id] = token
        what = f"{', '.join(scopes)}{f'; team {team}' if team else ''}"
        said = f"{by} made the token {name} ({what}) for {wanted.kind}, good until {_text(token)}."
        await self._tell("TokenCreated", token, said, actor=by)
        return NewApiToken(token=SecretStr(f"{API_TOKEN_PREFIX}{token_id}.{secret}"), **dict(self.view(token)))

    async def revoke(self, name: str, *, by: str) -> ApiTokenView:
        """End a token, by its name or id, of which the token itself begins with one; a second time changes nothing.

        Raises:
            Refused: 404 ``unknown-token``.
        """
        async with self._turn:
            token = self._named(name)
            if token.revoked_at is not None:
                return self.view(token)
            ended = replace(token, revoked_at=self._clock())
            # What is written while the disk is full does not count; what counts is on the disk.
            await self._store.save_api_token(ended)
            self._tokens[token.id] = ended
        await self._tell("TokenRevoked", ended, f"{by} revoked the token {token.name}.", actor=by)
        return self.view(ended)

    def _require_allowed(self, name: str, now: float) -> None:
        good = [one for one in self._tokens.values() if _state(one, now) == "good"]
        if any(one.name == name for one in good):
            text = f'There is a good token of the name "{name}".'
            raise Refused(text, status=409, code="name-taken", hint=f"Revoke it: cloudlunacy token revoke {name}")
        if len(good) >= MAX_TOKENS:
            hint = "cloudlunacy token list shows which are used; end others: cloudlunacy token revoke NAME"
            raise Refused(f"There are {MAX_TOKENS} good tokens.", status=409, code="too-many-tokens", hint=hint)

    async def _make_room(self, now: float) -> None:
        """Forget what ended first, where as many are known as may be. Call it with the turn, when some ended."""
        while len(self._tokens) >= MAX_TOKENS:
            first = min((one for one in self._tokens.values() if _state(one, now) != "good"), key=_end)
            await self._note_end(first.id, now)
            await self._store.forget_api_tokens(math.nextafter(_end(first), math.inf))
            await self.load()

    def _named(self, text: str) -> ApiToken:
        name = without_secret(text)
        named = [one for one in self._tokens.values() if name in (one.id, one.name)]
        good = [one for one in named if _state(one, self._clock()) == "good"]
        if not named:
            hint = "cloudlunacy token list shows them."
            shown = f'token "{name}"' if _NAME.fullmatch(name) else "such token"
            raise Refused(f"There is no {shown}.", status=404, code="unknown-token", hint=hint)
        return (good or named)[-1]

    # --- looking after them ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down uses and ends for ever. A disk that is full today may not be tomorrow."""
        while True:
            try:
                await self.look()
            except CloudLunacyError as error:
                log.warning("uses of tokens cannot be written yet", error=str(error))
            except Exception:  # a bug must not end the task
                log.exception("writing uses of tokens ended by a bug, trying again")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write down what was used, tell of first uses and of ends, and forget what ended long ago."""
        async with self._turn:
            now = self._clock()
            for token in list(self._tokens.values()):
                await self._note_use(token)
                await self._note_end(token.id, now)
            if await self._store.forget_api_tokens(now - KEPT_SECONDS):
                await self.load()

    async def _note_use(self, token: ApiToken) -> None:
        used = self._used.get(token.id)
        if used is None or used < (token.last_used_at or 0.0) + USE_SECONDS:
            return
        first = token.first_used_at is None
        noted = replace(token, last_used_at=used, first_used_at=used if first else token.first_used_at)
        await self._store.save_api_token(noted)
        self._tokens[token.id] = noted
        if first:
            await self._tell("TokenFirstUsed", noted, f"The token {token.name} was used for the first time.")

    async def _note_end(self, token_id: str, now: float) -> None:
        token = self._tokens[token_id]
        if _state(token, now) != "expired" or token.told_expiry:
            return
        noted = replace(token, told_expiry=True)
        await self._store.save_api_token(noted)
        self._tokens[token_id] = noted
        await self._tell("TokenExpired", noted, f"The token {token.name} has expired.")

    async def _tell(self, kind: str, token: ApiToken, message: str, *, actor: str = "") -> None:
        who = actor or f"{token.kind}:{token.name}"
        await self._store.append(Event(self._clock(), kind, "info", f"token/{token.id}", message, actor=who))


def _state(token: ApiToken, now: float) -> Literal["good", "expired", "revoked"]:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at <= now else "good"


def _end(token: ApiToken) -> float:
    return token.expires_at if token.revoked_at is None else min(token.revoked_at, token.expires_at)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(token: ApiToken) -> str:
    return f"{_utc(token.expires_at):%Y-%m-%d %H:%M} UTC"
