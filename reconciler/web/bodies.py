"""Bodies of requests and answers: what one may be, and how models are read from it and written to it."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """Read a model.

    Raises:
        Refused: 415 for another type of content.
        pydantic.ValidationError: :func:`reconciler.web.problem.invalid` is the answer to it.
    """
    require_type(request, "application/json")
    return model.model_validate_json(await request.body())


def require_type(request: Request, wanted: str) -> None:
    """Refuse other types: a browser's plain form cannot send JSON to us, and nothing is guessed from the content.

    Raises:
        Refused: 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise Refused(f"The body must be {wanted}.", status=415, code="unsupported-media-type")


def json_answer(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write a model, without what is None; it is not to be stored, unless ``headers`` say so."""
    content = model.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
