"""Traefik as another judge of the authority: what it takes from a backend over TLS, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.authority.pairs import key_pem
from reconciler.pki.authority.profiles import Issuer, Profile
from tests.support.certificates import KEY, names, new_leaf, text
from tests.support.traefik import Front, front
from tests.support.waiting import wait_for

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
AGENT = profiles.agent("fleet.test", "vps-1")
NAME = "vps-1.agents.fleet.test"
NOW = dt.datetime.now(dt.UTC)
SPIFFE_OF_ANOTHER = profiles.server(names(NAME, uris=("spiffe://bank.example/agent/vps-1",)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("front")) as one:
        yield one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open_or_found(tmp_path_factory.mktemp("fleet") / "keys", permitted=FLEET, now=NOW)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        return  # Traefik hung up on the certificate


@contextmanager
def backend(folder: Path, chain: str) -> Iterator[str]:
    """An HTTPS server that presents ``chain``; yields its address."""
    (folder / "pair.pem").write_bytes(chain.encode() + key_pem(KEY))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    server = Server(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(running: Front, folder: Path, chain: str, bundle: str, name: str) -> int:
    """Return the status with which Traefik answers when it must reach a backend that presents ``chain``."""
    with backend(folder, chain) as url:
        host = f"{folder.name.replace('_', '-').lower()}.test"
        transport = {"rootCAs": [bundle], **({"serverName": name} if name else {})}
        service = {"loadBalancer": {"serversTransport": "fleet", "servers": [{"url": url}]}}
        router = {"rule": f"Host(`{host}`)", "service": "one", "entryPoints": [running.fleet.spec.entry_points.http]}
        http = {"routers": {"one": router}, "services": {"one": service}, "serversTransports": {"fleet": transport}}
        running.file.publish(json.dumps({"http": http}))
        return wait_for(lambda: (status := running.get(host).status_code) != 404 and status, 10, what=running.log())


def issued(authority: Authority, profile: Profile) -> str:
    return authority.issue(profile, KEY.public_key(), holder="test", now=NOW).pem


def forged(authority: Authority, profile: Profile, now: dt.datetime = NOW) -> str:
    """What somebody with the intermediate's key could sign."""
    issuer = authority.pairs("intermediate")["current"].issuer()
    assert isinstance(issuer, Issuer)
    return text(new_leaf(profile, issuer, now), issuer.certificate)


@pytest.mark.parametrize(("profile", "name"), [(AGENT, NAME), (profiles.server(names("127.0.0.1")), "")])
def test_traefik_reaches_a_backend_by_bundle_and_name(
    running: Front, authority: Authority, tmp_path: Path, profile: Profile, name: str
) -> None:
    """An agent by its server name, whatever its address; a server by its address."""
    assert asked(running, tmp_path, issued(authority, profile), authority.bundle().pem, name) == 200


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (lambda one: issued(one, AGENT), "vps-2.agents.fleet.test"),
        (lambda one: forged(one, profiles.server(names("bank.example"))), "bank.example"),
        (lambda one: forged(one, profiles.server(names("127.0.0.2", NAME))), NAME),
        (lambda one: forged(one, SPIFFE_OF_ANOTHER), NAME),
        (lambda one: forged(one, AGENT, NOW - dt.timedelta(days=2)), NAME),
        (
            lambda one: issued(one, AGENT).partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n",
            NAME,
        ),
    ],
    ids=["another agent's name", "a name outside", "an address outside", "a SPIFFE id outside", "expired", "no chain"],
)
def test_traefik_refuses_what_openssl_refuses(
    running: Front, authority: Authority, tmp_path: Path, chain: object, name: str
) -> None:
    """Two libraries read the constraints alike: the backend is not reached, and the client gets an error of Traefik."""
    assert callable(chain)

    assert asked(running, tmp_path, chain(authority), authority.bundle().pem, name) in (500, 502)


def test_traefik_refuses_another_fleet(running: Front, authority: Authority, tmp_path: Path) -> None:
    """The same names below another root."""
    other = Authority.open_or_found(tmp_path / "keys", permitted=FLEET, now=NOW)

    assert asked(running, tmp_path, issued(authority, AGENT), other.bundle().pem, NAME) in (500, 502)
