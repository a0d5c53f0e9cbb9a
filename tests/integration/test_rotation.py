"""Keys give way to others in a running control plane, with real agents that follow."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from agent.client import run
from agent.credentials import AgentFile, Credentials
from agent.services import RecordingService
from reconciler.pki.authority.authority import Authority
from reconciler.pki.identities import identities_of_data
from reconciler.pki.operator_credential import OperatorCredential
from reconciler.pki.sealing import seal
from schemas.certificates_api import CRL_PATH
from tests.support import documents
from tests.support.fleet import Installation, Process, installation, run_cli
from tests.support.waiting import wait_for

ROTATIONS = "/pki/rotations"
FILES: dict[str, bytes | str | None] = {"fleet.yaml": documents.fleet(documents.team("shop"))}


def begin(one: Installation, subject: str, **more: Any) -> dict[str, Any]:
    answer = one.post(ROTATIONS, {"subject": subject, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def under_way(one: Installation) -> dict[str, dict[str, Any]]:
    one.tls.load_verify_locations(one.ca)
    return {found["subject"]: found for found in one.ask(ROTATIONS)["rotations"]}


def finished(one: Installation, subject: str, deadline: float = 120) -> None:
    wait_for(lambda: subject not in under_way(one), deadline, what=f"end of {subject}\n{one.log()[-3000:]}")


def waits_for(one: Installation, subject: str, words: str) -> str:
    wait_for(lambda: words in under_way(one)[subject]["waitsFor"], 60, what=f"{words}\n{one.log()[-2000:]}")
    return str(under_way(one)[subject]["waitsFor"])


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path, FILES, traefik=False) as running:
        yield running


def test_an_emergency_replaces_everything_and_the_agent_stays(one: Installation) -> None:
    """Root and keys are rotated as tainted: its one connection stands, and it believes the new ones alone."""
    assert one.enrol("vps-1").returncode == 0
    one.run_agent("vps-1")
    one.wait_connected("vps-1")
    before = AgentFile.load(one.agent_data("vps-1"))
    for subject in ("root", "desired", "access", "operator"):
        begin(one, subject, tainted=True)
        finished(one, subject)

    wait_for(lambda: AgentFile.load(one.agent_data("vps-1")).ca == one.ca.read_text(), 60, what="trust")
    after = AgentFile.load(one.agent_data("vps-1"))
    assert before.ca != after.ca
    assert not {key.kid for key in before.jwks.keys} & {key.kid for key in after.jwks.keys}
    connected = [event for event in one.ask("/events", limit=1000)["events"] if event["type"] == "AgentConnected"]
    assert len(connected) == 1
    one.restart()
    # Its token is of the former key, so it is turned away once, and a second time it would stay away for a minute.
    one.wait_connected("vps-1", deadline=120)


def stopped(process: Process) -> None:
    process.terminate()
    process.wait(15)


@pytest.mark.parametrize("subject", ["desired", "root"])
def test_an_agent_that_was_away_in_an_emergency_says_how_to_come_back(one: Installation, subject: str) -> None:
    """On its machine and at the control plane, in words that work; then it is like the others again."""
    assert one.enrol("vps-1").returncode == 0
    agent = one.run_agent("vps-1")
    one.wait_connected("vps-1")
    wait_for(lambda: (one.agent("vps-1") or {})["outcome"] == "applied", 30, what="its document")
    stopped(agent)
    one.wait_connected("vps-1", connected=False)
    begin(one, subject, tainted=True)
    wait_for(lambda: under_way(one).get(subject, {"phase": "wait"})["phase"] == "wait", 60, what="the next key")
    wait_for(lambda: "take a next key in time\n  vps-1" in one.cli("pki", "status").stdout, 30, what="its name")
    agent = one.run_agent("vps-1")

    data, back = one.agent_data("vps-1"), "cloudlunacy token create --agent vps-1"
    wait_for(lambda: back in run_cli("agent", "status", "--data", data).stdout, 30, what=one.agent_log("vps-1")[-3000:])
    assert back in one.agent_log("vps-1")
    if subject == "desired":
        wait_for(lambda: back in (one.agent("vps-1") or {})["message"], 30, what="the same at the control plane")
    stopped(agent)
    again = one.enrol("vps-1")
    assert again.returncode == 0, again.stderr
    assert back not in run_cli("agent", "status", "--data", data).stdout
    one.run_agent("vps-1")
    wait_for(lambda: "in time" not in one.cli("pki", "status").stdout, 60, what=one.agent_log("vps-1")[-3000:])


@contextmanager
def agent_of_before(data: Path) -> Iterator[None]:
    """An agent that takes its own item for one that it only has to record, as versions without trust do."""
    services = [RecordingService(frozenset({"Agent", "Certificate", "Deployment"}))]
    loop, stop, credentials = asyncio.new_event_loop(), asyncio.Event(), Credentials.load(data)

    async def main() -> None:
        await run(data, services, credentials, stop)
        await credentials.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_an_agent_of_before_is_named_and_goes_on(one: Installation) -> None:
    """It applies its document as ever, acknowledges nothing, and is not waited for beyond the deadline."""
    assert one.enrol("vps-1").returncode == 0
    with agent_of_before(one.agent_data("vps-1")):
        one.wait_connected("vps-1")
        wait_for(lambda: (one.agent("vps-1") or {})["outcome"] == "applied", 30, what="its document")
        begin(one, "root", deadlineSeconds=10)
        waits_for(one, "root", "not everybody knows")
        assert under_way(one)["root"]["who"] == ["vps-1"]
        wait_for(lambda: under_way(one)["root"]["phase"] == "wait", 60, what="the deadline")
        one.wait_connected("vps-1")
        wait_for(lambda: (one.agent("vps-1") or {})["outcome"] == "applied", 30, what="its document")
        assert "AgentDisconnected" not in {event["type"] for event in one.ask("/events", limit=1000)["events"]}


def test_a_tainted_key_of_tokens_counts_no_more_at_once(one: Installation) -> None:
    """What was signed with the operator's former key is refused as soon as the command has an answer."""
    stolen = OperatorCredential.load(one.data)
    begin(one, "operator", tainted=True)
    finished(one, "operator")

    refused = one.client.get("/api/v1/status", headers=stolen.headers(time.time()))
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (401, "unknown-key")
    assert one.client.get("/api/v1/status", headers=one.headers()).status_code == 200


