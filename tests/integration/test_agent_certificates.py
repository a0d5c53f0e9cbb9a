"""Certificates of agents on the real parts: ``serve``, the agent's process and commands; openssl judges."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from agent.certificate_files import CertificateFiles, Held
from agent.client import CredentialsUnavailable
from agent.credentials import Credentials
from agent.keys import AgentKey
from schemas.certificates_api import BUNDLE_PATH, CERTIFICATE_PATH, CRL_PATH
from tests.support import documents, openssl
from tests.support.documents import DOMAIN
from tests.support.fleet import Installation, installation, start_files
from tests.support.signing_requests import bad_requests, greedy, request
from tests.support.tokens import new_key
from tests.support.waiting import wait_for

SHORT = """
import datetime, functools, sys
from reconciler.app import building
building.AgentIssuer = functools.partial(building.AgentIssuer, lifetime=datetime.timedelta(seconds={seconds}))
from reconciler.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "one", start_files(), traefik=False) as running:
        yield running


def short_lived(folder: Path, seconds: int) -> list[str]:
    """The real program, whose certificates for agents live for so long."""
    entry = folder / "entry.py"
    entry.write_text(SHORT.format(seconds=seconds))
    return [sys.executable, str(entry)]


def enrolled(one: Installation, name: str) -> Held:
    """Enrol an agent, wait until it is in service, and return what it got."""
    done = one.enrol(name)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: (one.agent(name) or {}).get("enrolled"), 20, what=f"{name} in service")
    return held(one, name)


def held(one: Installation, name: str) -> Held:
    found = CertificateFiles(one.agent_data(name), name).load()
    assert found is not None, f"{name} has no certificate"
    return found


def chain_of(found: Held) -> str:
    return (found.directory / "chain.pem").read_text()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def bundle(one: Installation) -> str:
    return one.client.get(BUNDLE_PATH).text


def events(one: Installation, name: str) -> list[str]:
    found = one.ask("/events", subject=f"agent/{name}", limit=100)["events"]
    return [str(event["type"]) for event in found]


def as_agent(one: Installation, name: str, ask: Callable[[Credentials], Awaitable[httpx.Response]]) -> httpx.Response:
    """Ask with what the agent has on its disk."""

    async def main() -> httpx.Response:
        credentials = Credentials.load(one.agent_data(name))
        try:
            return await ask(credentials)
        finally:
            await credentials.close()

    return asyncio.run(main())


def asked(one: Installation, name: str, csr: str) -> httpx.Response:
    return as_agent(one, name, lambda credentials: credentials.call("POST", CERTIFICATE_PATH, {"csr": csr}))


def test_enrolling_brings_a_certificate_that_others_take(one: Installation, tmp_path: Path) -> None:
    """One command later openssl takes it by the roots, as server and as client; ``agent status`` tells of it."""
    found = enrolled(one, "vps-1")
    chain, roots = chain_of(found), (found.directory / "bundle.pem").read_text()
    for purpose in ("sslserver", "sslclient"):
        verdict = openssl.verify(tmp_path, chain, roots, at=now(), purpose=purpose, hostname=f"vps-1.agents.{DOMAIN}")
        assert verdict.good, verdict.text
    shown = openssl.run("x509", "-noout", "-text", content=chain.encode()).text
    assert f"URI:spiffe://{DOMAIN}/agent/vps-1" in shown
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in shown
    assert roots == bundle(one)
    assert (found.directory / "key.pem").read_bytes() != (one.agent_data("vps-1") / "key.pem").read_bytes()
    assert "CertificateIssued" in events(one, "vps-1")
    status = subprocess.run(
        [sys.executable, "-m", "reconciler", "agent", "status", "--data", str(one.agent_data("vps-1"))],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    ends = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.life.ends))
    assert f"until {ends}" in status.stdout


