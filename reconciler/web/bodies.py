"""Bodies of requests and answers: what one may be, and how models are read from it and written to it."""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.web.problem import invalid

M = TypeVar("M", bound=BaseModel)
_TAG: Final = re.compile(r'"[!#-~]*"')
_CONDITION: Final = re.compile(r'\*|(?:W/)?"[!#-~]*"(?:, *(?:W/)?"[!#-~]*")*')


async def read_json(request: Request, model: type[M]) -> M:
    """Read a model.

    Raises:
        Refused: 415 for another type of content; 422 ``invalid-request`` with the fields that are wrong.
    """
    require_type(request, "application/json")
    content = await request.body()
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise invalid(error) from None


def require_type(request: Request, wanted: str) -> None:
    """Refuse other types: a browser's plain form cannot send JSON to us, and nothing is guessed from the content.

    Raises:
        Refused: 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise Refused(f"The body must be {wanted}.", status=415, code="unsupported-media-type")


def whole_answer(model: BaseModel, status: int = 200) -> Response:
    """Write a model with everything in it, also what is None; it is not to be stored."""
    return Response(model.model_dump_json(by_alias=True), status, {"Cache-Control": "no-store"}, "application/json")


def tagged_answer(request: Request, model: BaseModel) -> Response:
    """Write a model, or say that the caller has it already (RFC 9110, 13.1.2): its tag is a digest of the text.

    Raises:
        Refused: 400 ``bad-condition``.
    """
    content = model.model_dump_json(by_alias=True).encode()
    tag = hashlib.sha256(content).hexdigest()[:32]
    return known_answer(request, tag) or Response(content, 200, _kept(tag), "application/json")


def known_answer(request: Request, tag: str) -> Response | None:
    """Return 304 to who has the version of this tag already, else None; the comparison is weak.

    Raises:
        Refused: 400 ``bad-condition``.
    """
    lines = request.headers.getlist("if-none-match")
    sent = ", ".join(lines).strip()
    if lines and not _CONDITION.fullmatch(sent):
        hint = "Send back what the header ETag said, with its quotes."
        raise Refused("If-None-Match is * or a list of tags.", status=400, code="bad-condition", hint=hint)
    return Response(None, 304, _kept(tag)) if sent == "*" or f'"{tag}"' in _TAG.findall(sent) else None


def _kept(tag: str) -> dict[str, str]:
    """Clients may keep it, and ask each time whether it still is so."""
    return {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}


def json_answer(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write a model, without what is None; it is not to be stored, unless ``headers`` say so."""
    content = model.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
