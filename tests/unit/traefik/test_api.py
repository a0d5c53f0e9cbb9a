"""Answers of the API are untrusted: whatever comes back, a clear error and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from reconciler.errors import Broken, Transient
from reconciler.traefik import api as module
from reconciler.traefik.api import TraefikAPI
from tests.support.traefik import Backend, backends

Question = Callable[[TraefikAPI], Coroutine[Any, Any, Any]]
QUESTIONS: list[Question] = [
    lambda api: api.version(),
    lambda api: api.generation(),
    lambda api: api.overview(),
    lambda api: api.failures(),
    lambda api: api.has_loaded(1, "a1" * 20),
]


def ask(backend: Backend, question: Question) -> Any:
    async def scenario() -> Any:
        api = TraefikAPI(f"http://127.0.0.1:{backend.port}", timeout=2)
        try:
            return await question(api)
        finally:
            await api.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (302, "{}"), (200, "no json"), (200, "\xff")])
def test_bad_answers_are_transient(question: Question, status: int, body: str) -> None:
    """An error, a redirect, or something that is no JSON."""
    with backends("odd") as (odd,):
        odd.status, odd.body = status, body
        odd.answer_headers = {"Location": "http://127.0.0.1:1/elsewhere"}
        with pytest.raises(Transient) as caught:
            ask(odd, question)
        assert caught.value.reason == "TraefikAnswer"
        assert len(odd.requests) == 1


@pytest.mark.parametrize("body", ["[]", "1", "null", '{"http": 1}', '{"http": {"routers": []}}', "[1]"])
def test_json_of_another_shape_is_transient(body: str) -> None:
    """Fields that are missing or of another type are the other side's fault, not a traceback."""
    with backends("odd") as (odd,):
        odd.body = body
        with pytest.raises(Transient):
            ask(odd, lambda api: api.overview())


def test_counts_that_are_no_numbers_are_transient() -> None:
    """Even deep inside."""
    kinds = ", ".join(
        f'"{kind}": {{"errors": "x", "warnings": null}}' for kind in ("routers", "services", "middlewares")
    )
    with backends("odd") as (odd,):
        odd.body = f'{{"http": {{{kinds}}}, "tcp": {{{kinds}}}}}'
        with pytest.raises(Transient):
            ask(odd, lambda api: api.overview())


def test_endless_answers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is read beyond the limit."""
    monkeypatch.setattr(module, "_LARGEST_ANSWER", 1000)
    with backends("odd") as (odd,):
        odd.body = "[" + " " * 100_000 + "]"
        with pytest.raises(Transient, match="more than 1000 bytes"):
            ask(odd, lambda api: api.generation())


def test_an_old_traefik_is_refused() -> None:
    """Below 3.7.3 there are known holes; that is for the operator to mend."""
    with backends("old") as (old,):
        old.body = '{"Version": "3.7.2"}'
        with pytest.raises(Broken, match=r"3\.7\.2"):
            ask(old, lambda api: api.version())


@pytest.mark.parametrize(
    "name", ["cloudlunacy__generation-x", "cloudlunacy__generation-", "x-cloudlunacy__generation-9"]
)
def test_names_that_only_look_like_a_marker_are_none(name: str) -> None:
    """Only our name with a number behind it is a generation."""
    with backends("odd") as (odd,):
        odd.body = f'[{{"name": "{name}@file"}}]'
        assert ask(odd, lambda api: api.generation()) is None


@pytest.mark.parametrize(
    ("body", "question"),
    [
        ('{"address": ":' + "9" * 5000 + '"}', lambda api: api.entry_point("websecure")),
        ("[" * 100_000, lambda api: api.entry_point("websecure")),
        ("[" * 100_000, lambda api: api.generation()),
    ],
    ids=["an endless port", "a deep entry point", "deep services"],
)
def test_what_python_cannot_read_is_transient(body: str, question: Question) -> None:
    """No number is too long, and no list too deep, to be an answer of the wrong shape."""
    with backends("odd") as (odd,):
        odd.body = body
        with pytest.raises(Transient) as caught:
            ask(odd, question)
        assert caught.value.reason == "TraefikAnswer"


def test_a_marker_with_an_endless_number_is_none() -> None:
    """Python reads no number of more than 4300 digits."""
    with backends("odd") as (odd,):
        odd.body = f'[{{"name": "cloudlunacy__generation-{"9" * 5000}@file"}}]'
        assert ask(odd, lambda api: api.generation()) is None


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x", "http://", "file:///etc/passwd"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    """The operator hears it at once."""
    with pytest.raises(Broken):
        TraefikAPI(url)


def test_a_front_that_is_not_asked_costs_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making and closing an API opens nothing, so that no start waits for it."""
    monkeypatch.setattr(httpx, "AsyncClient", None)
    asyncio.run(TraefikAPI("http://127.0.0.1:1").close())