def test_a_usual_rotation_goes_on_after_a_kill_in_each_phase(tmp_path: Path) -> None:
    """The file says where it was; the former key is believed until the end of what it signed."""
    with installation(tmp_path, FILES, traefik=False, options=[]) as one:
        former = OperatorCredential.load(one.data)
        begin(one, "operator")
        waits_for(one, "operator", "key sets")
        one.restart()
        assert under_way(one)["operator"]["phase"] == "distribute"
        assert OperatorCredential.load(one.data).key.kid == former.key.kid
        again = one.post(ROTATIONS, {"subject": "operator"})
        assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "rotation-under-way")
        begin(one, "operator", tainted=True)
        finished(one, "operator")
        one.restart()
        assert under_way(one) == {}
        assert OperatorCredential.load(one.data).key.kid != former.key.kid


def test_the_command_follows_to_the_end_and_status_tells(one: Installation) -> None:
    """An intermediate without anybody to wait for is over in seconds; the list of revocations has a new issuer."""
    before = x509.load_der_x509_crl(one.client.get(CRL_PATH).content).issuer
    done = one.cli("pki", "rotate", "intermediate", "--wait", "--timeout", "60")

    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "intermediate: done; the former key is forgotten.")
    assert x509.load_der_x509_crl(one.client.get(CRL_PATH).content).issuer != before
    key = Authority(one.data / "keys").crl_issuers()[0]
    assert one.client.get(f"/.well-known/crl/{key}.der").content == one.client.get(CRL_PATH).content
    assert one.client.get("/.well-known/crl/00.der").status_code == 404
    said = one.cli("pki", "status").stdout
    assert "server's own certificate" in said
    assert re.search(r"intermediate +signs since 20", said)
    nobody = one.client.post(f"/api/v1{ROTATIONS}", json={"subject": "root"}, headers=one.headers("read"))
    assert nobody.status_code == 403


def test_with_the_key_of_the_root_elsewhere_a_person_is_told_what_to_do(tmp_path: Path) -> None:
    """Request, sign, install; the control plane goes on by itself then, and presents the new intermediate."""
    key, data = tmp_path / "root.pem", tmp_path / "data"
    names = ("--domain", documents.DOMAIN)
    assert run_cli("pki", "init", "--data", data, "--root-key-out", key, *names).returncode == 0
    with installation(tmp_path / "one", FILES, traefik=False, data=data) as one:
        assert one.cli("pki", "rotate", "root", "--deadline", "2h").returncode == 0
        assert "cloudlunacy pki install" in waits_for(one, "root", "not here")
        assert one.cli("pki", "rotate", "intermediate").returncode == 1
        assert one.cli("pki", "rotate", "root", "--cancel").stdout == "root: given up; the former key stays.\n"
        begin(one, "intermediate")
        assert "cloudlunacy pki request" in waits_for(one, "intermediate", "waits for the signature")
        request, signed = tmp_path / "request.pem", tmp_path / "signed.pem"
        root = data / "keys" / "authority" / "root-current.pem"
        assert one.cli("pki", "request", "--out", request).returncode == 0
        words = ("--root-cert", root, "--root-key", key, "--request", request, "--out", signed)
        assert run_cli("pki", "sign", *words).returncode == 0
        assert "waits for the signature" in one.cli("pki", "status").stdout
        assert one.cli("pki", "install", signed).returncode == 0
        finished(one, "intermediate")

        installed = x509.load_pem_x509_certificate(signed.read_bytes())
        _, served, *_ = x509.load_pem_x509_certificates((data / "keys" / "server.pem").read_bytes())
        assert served == installed
        with httpx.Client(base_url=one.url, verify=one.tls, trust_env=False) as fresh:
            assert fresh.get("/healthz").is_success


def test_an_age_identity_follows_once_people_have_sealed_anew(one: Installation) -> None:
    """It says in words what to commit, opens both meanwhile, and forgets the former when nothing needs it."""
    former = one.cli("secret", "recipient").stdout.strip()

    def files(recipient: str, sealed_to: str) -> dict[str, bytes | str | None]:
        sealed = {"password": seal("hunter2", [sealed_to])}
        return {
            "fleet.yaml": documents.fleet(documents.team("shop"), recipients=[recipient]),
            "secrets/shop/db.yaml": documents.document("Secret", "db", {"sealed": sealed}),
        }

    one.live(files(former, former))
    begin(one, "age")
    told = waits_for(one, "age", "spec.recipients")
    following = next(word for word in told.split() if word.startswith("age1") and word != former)
    assert (former in told, "secret rotate" in told) == (True, True)
    one.live(files(following, former))
    assert "secrets/shop/db.yaml" in waits_for(one, "age", "sealed to the former")
    assert [opener.recipient() for opener in identities_of_data(one.data, {})] == [following, former]
    one.restart()
    one.live(files(following, following))
    finished(one, "age")

    assert [opener.recipient() for opener in identities_of_data(one.data, {})] == [following]
    assert one.cli("secret", "recipient").stdout.strip() == following
