"""The HTTP endpoints of certificates, against the real authority; openssl judges what they give."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.keys import AgentKey
from reconciler.agents.certificates import BURST
from reconciler.errors import Transient
from reconciler.pki.authority import founding
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.vault import Vault
from schemas.certificate_status import LIST_PATH
from schemas.certificates_api import BUNDLE_PATH, CERTIFICATE_PATH, CRL_PATH
from tests.support import openssl
from tests.support.agent_plane import Served, served
from tests.support.signing_requests import bad_requests, greedy, request
from tests.support.tokens import ISSUER, NOW, new_key
from tests.support.waiting import eventually
from tests.unit.agents.enrolling import World

ENROL, TOKEN = "/api/v1/agents/enrol", "/api/v1/agents/token"
DOMAIN = "cloudlunacy.test"
DAY = 86_400.0


class Machine:
    """An agent, by hand."""

    def __init__(self, one: Served, client: httpx.AsyncClient, folder: Path, name: str = "vps-9") -> None:
        self.one, self.client, self.name = one, client, name
        self.key = AgentKey.load_or_create(folder / name)

    def now(self) -> float:
        return self.one.plane.world.now

    async def enrol(self, token: str = "", **more: Any) -> httpx.Response:
        token = token or await self.one.plane.token(self.name)
        proof = self.key.enrolment_proof(token_id=token.partition(".")[0], name=self.name, now=self.now())
        said = {"token": token, "name": self.name, "publicKey": self.key.public.model_dump(), "proof": proof}
        return await self.client.post(ENROL, json={**said, "address": f"10.0.0.{self.name[-1]}", **more})

    async def access_token(self) -> str:
        proof = self.key.dpop_proof("POST", ISSUER + TOKEN, now=self.now())
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.key.client_assertion(name=self.name, issuer=ISSUER, now=self.now()),
        }
        answer = await self.client.post(TOKEN, data=form, headers={"DPoP": proof})
        return str(answer.json()["access_token"])

    async def ask(self, csr: str, *, token: str = "", proven_by: AgentKey | None = None) -> httpx.Response:
        token = token or await self.access_token()
        proof = (proven_by or self.key).dpop_proof(
            "POST", ISSUER + CERTIFICATE_PATH, now=self.now(), access_token=token
        )
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        return await self.client.post(CERTIFICATE_PATH, json={"csr": csr}, headers=headers)

    async def status(self, answer: httpx.Response) -> httpx.Response:
        url = answer.json()["statusUrl"]
        return await self.client.get(url, headers={"DPoP": self.key.dpop_proof("GET", url, now=self.now())})


def run(
    folder: Path, scenario: Callable[[Served, httpx.AsyncClient], Awaitable[object]], world: World | None = None
) -> None:
    async def main() -> None:
        async with served(folder / "plane", world) as one, one.client() as client:
            await scenario(one, client)

    (folder / "plane").mkdir(exist_ok=True)
    asyncio.run(main())


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def leaf_of(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain.encode())


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, str(answer.json()["type"]).rpartition(":")[2]


def test_an_enrolment_brings_the_first_certificate(tmp_path: Path) -> None:
    """openssl takes the chain by the bundle, for this agent's name, as server and as client."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        answer = (await Machine(one, client, tmp_path).enrol(csr=request())).json()
        chain, bundle = answer["certificate"], answer["bundle"]
        host = f"vps-9.agents.{DOMAIN}"
        for purpose in ("sslserver", "sslclient"):
            verdict = openssl.verify(tmp_path, chain, bundle, at=at(NOW), purpose=purpose, hostname=host)
            assert verdict.good, verdict.text
        assert not openssl.verify(tmp_path, chain, bundle, at=at(NOW), hostname=f"vps-1.agents.{DOMAIN}").good
        assert not openssl.verify(tmp_path, chain, bundle, at=at(NOW + DAY + 1)).good
        shown = openssl.run("x509", "-noout", "-text", content=chain.encode()).text
        assert f"URI:spiffe://{DOMAIN}/agent/vps-9" in shown
        assert "TLS Web Server Authentication, TLS Web Client Authentication" in shown
        assert "10.0.0.9" not in shown

    run(tmp_path, scenario)


