"""One table of endpoints, from which both the routes and the OpenAPI document are made, so that they agree."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.pki.authenticator import Scope

Handler = Callable[[Request], Awaitable[Response]]
PROBLEM: Final = {
    "description": "RFC 9457 problem details",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_SECURITY_SCHEMES: Final = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Operators."},
    "dpop": {"type": "http", "scheme": "DPoP", "description": "Agents: an access token, with a proof (RFC 9449)."},
    "proof": {"type": "apiKey", "in": "header", "name": "DPoP", "description": "Proof of a key (RFC 9449, 4)."},
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``scope``: what the caller's credentials must include; None where nobody is asked, or the handler asks."""

    method: str
    path: str
    summary: str
    handler: Handler
    scope: Scope | None = None
    request: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    query: Mapping[str, str] | None = None
    """Parameter → what it does."""
    status: int = 200
    also: Mapping[int, str] | None = None
    """Further answers that are no problem, of the same shape: status → what it means."""
    media: str = "application/json"
    """Of the answer; what comes line by line has the ``response`` on each line."""
    proof: bool = False
    """The caller proves a key without having an access token."""
    anybody: bool = False
    """Any caller who is known, whatever it may do."""
    page: bool = False
    """It answers people with HTML, or is what a page is made of; the OpenAPI document leaves it out."""
    tags: tuple[str, ...] = ()
    """Groups of the API that it belongs to; without them the first word of its path after the version."""
    team: bool = False
    """The scope may be had for the team in the path, or be limited to it; else it must be for everything."""


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Return Starlette's routes for a table."""
    return [Route(one.path, one.handler, methods=[one.method]) for one in endpoints]


def openapi(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""
    endpoints = [one for one in endpoints if not one.page]
    models = [model for one in endpoints for model in (one.request, one.response) if model is not None]
    refs, definitions = models_json_schema(
        [(model, "serialization") for model in dict.fromkeys(models)],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        schema_of = {model: refs[model, "serialization"] for model in models}
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "CloudLunacy", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "ProblemDetails": _PROBLEM_SCHEMA},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _operation(one: Endpoint, schema_of: Mapping[type[BaseModel], Mapping[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Success"}
    if one.response is not None:
        answer["content"] = {one.media: {"schema": schema_of[one.response]}}
    also = {str(status): {**answer, "description": text} for status, text in (one.also or {}).items()}
    operation: dict[str, Any] = {
        "summary": one.summary,
        "operationId": one.handler.__name__,
        "responses": {str(one.status): answer, **also, "default": PROBLEM},
        "parameters": [*_path_parameters(one.path), *_query_parameters(one.query or {})],
    }
    if one.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[one.request]}},
        }
    if one.scope is not None or one.proof:
        scopes = [] if one.scope is None else [one.scope]
        operation["security"] = [{name: scopes if name != "proof" else [] for name in _schemes(one)}]
    return operation


def _schemes(one: Endpoint) -> tuple[str, ...]:
    if one.scope == "agent":
        return "dpop", "proof"
    return ("proof",) if one.scope is None else ("token",)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(query: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in query.items()
    ]