def test_an_agent_gets_nothing_but_its_own(one: Installation) -> None:
    """Whatever its request asks for, and with whose token it tries, an agent gets its own two names or a problem."""
    enrolled(one, "vps-1")
    enrolled(one, "vps-2")
    mine = asked(one, "vps-2", greedy(new_key(), agent="vps-1", domain=DOMAIN))
    leaf = x509.load_pem_x509_certificate(mine.json()["certificate"].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"vps-2.agents.{DOMAIN}", f"spiffe://{DOMAIN}/agent/vps-2"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    stolen = as_agent(one, "vps-2", lambda credentials: _with_token_of(one, "vps-1", credentials))
    assert (stolen.status_code, _code(stolen)) == (401, "key-mismatch")


async def _with_token_of(one: Installation, victim: str, thief: Credentials) -> httpx.Response:
    theirs = Credentials.load(one.agent_data(victim))
    url = f"{one.url}{CERTIFICATE_PATH}"
    token = (await theirs.headers("POST", url))["Authorization"]
    await theirs.close()
    key = AgentKey.load(one.agent_data(thief.name))
    proof = key.dpop_proof("POST", url, now=thief.now(), access_token=token.removeprefix("DPoP "))
    headers = {"Authorization": token, "DPoP": proof}
    return one.client.post(CERTIFICATE_PATH, json={"csr": request()}, headers=headers)


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


def test_a_bad_request_is_answered_with_a_sentence(one: Installation) -> None:
    """Nonsense, weak and foreign keys, forged signatures and floods of text are problems, and no error of ours."""
    enrolled(one, "vps-1")

    async def all_of_them(credentials: Credentials) -> dict[str, Any]:
        found = {}
        for what, csr in {**bad_requests(), "long": "x" * 10_000}.items():
            answer = await credentials.call("POST", CERTIFICATE_PATH, {"csr": csr})
            found[what] = (answer.status_code, answer.json()["detail"])
        return found

    async def main() -> dict[str, Any]:
        credentials = Credentials.load(one.agent_data("vps-1"))
        try:
            return await all_of_them(credentials)
        finally:
            await credentials.close()

    found = asyncio.run(main())
    assert {status for status, _ in found.values()} == {400, 422}
    assert all(detail.endswith((".", ")")) for _, detail in found.values()), found
    assert "Traceback" not in one.log()
    assert "internal-error" not in one.log()


def test_certificates_renew_themselves_and_nobody_notices(tmp_path: Path) -> None:
    """With a life of eight seconds the running agent renews again and again: no commit, no new connection."""
    files = start_files()
    with installation(tmp_path / "one", files, traefik=False, entry=short_lived(tmp_path, 8)) as one:
        serials = {enrolled(one, "vps-1").serial}
        one.run_agent("vps-1")
        one.wait_connected("vps-1")
        commits, hellos = one.repo.log(), _hellos(one)

        def renewed() -> bool:
            found = held(one, "vps-1")
            assert found.life.ends > time.time(), "it ran out"
            serials.add(found.serial)
            return len(serials) >= 4

        wait_for(renewed, 90, what=f"three renewals\n{one.agent_log('vps-1')[-2000:]}")
        found = held(one, "vps-1")
        assert openssl.verify(tmp_path, chain_of(found), bundle(one), at=now()).good
        assert (one.repo.log(), _hellos(one)) == (commits, hellos)


def _hellos(one: Installation) -> list[str]:
    series = 'cloudlunacy_agent_messages_total{direction="in",type="hello"}'
    return [line for line in one.client.get("/metrics").text.splitlines() if line.startswith(series)]


def test_after_the_end_only_a_token_helps(tmp_path: Path) -> None:
    """An agent that was away for too long is refused, says what to do, goes on serving, and may enrol again."""
    files = start_files()
    with installation(tmp_path / "one", files, traefik=False, entry=short_lived(tmp_path, 2)) as one:
        first = enrolled(one, "vps-1")
        wait_for(lambda: time.time() > first.life.ends + 1, what="the end of the certificate")
        one.run_agent("vps-1")
        wait_for(lambda: "cloudlunacy agent enrol" in one.agent_log("vps-1"), what="what to do")
        one.wait_connected("vps-1")
        wait_for((one.agent_data("vps-1") / "applied.json").exists, what="an applied document")
        assert "it cannot be renewed" in one.agent_log("vps-1")
        refused = asked(one, "vps-1", request())
        assert (refused.status_code, _code(refused)) == (403, "certificate-expired")
        assert held(one, "vps-1").serial == first.serial
        done = one.enrol("vps-1")
        assert done.returncode == 0, done.stderr
        assert held(one, "vps-1").serial != first.serial


@pytest.mark.parametrize(
    ("change", "reason"),
    [("deleted", "Cessation Of Operation"), ("quarantined", "Privilege Withdrawn"), ("identity removed", "Superseded")],
)
def test_a_revoked_agent_is_refused_and_on_the_list(
    one: Installation, tmp_path: Path, change: str, reason: str
) -> None:
    """However it lost its place in git: no certificate, and openssl refuses the one it has by the published list."""
    chain, before = chain_of(enrolled(one, "vps-2")), one.client.get(CRL_PATH).content
    key = AgentKey.load(one.agent_data("vps-2")).thumbprint
    content = {
        "deleted": None,
        "quarantined": documents.agent("vps-2", state="quarantined", identity={"thumbprint": key}),
        "identity removed": documents.agent("vps-2"),
    }[change]
    fleet = documents.fleet(documents.team("shop", agents=["vps-1"]))
    one.live({"agents/vps-2.yaml": content, **({"fleet.yaml": fleet} if change == "deleted" else {})}, "Revoke")
    wait_for(lambda: "CertificateRevoked" in events(one, "vps-2"), 20, what="the revocation")
    after, roots = one.client.get(CRL_PATH), bundle(one)
    assert openssl.verify(tmp_path, chain, roots, at=now(), crl=before).good
    verdict = openssl.verify(tmp_path, chain, roots, at=now(), crl=after.content)
    assert not verdict.good
    assert "certificate revoked" in verdict.text
    shown = openssl.run("crl", "-inform", "DER", "-noout", "-text", content=after.content).text
    assert reason in shown
    assert after.headers["content-type"] == "application/pkix-crl"
    with pytest.raises(CredentialsUnavailable) as caught:
        asked(one, "vps-2", request())
    assert caught.value.refused


FORGETFUL = """
import sys
from reconciler.agents import certificates
async def later(self):
    self._more.clear()
    return {{}}
{patch}
from reconciler.__main__ import main
sys.exit(main())
"""


def test_who_was_deleted_right_before_a_kill_is_on_the_list_after_the_start(tmp_path: Path) -> None:
    """The process died after the publication and before the revocation; the next one finds what was forgotten."""
    never, at_once = tmp_path / "never.py", tmp_path / "at_once.py"
    never.write_text(FORGETFUL.format(patch="certificates.AgentCertificates._revoke_waiting = later"))
    at_once.write_text(FORGETFUL.format(patch="certificates.COMING = 0.0"))
    with installation(tmp_path / "one", start_files(), traefik=False, entry=[sys.executable, str(never)]) as one:
        chain = {name: chain_of(enrolled(one, name)) for name in ("vps-1", "vps-2")}
        gone, kept = (x509.load_pem_x509_certificate(chain[name].encode()).serial_number for name in ("vps-2", "vps-1"))
        fleet = documents.fleet(documents.team("shop", agents=["vps-1"]))
        one.live({"agents/vps-2.yaml": None, "fleet.yaml": fleet}, "Delete vps-2")
        one.kill()
        one.entry = [sys.executable, str(at_once)]
        one.start()
        wait_for(lambda: gone in listed(one), 20, what="the revocation")
        assert kept not in listed(one)


def listed(one: Installation) -> set[int]:
    crl = x509.load_der_x509_crl(one.client.get(CRL_PATH).content)
    return {entry.serial_number for entry in crl}
