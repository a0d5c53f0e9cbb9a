"""One table makes the routes and the OpenAPI document: what it says is what is served."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.web.endpoint import Endpoint, routes_of
from reconciler.web.openapi import openapi, operation_names
from reconciler.web.parameters import one_of
from reconciler.web.problem import HANDLERS
from schemas.base import Model
from schemas.names import NAME_PATTERN
from tests.unit.web.asking import code


class Part(Model):
    name: str


class Whole(Model):
    first_part: Part
    parts: tuple[Part, ...] = ()


class Order(Model):
    count: int


async def read_whole(request: Request) -> Response:
    return JSONResponse({"read": request.path_params["name"]})


async def order_one(_: Request) -> Response:
    return JSONResponse({"ordered": True}, 201)


async def look(_: Request) -> Response:
    return Response("fine")


async def prove(_: Request) -> Response:
    return Response("proven")


async def hold(_: Request) -> Response:
    return Response("held")


TABLE = (
    Endpoint("GET", "/api/v1/wholes/{name}", "Read one", read_whole, "read", response=Whole, headers=("ETag",),
             query={"limit": "at most 5", "state": one_of("Only these.", ("good", "bad")), "q": "Words."}, team=True),
    Endpoint("POST", "/api/v1/wholes/{name}", "Order one", order_one, "admin", request=Order, response=Whole,
             status=201, problems={409: "It was ordered before."}, example={"count": 1}),
    Endpoint("GET", "/looks", "Ask nobody", look),
    Endpoint("POST", "/proofs", "Prove a key", prove, response=Whole, status=201, also={202: "Later"}, proof=True),
    Endpoint("GET", "/api/v1/sessions", "Hold a session", hold, "agent", status=101),
    Endpoint("GET", "/page", "A page", hold, page=True),
)  # fmt: skip
WHOLES = "/api/v1/wholes/{name}"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(TABLE, version="1.2.3")


def ask(method: str, path: str, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=routes_of(TABLE), exception_handlers=dict(HANDLERS)))
        async with httpx.AsyncClient(transport=transport, base_url="http://plane.test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(main())


def test_each_row_is_served_under_its_method_alone() -> None:
    """Rows of one path share it; a method that no row has is 405, which names all that there are."""
    assert ask("GET", "/api/v1/wholes/a").json() == {"read": "a"}
    assert (ask("POST", "/api/v1/wholes/a").status_code, ask("GET", "/looks").text) == (201, "fine")
    answer = ask("DELETE", "/api/v1/wholes/a")
    assert (answer.status_code, code(answer)) == (405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert code(ask("GET", "/api/v1/wholes/a/b")) == "not-found"


@pytest.mark.parametrize(
    "query",
    ["other=1", "limit=-1", "limit=1001", "limit=1&limit=1", "limit=9" + "9" * 400, "limit=%D9%A1", "state=worse",
     "q=a%00b", "q=" + "x" * 2000, "limit=", "q=a%0A"],
)  # fmt: skip
def test_a_query_that_is_not_as_described_is_refused(query: str) -> None:
    """Whoever misspells a filter would take everything for what was asked for."""
    answer = ask("GET", f"/api/v1/wholes/a?{query}")
    assert (answer.status_code, code(answer)) == (400, "bad-query")


@pytest.mark.parametrize("query", ["limit=0", "limit=1000&state=good", "q=", "q=%F0%9F%90%99%20%22%27%3C"])
def test_a_query_that_is_as_described_is_passed_on(query: str) -> None:
    """Words may hold anything that has a shape."""
    assert ask("GET", f"/api/v1/wholes/a?{query}").is_success


@pytest.mark.parametrize(
    ("accept", "status"),
    [("*/*", 200), ("application/json", 200), ("application/*;q=0.1", 200), ("text/html, */*;q=0.8", 200),
     ("application/problem+json", 200), ("text/html", 406), ("application/json;q=0", 406), ("app/json", 406)],
)  # fmt: skip
def test_who_takes_no_json_is_told_that_there_is_nothing_else(accept: str, status: int) -> None:
    """A page of a browser is no answer here."""
    assert ask("GET", "/api/v1/wholes/a", Accept=accept).status_code == status


def test_each_row_is_described(document: dict[str, Any]) -> None:
    """Path and method, summary, a name of its own, what it answers, and that any mistake is problem details."""
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.path, one.method.lower()) for one in TABLE if not one.page}
    operation = document["paths"][WHOLES]["post"]
    assert (operation["summary"], operation["operationId"], operation["tags"]) == ("Order one", "order_one", ["wholes"])
    assert operation["responses"].keys() == {
        "201", "400", "401", "403", "404", "406", "408", "409", "413", "415", "422", "431", "503",
    }  # fmt: skip
    assert operation["responses"]["409"]["description"] == "It was ordered before."
    assert operation["requestBody"]["content"]["application/json"]["example"] == {"count": 1}
    mistake = document["components"]["responses"]["Problem404"]["content"]
    assert mistake["application/problem+json"]["schema"]["$ref"].endswith("/ProblemDetails")
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")
    validate(document)


def test_two_rows_of_one_name_are_told_apart_by_their_groups() -> None:
    """And where that is not enough nobody gets a document that is not valid."""
    one, other, third = (
        Endpoint("GET", path, "Look", look) for path in ("/api/v1/agents", "/api/v1/routes", "/api/v1/routes/{name}")
    )
    assert operation_names((one, other)) == ["look_agents", "look_routes"]
    with pytest.raises(ValueError, match="look_routes"):
        operation_names((one, other, third))


def test_each_row_says_how_its_caller_proves_itself(document: dict[str, Any]) -> None:
    """People with a token or a session, agents with a token that a proof goes with, newcomers with the proof alone."""
    asked = {
        one["operationId"]: one.get("security") for methods in document["paths"].values() for one in methods.values()
    }
    assert asked == {
        "read_whole": [{"token": ["read"]}, {"session": ["read"]}],
        "order_one": [{"token": ["admin"]}, {"session": ["admin"]}],
        "look": None,
        "prove": [{"proof": []}],
        "hold": [{"dpop": ["agent"], "proof": []}],
    }
    schemes = document["components"]["securitySchemes"]
    assert {name: one.get("scheme", one.get("name")) for name, one in schemes.items()} == {
        "token": "bearer",
        "session": "__Host-cloudlunacy",
        "dpop": "DPoP",
        "proof": "DPoP",
    }


def test_every_answer_that_is_no_problem_is_described(document: dict[str, Any]) -> None:
    """What may be answered besides the usual has the same shape and a meaning of its own."""
    responses = document["paths"]["/proofs"]["post"]["responses"]
    assert [status for status in responses if status < "300"] == ["201", "202"]
    assert responses["202"] == {**responses["201"], "description": "Later"}
    whole = document["paths"][WHOLES]["get"]["responses"]
    assert whole["200"]["headers"].keys() == whole["304"]["headers"].keys() == {"ETag"}


def test_what_teams_may_do_is_said(document: dict[str, Any]) -> None:
    """A member of a team, or who holds a token of one, finds what is open to it; nothing is said of the rest."""
    whole = document["paths"][WHOLES]
    assert (whole["get"]["x-team"], "members of a team" in whole["get"]["description"]) == (True, True)
    assert "x-team" not in whole["post"]


def test_parameters_are_those_of_the_path_and_of_the_row(document: dict[str, Any]) -> None:
    """A parameter of the path is required, one of the query is not and says what it does."""
    parameters = document["paths"][WHOLES]["get"]["parameters"]
    assert [(one["name"], one["in"], one.get("required", False)) for one in parameters] == [
        ("name", "path", True),
        ("limit", "query", False),
        ("state", "query", False),
        ("q", "query", False),
        ("If-None-Match", "header", False),
    ]
    assert parameters[0]["schema"] == {"type": "string", "maxLength": 63, "pattern": NAME_PATTERN}
    assert (parameters[1]["description"], parameters[1]["schema"]["type"]) == ("at most 5", "integer")
    assert document["paths"]["/looks"]["get"]["parameters"] == []


@pytest.mark.parametrize(
    ("model", "method", "good", "bad"),
    [
        (Whole, "get", {"firstPart": {"name": "a"}, "parts": [{"name": "b"}]}, {"firstPart": {"name": 5}, "parts": []}),
        (Order, "post", {"count": 1}, {"count": "many"}),
    ],
)
def test_shapes_are_those_of_the_models(
    document: dict[str, Any], model: type[BaseModel], method: str, good: object, bad: object
) -> None:
    """Requests and answers are described by their wire names, and a model inside a model is found."""
    operation = document["paths"][WHOLES][method]
    body = operation["requestBody"] if model is Order else operation["responses"]["200"]
    schema = {**body["content"]["application/json"]["schema"], "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)
    assert operation.get("requestBody", {"required": True})["required"] is True


def test_an_answer_without_a_shape_has_none(document: dict[str, Any]) -> None:
    """Nothing is promised of what is no JSON."""
    assert document["paths"]["/looks"]["get"]["responses"]["200"] == {"description": "Success"}
    assert "requestBody" not in document["paths"]["/looks"]["get"]
