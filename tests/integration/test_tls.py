"""TLS of the control plane: what it presents, who is believed by whom, and what happens at the wrong door."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from reconciler.pki.authority import pairs, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import LOOPBACK, Names, permitted_for
from reconciler.web import server as web_server
from reconciler.web.tls import present, server_context
from tests.support import openssl
from tests.support.fleet import Installation, command, installation, run_cli, start_files
from tests.support.ports import free_port
from tests.support.waiting import wait_for

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("tls") / "one", start_files("web"), traefik=False) as running:
        yield running


def s_client(one: Installation, *words: str) -> openssl.Verdict:
    """What openssl sees at the door."""
    return openssl.run("s_client", "-connect", f"127.0.0.1:{one.port}", "-CAfile", str(one.ca), *words)


def status(url: str, *trust: str | Path) -> subprocess.CompletedProcess[str]:
    return run_cli("status", "--server", url, *trust, timeout=20)


# --- what is presented -------------------------------------------------------------------------------------------


def test_openssl_accepts_what_is_presented(one: Installation) -> None:
    """The chain is leaf, intermediate and root, good for the address and for localhost."""
    found = s_client(one, "-showcerts", "-verify_return_error", "-verify_ip", "127.0.0.1")
    assert "Verify return code: 0 (ok)" in found.text
    assert found.text.count("BEGIN CERTIFICATE") >= 3
    assert s_client(one, "-verify_return_error", "-verify_hostname", "localhost").good
    assert not s_client(one, "-verify_return_error", "-verify_hostname", "elsewhere.test").good
    assert Path(one.ca).read_text() in found.text.replace("\r", "")


@pytest.mark.parametrize(("version", "spoken"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_old_versions_are_not_spoken(one: Installation, version: str, spoken: bool) -> None:
    """TLS 1.2 and 1.3 are spoken, older versions are not."""
    # the client must be willing, or it would be its refusal that is seen
    words = [version] if spoken else [version, "-cipher", "DEFAULT@SECLEVEL=0"]
    assert s_client(one, *words).good is spoken


def test_weak_suites_and_renegotiation_are_not_there(one: Installation) -> None:
    """Of TLS 1.2 only suites with forward secrecy and authenticated encryption are taken; nothing is compressed."""
    for weak in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"):
        assert not s_client(one, "-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0").good, weak
    assert "Compression: NONE" in s_client(one, "-tls1_2").text


def test_no_key_lies_in_clear_where_keys_are_sealed(tmp_path: Path) -> None:
    """With a key file the server's key is sealed as all others are, and the file that OpenSSL read is gone."""
    sealing = tmp_path / "sealing-key"
    sealing.write_bytes(b64encode(secrets.token_bytes(32)))
    with installation(
        tmp_path / "one", start_files("web"), traefik=False, environment={"CLOUDLUNACY_KEY_FILE": str(sealing)}
    ) as one:
        keys = one.data / "keys"
        assert "BEGIN CLOUDLUNACY SEALED KEY" in (keys / "server.pem").read_text()
        clear = [path.name for path in keys.rglob("*") if path.is_file() and b"PRIVATE KEY-----" in path.read_bytes()]
        assert clear == ["default-certificate.pem"]
        assert not list(keys.glob(".presenting-*"))


# --- who is believed ---------------------------------------------------------------------------------------------


def test_commands_trust_whom_they_are_told_to(one: Installation) -> None:
    """A file with the root and the root's fingerprint do; credentials are the next thing that is missing."""
    for trust in (("--ca-file", one.ca), ("--ca-sha256", one.ca_sha256), ("--ca-sha256", one.ca_sha256.upper())):
        assert "needs credentials" in status(one.url, *trust).stderr
    by_environment = run_cli("status", "--server", one.url, env={"CLOUDLUNACY_CA_FILE": str(one.ca)})
    assert "needs credentials" in by_environment.stderr
    assert one.cli("status").returncode == 0


def test_a_wrong_authority_is_told_in_a_sentence(one: Installation, tmp_path: Path) -> None:
    """Neither the system's roots nor another fleet's are enough, and a wrong fingerprint ends it."""
    other = authority(tmp_path)
    (tmp_path / "other.pem").write_text(other.bundle().pem)
    for trust in ((), ("--ca-file", tmp_path / "other.pem")):
        refused = status(one.url, *trust)
        assert (refused.returncode, "authority that is not trusted here" in refused.stderr) == (1, True)
        assert "--ca-sha256" in refused.stderr
    refused = status(one.url, "--ca-sha256", other.bundle().fingerprints[0])
    assert (refused.returncode, "do not go on" in refused.stderr) == (1, True)
    refused = status(one.url, "--ca-sha256", "beef")
    assert (refused.returncode, "64 hexadecimal digits" in refused.stderr) == (1, True)
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    assert "holds no certificates" in status(one.url, "--ca-file", nothing).stderr