def test_without_a_request_there_is_no_certificate(tmp_path: Path) -> None:
    """An agent of an older version is answered as before."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        answer = await Machine(one, client, tmp_path).enrol()
        assert answer.status_code == 201
        assert not {"certificate", "bundle"} & answer.json().keys()

    run(tmp_path, scenario)


def test_a_queued_enrolment_brings_it_with_its_status(tmp_path: Path) -> None:
    """202 has no certificate; the status has it as soon as the enrolment is committed."""
    world = World(answer_seconds=0.001)
    world.remote.failures = [Transient("away") for _ in range(3)]

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine, key = Machine(one, client, tmp_path), new_key()
        queued = await machine.enrol(csr=request(key))
        answer = await machine.status(queued)
        while answer.json()["state"] == "pending":
            assert "certificate" not in answer.json()
            await asyncio.sleep(0.001)
            answer = await machine.status(queued)
        assert queued.status_code == 202
        assert leaf_of(answer.json()["certificate"]).public_key() == key.public_key()

    run(tmp_path, scenario, world)


def test_a_renewal_has_another_key_and_another_serial(tmp_path: Path) -> None:
    """Each request of an agent in service gets a certificate of its own for 24 hours; git hears nothing of it."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine, key = Machine(one, client, tmp_path), new_key()
        await machine.enrol(csr=request())
        one.publish()
        commits = len(one.plane.world.remote.log)
        one.plane.world.now += DAY / 2
        answers = [(await machine.ask(request(each))).json() for each in (key, new_key())]
        leaves = [leaf_of(answer["certificate"]) for answer in answers]
        assert leaves[0].public_key() == key.public_key() != leaves[1].public_key()
        assert leaves[0].serial_number != leaves[1].serial_number
        assert answers[0]["notAfter"] == NOW + DAY / 2 + DAY == leaves[0].not_valid_after_utc.timestamp()
        assert len(one.plane.world.remote.log) == commits

    run(tmp_path, scenario)


def test_of_a_request_only_the_key_counts(tmp_path: Path) -> None:
    """A request for other names, another agent's identity and an authority gets the sender's own names and no more."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine, key = Machine(one, client, tmp_path), new_key()
        csr = greedy(key, agent="vps-1", domain=DOMAIN)
        chains = [(await machine.enrol(csr=csr)).json()["certificate"]]
        one.publish()
        chains.append((await machine.ask(csr)).json()["certificate"])
        for chain in chains:
            leaf = leaf_of(chain)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
            usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert [name.value for name in names] == [f"vps-9.agents.{DOMAIN}", f"spiffe://{DOMAIN}/agent/vps-9"]
            assert (constraints.ca, constraints.path_length) == (False, None)
            assert ExtendedKeyUsageOID.CODE_SIGNING not in usages
            assert leaf.public_key() == key.public_key()
            assert "vps-1" not in leaf.subject.rfc4514_string()

    run(tmp_path, scenario)


def test_a_bad_request_is_a_problem_and_costs_nothing(tmp_path: Path) -> None:
    """Each kind of bad request is 400 with a sentence, at both endpoints; the enrolment token is still good."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine, token = Machine(one, client, tmp_path), await one.plane.token()
        found = {what: code(await machine.enrol(token, csr=csr)) for what, csr in bad_requests().items()}
        assert found == dict.fromkeys(bad_requests(), (400, "bad-csr"))
        assert code(await machine.enrol(token, csr="x" * 8193)) == (422, "invalid-request")
        assert (await machine.enrol(token, csr=request())).status_code == 201
        one.publish()
        bearer = await machine.access_token()
        for what, csr in bad_requests().items():
            answer = await machine.ask(csr, token=bearer)
            assert code(answer) == (400, "bad-csr"), what
            assert answer.json()["detail"].endswith(".")
        assert code(await machine.ask("x" * 8193, token=bearer)) == (422, "invalid-request")

    run(tmp_path, scenario)


def test_a_certificate_is_for_who_proves_the_key(tmp_path: Path) -> None:
    """With another agent's token, an operator's, or none, there is nothing to be had in this agent's name."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        mine, other = Machine(one, client, tmp_path), Machine(one, client, tmp_path, "vps-8")
        for machine in (mine, other):
            await machine.enrol()
        one.publish()
        stolen = await mine.access_token()
        assert code(await other.ask(request(), token=stolen)) == (401, "key-mismatch")
        theirs = leaf_of((await other.ask(request())).json()["certificate"])
        assert "vps-9" not in openssl.run("x509", "-noout", "-text", content=pem(theirs)).text
        body = {"csr": request()}
        for scope in ("read", "enrol", "admin"):
            answer = await client.post(CERTIFICATE_PATH, json=body, headers=one.operator_headers(scope))
            assert code(answer) == (403, "insufficient-scope")
        assert code(await client.post(CERTIFICATE_PATH, json=body)) == (401, "credentials-missing")
        assert (await client.get(CERTIFICATE_PATH)).status_code == 405

    run(tmp_path, scenario)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def test_after_the_end_only_a_token_helps(tmp_path: Path) -> None:
    """A renewal a second after the end is refused with the way back; enrolling again with a token is that way."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine = Machine(one, client, tmp_path)
        first = await one.plane.token()
        await machine.enrol(first, csr=request())
        one.publish()
        one.plane.world.now += DAY + 1
        refused = await machine.ask(request())
        assert code(refused) == (403, "certificate-expired")
        assert "agent enrol" in refused.json()["hint"]
        again = await machine.enrol(first, csr=request())
        assert "certificate" not in again.json(), "a token of yesterday is worth nothing"
        assert "certificate" in (await machine.enrol(csr=request())).json()
        assert (await machine.ask(request())).status_code == 200

    run(tmp_path, scenario)


