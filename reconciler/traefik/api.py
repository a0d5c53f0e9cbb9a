"""Ask a Traefik's API. It is on loopback or where the operator's settings say, and nowhere that a document names.

Answers are untrusted: they are capped in size, and what does not have the expected shape is :class:`Transient`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from reconciler.desired.traefik_model import MARKER, marker_name
from reconciler.errors import Broken, Transient
from reconciler.traefik.binary import require_supported

_LARGEST_ANSWER: Final = 16 * 2**20
_LARGEST_METRICS: Final = 64 * 2**20
_PAGE: Final = 100
_MOST_FAILURES: Final = 1000
_MOST_DIGITS: Final = 18
"""Of a number in a text; Python reads no number of more than 4300."""
_KINDS: Final = ("routers", "services", "middlewares")
_PROVIDER: Final = "@file"


class ObjectFailure(NamedTuple):
    """An object that Traefik refuses to serve. ``section`` is such as ``http.routers``; both empty: the whole file."""

    section: str
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Overview:
    """How many objects of each section Traefik has disabled (errors) and how many it doubts (warnings)."""

    errors: dict[str, int]
    warnings: dict[str, int]


class TraefikAPI:
    """A client for one Traefik. ``url`` is where its API answers, such as ``http://127.0.0.1:8080``.

    Every method raises Transient when Traefik is away, slow, or answers nonsense.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Broken(f'"{url}" is no address of a Traefik API', hint="Write it like http://127.0.0.1:8080.")
        self.url = url.rstrip("/")
        self._timeout = timeout

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made when Traefik is first asked: the modules that the first client loads take a start 25 ms."""
        return httpx.AsyncClient(
            base_url=self.url,
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=False,
            # making a TLS context takes 20 ms, and the usual address needs none
            verify=ssl.create_default_context() if self.url.startswith("https:") else False,
            limits=httpx.Limits(max_connections=4),
        )

    async def close(self) -> None:
        if "_client" in vars(self):
            await self._client.aclose()

    async def version(self) -> tuple[int, int, int]:
        """Return Traefik's version. Raises Broken when it is too old."""
        return require_supported(str(_field(await self._get("/api/version"), "Version")))

    async def has_loaded(self, generation: int, revision: str) -> bool:
        """Say whether the marker of this generation of this revision is loaded, however large the fleet is."""
        return await self.exists("http", "services", marker_name(generation, revision))

    async def exists(self, protocol: str, kind: str, name: str) -> bool:
        """Say whether the file provider has given Traefik an object of that name."""
        return await self._get(f"/api/{protocol}/{kind}/{quote(name, safe='')}{_PROVIDER}", missing=True) is not None

    async def generation(self) -> int | None:
        """Return the generation that is loaded; None when none of ours is."""
        found = []
        for item in _items(await self._get("/api/http/services", {"search": MARKER})):
            name = str(item.get("name", "")).removesuffix(_PROVIDER)
            number = name.removeprefix(MARKER).partition("-")[0]
            if name.startswith(MARKER) and number.isdecimal() and len(number) <= _MOST_DIGITS:
                found.append(int(number))
        return max(found, default=None)

    async def entry_point(self, name: str) -> tuple[str, int] | None:
        """Return host and port at which this machine reaches an entry point; None where Traefik has none of that name.

        An entry point that listens on every address is reached where the API is.
        """
        answer = await self._get(f"/api/entrypoints/{quote(name, safe='')}", missing=True)
        if answer is None:
            return None
        host, _, port = str(_field(answer, "address")).partition("/")[0].rpartition(":")
        if not port.isdecimal() or len(port) > _MOST_DIGITS or not 0 < int(port) < 65536:
            raise _answer(f'no address of the entry point "{name}"')
        listens = host.strip("[]")
        here = urlsplit(self.url).hostname or ""
        return (here if listens in ("", "0.0.0.0", "::") else listens), int(port)  # noqa: S104 - what Traefik says

    async def metrics(self) -> str:
        """Return what Traefik tells Prometheus, which our static configuration has at the entry point of the API."""
        content = await self._content("/metrics", absent=(404,), largest=_LARGEST_METRICS)
        if content is None:
            raise _answer("no metrics: its static configuration has none at the entry point of the API")
        return content.decode(errors="replace")

    async def overview(self) -> Overview:
        answer = await self._get("/api/overview")
        errors: dict[str, int] = {}
        warnings: dict[str, int] = {}
        for protocol in ("http", "tcp"):
            for kind in _KINDS:
                counts = _field(_field(answer, protocol), kind)
                errors[f"{protocol}.{kind}"] = _count(counts, "errors")
                warnings[f"{protocol}.{kind}"] = _count(counts, "warnings")
        return Overview(errors, warnings)

    async def failures(self) -> tuple[ObjectFailure, ...]:
        """List the file provider's disabled objects, the first thousand; asks only where the overview counts some."""
        overview = await self.overview()
        found: list[ObjectFailure] = []
        for section, count in overview.errors.items():
            if count and len(found) < _MOST_FAILURES:
                found += await self._disabled(section)
        return tuple(found)

    async def _disabled(self, section: str) -> list[ObjectFailure]:
        protocol, _, kind = section.partition(".")
        found: list[ObjectFailure] = []
        page = 1
        while len(found) < _MOST_FAILURES:
            query = {"status": "disabled", "per_page": str(_PAGE), "page": str(page)}
            items = _items(await self._get(f"/api/{protocol}/{kind}", query, missing=True) or [])
            for item in items:
                name = str(item.get("name", ""))
                if name.endswith(_PROVIDER):
                    found.append(ObjectFailure(section, name.removesuffix(_PROVIDER), _errors(item)))
            if len(items) < _PAGE:
                break
            page += 1
        return found

    async def _get(self, path: str, query: dict[str, str] | None = None, *, missing: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Get JSON; with ``missing`` None for 404 and for a page that is not there."""
        content = await self._content(path, query, absent=(400, 404) if missing else ())
        if content is None:
            return None
        try:
            return httpx.Response(200, content=content).json()
        except (ValueError, RecursionError):  # the latter from lists in lists in lists
            raise _answer(f"no JSON for {path}") from None

    async def _content(
        self,
        path: str,
        query: dict[str, str] | None = None,
        *,
        absent: tuple[int, ...] = (),
        largest: int = 0,
    ) -> bytes | None:
        """Get what is there; None for a status that means ``absent``. ``largest``: bytes, if not those of JSON."""
        largest = largest or _LARGEST_ANSWER
        try:
            async with self._client.stream("GET", path, params=query) as response:
                if response.status_code in absent:
                    return None
                if response.status_code != 200:
                    raise _answer(f"status {response.status_code} for {path}")
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > largest:
                        raise _answer(f"more than {largest} bytes for {path}")
                return bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"Traefik's API at {self.url} is away: {reason}", reason="TraefikUnavailable") from None


def _items(answer: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise _answer("no list of objects")
    return answer


def _field(answer: Any, name: str) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(answer, dict) or name not in answer:
        raise _answer(f'no field "{name}"')
    return answer[name]


def _count(answer: Any, name: str) -> int:  # noqa: ANN401 - JSON
    value = _field(answer, name)
    if not isinstance(value, int):
        raise _answer(f'no number in "{name}"')
    return value


def _errors(item: dict[str, Any]) -> str:
    errors = item.get("error") or item.get("err") or "disabled"
    text = "; ".join(map(str, errors)) if isinstance(errors, list) else str(errors)
    return text[:1000]


def _answer(what: str) -> Transient:
    return Transient(f"Traefik's API gave {what}", reason="TraefikAnswer")
