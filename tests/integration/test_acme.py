"""Certificates from a real ACME server, judged by openssl."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.client import AcmeClient, ClientLimits, OrderRequest
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.issuer import Issuer, Wanted
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.wire import Account, Directory, ExternalAccount, WireLimits
from tests.support.parts import require
from tests.support.pebble import Middle, Pebble, ServerFiles, middle, pebble, serving
from tests.support.traefik import free_port
from tests.support.waiting import eventually

NAME = "shop.example.test"
KEY = ec.generate_private_key(ec.SECP256R1())
ACCOUNT = Account(ec.generate_private_key(ec.SECP256R1()), contact=("ops@example.test",), terms_agreed=True)
LIMITS = ClientLimits(order_seconds=60, poll_first=0.1)
ARI = (
    200,
    {"content-type": "application/json", "retry-after": "21600"},
    b'{"suggestedWindow": {"start": "2030-01-02T00:00:00Z", "end": "2030-01-03T00:00:00Z"}}',
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own account: Pebble lets one valid authorization in a hundred count again, at 0 % reuse too."""
    fresh = replace(ACCOUNT, key=ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setitem(globals(), "ACCOUNT", fresh)


@dataclass
class Notes:
    """A journal in memory."""

    said: list[str] = field(default_factory=list)
    url: str = ""

    async def before_order(self) -> None:
        self.said.append("order")

    async def placed(self, url: str) -> None:
        self.said.append("placed")
        self.url = url

    async def closed(self) -> None:
        self.said.append("closed")
        self.url = ""


def client(
    server: Pebble | Middle, *, limits: ClientLimits = LIMITS, account: Account | None = None, ca: Path | None = None
) -> AcmeClient:
    return AcmeClient(Directory(server.url, ca or server.files.certificate), account or ACCOUNT, limits=limits)


class Hanging(Http01):
    """Does not come to an end with presenting before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def present(self, challenge: Challenge) -> None:
        self.reached.set()
        await self.go_on.wait()


class Slow(Http01):
    """Leaves whoever looks at the answer waiting until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await super().__call__(scope, receive, send)


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


@asynccontextmanager
async def answering(server: Pebble) -> AsyncIterator[Http01]:
    table = Http01()
    async with serving(table, server.http_port):
        yield table


def request(solver: Http01, *names: str, url: str = "") -> OrderRequest:
    return OrderRequest(names or (NAME,), KEY, solver, url)


def verified(folder: Path, chain: str, root: str, *names: str, key: ec.EllipticCurvePrivateKey = KEY) -> None:
    """Let openssl judge: the chain leads to the root, and the certificate is for each name and for our key."""
    leaf, _, rest = chain.partition("-----END CERTIFICATE-----\n")
    for name, content in (("leaf", f"{leaf}-----END CERTIFICATE-----\n"), ("rest", rest), ("root", root)):
        (folder / f"{name}.pem").write_text(content)
    openssl = require("openssl")
    for name in names or (NAME,):
        arguments = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "rest.pem"]
        subprocess.run(
            [openssl, *arguments, "-verify_hostname", name, "-purpose", "sslserver", "leaf.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=20,
        )
    public = x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes()).public_key()
    assert public == key.public_key()


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
            untrusting = AcmeClient(Directory(server.url, ca), ACCOUNT, limits=LIMITS)
            with pytest.raises(Rejected, match=r"is not trusted: self.signed certificate") as caught:
                await untrusting.obtain(request(Http01()), Notes())
            assert caught.value.reason == "AcmeUntrusted"
            assert "CA" in caught.value.hint

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


def test_an_account_is_bound_to_one_that_the_server_knows_already(tmp_path: Path) -> None:
    """A server that wants an external account refuses one without, and issues with it; the MAC key shows nowhere."""
    mac_key = urlsafe_b64encode(b"m" * 32).rstrip(b"=").decode()

    async def scenario(server: Pebble) -> None:
        with pytest.raises(Rejected, match=r"\(externalAccountRequired\)"):
            await client(server).obtain(request(Http01()), Notes())
        bound = replace(ACCOUNT, external=ExternalAccount("kid-1", SecretStr(mac_key)))
        assert mac_key not in repr(bound)
        async with answering(server) as table:
            verified(tmp_path, await client(server, account=bound).obtain(request(table), Notes()), server.root())
        none = replace(ACCOUNT, external=ExternalAccount("kid-1", SecretStr("no base64!")))
        with pytest.raises(Broken):
            await client(server, account=none).obtain(request(Http01()), Notes())

    with pebble(tmp_path / "pebble", external={"kid-1": mac_key}) as server:
        asyncio.run(scenario(server))


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
                await AcmeClient(directory, ACCOUNT, limits=limits).obtain(request(Http01()), Notes())
            assert asyncio.get_running_loop().time() - begin < 5
            over.set()

    asyncio.run(scenario())


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