def test_an_agent_that_is_told_another_authority_sends_nothing(one: Installation, tmp_path: Path) -> None:
    """A wrong fingerprint, and none for an authority that the system does not know, end an enrolment at once."""
    token = one.token("careful")
    for trust, said in (((), "--ca-sha256"), (("--ca-sha256", "0" * 64), "do not go on")):
        refused = enrol(one.url, token, "careful", tmp_path / "careful", *trust)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr
    assert enrol(one.url, token, "careful", tmp_path / "careful", "--ca-sha256", one.ca_sha256).returncode == 0


def test_a_wrong_name_is_told_in_a_sentence(one: Installation, tmp_path: Path) -> None:
    """The right machine under a name that its certificate does not carry is not believed."""
    url = f"https://127.1:{one.port}"  # another way to write 127.0.0.1
    refused = status(url, "--ca-file", one.ca)
    assert (refused.returncode, "is for other names" in refused.stderr) == (1, True), refused.stderr
    refused = enrol(url, one.token("lost"), "lost", tmp_path / "lost", "--ca-sha256", one.ca_sha256)
    assert (refused.returncode, "is for other names" in refused.stderr) == (1, True), refused.stderr


def test_an_expired_certificate_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Command and agent say that it has expired, or that the clock is wrong."""
    own, now = authority(tmp_path), dt.datetime.now(dt.UTC)
    key = pairs.new_key()
    old = own.issue(profiles.server(Names.of(LOOPBACK), DAY), key.public_key(), holder="server", now=now - 2 * DAY)
    context = server_context()
    present(context, old.pem.encode(), key, tmp_path)
    (tmp_path / "ca.pem").write_text(own.bundle().pem)
    with door(context) as port:
        url = f"https://127.0.0.1:{port}"
        refused = status(url, "--ca-file", tmp_path / "ca.pem")
        assert (refused.returncode, "has expired" in refused.stderr) == (1, True), refused.stderr
        trust = ("--ca-sha256", own.bundle().fingerprints[0])
        refused = enrol(url, "a.b", "late", tmp_path / "late", *trust)
        assert (refused.returncode, "has expired" in refused.stderr) == (1, True), refused.stderr


def test_token_create_prints_what_lets_an_agent_in(one: Installation, tmp_path: Path) -> None:
    """The line has address and fingerprint, and works as it is with the token on its standard input."""
    made = one.cli("token", "create", "--agent", "printed")
    line = made.stderr.partition("cloudlunacy agent enrol ")[2].split()
    assert line[: line.index("--token-file")] == ["--server", one.url, "--ca-sha256", one.ca_sha256]
    line[line.index("DIR")] = str(tmp_path / "printed")
    done = subprocess.run(
        command("agent", "enrol", *line, "--address", "127.0.0.1"),
        input=made.stdout, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- renewal and loss --------------------------------------------------------------------------------------------


def test_the_authority_outlives_a_restart_and_its_loss_is_noticed(tmp_path: Path) -> None:
    """After a restart everybody goes on; when the keys were lost, nobody believes the new authority by himself."""
    with installation(tmp_path / "one", start_files("web"), traefik=False) as one:
        first, ca = one.ca_sha256, tmp_path / "ca.pem"
        shutil.copy(one.ca, ca)
        served = (one.data / "keys" / "server.pem").read_bytes()
        assert one.enrol("vps-1").returncode == 0
        one.run_agent("vps-1")
        one.wait_connected("vps-1")
        one.stop()
        one.start()
        assert (one.ca_sha256, (one.data / "keys" / "server.pem").read_bytes()) == (first, served)
        one.wait_connected("vps-1")
        one.stop()
        shutil.rmtree(one.data / "keys")
        one.start()
        assert one.ca_sha256 != first
        assert "not trusted here" in status(one.url, "--ca-file", ca).stderr
        wait_for(lambda: "not trusted here" in one.agent_log("vps-1"), 90, what="the agent's refusal")
        assert one.agent("vps-1") is not None
        one.wait_connected("vps-1", connected=False)


def test_a_certificate_that_is_damaged_or_for_other_names_is_made_anew(tmp_path: Path) -> None:
    """The next start replaces it, by the same authority."""
    with installation(tmp_path / "one", start_files("web"), traefik=False) as one:
        first, path = one.ca_sha256, one.data / "keys" / "server.pem"
        for spoil in (lambda: path.write_text("nothing"), path.unlink, lambda: None):
            former = path.read_bytes()
            one.stop()
            spoil()
            one.options = ["--public-url", f"https://plane-{secrets.token_hex(2)}.test"]
            one.start()
            assert path.read_bytes() != former
            assert one.ca_sha256 == first
        assert s_client(one, "-verify_return_error", "-verify_hostname", one.options[1].removeprefix("https://")).good
        assert one.metric("cloudlunacy_server_certificate_not_after_seconds") > time.time() + 29 * 86_400


def test_swapping_the_certificate_drops_nothing(tmp_path: Path) -> None:
    """Open connections, a WebSocket among them, go on; the next handshakes get the new certificate."""
    own, context = authority(tmp_path), server_context()

    def swap() -> int:
        key = pairs.new_key()
        made = own.issue(
            profiles.server(Names.of(LOOPBACK)), key.public_key(), holder="server", now=dt.datetime.now(dt.UTC)
        )
        present(context, made.pem.encode(), key, tmp_path)
        return made.serial

    async def scenario() -> None:
        first = swap()
        async with serving(context) as port:
            trusted = ssl.create_default_context(cadata=own.bundle().pem)
            async with (
                httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trusted, trust_env=False) as kept,
                connect(f"wss://127.0.0.1:{port}/echo", ssl=trusted, proxy=None) as talking,
            ):
                presented, failures = {first}, []

                enough = asyncio.Event()

                async def keep_asking() -> None:
                    while not enough.is_set():
                        try:
                            assert (await kept.get("/")).text == "ok"
                            async with httpx.AsyncClient(verify=trusted, trust_env=False) as fresh:
                                assert (await fresh.get(f"https://127.0.0.1:{port}/")).text == "ok"
                        except (httpx.HTTPError, AssertionError) as error:
                            failures.append(repr(error))
                        await talking.send("still there?")
                        assert await talking.recv() == "still there?"

                asking = asyncio.create_task(keep_asking())
                for _ in range(5):
                    presented.add(swap())
                    found = await asyncio.to_thread(serial_at, port, trusted)
                    assert found in presented
                    assert found != first
                    await asyncio.sleep(0.05)
                enough.set()
                await asking
                assert failures == []
                await talking.send("to the end")
                assert await talking.recv() == "to the end"

    asyncio.run(scenario())


def test_a_pooled_connection_holds_up_no_end(tmp_path: Path) -> None:
    """A client that has its answer and does not read meanwhile says no goodbye."""
    own, context = authority(tmp_path), server_context()
    key = pairs.new_key()
    profile = profiles.server(Names.of(LOOPBACK))
    made = own.issue(profile, key.public_key(), holder="server", now=dt.datetime.now(dt.UTC))
    present(context, made.pem.encode(), key, tmp_path)
    trusted = ssl.create_default_context(cadata=own.bundle().pem)

    def pooled(port: int) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), 10)
        connection = trusted.wrap_socket(raw, server_hostname="localhost")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        return connection

    async def scenario() -> float:
        async with serving(context) as port:
            connection = await asyncio.to_thread(pooled, port)
            begin = time.monotonic()
        connection.close()
        return time.monotonic() - begin

    assert asyncio.run(scenario()) < web_server.SHUTDOWN_SECONDS / 2


def serial_at(port: int, trusted: ssl.SSLContext) -> int:
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        trusted.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        found = connection.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


def test_what_is_too_large_is_told_although_it_was_still_on_its_way(one: Installation) -> None:
    """A refusal arrives whole: the connection is not closed on what the client is sending."""
    for size in (70_000, 300_000, 900_000):
        answer = one.client.post("/api/v1/approvals", content=b" " * size, headers=one.headers())
        assert (answer.status_code, answer.json()["detail"]) == (413, "The body is too large.")


# --- the wrong door ----------------------------------------------------------------------------------------------


def test_plain_http_at_the_door_of_tls_ends_cleanly(one: Installation) -> None:
    """The connection is closed, nothing is logged as an error, and the command says what to try."""
    with socket.create_connection(("127.0.0.1", one.port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(100) == b""
    refused = status(one.url.replace("https:", "http:"))
    assert (refused.returncode, f"try {one.url}" in refused.stderr) == (1, True), refused.stderr
    assert "Traceback" not in one.log()


def test_tls_at_the_door_of_plain_http_is_told(tmp_path: Path) -> None:
    """Command and agent say that what answers speaks no TLS."""
    with installation(tmp_path / "one", start_files("web"), traefik=False, plain_http=True) as one:
        url = one.url.replace("http:", "https:")
        refused = status(url, "--ca-file", one.ca)
        assert (refused.returncode, "speaks no TLS" in refused.stderr) == (1, True), refused.stderr
        refused = enrol(url, one.token("vps-1"), "vps-1", tmp_path / "agent", "--ca-sha256", one.ca_sha256)
        assert (refused.returncode, "speaks no TLS" in refused.stderr) == (1, True), refused.stderr
        assert one.enrol("vps-1").returncode == 0
        assert one.cli("status").returncode == 0


@pytest.mark.parametrize("listen", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_plain_http_is_for_loopback_alone(tmp_path: Path, listen: str) -> None:
    """Anywhere else it is refused before anything is made."""
    words = ("serve", "--repo", str(tmp_path), "--data", tmp_path / "data", "--listen", f"{listen}:{free_port()}")
    refused = run_cli(*words, "--plain-http")
    assert (refused.returncode, "is not loopback" in refused.stderr) == (2, True), refused.stderr
    assert not (tmp_path / "data").exists()


def test_behind_a_proxy_that_ends_tls_an_agent_is_known_by_the_public_address(tmp_path: Path) -> None:
    """Proofs are for the public URL; the proxy speaks plain HTTP to the control plane and keeps the Host header."""
    own = authority(tmp_path)
    key = pairs.new_key()
    made = own.issue(
        profiles.server(Names.of(LOOPBACK)), key.public_key(), holder="server", now=dt.datetime.now(dt.UTC)
    )
    context = server_context()
    present(context, made.pem.encode(), key, tmp_path)
    with (
        installation(tmp_path / "one", start_files("web"), traefik=False, plain_http=True, start=False) as one,
        door(context, to=one.port) as port,
    ):
        one.options = ["--public-url", f"https://localhost:{port}"]
        one.start()
        one.status_wait(one.repo.tip() or "")
        trust = ("--ca-sha256", own.bundle().fingerprints[0])
        done = enrol(f"https://localhost:{port}", one.token("vps-1"), "vps-1", one.agent_data("vps-1"), *trust)
        assert done.returncode == 0, done.stderr
        one.run_agent("vps-1")
        one.wait_connected("vps-1")


# --- support -----------------------------------------------------------------------------------------------------


def authority(folder: Path) -> Authority:
    """An authority for loopback, below ``folder``."""
    now = dt.datetime.now(dt.UTC)
    return Authority.open_or_found(folder / "other-keys", permitted=permitted_for(listen=LOOPBACK), now=now)


def enrol(url: str, token: str, name: str, data: Path, *trust: str) -> subprocess.CompletedProcess[str]:
    words = ("agent", "enrol", "--server", url, "--token", token, "--name", name, "--data", data)
    return run_cli(*words, "--address", "192.0.2.1", "--timeout", "30", *trust, timeout=25)


@contextmanager
def door(context: ssl.SSLContext, *, to: int = 0) -> Iterator[int]:
    """Accept TLS on a port; pass what comes ``to`` another, or answer nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    open_ones: list[socket.socket] = []

    def pipe(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def handle(raw: socket.socket) -> None:
        with suppress(OSError), raw, context.wrap_socket(raw, server_side=True) as outer:
            open_ones.append(outer)
            if to:
                with socket.create_connection(("127.0.0.1", to), 10) as inner:
                    inner.settimeout(None)
                    open_ones.append(inner)
                    back = threading.Thread(target=pipe, args=(inner, outer))
                    back.start()
                    pipe(outer, inner)
                    back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=handle, args=(listener.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
        listener.close()
        for one in open_ones:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


class serving:  # noqa: N801 - reads as what it does
    """The real server on a free port, with one answer and an echo."""

    def __init__(self, context: ssl.SSLContext) -> None:
        async def ok(_: Request) -> Response:
            return PlainTextResponse("ok")

        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_text(text)

        app = Starlette(routes=[Route("/", ok), WebSocketRoute("/echo", echo)])
        self._server = web_server.make_server(app, context)

    async def __aenter__(self) -> int:
        bound = web_server.listen("127.0.0.1", 0)
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name="server")
        while not self._server.started:
            await asyncio.sleep(0.01)
        return int(bound.getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
