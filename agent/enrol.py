"""Enrol this machine: ``cloudlunacy agent enrol``.

1. The key: read, or made and written, before anything is sent.
2. The authority: found among the certificates that the server presents, by its fingerprint, and pinned.
3. The request, repeated with the same key while the control plane is away: it answers the same each time.
4. ``<data>/agent.json``: whom to talk to, and whose signatures to believe.
5. The certificate, for a fresh key, as soon as an answer brings it; otherwise ``agent run`` asks for it.
6. 202 means accepted for good but not yet on the branch: ask again until it is, or leave that to ``agent run``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr, ValidationError

from agent.backoff import Backoff
from agent.certificate import Fresh, install
from agent.certificate_files import BadPair, CertificateFiles
from agent.credentials import AgentFile, Api, detail_of, retry_after_of
from agent.keys import AgentKey, Unusable
from agent.left_behind import Note
from agent.pinning import Untrusted, context_for, presented_authority
from schemas.enrolment import ENROL_PATH, ENROLMENTS_PATH, Enrolment
from schemas.tokens import origin

WAIT_SECONDS: Final = 300.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class EnrolmentFailed(Exception):
    """The control plane does not enrol this machine. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to enrol as. ``address`` defaults to the one that this machine reaches the server from."""

    server: str
    token: SecretStr = field(repr=False)
    name: str
    ca_sha256: str | None = None
    address: str | None = None
    capabilities: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = "0"
    insecure: bool = False
    """Allow plain http to another machine."""


async def enrol(
    wanted: Wanted,
    data: Path,
    *,
    wait_seconds: float = WAIT_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Enrolment:
    """Enrol, or find that it is done; may be repeated. The state of the answer is committed, proposed or pending.

    Raises:
        EnrolmentFailed: the control plane refuses.
        Unusable: this machine, the address or the fingerprint is wrong.
        Untrusted: what answers there is not the control plane whose authority was given.
        OSError: the control plane cannot be reached within ``wait_seconds``.
    """
    server = _checked(wanted.server, insecure=wanted.insecure)
    _refuse_other_agent(data, wanted.name)
    key = AgentKey.load_or_create(data)
    tries = _Tries(wait_seconds, sleep)
    authority = await _authority(server, wanted.ca_sha256, tries)
    tls = None if authority is None else context_for(authority)
    api = Api(server, tls, transport=transport, clock=clock)
    try:
        fresh = Fresh.make()
        answer = await _request(api, key, wanted, fresh.csr, tries)
        AgentFile(name=wanted.name, server=server, issuer=answer.issuer, ca=authority, jwks=answer.jwks).save(data)
        Note(data).clear()
        while answer.state == "pending" and await tries.pause("the enrolment is queued"):
            answer = await _status(api, key, _id_of(wanted.token), answer)
        await _keep_certificate(data, fresh, answer, api.now())
    finally:
        await api.close()
    if answer.state == "conflicted":
        raise EnrolmentFailed(answer.message)
    return answer


class _Tries:
    """Pauses with full jitter until the time is up."""

    def __init__(self, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._left = seconds
        self._sleep = sleep
        self._backoff = Backoff(base=0.5, cap=10.0)

    async def pause(self, _why: str, *, at_least: float = 0.0) -> bool:
        """Wait, and return False once there is no time for another try."""
        seconds = max(0.05, self._backoff.next(random.random(), at_least=at_least))  # noqa: S311
        self._left -= seconds
        if self._left < 0:
            return False
        await self._sleep(seconds)
        return True


async def _authority(server: str, sha256: str | None, tries: _Tries) -> str | None:
    """Return the PEM to pin; None for http, and for https by the system's authorities."""
    if sha256 is None or not server.startswith("https:"):
        return None
    while True:
        try:
            return await presented_authority(server, sha256)
        except Untrusted:
            raise
        except (OSError, TimeoutError):
            if not await tries.pause("the server is away"):
                raise


async def _keep_certificate(data: Path, fresh: Fresh, answer: Enrolment, now: float) -> None:
    if answer.certificate is None or answer.bundle is None:
        return
    try:
        # One for another key is what an attempt that was cut off asked for.
        with suppress(BadPair):
            await install(CertificateFiles(data, answer.name), fresh, answer.certificate, answer.bundle, now)
    except OSError as error:
        raise Unusable(f"{data} cannot be written: {error.strerror}.") from None


async def _request(api: Api, key: AgentKey, wanted: Wanted, csr: str, tries: _Tries) -> Enrolment:
    body = {
        "token": wanted.token.get_secret_value(),
        "name": wanted.name,
        "publicKey": key.public.model_dump(),
        "address": wanted.address or _own_address(api.server),
        "capabilities": list(wanted.capabilities),
        "labels": dict(wanted.labels),
        "version": wanted.version,
        "csr": csr,
    }
    token_id = _id_of(wanted.token)

    def make(_: str) -> dict[str, Any]:
        return {"json": {**body, "proof": key.enrolment_proof(token_id=token_id, name=wanted.name, now=api.now())}}

    while True:
        at_least = 0.0
        try:
            response = await api.call("POST", ENROL_PATH, make)
            if response.status_code in (httpx.codes.CREATED, httpx.codes.ACCEPTED):
                return _enrolment(response)
            if response.status_code not in _AGAIN:
                raise EnrolmentFailed(detail_of(response))
            at_least, failure = retry_after_of(response), OSError(detail_of(response))
        except Untrusted:
            raise
        except OSError as error:
            failure = error
        if not await tries.pause(str(failure), at_least=at_least):
            raise failure


async def _status(api: Api, key: AgentKey, token_id: str, last: Enrolment) -> Enrolment:
    def make(url: str) -> dict[str, Any]:
        return {"headers": {"DPoP": key.dpop_proof("GET", url, now=api.now())}}

    try:
        response = await api.call("GET", f"{ENROLMENTS_PATH}/{token_id}", make)
    except OSError:
        return last
    return _enrolment(response) if response.status_code == httpx.codes.OK else last


def _enrolment(response: httpx.Response) -> Enrolment:
    try:
        return Enrolment.model_validate_json(response.content)
    except ValidationError:
        raise EnrolmentFailed("The answer is not that of a control plane of this version.") from None


def _id_of(token: SecretStr) -> str:
    return token.get_secret_value().partition(".")[0]


def _checked(server: str, *, insecure: bool) -> str:
    try:
        address, parts = origin(server), urlsplit(server)
    except ValueError:
        if "@" in server:
            text = "the address of the control plane is written without user and password: https://host[:port]."
            raise Unusable(text) from None
        raise Unusable(f"{server} is no address of a control plane; write https://host[:port].") from None
    if parts.scheme == "https":
        return address
    if parts.scheme != "http" or not (insecure or _is_loopback(parts.hostname or "")):
        raise Unusable(
            f"{server} is not encrypted: whoever listens could take the token. Use https, or --insecure in a test."
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_other_agent(data: Path, name: str) -> None:
    try:
        found = AgentFile.load(data).name
    except Unusable:
        return
    if found != name:
        raise Unusable(f'{data} belongs to agent "{found}". Use another directory for "{name}".')


def _own_address(server: str) -> str:
    """Return the address of this machine on the way to the server; nothing is sent."""
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or 443
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        raise Unusable(f"{host} cannot be found, so this machine's own address is not known. Give --address.") from None
