"""What enrolment left on this machine, and the headers that it lets the agent send.

``<data>/agent.json`` (mode 0600) says who this is and whom it trusts; the private key is beside it. An access token
lives for ten minutes, is kept in memory only, and is renewed at four fifths of its life by the monotonic clock, so that
a clock that jumps neither ends nor prolongs it.
"""

from __future__ import annotations

import asyncio
import ssl
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import ValidationError

from agent import problems
from agent.client import CredentialsUnavailable
from agent.keys import AgentKey, Unusable, write_private
from agent.pinning import context_for, explained
from schemas.base import Model
from schemas.enrolment import TOKEN_ENDPOINT_PATH, TokenAnswer
from schemas.jwk import JwkSet
from schemas.names import Name
from schemas.tokens import ASSERTION_GRANT, ASSERTION_TYPE

FILE: Final = "agent.json"
STREAM_PATH: Final = "/api/v1/agents/stream"
MAX_ANSWER: Final = 256 * 1024
TIMEOUT: Final = 15.0
_CLOCK_CODES: Final = ("expired", "not-yet-valid")


class AgentFile(Model):
    """Who this agent is, and its control plane: address, issuer, authority, and the keys that sign documents."""

    name: Name
    server: str
    issuer: str
    ca: str | None = None
    """PEM of the pinned authorities, of which there are two while one follows the other; None: the system's."""
    jwks: JwkSet

    @classmethod
    def load(cls, data: Path) -> AgentFile:
        """Read the file.

        Raises:
            Unusable
        """
        path = data / FILE
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}. Enrol this machine first.") from None
        if mode & 0o077:
            raise Unusable(f"{path} is open to other users (mode {mode:04o}). Run chmod 600 {path}.")
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            raise Unusable(f"{path} is damaged. Enrol this machine again with a new token.") from None

    def save(self, data: Path) -> None:
        write_private(data / FILE, self.model_dump_json(by_alias=True, indent=2).encode())

    def tls(self) -> ssl.SSLContext | None:
        """Return the context for connections; None for plain http."""
        if not self.server.startswith("https:"):
            return None
        return ssl.create_default_context() if self.ca is None else context_for(self.ca)


class Api:
    """Calls of the control plane's HTTP API. Learns the control plane's clock where this machine's is wrong."""

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.server = server.rstrip("/")
        self._clock = clock
        self._skew = 0.0
        self._transport = transport
        self._http = self._client(tls)
        self._under_way: Counter[httpx.AsyncClient] = Counter()

    def trust(self, tls: ssl.SSLContext | None) -> None:
        """Verify with ``tls`` from the next call on; those that are under way end as they began."""
        self._http = self._client(tls)

    def _client(self, tls: ssl.SSLContext | None) -> httpx.AsyncClient:
        verify = tls if tls is not None else True
        return httpx.AsyncClient(verify=verify, transport=self._transport, timeout=TIMEOUT, trust_env=False)

    def now(self) -> float:
        return self._clock() + self._skew

    async def call(self, method: str, path: str, make: Callable[[str], dict[str, Any]]) -> httpx.Response:
        """Send what ``make`` returns for the URL; a second time when the first was refused for the clock.

        Raises:
            Untrusted: when what answers there is not whom we trust.
            OSError: when the control plane cannot be reached or answers too much.
        """
        url = f"{self.server}{path}"
        response = await self._send(method, url, make(url))
        if response.status_code == httpx.codes.UNAUTHORIZED and code_of(response) in _CLOCK_CODES:
            try:
                self._skew = parsedate_to_datetime(response.headers["date"]).timestamp() - self._clock()
            except (KeyError, ValueError):
                return response
            return await self._send(method, url, make(url))
        return response

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, url: str, content: dict[str, Any]) -> httpx.Response:
        http = self._http
        self._under_way[http] += 1
        try:
            return await self._exchange(http, method, url, content)
        finally:
            self._under_way[http] -= 1
            if http is not self._http and not self._under_way[http]:
                del self._under_way[http]
                await http.aclose()

    async def _exchange(
        self, http: httpx.AsyncClient, method: str, url: str, content: dict[str, Any]
    ) -> httpx.Response:
        try:
            async with http.stream(method, url, **content) as response:
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER:
                        raise OSError(f"{url} answers more than {MAX_ANSWER} bytes.")
                headers = {
                    "date": response.headers.get("date", ""),
                    "retry-after": response.headers.get("retry-after", ""),
                }
                return httpx.Response(response.status_code, headers=headers, content=body)
        except httpx.HTTPError as error:
            if (said := explained(error, self.server)) is not None:
                raise said from None
            raise OSError(f"{url} cannot be reached: {type(error).__name__} {error}") from None


