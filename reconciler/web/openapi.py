"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), made from the table of endpoints and the models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from reconciler.pki.authenticator import SESSION_COOKIE
from reconciler.web.endpoint import PROBLEM_MEDIA, PROGRAMS, AnswerHeader, Endpoint
from reconciler.web.parameters import path_parameter

ENTITY_TAG: Final = r'^(W/)?"[!#-~]*"$'
CONDITION: Final = r'^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$'
Schema = Mapping[str, Any]
_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "RFC 9457 problem details. `type` ends in a code that stays the same; `hint` says what to do.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:cloudlunacy:problem:[a-z0-9-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
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
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of a person or of CI (`cloudlunacy token create`), or the administrator's own (a JWT).",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "People in their browsers; what changes something needs an Origin of this control plane.",
    },
    "dpop": {"type": "http", "scheme": "DPoP", "description": "Agents: an access token, with a proof (RFC 9449)."},
    "proof": {"type": "apiKey", "in": "header", "name": "DPoP", "description": "Proof of a key (RFC 9449, 4)."},
}
_HEADERS: Final[Mapping[str, Schema]] = {
    "ETag": {
        "description": "Names this version of the answer; send it as If-None-Match.",
        "schema": {"type": "string", "pattern": ENTITY_TAG},
    },
    "Location": {"description": "Where to go on from here.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which to come again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "Ways to show who one is (RFC 9110, 11.6.1).", "schema": {"type": "string"}},
}
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "The query, or a header, is not as described.",
    401: "No credentials, or not good ones.",
    403: "The caller is known, and may not do this.",
    404: "There is no such thing.",
    406: "The caller takes nothing of what is answered.",
    408: "The body came too slowly.",
    409: "It does not fit what is there.",
    412: "It has changed since the caller saw it.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "The body is not as described; `errors` names each field.",
    426: "This is a WebSocket.",
    429: "Too much in a short time.",
    431: "The headers are too large.",
    503: "Something that this needs is away, or too many ask; `Retry-After` says when to come again.",
}
_COUNTED: Final = frozenset({"agent", "write", "operate", "exec"})
"""Scopes of what each caller may do so often only."""
TAGS: Final[Mapping[str, str]] = {
    "status": "What is published, and how it stands.",
    "objects": "Objects of the state repo: as they should be, as they are, and their history.",
    "changes": "Changes of objects, which are commits by who asks for them.",
    "revisions": "Commits and their way into service: record, plan, convergence.",
    "approvals": "Plans that wait for a person, and those that were approved.",
    "traffic": "Hosts and paths, who answers there, and why.",
    "routes": "Routes that agents ask for, and how traffic is shared.",
    "agents": "Machines that run deployments.",
    "deployments": "What runs on agents.",
    "databases": "Deployments that are databases.",
    "certificates": "Certificates that fronts show.",
    "secrets": "Names of secrets and their keys; never a value.",
    "events": "The timeline, and what changes right now.",
    "access": "Tokens, sessions, and agents that are locked out.",
    "enrolment": "How agents come to be known.",
    "pki": "Keys and certificates of the control plane itself.",
    "probes": "For who watches this process.",
    "installing": "What a machine needs to become an agent.",
    "webhooks": "For git hosts.",
}
_TAG_OF: Final[Mapping[str, str]] = {
    "state": "objects", "stream": "events", "tokens": "access", "sessions": "access", "session": "access",
    "enrolment-tokens": "enrolment", "reconcile": "revisions", "explain": "traffic", "hosts": "traffic",
    ".well-known": "pki", "healthz": "probes", "readyz": "probes", "metrics": "probes", "install": "installing",
    "install.sh": "installing",
}  # fmt: skip


