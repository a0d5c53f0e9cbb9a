"""What a real ACME server, or what stands in its place, does wrong becomes a sentence."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Rejected, Transient
from reconciler.pki.acme.client import AcmeClient, ClientLimits
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.wire import Account, Directory, WireLimits
from tests.support.acme import (
    LIMITS,
    NAME,
    Hanging,
    Notes,
    client,
    current_account,
    request,
)
from tests.support.pebble import Pebble, ServerFiles, middle, serving
from tests.support.ports import free_port


def test_a_wrong_answer_is_told_with_what_the_server_said(server: Pebble) -> None:
    """The sentence names server, challenge, host, and repeats the server's words; the answer is taken away."""

    class Wrong(Http01):
        async def present(self, challenge: Challenge) -> None:
            await super().present(challenge)
            self._answers = dict.fromkeys(self._answers, b"something else")

    async def scenario() -> None:
        notes, wrong = Notes(), Wrong()
        async with serving(wrong, server.http_port):
            with pytest.raises(Rejected) as caught:
                await client(server).obtain(request(wrong), notes)
        error = caught.value
        assert error.reason == "AcmeChallengeFailed"
        start = f"The ACME server 127.0.0.1:{server.port} does not accept the http-01 answer of {NAME}: "
        assert error.message.startswith(start)
        assert "key authorization" in error.message
        assert "(unauthorized)" in error.message
        assert notes.said == ["order", "placed", "closed"]
        assert wrong._answers == {}

    asyncio.run(scenario())


def test_a_host_that_nobody_reaches_is_told(server: Pebble) -> None:
    """Where nothing listens, the sentence says connection and the hint says what must be reachable."""

    async def scenario() -> None:
        with pytest.raises(Rejected, match="connection refused") as caught:
            await client(server).obtain(request(Http01()), Notes())
        assert "Port 80" in caught.value.hint

    asyncio.run(scenario())


def test_a_directory_with_another_authority_is_refused(server: Pebble, tmp_path: Path) -> None:
    """A server whose certificate comes from a CA that is not the named one is not talked to."""

    async def scenario() -> None:
        for ca in (tmp_path / "server.pem", None):
            untrusting = AcmeClient(Directory(server.url, ca), current_account(), limits=LIMITS)
            with pytest.raises(Rejected, match=r"is not trusted: self.signed certificate") as caught:
                await untrusting.obtain(request(Http01()), Notes())
            assert caught.value.reason == "AcmeUntrusted"
            assert "ca-file" in caught.value.hint
            assert "[[directory]]" in caught.value.hint
            assert "CLOUDLUNACY_ACME_FILE" in caught.value.hint

    ServerFiles.make(tmp_path)
    asyncio.run(scenario())


def test_an_expired_directory_is_refused(server: Pebble, tmp_path: Path) -> None:
    """The same for a server whose certificate has expired."""

    async def scenario() -> None:
        async with middle(tmp_path, server, expired=True) as between:
            with pytest.raises(Rejected, match="is not trusted: certificate has expired"):
                await client(between).obtain(request(Http01()), Notes())

    asyncio.run(scenario())


def test_terms_are_not_agreed_to_by_themselves(server: Pebble) -> None:
    """An account whose owner has not agreed to the terms is not registered."""

    async def scenario() -> None:
        silent = Account(ec.generate_private_key(ec.SECP256R1()))
        with pytest.raises(Rejected, match="wants its terms agreed to"):
            await client(server, account=silent).obtain(request(Http01()), Notes())

    asyncio.run(scenario())


def test_a_wildcard_needs_dns(server: Pebble) -> None:
    """HTTP-01 for a wildcard is refused before any order is placed."""

    async def scenario() -> None:
        notes = Notes()
        with pytest.raises(Rejected, match="wildcards need dns-01"):
            await client(server).obtain(request(Http01(), "*.example.test"), notes)
        assert notes.said == []

    asyncio.run(scenario())


def test_no_server_has_us_prove_a_name_that_was_not_ordered(server: Pebble, tmp_path: Path) -> None:
    """An authorization for another name ends the order before anything is presented for it."""
    body = b'{"status": "pending", "identifier": {"type": "dns", "value": "-rf"}, "challenges": []}'
    headers = {"content-type": "application/json", "replay-nonce": "AAAA"}

    async def scenario() -> None:
        table = Hanging()
        async with middle(tmp_path, server) as between:
            between.meddle = lambda _, path: (200, headers, body) if path.startswith("/authZ/") else None
            with pytest.raises(Transient, match="wants other names proved than those of the order"):
                await client(between).obtain(request(table), Notes())
        assert not table.reached.is_set()

    asyncio.run(scenario())


