"""Certificates of services on the real parts: ``serve``, the agent's process, a server that is told; openssl judges."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from ruamel.yaml import YAML
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from agent.certificate import Fresh
from agent.credentials import Credentials
from schemas.certificates_api import CRL_PATH
from schemas.session import SUBPROTOCOL
from tests.support import documents
from tests.support.agent_hub import running_hub, wanted
from tests.support.documents import DOMAIN
from tests.support.fleet import Installation, installation, start_files
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.signing_requests import greedy
from tests.support.tls_service import TlsService, Watcher
from tests.support.tokens import new_key
from tests.support.traefik import backends
from tests.support.waiting import wait_for

HOST = f"web.vps-1.agents.{DOMAIN}"
ID = "Certificate/shop/web"
SHORT = """
import functools, sys
from reconciler.agents import service_certificates
from reconciler.app import services
services.ServiceIssuer = functools.partial(services.ServiceIssuer, lifetime=lambda wanted: {seconds})
services.ServiceCertificates = functools.partial(services.ServiceCertificates, burst=10_000)
from reconciler.__main__ import main
sys.exit(main())
"""
DIES_BEFORE_TELLING = """
import os, signal, sys
from agent import service_certificates
async def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
service_certificates.tell = die
from reconciler.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Every service certificate lives for so many seconds."""
    entry = tmp_path / "entry.py"
    entry.write_text(SHORT.format(seconds=request.param))
    files = start_files()
    with installation(tmp_path / "one", files, traefik=False, entry=[sys.executable, str(entry)]) as running:
        yield running


def lives(seconds: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", [seconds], indirect=True, ids=[f"{seconds}s"])


def web(one: Installation, **tls: Any) -> dict[str, bytes]:
    """A deployment that wants a certificate and is told by signal."""
    tls = {"reload": {"signal": "HUP", "pidFile": str(pid_file(one))}, **tls}
    return {"deployments/shop/web.yaml": documents.deployment("web", "vps-1", tls=tls)}


def pid_file(one: Installation) -> Path:
    return one.folder / "run" / "web.pid"


def place(one: Installation) -> Path:
    return one.agent_data("vps-1") / "services" / "shop" / "web"


def in_service(one: Installation) -> None:
    """An enrolled agent whose machine lets it signal, with a certificate for its service."""
    done = one.enrol("vps-1")
    assert done.returncode == 0, done.stderr
    pid_file(one).parent.mkdir()
    (one.agent_data("vps-1") / "grants.toml").write_text(f'[services]\npid-files = ["{pid_file(one).parent}"]\n')
    one.run_agent("vps-1")
    one.wait_connected("vps-1")
    one.live(web(one))


def item(one: Installation) -> dict[str, Any]:
    """What the API says of the agent's item."""
    found = [one_item for one_item in (one.agent("vps-1") or {}).get("items", ()) if one_item["id"] == ID]
    return found[0] if found else {}


def roots(one: Installation) -> str:
    return one.ca.read_text()