def openapi(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """Return the document of a table; pages are left out.

    Raises:
        ValueError: when two rows would have one name.
    """
    described = [one for one in endpoints if not one.page]
    requests = [one.request for one in described if one.request is not None]
    answers = [one.response for one in described if one.response is not None]
    refs, definitions = models_json_schema(
        [
            *((model, "validation") for model in dict.fromkeys(requests)),
            *((model, "serialization") for model in dict.fromkeys(answers)),
        ],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    names = operation_names(described)
    paths: dict[str, dict[str, Any]] = {}
    tags: set[str] = set()
    for one, name in zip(described, names, strict=True):
        operation = _operation(one, name, refs)
        tags.update(operation["tags"])
        paths.setdefault(re.sub(r":\w+\}", "}", one.path), {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CloudLunacy",
            "version": version,
            "summary": "A fleet's traffic and deployments, as git says.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, **({"description": TAGS[tag]} if tag in TAGS else {})} for tag in sorted(tags, key=_place)
        ],
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "ProblemDetails": _PROBLEM_SCHEMA},
            "responses": {f"Problem{status}": _problem(status, text) for status, text in _PROBLEMS.items()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def operation_names(endpoints: Sequence[Endpoint]) -> list[str]:
    """Return a name for each row that no other has: its handler's, and where two share that, with its group."""
    names = [one.handler.__name__ for one in endpoints]
    counts = Counter(names)
    found = [
        name if counts[name] == 1 else f"{name}_{tags_of(one)[0].replace('-', '_')}"
        for one, name in zip(endpoints, names, strict=True)
    ]
    if len(set(found)) < len(found):
        raise ValueError(f"two operations have one name: {[name for name, n in Counter(found).items() if n > 1]}")
    return found


def tags_of(one: Endpoint) -> tuple[str, ...]:
    """Return the groups that an endpoint belongs to."""
    first = one.path.removeprefix("/api/v1").lstrip("/").partition("/")[0]
    return one.tags or (_TAG_OF.get(first, first),)


def _place(tag: str) -> tuple[int, str]:
    known = list(TAGS)
    return (known.index(tag) if tag in known else len(known), tag)


def _operation(one: Endpoint, name: str, refs: Mapping[Any, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": list(tags_of(one)),
        "summary": one.summary,
        "operationId": name,
        "parameters": [*_parameters(one)],
        "responses": {**_answers(one, refs), **_mistakes(one)},
    }
    if body := _bodies(one, refs):
        operation["requestBody"] = {"required": True, "content": body}
    if security := _security(one):
        operation["security"] = security
    if one.team:
        operation["x-team"] = True
        operation["description"] = "Also for members of a team and tokens limited to one, with what is that team's."
    return operation


def _parameters(one: Endpoint) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)(?::\w+)?\}", one.path):
        yield path_parameter(name).described(name, "path")
    for name, parameter in one.parameters.items():
        yield parameter.described(name, "query")
    if "ETag" in one.headers and one.method == "GET":
        yield {
            "name": "If-None-Match",
            "in": "header",
            "description": "The ETag of an answer that the caller has: where nothing has changed, it is told 304.",
            "schema": {"type": "string", "pattern": CONDITION, "maxLength": 200},
        }


def _bodies(one: Endpoint, refs: Mapping[Any, Schema]) -> dict[str, Any]:
    example = {"example": dict(one.example)} if one.example else {}
    bodies: dict[str, Any] = {media: {"schema": dict(schema)} for media, schema in (one.takes or {}).items()}
    if one.request is not None:
        bodies["application/json"] = {"schema": refs[one.request, "validation"], **example}
    return bodies


def _answers(one: Endpoint, refs: Mapping[Any, Schema]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Success"}
    if one.response is not None:
        answer["content"] = {one.media: {"schema": refs[one.response, "serialization"]}}
    elif one.media != "application/json":
        answer["content"] = {one.media: {}}
    if one.headers:
        answer["headers"] = {name: _HEADERS[name] for name in one.headers}
    found = {str(one.status): answer}
    for status, text in (one.also or {}).items():
        found[str(status)] = {**answer, "description": text}
    if "ETag" in one.headers and one.method == "GET":
        found["304"] = {"description": "The caller has it already.", "headers": {"ETag": _HEADERS["ETag"]}}
    return found


def _mistakes(one: Endpoint) -> dict[str, Any]:
    said = one.problems or {}
    found: dict[str, Any] = {}
    for status in sorted({*_statuses(one), *said} - {one.status, *(one.also or {})}):
        own = said.get(status)
        found[str(status)] = _problem(status, own) if own else {"$ref": f"#/components/responses/Problem{status}"}
    return found


def _statuses(one: Endpoint) -> Iterator[int]:
    """Say which problems an endpoint of this kind has."""
    yield from (400, 431, 503)
    if one.path.startswith(PROGRAMS):
        yield 406
    if one.scope is not None or one.proof or one.anybody:
        yield from (401, 403)
    if one.scope in _COUNTED or one.proof:
        yield 429
    if "{" in one.path:
        yield 404
    if one.method in ("POST", "PUT", "PATCH", "DELETE"):
        yield from (409, 413)
    if one.scope == "write" and one.method != "GET":
        yield from (412, 422)
    if one.request is not None or one.takes:
        yield from (408, 415, 422)


def _problem(status: int, text: str) -> dict[str, Any]:
    headers: dict[int, tuple[AnswerHeader | str, ...]] = {401: ("WWW-Authenticate",)}
    headers |= dict.fromkeys((429, 503), ("Retry-After",))
    shown = {name: _HEADERS[name] for name in headers.get(status, ())}
    return {
        "description": text,
        **({"headers": shown} if shown else {}),
        "content": {PROBLEM_MEDIA: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }


def _security(one: Endpoint) -> list[dict[str, list[str]]]:
    """Return the ways to show who one is, of which one is enough."""
    scopes: list[str] = [] if one.scope is None else [one.scope]
    person: list[dict[str, list[str]]] = [{"token": scopes}, {"session": scopes}]
    agent: list[dict[str, list[str]]] = [{"dpop": scopes, "proof": []}]
    if one.anybody:
        return [*person, *agent]
    if one.scope is None:
        return [{"proof": []}] if one.proof else []
    return agent if one.scope == "agent" else person
