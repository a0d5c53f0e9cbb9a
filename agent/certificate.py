"""Keeps this machine's certificate good: ``agent-certificate``, a task of the client.

What happens, in order: what is on disk is looked at → at its time, or at once where there is none, a fresh key is made
and a signing request sent under the agent's identity → the answer is checked and put into place → from the start. What
fails is tried again, later and later, until the certificate ends. Then only a token helps: that is said, the agent goes
on serving its document, and asks now and then whether somebody has enrolled it again.

Times are the control plane's where this machine's clock is known to be wrong.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random as randomness
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from agent.backoff import Backoff
from agent.certificate_files import UNREADABLE, BadPair, CertificateFiles, Held
from agent.client import CredentialsUnavailable
from agent.credentials import detail_of, retry_after_of
from agent.renewal import Standing, renew_at, standing
from schemas.certificates_api import CERTIFICATE_PATH, AgentCertificate

log = logging.getLogger(__name__)

WAY_BACK = "To get another: cloudlunacy token create, then cloudlunacy agent enrol with that token and this --data."


@dataclass(frozen=True, slots=True)
class Fresh:
    """A new key, and the request that proves it. Both PEM."""

    key: bytes = field(repr=False)
    csr: str

    @classmethod
    def make(cls) -> Fresh:
        """Make a P-256 key. The request names nothing: only its public key would count."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        csr = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, hashes.SHA256())
        return cls(pem, csr.public_bytes(serialization.Encoding.PEM).decode("ascii"))


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """Times are in seconds."""

    backoff_base: float = 5.0
    backoff_cap: float = 300.0
    slowly: float = 600.0
    """Between attempts after the end, which only a person can make succeed."""
    look: float = 60.0
    """The longest that nobody looks at the clock and the disk."""


class Caller(Protocol):
    """:class:`agent.credentials.Credentials`."""

    @property
    def name(self) -> str: ...

    async def call(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response: ...

    def now(self) -> float: ...


class _Failed(Exception):
    """No certificate came. The message says why."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CertificateKeeper:
    """The task is :meth:`run`."""

    def __init__(
        self,
        files: CertificateFiles,
        caller: Caller,
        *,
        settings: KeeperSettings = KeeperSettings(),
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._files = files
        self._caller = caller
        self._settings = settings
        self._random = random
        self._backoff = Backoff(settings.backoff_base, settings.backoff_cap, 0.0)
        self._held: Held | None = None
        self._due = 0.0
        self._retired: frozenset[str] = frozenset()
        self._leave_at = 0.0
        self._poked = asyncio.Event()

    def leave(self, retired: frozenset[str], within: float) -> None:
        """Ask for another certificate within so many seconds, if the one in place is under one of these authorities."""
        if retired != self._retired:
            self._retired, self._leave_at = retired, self._caller.now() + self._random() * within
            self._poked.set()

    async def run(self) -> None:
        """Keep it good for ever."""
        while True:
            pause = await self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poked.wait()
            self._poked.clear()

    async def step(self) -> float:
        """Do what is due; return the seconds until the next look."""
        retired, held = self._retired, await asyncio.to_thread(self._files.load)
        state = self._take(held)
        if held is not None and self._retired and await asyncio.to_thread(self._is_retired, held):
            self._due = min(self._due, self._leave_at)
            state = standing(held.life, self._due, self._caller.now())
        if state != "good":
            try:
                new = await self._renew()
            except _Failed as failure:
                return self._pause(failure, state)
            self._take(new)
            self._backoff.succeeded()
            if self._retired is retired:  # else it was said meanwhile, and may be true of what just came
                self._leave_at = math.inf  # if that is under a retired one again, asking at once would not end
            log.info("certificate %x is good until %s", new.serial, utc(new.life.ends))
        return min(self._settings.look, max(0.0, self._due - self._caller.now()))

    def _take(self, held: Held | None) -> Standing:
        """Take note of what is in place; the time of its renewal is drawn once."""
        if held != self._held:
            self._held = held
            self._due = 0.0 if held is None else renew_at(held.life, self._random())
        return standing(None if held is None else held.life, self._due, self._caller.now())

    def _is_retired(self, held: Held) -> bool:
        return not self._retired.isdisjoint(self._files.authorities(held))

    async def _renew(self) -> Held:
        fresh = Fresh.make()
        try:
            answer = _answer(await self._caller.call("POST", CERTIFICATE_PATH, {"csr": fresh.csr}))
            held = await install(self._files, fresh, answer.certificate, answer.bundle, self._caller.now())
        except CredentialsUnavailable as error:
            raise _Failed(str(error), retry_after=error.retry_after) from None
        except (OSError, BadPair) as error:
            raise _Failed(str(error)) from None
        if self._caller.now() >= held.life.ends:
            raise _Failed("What came has ended already. Is the clock of this machine right?")
        return held

    def _pause(self, failure: _Failed, state: Standing) -> float:
        slowly = self._settings.slowly if state == "ended" else 0.0
        pause = self._backoff.next(self._random(), at_least=max(failure.retry_after, slowly))
        if state == "ended" and self._held is not None:
            log.error("the certificate ended at %s. %s (%s)", utc(self._held.life.ends), WAY_BACK, failure)
        else:
            log.warning("no new certificate: %s; next attempt in %.0f s", failure, pause)
        return pause


def _answer(response: httpx.Response) -> AgentCertificate:
    if response.status_code != httpx.codes.OK:
        raise _Failed(detail_of(response), retry_after=retry_after_of(response))
    try:
        return AgentCertificate.model_validate_json(response.content)
    except ValidationError:
        raise _Failed("The answer is not that of a control plane of this version.") from None


async def install(files: CertificateFiles, fresh: Fresh, chain: str, bundle: str, now: float) -> Held:
    """Put what the control plane answered into place.

    Raises:
        BadPair: when it does not fit the request.
        OSError: when it cannot be written.
    """
    try:
        x509.load_pem_x509_certificates(bundle.encode("utf-8", "replace"))
    except UNREADABLE:
        raise BadPair("There are no roots in the answer.") from None
    return await asyncio.to_thread(
        files.install, fresh.key, chain.encode("utf-8", "replace"), bundle.encode(), received_at=now
    )


def utc(seconds: float) -> str:
    """Write a time for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
