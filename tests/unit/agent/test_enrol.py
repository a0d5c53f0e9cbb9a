"""Enrolment and credentials from the agent's side, against the control plane's real routes."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import ipaddress
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from agent.client import CredentialsUnavailable
from agent.credentials import FILE, AgentFile, Api, Credentials
from agent.enrol import EnrolmentFailed, Wanted, enrol
from agent.keys import AgentKey, Unusable
from agent.pinning import context_for, presented_authority
from reconciler.errors import Transient
from tests.support.agent_plane import Served, served
from tests.support.tokens import ISSUER, NOW, new_key
from tests.unit.agents.enrolling import World

STREAM = "wss://control.example.test/api/v1/agents/stream"


async def no_time(_: float) -> None:
    await asyncio.sleep(0)


def run(data: Path, scenario: Callable[[Served], Awaitable[object]], world: World | None = None) -> None:
    async def main() -> None:
        async with served(data / "plane", world) as one:
            await scenario(one)

    (data / "plane").mkdir()
    asyncio.run(main())


async def wanted(one: Served, **changed: Any) -> Wanted:
    token = SecretStr(await one.plane.token())
    return replace(Wanted(server=ISSUER, token=token, name="vps-9", address="10.0.0.9"), **changed)


def options(one: Served, **changed: Any) -> dict[str, Any]:
    return {"transport": one.transport(), "clock": lambda: NOW, "sleep": no_time, **changed}


def credentials(one: Served, data: Path, **changed: Any) -> Credentials:
    file = AgentFile.load(data)
    api = Api(file.server, None, transport=one.transport(), clock=changed.pop("clock", lambda: NOW))
    return Credentials(file, AgentKey.load(data), api=api, **changed)


def test_an_enrolled_agent_gets_headers_that_the_control_plane_takes(tmp_path: Path) -> None:
    """After enrolment and publication the headers for the stream are the agent's identity."""

    async def scenario(one: Served) -> None:
        answer = await enrol(await wanted(one), tmp_path / "agent", **options(one))
        one.publish()
        mine = credentials(one, tmp_path / "agent")
        headers = await mine.headers("GET", mine.stream_url)
        again = await mine.headers("GET", mine.stream_url)
        identity = one.authenticator.authenticate("GET", mine.stream_url, headers, NOW)

        assert (answer.state, identity.name) == ("committed", "vps-9")
        assert mine.stream_url == STREAM
        assert mine.jwks == one.keys.jwks("desired")
        assert headers["Authorization"] == again["Authorization"]
        assert headers["DPoP"] != again["DPoP"]
        await mine.close()

    run(tmp_path, scenario)
    assert stat.S_IMODE((tmp_path / "agent" / FILE).stat().st_mode) == 0o600


def test_enrolling_again_changes_nothing(tmp_path: Path) -> None:
    """The same command again, with the same token or a new one, is the same agent with no second commit."""

    async def scenario(one: Served) -> None:
        first = await wanted(one)
        answers = [await enrol(each, tmp_path / "agent", **options(one)) for each in (first, first, await wanted(one))]
        assert {(answer.state, answer.thumbprint) for answer in answers} == {("committed", answers[0].thumbprint)}
        assert len(one.plane.world.remote.log) == 1

    run(tmp_path, scenario)


def test_a_queued_enrolment_is_asked_about_until_it_is_committed(tmp_path: Path) -> None:
    """202 is not the end: the agent asks, with a proof each time, until the commit is there."""
    world = World(answer_seconds=0.001)
    world.remote.failures = [Transient("away") for _ in range(5)]

    async def scenario(one: Served) -> None:
        async def short(_: float) -> None:
            await asyncio.sleep(0.005)

        answer = await enrol(await wanted(one), tmp_path / "agent", **options(one, sleep=short, wait_seconds=10_000.0))
        assert answer.state == "committed"

    run(tmp_path, scenario, world)


def test_what_stays_queued_is_no_failure(tmp_path: Path) -> None:
    """When the time is up the enrolment is pending, and all that the agent needs later is written."""
    world = World(answer_seconds=0.001)
    world.remote.failures = [Transient("away") for _ in range(10_000)]

    async def scenario(one: Served) -> None:
        answer = await enrol(await wanted(one), tmp_path / "agent", **options(one, wait_seconds=5.0))
        assert answer.state == "pending"

    run(tmp_path, scenario, world)
    assert AgentFile.load(tmp_path / "agent").name == "vps-9"


