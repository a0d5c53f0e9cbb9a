"""TLS on both sides of the real Traefik: backends prove their name, clients see the certificate that was issued."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.overlay import NO_OVERLAY
from schemas.route import Route
from tests.integration.traefik.test_http import look
from tests.integration.traefik.test_tcp import ask
from tests.support.pairs import FakeAuthority
from tests.support.traefik import Backend, Front, agent, backends, route
from tests.support.waiting import wait_for

HOST = "web.app.cloudlunacy.test"
DATABASE = "vps-1.mongodb.cloudlunacy.test"
END = "-----END CERTIFICATE-----"
TLS = {"scheme": "https"}


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority(now=datetime.now(UTC))


@pytest.fixture
def trusting(running: Front, authority: FakeAuthority) -> Iterator[Front]:
    """The front of the module, with the authority's roots."""
    running.overlay = running.renderer.overlay({}, roots=authority.bundle)
    yield running
    running.overlay = NO_OVERLAY


@pytest.fixture
def secure(tmp_path: Path, authority: FakeAuthority) -> Iterator[tuple[Backend, ...]]:
    """A backend with the certificate of vps-1, and one with that of vps-2."""
    contexts = [authority.context_of_agent(tmp_path, name) for name in ("vps-1", "vps-2")]
    with backends("one", "two", tls=contexts) as started:
        yield started


def to(backend: Backend, **spec: Any) -> Route:
    backends = [{"agent": "vps-1", "port": backend.port}]
    return route(**{"tls": {"mode": "none"}, "transport": TLS, "backends": backends, **spec})


def database(backend: Backend, **spec: Any) -> Route:
    backends = [{"agent": "vps-1", "port": backend.port}]
    return route("db", **{"type": "mongodb", "backends": backends, "transport": TLS, **spec})


def of_database(front: Front) -> str:
    try:
        return ask(front.connect("mongodb", DATABASE))
    except (ssl.SSLError, ConnectionError):
        return ""


def test_requests_reach_the_agent_that_proves_its_name(trusting: Front, secure: tuple[Backend, ...]) -> None:
    """The right certificate passes; another agent's is refused, and its owner hears nothing of the request."""
    trusting.serve(look(trusting), to(secure[0]))
    assert trusting.get(HOST).json()["backend"] == "one"
    trusting.serve(look(trusting), to(secure[1]))
    assert trusting.get(HOST).status_code == 500
    assert secure[1].requests == []


def test_connections_reach_the_agent_that_proves_its_name(trusting: Front, secure: tuple[Backend, ...]) -> None:
    """The same for databases: a wrong name ends the connection at once."""
    trusting.serve(look(trusting), database(secure[0]))
    assert of_database(trusting) == "one"
    trusting.serve(look(trusting), database(secure[1]))
    assert of_database(trusting) == ""
    assert secure[1].requests == []


def test_each_of_several_agents_is_checked_by_its_own_name(trusting: Front, secure: tuple[Backend, ...]) -> None:
    """Requests and health checks reach both; with the two exchanged neither gets any."""
    ports = [backend.port for backend in secure]
    for first, second, answers in (*ports, {"one", "two"}), (*reversed(ports), {"502", "503", "500"}):
        shares = [{"agent": "vps-1", "port": first}, {"agent": "vps-2", "port": second}]
        check = {"path": "/health", "interval": "50ms", "timeout": "1s"}
        trusting.serve(look(trusting, agent("vps-2")), to(secure[0], backends=shares, healthCheck=check))

        def answered() -> str:
            response = trusting.get(HOST)
            return str(response.json()["backend"]) if response.status_code == 200 else str(response.status_code)

        wait_for(lambda wanted=answers: {answered() for _ in range(4)} <= wanted, 5)  # type: ignore[misc]
    assert all(set(backend.requests) <= {"/", "/health"} for backend in secure)


def test_another_authority_is_not_believed(trusting: Front, secure: tuple[Backend, ...]) -> None:
    """The right name does not help where somebody else signed it; nor where the front was given no roots."""
    for overlay in trusting.renderer.overlay({}, roots=FakeAuthority().bundle), NO_OVERLAY:
        trusting.overlay = overlay
        trusting.serve(look(trusting), to(secure[0]), database(secure[0]))
        assert trusting.get(HOST).status_code == 500
        assert of_database(trusting) == ""
    assert secure[0].requests == []


def test_a_front_proves_itself_to_an_agent_that_asks_for_it(
    running: Front, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Requests and connections pass with the pair of the overlay; without it, or with another, none does."""
    context = authority.context_of_agent(tmp_path, "vps-1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.bundle)
    proving = {"transport": {**TLS, "clientCertificate": True}}
    pair = authority.client("fronts.cloudlunacy.test").certificate
    try:
        with backends("one", tls=[context]) as (backend,):
            running.overlay = running.renderer.overlay({}, roots=authority.bundle, client=pair)
            running.serve(look(running), to(backend, **proving), database(backend, **proving))
            assert running.get(HOST).json()["backend"] == "one"
            assert of_database(running) == "one"
            heard = len(backend.requests)
            for strange in (authority.pair("fronts.cloudlunacy.test"), FakeAuthority().client("fronts.test")):
                running.overlay = running.renderer.overlay({}, roots=authority.bundle, client=strange.certificate)
                running.serve(look(running), to(backend, **proving), database(backend, **proving))
                assert running.get(HOST).status_code >= 500, "for servers, or of another authority"
                assert of_database(running) == ""
            running.serve(look(running), to(backend), database(backend))
            assert running.get(HOST).status_code >= 500
            assert of_database(running) == ""
            running.overlay = running.renderer.overlay({}, roots=authority.bundle)
            running.serve(look(running), to(backend, **proving), database(backend, **proving))
            assert running.get(HOST).status_code >= 500
            assert of_database(running) == ""
            assert len(backend.requests) == heard
    finally:
        running.overlay = NO_OVERLAY


def test_clients_see_the_certificate_that_was_issued(running: Front, authority: FakeAuthority) -> None:
    """Chain and key come with the file; exact names come before wildcards, and a renewed pair takes over."""
    trust = ssl.create_default_context(cadata=authority.bundle)
    exact = authority.pair("own.app.cloudlunacy.test")

    def shown(name: str) -> bytes | None:
        """The leaf, of a chain that leads to the root and names the host."""
        with (
            socket.create_connection(("127.0.0.1", running.ports["websecure"]), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname=name) as checked,
        ):
            return checked.getpeercert(binary_form=True)

    for apps in authority.pair("*.app.cloudlunacy.test"), authority.pair("*.app.cloudlunacy.test"):
        pairs = {"apps": apps.certificate, "own": exact.certificate}
        running.overlay = running.renderer.overlay(pairs, roots=authority.bundle)
        running.serve(look(running), route(backends=[{"agent": "vps-1", "port": 9}]))
        assert shown(HOST) == ssl.PEM_cert_to_DER_cert(apps.chain.split(END)[0] + END)
        assert shown("own.app.cloudlunacy.test") == ssl.PEM_cert_to_DER_cert(exact.chain.split(END)[0] + END)
    running.overlay = NO_OVERLAY