def issuer(server: Pebble | Middle, folder: Path, **more: Any) -> Issuer:
    return Issuer(client(server), LedgerFile(folder / "ledger.json", server.url), **more)


def test_the_sixth_order_for_the_same_names_is_not_placed(server: Pebble, tmp_path: Path) -> None:
    """Five in a week, over a restart too; then the server is not asked, and the error says until when."""

    async def scenario() -> None:
        async with middle(tmp_path / "middle", server) as between, answering(server) as table:
            wanted = Wanted((NAME,), KEY, table)
            for _ in range(5):
                chain = await issuer(between, tmp_path).issue(wanted)
            verified(tmp_path, chain, server.root())
            between.seen.clear()
            again = issuer(between, tmp_path)
            with pytest.raises(Transient, match="5 orders for exactly these names in 7 days") as caught:
                await again.issue(wanted)
            assert caught.value.reason == "AcmeBudget"
            assert caught.value.retry_after == pytest.approx(timedelta(days=7).total_seconds(), rel=0.01)
            assert between.seen == []
            await again.issue(Wanted((NAME, "more.example.test"), KEY, table))

    asyncio.run(scenario())


def test_staging_comes_first_and_once(server: Pebble, tmp_path: Path) -> None:
    """The first order for a set of names goes to the staging directory; the next ones do not."""

    async def scenario(staging: Pebble) -> None:
        async with answering(server) as table, serving(table, staging.http_port):
            for _ in range(2):
                one = issuer(server, tmp_path, staging=client(staging))
                chain = await one.issue(Wanted((NAME,), KEY, table))
                verified(tmp_path, chain, server.root())
        assert staging.log().count("POST /order-plz -> calling handler()") == 1

    with pebble(tmp_path / "staging") as staging:
        asyncio.run(scenario(staging))


def test_what_fails_at_staging_costs_nothing_at_production_and_is_backed_off(server: Pebble, tmp_path: Path) -> None:
    """A host that nobody reaches fails at staging: production is not asked, and the next attempt waits for a minute."""
    now = [datetime(2030, 1, 1, tzinfo=UTC)]

    async def scenario(staging: Pebble) -> None:
        async with middle(tmp_path / "middle", server) as between:
            one = issuer(between, tmp_path, staging=client(staging), clock=lambda: now[0], randomness=lambda: 0.5)
            wanted = Wanted((NAME,), KEY, Http01())
            with pytest.raises(Rejected):
                await one.issue(wanted)
            assert between.seen == []
            assert one.not_before([NAME]) == now[0] + timedelta(seconds=63)
            with pytest.raises(Transient, match="the last attempts failed") as caught:
                await one.issue(wanted)
            assert (caught.value.reason, caught.value.retry_after) == ("AcmeBackOff", 63)
            now[0] += timedelta(seconds=63)
            async with answering(server) as table, serving(table, staging.http_port):
                chain = await one.issue(Wanted((NAME,), KEY, table))
            verified(tmp_path, chain, server.root())
            assert one.not_before([NAME]) is None

    with pebble(tmp_path / "staging") as staging:
        asyncio.run(scenario(staging))


def test_an_issuer_goes_on_with_an_order_after_a_crash(server: Pebble, tmp_path: Path) -> None:
    """The ledger on the disk leads to the order that was under way; it is counted once."""

    async def scenario() -> None:
        hanging = Hanging()
        cut = asyncio.create_task(issuer(server, tmp_path).issue(Wanted((NAME,), KEY, hanging)))
        await asyncio.wait_for(hanging.reached.wait(), 20)
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        async with answering(server) as table:
            chain = await issuer(server, tmp_path).issue(Wanted((NAME,), KEY, table))
        verified(tmp_path, chain, server.root())
        kept = LedgerFile(tmp_path / "ledger.json", server.url).load().of(NAME)
        assert (len(kept.orders), kept.order_url) == (1, "")

    asyncio.run(scenario())


def test_renewal_is_drawn_once_and_remembered(server: Pebble, tmp_path: Path) -> None:
    """Asked again, after a restart too, the same moment is said; it leaves what was asked for."""

    async def scenario() -> None:
        async with answering(server) as table:
            chain = await issuer(server, tmp_path).issue(Wanted((NAME,), KEY, table))
        certificate = x509.load_pem_x509_certificate(chain.encode())
        before = timedelta(hours=8)
        moments = {await issuer(server, tmp_path).renewal([NAME], certificate, before) for _ in range(3)}
        (moment,) = moments
        left = certificate.not_valid_after_utc - moment
        assert before * 0.9 <= left <= before

    asyncio.run(scenario())
