"""Orders at a real ACME server, judged by openssl."""

from __future__ import annotations

import asyncio
import json
import subprocess
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.client import OrderRequest
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.wire import ExternalAccount
from tests.support.acme import (
    KEY,
    NAME,
    Hanging,
    Notes,
    Slow,
    answering,
    client,
    current_account,
    request,
    verified,
)
from tests.support.parts import require
from tests.support.pebble import Pebble, middle, pebble, serving
from tests.support.waiting import eventually
from tests.unit.pki.acme.test_wire import certificate as certificate_of

ARI = (
    200,
    {"content-type": "application/json", "retry-after": "21600"},
    b'{"suggestedWindow": {"start": "2030-01-02T00:00:00Z", "end": "2030-01-03T00:00:00Z"}}',
)


def test_a_chain_for_all_names_is_issued_over_http(server: Pebble, tmp_path: Path) -> None:
    """HTTP-01 for two names ends in one chain that openssl verifies against the server's root."""

    async def scenario() -> None:
        notes = Notes()
        async with answering(server) as table:
            chain = await client(server).obtain(request(table, NAME, "www.example.test"), notes)
        verified(tmp_path, chain, server.root(), NAME, "www.example.test")
        assert notes.said == ["order", "placed"]
        assert table._answers == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("percent", [20, 50])
def test_refused_nonces_stop_no_order(tmp_path: Path, percent: int) -> None:
    """With every fifth and every second nonce refused, each of five orders comes to its end."""

    async def scenario(server: Pebble) -> None:
        async with answering(server) as table:
            for number in range(5):
                name = f"n{number}.example.test"
                chain = await client(server).obtain(request(table, name), Notes())
                verified(tmp_path, chain, server.root(), name)

    with pebble(tmp_path / "pebble", nonce_reject=percent) as server:
        asyncio.run(scenario(server))
        # one nonce is asked for at the beginning, every further one because a nonce was refused
        assert server.log().count("/nonce-plz -> calling handler()") > 5 + percent / 10


def test_an_order_that_was_cut_off_is_gone_on_with(server: Pebble, tmp_path: Path) -> None:
    """After a crash between two steps the kept URL leads to the certificate, without a new order."""

    async def scenario() -> None:
        notes, table = Notes(), Hanging()
        cut = asyncio.create_task(client(server).obtain(request(table), notes))
        await asyncio.wait_for(table.reached.wait(), 20)
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        assert notes.said == ["order", "placed"]
        async with answering(server) as works:
            chain = await client(server).obtain(request(works, url=notes.url), notes)
        verified(tmp_path, chain, server.root())
        assert notes.said == ["order", "placed"]

    asyncio.run(scenario())


def test_an_order_that_was_finalized_with_a_lost_key_is_placed_anew(server: Pebble, tmp_path: Path) -> None:
    """A finished order whose certificate is for another key is of no use; a new one is placed."""

    async def scenario() -> None:
        notes = Notes()
        async with answering(server) as table:
            lost = OrderRequest((NAME,), ec.generate_private_key(ec.SECP256R1()), table)
            await client(server).obtain(lost, notes)
            chain = await client(server).obtain(request(table, url=notes.url), notes)
        verified(tmp_path, chain, server.root())
        assert notes.said == ["order", "placed", "closed", "order", "placed"]

    asyncio.run(scenario())


def test_a_server_that_died_in_the_middle_and_forgot_everything_is_begun_with_anew(tmp_path: Path) -> None:
    """Killed while it waits: a sentence. Started again: the account is registered and the order is placed anew."""

    async def scenario(server: Pebble) -> None:
        notes, table = Notes(), Hanging()
        cut = asyncio.create_task(client(server).obtain(request(table), notes))
        await asyncio.wait_for(table.reached.wait(), 20)
        server.kill()
        table.go_on.set()
        with pytest.raises(Transient) as caught:
            await cut
        assert caught.value.reason == "AcmeUnreachable"
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        before = notes.url
        server.start()
        async with answering(server) as works:
            chain = await client(server).obtain(request(works, url=before), notes)
        verified(tmp_path, chain, server.root())
        assert notes.said == ["order", "placed", "closed", "order", "placed"]
        assert notes.url != before

    with pebble(tmp_path / "pebble") as server:
        asyncio.run(scenario(server))


def test_an_account_is_bound_to_one_that_the_server_knows_already(tmp_path: Path) -> None:
    """A server that wants an external account refuses one without, and issues with it; the MAC key shows nowhere."""
    mac_key = urlsafe_b64encode(b"m" * 32).rstrip(b"=").decode()

    async def scenario(server: Pebble) -> None:
        with pytest.raises(Rejected, match=r"\(externalAccountRequired\)"):
            await client(server).obtain(request(Http01()), Notes())
        bound = replace(current_account(), external=ExternalAccount("kid-1", SecretStr(mac_key)))
        assert mac_key not in repr(bound)
        async with answering(server) as table:
            verified(tmp_path, await client(server, account=bound).obtain(request(table), Notes()), server.root())
        none = replace(current_account(), external=ExternalAccount("kid-1", SecretStr("no base64!")))
        with pytest.raises(Broken):
            await client(server, account=none).obtain(request(Http01()), Notes())

    with pebble(tmp_path / "pebble", external={"kid-1": mac_key}) as server:
        asyncio.run(scenario(server))


