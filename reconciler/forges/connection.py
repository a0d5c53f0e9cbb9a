"""HTTP to a forge: one host, one token, with limits on time and size. Nothing is followed that an answer names."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from reconciler.errors import Broken, Transient
from reconciler.forges.answers import Answer, failure, next_query
from reconciler.git.cleaning import cleaned, one_line

SECONDS: Final = 30.0
"""For one request with its answer, whatever happens on the way."""
MOST_BYTES: Final = 8 * 2**20
"""Of an answer."""
MOST_PAGES: Final = 50
MOST_SECRET: Final = 16384
PLAIN: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "cloudlunacy"}
"""Uncompressed: what is small on the way stays small here."""

Token = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in. Whoever prints it sees no secret."""

    token: Token = field(repr=False)
    """Asked for each request, so that a new token in the file counts at once."""
    username: str = ""
    """For forges that want Basic (RFC 7617) with some kinds of token."""
    ca_file: Path | None = None
    """Roots that vouch for the forge; without it the system's."""


def token_from(path: Path) -> Token:
    """Return what reads the token, one line.

    Raises (when it is called):
        Broken: it cannot be read, or is no such line.
    """

    def read() -> str:
        try:
            with path.open("rb") as file:
                text = file.read(MOST_SECRET + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise Broken(f"The file {path} with the token of the forge cannot be read: {reason}.") from None
        return require_token(text, f"The file {path}")

    return read


def require_token(text: str, where: str) -> str:
    """Return a token that fits into a header.

    Raises:
        Broken: it does not.
    """
    if not text or len(text) > MOST_SECRET or not text.isascii() or not text.isprintable() or " " in text:
        raise Broken(f"{where} does not hold one line with a token.")
    return text


class Connection:
    """To the API at ``api``. ``headers`` makes those of a request from the token."""

    def __init__(
        self,
        api: str,
        access: Access,
        headers: Callable[[str], Mapping[str, str]],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api.rstrip("/")
        self._access = access
        self._headers = headers
        self._transport = transport
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    def _open(self) -> httpx.AsyncClient:
        """Made when the forge is first asked: the modules for it take a start 25 ms."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(SECONDS / 2, connect=10.0),
                follow_redirects=False,
                trust_env=False,
                verify=_trust(self._access.ca_file) if self._api.startswith("https:") else False,
                limits=httpx.Limits(max_connections=2),
                transport=self._transport,
            )
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of a GET below the API."""
        return (await self.ask("GET", path, query=query)).json()

    async def send(self, method: str, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that a request with a JSON body was answered with, None for an empty answer."""
        answer = await self.ask(method, path, body=body)
        return answer.json() if answer.body.strip() else None

    async def pages(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Yield the items of a list, page after page as the Link header leads."""
        following: Mapping[str, Any] | None = query
        for _ in range(MOST_PAGES):
            answer = await self.ask("GET", path, query=following)
            items = answer.json()
            if not isinstance(items, list):
                raise Transient("the forge answers with something else than a list.", reason="ForgeUnavailable")
            for item in items:
                yield item
            following = next_query(answer)
            if following is None or not items:
                return

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Return a successful answer.

        Raises:
            Transient, Broken, Rejected: as :func:`reconciler.forges.answers.failure` says, and Transient where there
                is no answer in time or one that is too large.
        """
        token = self._access.token()
        headers = {**PLAIN, **self._headers(token)}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        host = urlsplit(self._api).netloc
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._exchange(method, f"{self._api}{path}", dict(query or {}), headers, content)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            why = one_line(cleaned(str(error), limit=200)) or type(error).__name__
            text = f"the forge at {host} does not answer: {why.replace(token, '[redacted]')}."
            raise Transient(text, reason="ForgeUnavailable") from None
        refused = failure(_without(answer, token), f"{method} {path} at {host}", self._clock())
        if refused is not None:
            raise refused
        return answer

    async def _exchange(
        self, method: str, url: str, query: dict[str, Any], headers: dict[str, str], content: bytes | None
    ) -> Answer:
        request = {"params": query or None, "headers": headers, "content": content}
        async with self._open().stream(method, url, **request) as answer:  # type: ignore[arg-type]
            held = bytearray()
            async for piece in answer.aiter_bytes():
                held += piece
                if len(held) > MOST_BYTES:
                    text = f"the forge answers with more than {MOST_BYTES} bytes."
                    raise Transient(text, reason="ForgeUnavailable")
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status_code, names, bytes(held))


def _without(answer: Answer, token: str) -> Answer:
    """Keep an answer that repeats the token from getting into a message."""
    return Answer(answer.status, answer.headers, answer.body.replace(token.encode(), b"[redacted]"))


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except (OSError, ssl.SSLError):
        raise Broken(f"{ca_file} holds no roots (PEM) that could vouch for the forge.") from None
