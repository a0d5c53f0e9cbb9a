"""Who asks, and may it: what every part of the API begins with."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from reconciler.pki.authenticator import Authenticator, Identity, Scope


class Callers:
    """``clock`` returns POSIX seconds."""

    def __init__(self, authenticator: Authenticator, clock: Callable[[], float]) -> None:
        self.authenticator = authenticator
        self.clock = clock

    def caller(self, request: Request, scope: Scope, team: str | None = None) -> Identity:
        """Return who asks. ``team``: whose object it is about; None: more than one team's.

        Raises:
            Refused: 401, 403.
        """
        identity = self.authenticator.authenticate(request.method, str(request.url), request.headers, self.clock())
        identity.require(scope, team)
        return identity


def peer_of(request: Request, authenticator: Authenticator) -> str:
    """Return the address of who asks, empty where nothing is known of it.

    Of who stands behind a proxy nothing is known; the proxy's own address would pass for this machine's.
    """
    return "" if request.client is None or authenticator.is_relayed(str(request.url)) else request.client.host