def test_after_a_pending_enrolment_the_agent_may_ask_itself(tmp_path: Path) -> None:
    """An agent that enrolled again and left before the answer gets its certificate by its identity."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine = Machine(one, client, tmp_path)
        await machine.enrol(csr=request())
        one.publish()
        one.plane.world.now += DAY + 1
        await machine.enrol()
        assert (await machine.ask(request())).status_code == 200

    run(tmp_path, scenario)


def test_a_revoked_agent_is_on_the_list(tmp_path: Path) -> None:
    """A deleted agent gets nothing, and openssl refuses what it has by the list, which it took before."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine = Machine(one, client, tmp_path)
        chain = (await machine.enrol(csr=request())).json()["certificate"]
        one.publish()
        bundle = (await client.get(BUNDLE_PATH)).text
        before = await client.get(CRL_PATH)
        bearer = await machine.access_token()
        one.plane.world.remote.main.clear()
        assert one.publish() == {"vps-9"}
        assert code(await machine.ask(request(), token=bearer)) == (401, "agent-revoked")
        holder = "agent/vps-9"
        await eventually(lambda: one.authority.latest(holder).revoked_at)  # type: ignore[union-attr]
        after = await client.get(CRL_PATH)
        assert openssl.verify(tmp_path, chain, bundle, at=at(NOW), crl=before.content).good
        verdict = openssl.verify(tmp_path, chain, bundle, at=at(NOW), crl=after.content)
        assert not verdict.good
        assert "certificate revoked" in verdict.text
        shown = openssl.run("crl", "-inform", "DER", "-noout", "-text", content=after.content).text
        assert "Cessation Of Operation" in shown

    run(tmp_path, scenario)


def test_what_everybody_may_have_is_typed_and_cached(tmp_path: Path) -> None:
    """The roots are PEM, the list is DER and never cached beyond its own end."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        roots, crl = await client.get(BUNDLE_PATH), await client.get(CRL_PATH)
        assert roots.headers["content-type"].startswith("application/x-pem-file")
        assert roots.text == one.authority.bundle().pem
        assert (crl.headers["content-type"], crl.headers["cache-control"]) == (
            "application/pkix-crl",
            "public, max-age=3600",
        )
        assert openssl.run("crl", "-inform", "DER", "-noout", "-text", content=crl.content).good

    run(tmp_path, scenario)


def test_a_new_domain_is_permitted_when_it_is_asked_for(tmp_path: Path) -> None:
    """Nobody waits for the authority to be widened where the root's key is at hand; what was permitted stays so."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        world = one.plane.world
        spec = world.fleet.spec.model_copy(update={"domain": "another.test"})
        world.fleet = world.fleet.model_copy(update={"spec": spec})
        answer = (await Machine(one, client, tmp_path).enrol(csr=request())).json()
        host = "vps-9.agents.another.test"
        assert openssl.verify(tmp_path, answer["certificate"], answer["bundle"], at=at(NOW), hostname=host).good
        assert {DOMAIN, "another.test"} <= one.authority.permitted().dns

    run(tmp_path, scenario)


def test_where_a_person_has_to_permit_the_domain_agents_come_back(tmp_path: Path) -> None:
    """With the root's key elsewhere an enrolment comes without, and a request is 503 that says what is missing."""
    keys, permitted = tmp_path / "plane" / "keys", permitted_for(listen=["localhost"])
    (tmp_path / "plane").mkdir()
    key_out = tmp_path / "root.key"
    founding.found_offline(keys, Vault(), permitted, key_out=key_out, passphrase=None, now=at(NOW))

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine = Machine(one, client, tmp_path)
        enrolled = await machine.enrol(csr=request())
        one.publish()
        refused = await machine.ask(request())
        assert (enrolled.status_code, "certificate" in enrolled.json()) == (201, False)
        assert code(refused) == (503, "domain-not-permitted")
        assert refused.headers["retry-after"] == "60"
        assert "cloudlunacy pki request" in refused.json()["hint"]
        waiting = one.authority.outstanding()
        assert waiting is not None
        assert DOMAIN in waiting.permitted.dns

    run(tmp_path, scenario)


def test_an_agent_is_slowed_down(tmp_path: Path) -> None:
    """After a burst there is 429 with a time to come back."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        machine = Machine(one, client, tmp_path)
        await machine.enrol()
        one.publish()
        bearer = await machine.access_token()
        answers = [await machine.ask(request(), token=bearer) for _ in range(BURST + 1)]
        assert [answer.status_code for answer in answers] == [200] * BURST + [429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 600

    run(tmp_path, scenario)


def test_who_has_the_list_of_certificates_is_told_so(tmp_path: Path) -> None:
    """By its tag (RFC 9110, 13.1.2), which costs nobody the list again."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        headers = one.operator_headers("read")
        first = await client.get(LIST_PATH, headers=headers)
        assert (first.status_code, first.json()) == (200, {"certificates": []})
        again = await client.get(LIST_PATH, headers=headers | {"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])

    run(tmp_path, scenario)
