"""Answers that are data say so."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.web.answer_headers import DATA, AnswerHeaders


async def data(_: Request) -> Response:
    return JSONResponse({})


async def page(_: Request) -> Response:
    return Response("", headers={"Content-Security-Policy": "default-src 'self'"})


def test_data_is_no_part_of_a_page() -> None:
    """It is shown in no frame and loads nothing, also where it says no; a page keeps its own policy."""
    app = AnswerHeaders(Starlette(routes=[Route("/data", data), Route("/page", page)]))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://one.test") as client:
            return await client.get(path)

    for path in ("/data", "/none"):
        answer = asyncio.run(ask(path))
        assert {name: answer.headers.get(name) for name in DATA} == DATA
    assert asyncio.run(ask("/page")).headers.get_list("content-security-policy") == ["default-src 'self'"]
