"""What a caller who is known was denied: handlers of refusals that tell the audit first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from reconciler.access.audit import Audit
from reconciler.errors import Refused
from reconciler.pki.authenticator import SAFE_METHODS

Handlers = Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]


def audited(handlers: Handlers, audit: Audit) -> Handlers:
    """Return ``handlers`` of an application, with denials of what would have changed something written down."""

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, Refused) and error.actor and request.method not in SAFE_METHODS:
            handler = getattr(request.scope.get("endpoint"), "__qualname__", "")
            audit.denied(error.actor, request.method, request.url.path, error.message, endpoint=handler)
        return await handlers[Refused](request, error)

    return {**handlers, Refused: refused}