def test_a_control_plane_that_is_away_is_tried_again(tmp_path: Path) -> None:
    """Connection errors and 503 are followed by another try with the same key."""
    calls = 0

    async def scenario(one: Served) -> None:
        inner = one.transport()

        class Flaky(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                nonlocal calls
                calls += 1
                if calls == 1:
                    raise httpx.ConnectError("refused")
                if calls == 2:
                    return httpx.Response(503, headers={"Retry-After": "1"})
                return await inner.handle_async_request(request)

        answer = await enrol(await wanted(one), tmp_path / "agent", **options(one, transport=Flaky()))
        assert answer.state == "committed"

    run(tmp_path, scenario)
    assert calls == 3


def test_a_refusal_is_the_control_planes_sentence(tmp_path: Path) -> None:
    """A bad token ends at once, with the reason and what to do, and without the token."""

    async def scenario(one: Served) -> None:
        bad = await wanted(one, token=SecretStr("0" * 20 + ".canary-" + "x" * 25))
        with pytest.raises(EnrolmentFailed, match="cloudlunacy token create") as caught:
            await enrol(bad, tmp_path / "agent", **options(one))
        assert "canary" not in f"{caught.value!r}{bad!r}"

    run(tmp_path, scenario)
    assert not (tmp_path / "agent" / FILE).exists()


@pytest.mark.parametrize("server", ["http://control.example.test", "ftp://x", "control.example.test", "https://u:p@x"])
def test_an_address_that_could_give_the_token_away_is_refused(tmp_path: Path, server: str) -> None:
    """Plain http goes to this machine only; nothing is sent and no key is made."""
    with pytest.raises(Unusable, match="https"):
        asyncio.run(enrol(Wanted(server=server, token=SecretStr("a.b"), name="vps-9"), tmp_path / "agent"))
    assert not (tmp_path / "agent").exists()


def test_a_directory_belongs_to_one_agent(tmp_path: Path) -> None:
    """Another name in the same directory is refused before anything is sent."""

    async def scenario(one: Served) -> None:
        await enrol(await wanted(one), tmp_path / "agent", **options(one))
        with pytest.raises(Unusable, match='belongs to agent "vps-9"'):
            await enrol(await wanted(one, name="vps-8"), tmp_path / "agent", **options(one))

    run(tmp_path, scenario)


def test_a_wrong_clock_is_corrected_by_the_control_planes(tmp_path: Path) -> None:
    """Two days off, the agent enrols and gets a token: it takes the date of the refusal for its proofs."""

    async def scenario(one: Served) -> None:
        class Dated(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                response = await one.transport().handle_async_request(request)
                response.headers["Date"] = formatdate(NOW, usegmt=True)
                return response

        wrong = {"clock": lambda: NOW + 172_800, "transport": Dated()}
        answer = await enrol(await wanted(one), tmp_path / "agent", **options(one, **wrong))
        one.publish()
        file = AgentFile.load(tmp_path / "agent")
        api = Api(file.server, None, transport=Dated(), clock=lambda: NOW - 172_800)
        mine = Credentials(file, AgentKey.load(tmp_path / "agent"), api=api)
        headers = await mine.headers("GET", STREAM)
        assert answer.state == "committed"
        assert one.authenticator.authenticate("GET", STREAM, headers, NOW).name == "vps-9"

    run(tmp_path, scenario)


def test_a_token_is_renewed_before_it_ends_by_the_monotonic_clock(tmp_path: Path) -> None:
    """One token serves for eight minutes whatever the wall clock does, then there is a new one."""
    elapsed = [0.0]

    async def scenario(one: Served) -> None:
        await enrol(await wanted(one), tmp_path / "agent", **options(one))
        one.publish()
        mine = credentials(one, tmp_path / "agent", monotonic=lambda: elapsed[0])
        tokens = []
        for seconds in (0, 479, 481):
            elapsed[0] = seconds
            tokens.append((await mine.headers("GET", STREAM))["Authorization"])
        mine.forget()
        tokens.append((await mine.headers("GET", STREAM))["Authorization"])
        assert tokens[0] == tokens[1]
        assert len(set(tokens)) == 3

    run(tmp_path, scenario)


def test_a_revoked_agent_is_told(tmp_path: Path) -> None:
    """Once the file is gone there is no token, and the reason is the control plane's."""

    async def scenario(one: Served) -> None:
        await enrol(await wanted(one), tmp_path / "agent", **options(one))
        with pytest.raises(CredentialsUnavailable, match="in service") as caught:
            await credentials(one, tmp_path / "agent").headers("GET", STREAM)
        assert caught.value.refused

    run(tmp_path, scenario)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 50_000])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in agent.json, the agent says that it must be enrolled again."""
    (tmp_path / FILE).write_bytes(content)
    (tmp_path / FILE).chmod(0o600)

    with pytest.raises(Unusable, match="damaged"):
        AgentFile.load(tmp_path)


@pytest.mark.parametrize("answer", [b"", b"[]", b"[" * 50_000, b'{"detail": "\x1b[31mred"}', b"x" * 300_000])
def test_a_hostile_answer_is_an_error_of_the_right_kind(tmp_path: Path, answer: bytes) -> None:
    """A server that answers nonsense, escape codes or too much brings nothing down."""

    class Hostile(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(400 if b"red" in answer else 201, content=answer)

    said = Wanted(server=ISSUER, token=SecretStr("a.b"), name="vps-9", address="10.0.0.9")
    with pytest.raises((EnrolmentFailed, OSError)) as caught:
        asyncio.run(enrol(said, tmp_path, transport=Hostile(), wait_seconds=0.0))
    assert "\x1b" not in str(caught.value)


def certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, days: int = 1
) -> x509.Certificate:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=2 + days))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if subject != issuer:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(subject))])
        builder = builder.add_extension(names, critical=False)
    else:
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(signer, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def fingerprint(of: x509.Certificate) -> str:
    return hashlib.sha256(of.public_bytes(serialization.Encoding.DER)).hexdigest()


@asynccontextmanager
async def tls_server(data: Path, chain: str, key: ec.EllipticCurvePrivateKey) -> AsyncIterator[str]:
    (data / "chain.pem").write_text(chain)
    (data / "tls.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(data / "chain.pem", data / "tls.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("subject", "days", "other_authority", "is_good"),
    [("127.0.0.1", 1, False, True), ("127.0.0.2", 1, False, False), ("127.0.0.1", -1, False, False),
     ("127.0.0.1", 1, True, False)],
    ids=["good", "wrong name", "expired", "signed by another authority"],
)  # fmt: skip
def test_only_the_pinned_authority_counts(
    tmp_path: Path, subject: str, days: int, other_authority: bool, is_good: bool
) -> None:
    """The pinned authority is found by its fingerprint; name, dates and signature of the server's own still count."""
    authority_key, key, stranger = new_key(), new_key(), new_key()
    authority = certificate("authority", authority_key, "authority", authority_key)
    own = certificate(subject, key, "authority", stranger if other_authority else authority_key, days=days)

    async def scenario() -> None:
        async with tls_server(tmp_path, pem(own, authority), key) as url:
            pinned = await presented_authority(url, fingerprint(authority).upper())
            async with httpx.AsyncClient(verify=context_for(pinned), trust_env=False) as client:
                if is_good:
                    assert (await client.get(url)).text == "ok"
                    return
                with pytest.raises(httpx.ConnectError):
                    await client.get(url)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "said"),
    [("00" * 32, "do not go on"), ("", "64 hex"), ("zz", "64 hex"), ("ä", "64 hex"), ("0" * 63, "64 hex")],
)
def test_a_wrong_fingerprint_ends_it(tmp_path: Path, given: str, said: str) -> None:
    """When no presented certificate has the fingerprint, nothing is sent: the token stays secret."""
    key = new_key()
    own = certificate("authority", key, "authority", key)

    async def scenario() -> None:
        async with tls_server(tmp_path, pem(own), key) as url:
            wanted = Wanted(server=url, token=SecretStr("a.b"), name="vps-9", ca_sha256=given)
            with pytest.raises(Unusable, match=said):
                await enrol(wanted, tmp_path / "agent")

    asyncio.run(scenario())
    assert not (tmp_path / "agent" / FILE).exists()
