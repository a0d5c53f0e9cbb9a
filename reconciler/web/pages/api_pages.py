"""``GET /api``, and with ``?operation=`` one row of it: the API for people, each row with a command and a link.

Nothing is loaded from elsewhere, and no script is needed: what can be tried without a body is a plain link.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site

MOST_FIELDS = 200
DEEPEST = 4
Document = Mapping[str, Any]


class Operation(NamedTuple):
    """One row of the API. ``said`` is what OpenAPI says of it."""

    id: str
    method: str
    path: str
    said: Document


class Field(NamedTuple):
    """A member of a body, with its place in it."""

    name: str
    type: str
    is_required: bool
    text: str


class ApiPages:
    """The pages; ``endpoints()`` is the table. ``document`` is set by the application, which alone knows all rows."""

    def __init__(self, *, site: Site) -> None:
        self._site = site
        self.document: Callable[[], bytes] = lambda: b'{"paths": {}, "tags": []}'
        self._read: tuple[bytes, Document] = (b"", {})

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (Endpoint("GET", "/api", "The API, for people", self.index, "read", page=True),)

    async def index(self, request: Request) -> Response:
        """Draw all operations by their groups, or one."""
        identity = self._site.caller(request)
        document = await self._document()
        if "operation" in request.query_params:
            return await self._operation(request, identity, document, request.query_params["operation"])
        every = tuple(operations(document))
        groups = [
            (tag["name"], tag.get("description", ""), [one for one in every if tag["name"] in one.said["tags"]])
            for tag in document["tags"]
        ]
        return await self._site.render(request, identity, "api.html.j2", groups=groups, info=document.get("info", {}))

    async def _operation(self, request: Request, identity: Identity, document: Document, name: str) -> Response:
        found = next((one for one in operations(document) if one.id == name), None)
        if found is None:
            hint = "The page /api has all there are."
            raise Refused("There is no such operation.", status=404, code="unknown-operation", hint=hint)
        return await self._site.render(
            request,
            identity,
            "api_operation.html.j2",
            one=found,
            link=link_of(found),
            curl=curl_of(found, str(request.base_url).rstrip("/")),
            body=_body_fields(document, found),
            answers=[
                (status, _resolved(document, answer)["description"], list(_answer_fields(document, answer)))
                for status, answer in found.said["responses"].items()
            ],
        )

    async def _document(self) -> Document:
        content = await asyncio.to_thread(self.document)
        if content is not self._read[0]:
            self._read = (content, json.loads(content))
        return self._read[1]


def operations(document: Document) -> Iterator[Operation]:
    """Return the rows of a document in its order."""
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield Operation(said["operationId"], method.upper(), path, said)


def link_of(one: Operation) -> str:
    """Return an address at which a GET can be tried; empty where there is no example for the path."""
    if one.method != "GET" or "101" in one.said["responses"]:
        return ""
    path = one.path
    for parameter in one.said["parameters"]:
        if parameter["in"] == "path":
            if "example" not in parameter:
                return ""
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe="/:"))
    return path


def curl_of(one: Operation, server: str) -> str:
    """Return a command that does it, with the examples of its parameters."""
    query = [
        (each["name"], each["example"][0] if isinstance(each["example"], list) else each["example"])
        for each in one.said["parameters"]
        if each["in"] == "query" and each["name"] in ("limit", "q") and "example" in each
    ]
    path = link_of(one._replace(method="GET")) or one.path
    url = f"{server}{path}" + (f"?{urlencode(query)}" if query else "")
    words = ["curl --cacert ca.pem"]
    if one.method != "GET":
        words.append(f"--request {one.method}")
    if one.said.get("security"):
        words.append("--header 'Authorization: Bearer TOKEN'")
    for media, body in one.said.get("requestBody", {}).get("content", {}).items():
        words.append(f"--header 'Content-Type: {media}' --data '{json.dumps(body.get('example', {}))}'")
        break
    return " \\\n  ".join([*words, f"'{url}'"])


def _body_fields(document: Document, one: Operation) -> list[Field]:
    content = one.said.get("requestBody", {}).get("content", {})
    return [field for body in content.values() for field in fields(document, body["schema"])][:MOST_FIELDS]


def _answer_fields(document: Document, answer: Document) -> Iterator[Field]:
    for media, body in _resolved(document, answer).get("content", {}).items():
        if media != "application/problem+json" and "schema" in body:
            yield from list(fields(document, body["schema"]))[:MOST_FIELDS]


def fields(document: Document, schema: Document, before: str = "", depth: int = 0) -> Iterator[Field]:
    """Return what a JSON Schema says of the members of an object, and of objects in it, to some depth."""
    schema = _resolved(document, schema)
    if "items" in schema:
        yield from fields(document, schema["items"], f"{before}[]", depth)
        return
    required = frozenset(schema.get("required", ()))
    for name, each in schema.get("properties", {}).items():
        place, inner = f"{before}.{name}".lstrip("."), _resolved(document, each)
        yield Field(place, type_of(document, each), name in required, str(each.get("description", "")))
        if depth < DEEPEST and ("properties" in inner or "items" in inner):
            yield from fields(document, inner, place, depth + 1)


def type_of(document: Document, schema: Document) -> str:
    """Return the type of a value in words."""
    schema = _resolved(document, schema)
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(document, each) for each in schema["anyOf"]))
    if "items" in schema:
        return f"list of {type_of(document, schema['items'])}"
    form = f" ({schema['format']})" if "format" in schema else ""
    return f"{schema.get('type', 'anything')}{form}"


def _resolved(document: Document, schema: Document) -> Document:
    reference = schema.get("$ref", "")
    if not reference.startswith("#/"):
        return schema
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found  # type: ignore[no-any-return]