def test_polls_come_no_sooner_than_the_server_asks(server: Pebble, tmp_path: Path) -> None:
    """While an authorization is pending, two looks at it are Retry-After apart."""
    looks: list[float] = []

    def ask_for_a_second(path: str) -> dict[str, str]:
        if not path.startswith("/authZ/"):
            return {}
        looks.append(asyncio.get_running_loop().time())
        return {"retry-after": "1"}

    async def scenario() -> None:
        slow = Slow()
        async with middle(tmp_path, server) as between, serving(slow, server.http_port):
            between.headers = ask_for_a_second
            ordering = asyncio.create_task(client(between).obtain(request(slow), Notes()))
            await eventually(lambda: len(looks) >= 4, 20)
            slow.go_on.set()
            await ordering
        polls = looks[1:]  # the first is before the challenge is answered
        assert min(later - sooner for sooner, later in pairwise(polls)) >= 1

    asyncio.run(scenario())


def test_a_server_that_wants_to_be_asked_after_the_deadline_ends_the_attempt(server: Pebble, tmp_path: Path) -> None:
    """Nobody waits for longer than an order may take; its URL stays, and the error says when to come back."""

    async def scenario() -> None:
        notes, slow = Notes(), Slow()
        async with middle(tmp_path, server) as between, serving(slow, server.http_port):
            between.headers = lambda path: {"retry-after": "600"} if path.startswith("/authZ/") else {}
            with pytest.raises(Transient) as caught:
                await client(between).obtain(request(slow), notes)
            slow.go_on.set()
        assert (caught.value.reason, caught.value.retry_after) == ("AcmeTimeout", 600)
        assert notes.url

    asyncio.run(scenario())


def ari_name_by_openssl(folder: Path, chain: str) -> str:
    """Put the name of RFC 9773, 4.1 together from what openssl prints."""

    def printed(*arguments: str) -> str:
        finished = subprocess.run(
            [require("openssl"), "x509", "-noout", *arguments], input=chain, capture_output=True, text=True, check=True
        )
        return finished.stdout

    authority = bytes.fromhex(printed("-ext", "authorityKeyIdentifier").split("\n")[1].strip().replace(":", ""))
    digits = printed("-serial").strip().partition("=")[2]
    serial = bytes.fromhex("0" * (len(digits) % 2) + digits)
    if serial[0] > 0x7F:
        serial = b"\0" + serial
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (authority, serial))


def test_renewals_follow_what_the_server_suggests(server: Pebble, tmp_path: Path) -> None:
    """Renewal information is asked for under the name of RFC 9773, and an order says which certificate it replaces."""

    async def scenario() -> None:
        async with middle(tmp_path, server) as between, answering(server) as table:
            between.directory["renewalInfo"] = f"https://127.0.0.1:{between.port}/ari"
            between.meddle = lambda _, path: ARI if path.startswith("/ari/") else None
            orders = client(between)
            chain = await orders.obtain(request(table), Notes())
            certificate = x509.load_pem_x509_certificate(chain.encode())
            said = await orders.suggestion(certificate)
            assert said.window is not None
            assert said.window.start == datetime(2030, 1, 2, tzinfo=UTC)
            assert said.window.end == datetime(2030, 1, 3, tzinfo=UTC)
            assert said.retry_after == 21600
            name = next(seen for seen in between.seen if "/ari/" in seen).rpartition("/")[2]
            assert name == ari_name_by_openssl(tmp_path, chain)
            await orders.obtain(OrderRequest((NAME,), KEY, table, replaces=certificate), Notes())
        replaced = [payload.get("replaces") for payload in between.payloads() if "identifiers" in payload]
        assert replaced == [None, name]

    asyncio.run(scenario())


def test_a_server_without_renewal_information_suggests_nothing(server: Pebble) -> None:
    """Pebble of this version has none: nothing is suggested and nothing fails."""

    async def scenario() -> None:
        async with answering(server) as table:
            chain = await client(server).obtain(request(table), Notes())
        said = await client(server).suggestion(x509.load_pem_x509_certificate(chain.encode()))
        assert (said.window, said.retry_after) == (None, None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2030-01-02T00:00:00", "2030-01-03T00:00:00"),
        ("2030-01-02", "2030-01-03"),
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
        ("soon", "later"),
        (None, None),
        (1, {}),
    ],
)
def test_a_window_that_is_no_time_is_refused_with_a_sentence(
    server: Pebble, tmp_path: Path, start: object, end: object
) -> None:
    """Without a time zone, or beyond the calendar, it would fail wherever it is compared later."""
    body = json.dumps({"suggestedWindow": {"start": start, "end": end}}).encode()

    async def scenario() -> None:
        async with middle(tmp_path, server) as between:
            between.directory["renewalInfo"] = f"https://127.0.0.1:{between.port}/ari"
            answer = (200, {"content-type": "application/json"}, body)
            between.meddle = lambda _, path: answer if path.startswith("/ari/") else None
            known = certificate_of(1, x509.AuthorityKeyIdentifier(b"key", None, None))
            with pytest.raises(Transient, match="answered something that ACME does not know") as caught:
                await client(between).suggestion(known)
            assert caught.value.reason == "AcmeAnswerMalformed"

    asyncio.run(scenario())
