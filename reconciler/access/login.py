"""Attempts to log in at the provider: what a browser takes along, so that its answer can be told from a stranger's.

State, nonce and verifier go to the browser in a sealed cookie, and nothing is kept here until somebody comes back; so
however many attempts strangers begin, they take no memory. The key lives as long as the process.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from reconciler.errors import Refused

ATTEMPT_COOKIE: Final = "__Host-cloudlunacy-login"
ATTEMPT_SECONDS: Final = 600.0
MAX_USED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to the provider and back. ``onward``: the path on this site that it was begun for."""

    state: str = field(repr=False)
    """Comes back with the answer (RFC 6749, 10.12)."""
    nonce: str = field(repr=False)
    """Comes back in the ID token (OpenID Connect Core, 15.5.2)."""
    verifier: str = field(repr=False)
    """Of PKCE (RFC 7636): who has the code alone has nothing."""
    onward: str = "/"

    @classmethod
    def new(cls, onward: str) -> Attempt:
        """Begin one; each secret has 256 random bits."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), onward)


class Attempts:
    """Seals attempts, and knows those that somebody came back with until they would have expired anyway."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fernet = Fernet(Fernet.generate_key())
        self._used: OrderedDict[str, float] = OrderedDict()

    def seal(self, attempt: Attempt) -> str:
        """Return what the browser takes along."""
        return self._fernet.encrypt_at_time(json.dumps(asdict(attempt)).encode(), int(self._clock())).decode("ascii")

    def open(self, cookie: str, state: str) -> Attempt:
        """Return the attempt that ``state`` is the answer to.

        Raises:
            Refused: 403 ``login-unknown``, where this browser began none, another one, or too long ago.
        """
        try:
            # the library compares with the clock of the machine where no time is given
            content = self._fernet.decrypt_at_time(cookie.encode(), int(ATTEMPT_SECONDS), int(self._clock()))
            attempt = Attempt(**json.loads(content))
        except (InvalidToken, ValueError, TypeError):
            raise unknown() from None
        if not hmac.compare_digest(attempt.state.encode(), state.encode()) or attempt.state in self._used:
            raise unknown()
        return attempt

    def use(self, attempt: Attempt) -> None:
        """Note that somebody came back with it; it is good no more.

        Raises:
            Refused: 403 ``login-unknown``, when it was used meanwhile.
        """
        if attempt.state in self._used:
            raise unknown()
        now = self._clock()
        while self._used and (len(self._used) >= MAX_USED or next(iter(self._used.values())) < now - ATTEMPT_SECONDS):
            self._used.popitem(last=False)
        self._used[attempt.state] = now


def unknown() -> Refused:
    """Return the refusal of an answer that belongs to no attempt of this browser."""
    return Refused(
        "This login was not begun in this browser, or too long ago.",
        status=403,
        code="login-unknown",
        hint="Begin again at /login; cookies have to be allowed, and one login at a time.",
    )
