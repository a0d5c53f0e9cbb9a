"""What a caller reads when a request does not fit."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, StringConstraints, ValidationError

from reconciler.web.problem import invalid
from schemas.access_api import ApiTokenRequest, RevocationRequest


class Unknown(BaseModel):
    """With a form that has no sentence."""

    word: Annotated[str, StringConstraints(pattern=r"^[a-z]+canary$")]


@pytest.mark.parametrize(
    ("model", "sent", "field", "message"),
    [
        (RevocationRequest, {"reason": "a\nb"}, "reason", "this has to be one line, without control characters"),
        (
            ApiTokenRequest,
            {"kind": "ci", "scopes": ["read"], "expires": "soon"},
            "expires",
            "this is no length of time: write a whole number and s, m, h or d",
        ),
        (Unknown, {"word": "X"}, "word", "this does not have the form that is needed"),
        (RevocationRequest, {"reason": "x" * 201}, "reason", "this is too long: at most 200 characters fit"),
        (RevocationRequest, {"reason": 1}, "reason", "this has to be text"),
        (RevocationRequest, {"reason": "x", "more": 1}, "more", "this is no field that is known"),
        (ApiTokenRequest, {"scopes": ["read"], "expires": "30d"}, "kind", "this is missing"),
    ],
)
def test_a_text_of_another_form_gets_a_sentence(
    model: type[BaseModel], sent: dict[str, Any], field: str, message: str
) -> None:
    """Without a regular expression, and without what was sent."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(sent)
    refused = invalid(caught.value)
    assert (refused.status, refused.code) == (422, "invalid-request")
    assert refused.more["errors"] == [{"field": field, "message": message}]
