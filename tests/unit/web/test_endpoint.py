"""One table makes the routes and the OpenAPI document: what it says is what is served."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jsonschema
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.web.endpoint import Endpoint, openapi, routes_of
from schemas.base import Model


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
    Endpoint("GET", "/wholes/{name}", "Read one", read_whole, "read", response=Whole, query={"limit": "at most 5"}),
    Endpoint("POST", "/wholes/{name}", "Order one", order_one, "admin", request=Order, response=Whole, status=201),
    Endpoint("GET", "/looks", "Ask nobody", look),
    Endpoint("POST", "/proofs", "Prove a key", prove, response=Whole, status=201, also={202: "Later"}, proof=True),
    Endpoint("GET", "/sessions", "Hold a session", hold, "agent", status=101),
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(TABLE, version="1.2.3")


def ask(method: str, path: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=routes_of(TABLE)))
        async with httpx.AsyncClient(transport=transport, base_url="http://plane.test") as client:
            return await client.request(method, path)

    return asyncio.run(main())


def test_each_row_is_served_under_its_method_alone() -> None:
    """Rows of one path share it; a method that no row has is 405."""
    assert ask("GET", "/wholes/a").json() == {"read": "a"}
    assert (ask("POST", "/wholes/a").status_code, ask("GET", "/looks").text) == (201, "fine")
    assert [ask(method, path).status_code for method, path in (("DELETE", "/wholes/a"), ("POST", "/looks"))] == [
        405
    ] * 2
    assert ask("GET", "/wholes/a/b").status_code == 404


def test_each_row_is_described(document: dict[str, Any]) -> None:
    """Path and method, summary, a name of its own, what it answers, and that any mistake is problem details."""
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.path, one.method.lower()) for one in TABLE}
    operation = document["paths"]["/wholes/{name}"]["post"]
    assert (operation["summary"], operation["operationId"]) == ("Order one", "order_one")
    assert list(operation["responses"]) == ["201", "default"]
    mistake = operation["responses"]["default"]["content"]
    assert mistake["application/problem+json"]["schema"]["$ref"].endswith("/ProblemDetails")
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")


def test_each_row_says_how_its_caller_proves_itself(document: dict[str, Any]) -> None:
    """Operators with a token, agents with one that a proof goes with, newcomers with the proof alone, others not."""
    asked = {
        one["operationId"]: one.get("security") for methods in document["paths"].values() for one in methods.values()
    }
    assert asked == {
        "read_whole": [{"token": ["read"]}],
        "order_one": [{"token": ["admin"]}],
        "look": None,
        "prove": [{"proof": []}],
        "hold": [{"dpop": ["agent"], "proof": []}],
    }
    schemes = document["components"]["securitySchemes"]
    assert {name: one.get("scheme", one.get("name")) for name, one in schemes.items()} == {
        "token": "bearer",
        "dpop": "DPoP",
        "proof": "DPoP",
    }


def test_every_answer_that_is_no_problem_is_described(document: dict[str, Any]) -> None:
    """What may be answered besides the usual has the same shape and a meaning of its own."""
    responses = document["paths"]["/proofs"]["post"]["responses"]
    assert list(responses) == ["201", "202", "default"]
    assert responses["202"] == {**responses["201"], "description": "Later"}


def test_parameters_are_those_of_the_path_and_of_the_row(document: dict[str, Any]) -> None:
    """A parameter of the path is required, one of the query is not and says what it does."""
    parameters = document["paths"]["/wholes/{name}"]["get"]["parameters"]
    assert [(one["name"], one["in"], one.get("required", False)) for one in parameters] == [
        ("name", "path", True),
        ("limit", "query", False),
    ]
    assert parameters[1]["description"] == "at most 5"
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
    operation = document["paths"]["/wholes/{name}"][method]
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