def test_a_challenge_that_is_not_offered_is_told(server: Pebble, tmp_path: Path) -> None:
    """The sentence says what the server offers instead."""
    challenge = b'{"type": "tls-alpn-01", "status": "pending", "url": "https://127.0.0.1/1", "token": "AAAA"}'
    name = f'{{"type": "dns", "value": "{NAME}"}}'.encode()
    body = b'{"status": "pending", "identifier": %s, "challenges": [%s]}' % (name, challenge)
    headers = {"content-type": "application/json", "replay-nonce": "AAAA"}

    async def scenario() -> None:
        async with middle(tmp_path, server) as between:
            between.meddle = lambda _, path: (200, headers, body) if path.startswith("/authZ/") else None
            with pytest.raises(Rejected, match=f"does not offer http-01 for {NAME}; it offers tls-alpn-01"):
                await client(between).obtain(request(Http01()), Notes())

    asyncio.run(scenario())


def test_a_busy_server_says_when_to_come_back(server: Pebble, tmp_path: Path) -> None:
    """A 429 with Retry-After is Transient and carries the seconds."""

    def busy(method: str, path: str) -> tuple[int, dict[str, str], bytes] | None:
        if path != "/order-plz":
            return None
        body = b'{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many \\u001b[31mcertificates"}'
        return 429, {"content-type": "application/problem+json", "retry-after": "4321"}, body

    async def scenario() -> None:
        async with middle(tmp_path, server) as between:
            between.meddle = busy
            with pytest.raises(Transient, match="too many") as caught:
                await client(between).obtain(request(Http01()), Notes())
        assert caught.value.retry_after == 4321
        assert caught.value.reason == "AcmeRateLimited"
        assert "\\x1b[31m" in caught.value.message

    asyncio.run(scenario())


def test_a_silent_server_costs_no_more_than_the_deadline(server: Pebble, tmp_path: Path) -> None:
    """A server that stops answering is given up after the time of one exchange, one that drips after that time too."""

    over = threading.Event()

    async def drip(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not over.is_set():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> None:
        limits = ClientLimits(wire=WireLimits(connect_seconds=1, seconds=1))
        files, port = ServerFiles.make(tmp_path), free_port()
        directory = Directory(f"https://127.0.0.1:{port}/dir", files.certificate)
        async with serving(drip, port, files):
            begin = asyncio.get_running_loop().time()
            with pytest.raises(Transient, match="did not answer in time"):
                await AcmeClient(directory, current_account(), limits=limits).obtain(request(Http01()), Notes())
            assert asyncio.get_running_loop().time() - begin < 5
            over.set()

    asyncio.run(scenario())


def test_a_silent_server_holds_up_no_shutdown(tmp_path: Path) -> None:
    """Who is cancelled while a server says nothing ends at once, and so does the loop."""
    files = ServerFiles.make(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        directory = Directory(f"https://127.0.0.1:{silent.getsockname()[1]}/dir", files.certificate)

        async def scenario() -> None:
            ordering = asyncio.create_task(AcmeClient(directory, current_account()).obtain(request(Http01()), Notes()))
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                ordering.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await ordering

        begin = time.monotonic()
        asyncio.run(scenario())
        assert time.monotonic() - begin < WireLimits().seconds / 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (200, {}, b"<html>", "answered something that ACME does not know"),
        (200, {}, b"[1, 2]", "answered something that ACME does not know"),
        (200, {}, b"{}", "answered something that ACME does not know"),
        (200, {}, b'{"newNonce": 7, "newAccount": []}', "ACME"),
        (200, {}, b"[" * 100_000, "answered something that ACME does not know"),
        (200, {}, b" " * 2_000_000, "longer than 1048576 bytes"),
        (302, {"location": "http://127.0.0.1:1/"}, b"", "redirect"),
        (404, {}, b"nothing", "has no directory"),
        (503, {"retry-after": "7"}, b"away", "status 503"),
        (500, {"content-type": "application/problem+json"}, b'{"type": [], "detail": {"a": 1}}', "ACME"),
    ],
)
def test_what_is_no_directory_is_told_in_a_sentence(
    server: Pebble, tmp_path: Path, status: int, headers: dict[str, str], body: bytes, words: str
) -> None:
    """Nothing that a server answers ends in anything but an error of the tree."""

    async def scenario() -> None:
        async with middle(tmp_path, server) as between:
            between.meddle = lambda *_: (status, headers, body)
            with pytest.raises((Transient, Rejected), match=words):
                await client(between).obtain(request(Http01()), Notes())

    asyncio.run(scenario())