class Credentials:
    """Implements :class:`agent.client.Credentials`."""

    def __init__(
        self,
        file: AgentFile,
        key: AgentKey,
        *,
        data: Path | None = None,
        api: Api | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._key = key
        self._data = data
        self.tls = file.tls()
        self._api = api or Api(file.server, self.tls)
        self._monotonic = monotonic
        self._token = ""
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    @classmethod
    def load(cls, data: Path) -> Credentials:
        """Read what enrolment wrote.

        Raises:
            Unusable: when this machine is not enrolled, or its files are damaged or open to others.
        """
        return cls(AgentFile.load(data), AgentKey.load(data), data=data)

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def jwks(self) -> JwkSet:
        return self._file.jwks

    @property
    def ca(self) -> str | None:
        """PEM of the authorities that connections are verified with; None: the system's."""
        return self._file.ca

    async def believe(self, ca: str | None, jwks: JwkSet) -> None:
        """Trust these from the next connection and the next document on, and after a restart.

        Raises:
            Unusable, OSError: when that cannot be written down; nothing has changed then.
        """
        if (ca, jwks) == (self._file.ca, self._file.jwks):
            return
        file = self._file.model_copy(update={"ca": ca, "jwks": jwks})
        tls = file.tls()
        if self._data is not None:
            await asyncio.to_thread(_save_trust, self._data, ca, jwks)
        former, self._file = self._file, file
        if ca != former.ca:
            self.tls = tls
            self._api.trust(tls)

    @property
    def stream_url(self) -> str:
        return f"ws{self._file.server.rstrip('/').removeprefix('http')}{STREAM_PATH}"

    async def headers(self, method: str, url: str) -> dict[str, str]:
        """Return headers for one request.

        Raises:
            CredentialsUnavailable: the control plane gives no token just now, or (``refused``) not to this agent.
            OSError: when it cannot be reached.
        """
        return self._headers(method, url, await self._access_token())

    async def call(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Send JSON to the control plane's API as this agent.

        Raises:
            CredentialsUnavailable, OSError: as :meth:`headers`.
        """
        token = await self._access_token()
        response = await self._api.call(
            method, path, lambda url: {"json": dict(body), "headers": self._headers(method, url, token)}
        )
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self.forget()
        return response

    def now(self) -> float:
        """Return the time in POSIX seconds, by the control plane's clock where this machine's is known to be wrong."""
        return self._api.now()

    def forget(self) -> None:
        """Get a new token next time: the present one was refused."""
        self._token = ""

    async def close(self) -> None:
        await self._api.close()

    async def _access_token(self) -> str:
        async with self._renewing:
            if not self._token or self._monotonic() >= self._renew_at:
                await self._renew()
            return self._token

    def _headers(self, method: str, url: str, token: str) -> dict[str, str]:
        proof = self._key.dpop_proof(method, url, now=self._api.now(), access_token=token)
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    async def _renew(self) -> None:
        asked_at = self._monotonic()
        response = await self._api.call("POST", TOKEN_ENDPOINT_PATH, self._token_request)
        if response.status_code != httpx.codes.OK:
            self._token = ""
            raise CredentialsUnavailable(
                detail_of(response),
                refused=response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN),
                retry_after=retry_after_of(response),
            )
        try:
            answer = TokenAnswer.model_validate_json(response.content)
        except ValidationError:
            raise CredentialsUnavailable("The control plane's answer is no access token.") from None
        self._token = answer.access_token
        self._renew_at = asked_at + answer.expires_in * 0.8

    def _token_request(self, url: str) -> dict[str, Any]:
        now = self._api.now()
        form = {
            "grant_type": ASSERTION_GRANT,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._key.client_assertion(name=self.name, issuer=self._file.issuer, now=now),
        }
        return {"data": form, "headers": {"DPoP": self._key.dpop_proof("POST", url, now=now)}}


def _save_trust(data: Path, ca: str | None, jwks: JwkSet) -> None:
    # What else is in the file may have been written anew by an enrolment meanwhile.
    AgentFile.load(data).model_copy(update={"ca": ca, "jwks": jwks}).save(data)


def code_of(response: httpx.Response) -> str:
    """Return the code of a problem (RFC 9457), "" where there is none."""
    return problems.code_of(response.content)


def detail_of(response: httpx.Response) -> str:
    """Return what the control plane says, fit to be printed."""
    return problems.detail_of(response.content) or f"HTTP status {response.status_code}"


def retry_after_of(response: httpx.Response) -> float:
    """Return the seconds that the control plane asks to wait, at most a minute."""
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() and len(value) < 9 else 0.0
