"""Errors as RFC 9457 problem details; the one place that turns :class:`Refused` and surprises into responses.

Members: ``type`` (``urn:cloudlunacy:problem:<code>``), ``title`` (the code in words), ``status``, ``detail`` (what and
why, a sentence), ``hint`` (what to do), and for the token endpoint ``error`` and ``error_description`` (RFC 6749, 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.desired.grammar import sentence_of
from reconciler.errors import Broken, Refused, Transient

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:cloudlunacy:problem:"
MAX_ERRORS: Final = 20
_PROOF_CODES: Final = frozenset({"proof-missing", "wrong-target", "key-mismatch", "replayed"})
_BY_STATUS: Final = {
    400: ("bad-request", "The request cannot be read."),
    404: ("not-found", "There is nothing at this path."),
    405: ("method-not-allowed", "What is at this path does not do that; the header Allow says what it does."),
}
"""What the framework refuses by itself."""


def problem(refused: Refused, extensions: Mapping[str, Any] | None = None) -> JSONResponse:
    """Return the response for a refusal, with ``WWW-Authenticate`` and ``Retry-After`` where they belong."""
    body: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{refused.code}",
        "title": refused.code.replace("-", " ").capitalize(),
        "status": refused.status,
        "detail": refused.message,
        **({"hint": refused.hint} if refused.hint else {}),
        **refused.more,
        **(extensions or {}),
    }
    return JSONResponse(body, refused.status, _headers(refused), MEDIA_TYPE)


def invalid(error: ValidationError) -> Refused:
    """Return the 422 that names each field that is wrong; what was sent is not repeated."""
    found = error.errors(include_input=False, include_url=False)[:MAX_ERRORS]
    errors = [
        {"field": ".".join(map(str, one["loc"]))[:200], "message": sentence_of(one, "this")[:300]} for one in found
    ]
    message = f"The request is not valid: {error.error_count()} problem(s)."
    return Refused(message, status=422, code="invalid-request", more={"errors": errors})


def _headers(refused: Refused) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if refused.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(refused.retry_after))
    if refused.status == 401:
        headers["WWW-Authenticate"] = _challenge(refused.code)
    elif refused.code == "insufficient-scope":
        headers["WWW-Authenticate"] = 'DPoP error="insufficient_scope", algs="ES256", Bearer error="insufficient_scope"'
    return headers


def _challenge(code: str) -> str:
    """RFC 9449, 7.1 and RFC 6750, 3: without credentials no error is named."""
    if code == "credentials-missing":
        return 'DPoP algs="ES256", Bearer'
    error = "invalid_dpop_proof" if code in _PROOF_CODES else "invalid_token"
    return f'DPoP error="{error}", algs="ES256", Bearer error="{error}"'


def refusal_of(request: Request, error: Exception) -> Refused:
    """Return what to say of anything that ended a request; a surprise is logged, and nothing of it is told.

    The message of a surprise may hold anything. The log gets type and place.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        code, text = _BY_STATUS.get(error.status_code, ("http-error", f"{error.detail}."))
        return Refused(text, status=error.status_code, code=code)
    if isinstance(error, Transient):
        log.warning("a request cannot be served now", reason=error.reason)
        wait = error.retry_after or 5.0
        return Refused("Something that this needs is away.", status=503, code="unavailable", retry_after=wait)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    log.error(
        "a request ended by a bug",
        method=request.method,
        path=request.url.path,
        error=type(error).__name__,
        place=place,
    )
    return Refused("The control plane failed to answer; its log says where.", status=500, code="internal-error")


async def _on_error(request: Request, error: Exception) -> Response:
    response = problem(refusal_of(request, error))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Any]]] = {
    Refused: _on_error,
    HTTPException: _on_error,
    Transient: _on_error,
    Broken: _on_error,
    Exception: _on_error,
}
"""For ``Starlette(exception_handlers=…)``."""