def s_client(one: Installation, service: TlsService) -> str:
    """Ask with ``openssl s_client`` that checks everything; return the serial of the leaf."""
    words = ["s_client", "-connect", f"127.0.0.1:{service.port}", "-servername", HOST, "-verify_hostname", HOST]
    done = subprocess.run(
        [str(require("openssl")), *words, "-verify_return_error", "-CAfile", str(place(one) / "ca.crt")],
        input=b"", capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"Verify return code: 0 (ok)" in done.stdout
    pem = done.stdout[done.stdout.index(b"-----BEGIN") : done.stdout.index(b"-----END") + 26]
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"


@lives(8)
def test_a_service_is_renewed_and_told_while_nobody_notices(one: Installation) -> None:
    """s_client sees leaf after leaf; no connection meanwhile fails, and no reader of the files finds half a pair."""
    in_service(one)
    assert item(one)["reason"] == "NotRunning"

    def read() -> None:
        found = place(one).resolve()  # once: OpenSSL opens a file for the certificate, and again for the key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(found / "tls.pem")
        context.load_cert_chain(found / "tls.crt", found / "tls.key")

    trusted = roots(one)
    with TlsService(place(one), pid_file(one)) as service:
        with Watcher(lambda: service.leaf(HOST, trusted)) as clients, Watcher(read) as readers:
            serials = [s_client(one, service)]
            for _ in range(3):
                wait_for(lambda: s_client(one, service) not in serials, 20, what="a new leaf is served")
                serials.append(s_client(one, service))
        assert (clients.failures, readers.failures) == ([], [])
        assert clients.looks > 50
        assert readers.looks > 50
        wait_for(lambda: item(one).get("reason") == "Issued", 20, what="the API tells of it")
        assert re.search(r"until \d{4}-.* UTC; SHA-256 [0-9a-f]{64}\.", item(one)["message"])
        assert HOST in item(one)["message"]
    assert len(set(serials)) == 4


@lives(24)
def test_a_kill_between_swap_and_telling_tells_after_it(one: Installation, tmp_path: Path) -> None:
    """The next start tells of the certificate that is in place, without the control plane, and without another one."""
    in_service(one)
    trusted = roots(one)
    with TlsService(place(one), pid_file(one)) as service:
        wait_for(lambda: item(one).get("reason") == "Issued", 20, what="the service was told once")
        stop(one)
        before = service.leaf(HOST, trusted)
        entry = tmp_path / "dies.py"
        entry.write_text(DIES_BEFORE_TELLING)
        command = [sys.executable, str(entry), "agent", "run", "--data", str(one.agent_data("vps-1"))]
        died = subprocess.run(tied(command), capture_output=True, timeout=60, check=False)
        assert died.returncode == -9, died.stderr.decode()
        in_place = x509.load_pem_x509_certificate((place(one) / "tls.crt").read_bytes())
        assert service.leaf(HOST, trusted) == before, "nobody was told"
        one.stop()
        one.run_agent("vps-1")
        expected = in_place.fingerprint(hashes.SHA256()).hex()
        wait_for(lambda: service.leaf(HOST, trusted) == expected, 20, what="the new leaf is served")
        assert x509.load_pem_x509_certificate((place(one) / "tls.crt").read_bytes()) == in_place


def stop(one: Installation) -> None:
    """End the agent that runs."""
    process = one._agents[-1]
    process.kill()
    process.wait()


@lives(3600)
def test_the_key_is_nowhere_but_on_the_agent(one: Installation) -> None:
    """Neither in the control plane's data and log, nor in git, nor in what the API says."""
    in_service(one)
    stop(one)
    key = (place(one) / "tls.key").read_bytes()
    secret = serialization.load_pem_private_key(key, None)
    line = key.splitlines()[2][:40]  # the first one is alike in all keys
    number = secret.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    found = {
        path
        for path in one.folder.rglob("*")
        if path.is_file() and any(part in path.read_bytes() for part in (line, number))
    }
    assert found
    assert all(one.agent_data("vps-1") in path.parents for path in found), found
    assert line.decode() not in json.dumps(one.ask("/agents", limit=10))


@lives(3600)
def test_only_what_the_document_names_is_signed(one: Installation) -> None:
    """An agent that asks for another's, for more, or without end is answered with a reason, and goes on."""
    in_service(one)
    stop(one)
    greedy_csr = greedy(new_key(), agent="vps-2", domain=DOMAIN)

    async def scenario() -> None:
        credentials = Credentials.load(one.agent_data("vps-1"))
        url = credentials.stream_url
        try:
            headers = await credentials.headers("GET", url)
            subprotocols = [Subprotocol(SUBPROTOCOL)]
            async with connect(
                url, additional_headers=headers, subprotocols=subprotocols, ssl=credentials.tls, proxy=None
            ) as socket:
                sequence = 0

                async def say(kind: str, **fields: Any) -> None:
                    nonlocal sequence
                    sequence += 1
                    await socket.send(json.dumps({"type": kind, "sequence": sequence, **fields}))

                async def hear(kind: str) -> dict[str, Any]:
                    while True:
                        message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
                        if message["type"] == kind:
                            return message

                async def ask(item_id: str, digest: str, csr: str) -> dict[str, Any]:
                    await say("certificate-request", id=item_id, digest=digest, csr=csr)
                    return await hear("certificate")

                await say("hello", protocol=1, agent="vps-1", version="test")
                payload = (await hear("desired"))["jws"].split(".")[1]
                document = json.loads(_base64(payload))
                (mine,) = [one for one in document["items"] if one["id"] == ID]
                csr = Fresh.make().csr
                for item_id, digest, reason in (
                    ("Certificate/shop/other", mine["digest"], "NotWanted"),
                    (ID, "sha256:" + "0" * 64, "OlderDocument"),
                ):
                    answer = await ask(item_id, digest, csr)
                    assert (answer["reason"], answer["certificate"]) == (reason, "")
                assert (await ask(ID, mine["digest"], "nonsense"))["reason"] == "BadCsr"
                answer = await ask(ID, mine["digest"], greedy_csr)
                leaf = x509.load_pem_x509_certificates(answer["certificate"].encode())[0]
                names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                assert names.get_values_for_type(x509.DNSName) == sorted([HOST, f"vps-1.agents.{DOMAIN}"])
                assert len(names) == 2
        finally:
            await credentials.close()

    asyncio.run(scenario())


def _base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@lives(3600)
def test_who_is_out_loses_its_certificates(one: Installation) -> None:
    """Quarantining the agent lists what its services have among the revoked."""
    in_service(one)
    held = place(one).resolve()
    serial = x509.load_pem_x509_certificate((held / "tls.crt").read_bytes()).serial_number
    stop(one)

    def revoked() -> set[int]:
        return {entry.serial_number for entry in x509.load_der_x509_crl(one.client.get(CRL_PATH).content)}

    found = YAML(typ="safe", pure=True).load(one.repo.show("agents/vps-1.yaml"))
    found["spec"]["state"] = "quarantined"
    one.push({"agents/vps-1.yaml": json.dumps(found)})
    wait_for(lambda: serial in revoked(), 20, what="the service's certificate is revoked")


@lives(3600)
def test_a_deployment_that_wants_none_any_more_loses_its_files(one: Installation) -> None:
    """The key goes with them."""
    in_service(one)
    one.live({"deployments/shop/web.yaml": documents.deployment("web", "vps-1")})
    wait_for(lambda: not place(one).exists(), 20, what="the files are gone")
    assert not list(place(one).parent.rglob("tls.key"))


@lives(3600)
def test_what_may_not_be_named_is_told_by_validate(one: Installation, tmp_path: Path) -> None:
    """The host of a stranger is a problem with a code and a hint, before it is ever pushed."""
    folder = tmp_path / "repo"
    for path, content in {**start_files(), **web(one, dnsNames=["bank.example.com"])}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (folder / path).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "validate", str(folder), "--format", "json"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    (problem,) = json.loads(done.stdout)["problems"]
    assert done.returncode == 1
    assert (problem["code"], problem["file"]) == ("service-name-not-granted", "deployments/shop/web.yaml")
    assert "vps" not in problem["message"]
    assert "routes" in problem["hint"]


@lives(3600)
def test_a_service_follows_to_another_authority(one: Installation) -> None:
    """After an emergency it shows a leaf under the new root alone, was told of it, and has the new roots beside it."""
    in_service(one)
    former = roots(one)
    with TlsService(place(one), pid_file(one)) as service:
        before = service.leaf(HOST, former)
        answer = one.post("/pki/rotations", {"subject": "root", "tainted": True})
        assert answer.status_code == 201, answer.text

        def followed() -> bool:
            with suppress(OSError):
                return roots(one) != former and service.leaf(HOST, roots(one)) != before
            return False

        wait_for(followed, 60, what=f"a leaf under the new root\n{one.agent_log('vps-1')[-2000:]}")
        wait_for(lambda: (place(one) / "ca.crt").read_text() == roots(one), 30, what="the new roots")
        with pytest.raises(ssl.SSLCertVerificationError):
            service.leaf(HOST, former)


def test_a_front_and_a_service_prove_themselves_to_each_other(tmp_path: Path) -> None:
    """Through Traefik to a service that takes nobody without a certificate, over a route that asks for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    with backends("one", tls=[context]) as (backend,), installation(tmp_path / "one", start_files()) as one:
        done = one.enrol("vps-1")
        assert done.returncode == 0, done.stderr
        one.run_agent("vps-1")
        one.wait_connected("vps-1")
        deployment = documents.deployment("web", "vps-1", port=backend.port, tls={})
        transports = {"web": {"scheme": "https", "clientCertificate": True}, "mute": {"scheme": "https"}}
        routes = {
            f"routes/shop/{name}.yaml": documents.route(name, backends=[{"deployment": "web"}], transport=transport)
            for name, transport in transports.items()
        }
        one.live({"deployments/shop/web.yaml": deployment, **routes})
        context.load_cert_chain(place(one) / "tls.pem")
        context.load_verify_locations(place(one) / "ca.crt")
        assert one.get("web").json()["backend"] == "one"
        assert one.get("mute").status_code >= 500
        assert "PRIVATE" not in json.dumps(one.ask("/certificates"))


def test_a_hub_without_an_authority_answers_too() -> None:
    """With a reason, so that the agent comes back later."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("vps-1") as agent:
            await agent.hello()
            (wanted_item,) = wanted(3).items()
            await agent.say("certificate-request", id=wanted_item.id, digest=wanted_item.digest, csr="csr")
            answer = await agent.hear()
            assert (answer["type"], answer["id"], answer["reason"]) == ("certificate", wanted_item.id, "Unavailable")
            assert answer["retrySeconds"] > 0
            messages = hub.hub.counters.messages
            assert (messages["certificate-request", "in"], messages["certificate", "out"]) == (1, 1)

    asyncio.run(scenario())
