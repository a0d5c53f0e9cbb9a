"""The HTTP endpoints of enrolment and tokens."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.keys import AgentKey
from reconciler.agents import enrolment as enrolment_module
from reconciler.errors import Broken, Transient
from reconciler.pki.operator_credential import OperatorCredential
from schemas.certificate_status import LIST_PATH, RETRY_PATH
from schemas.certificates_api import BUNDLE_PATH, CERTIFICATE_PATH, CRL_PATH
from tests.support.agent_plane import Served, served
from tests.support.signing_requests import request
from tests.support.tokens import ISSUER, NOW
from tests.unit.agents.enrolling import World, fleet

TOKENS = "/api/v1/enrolment-tokens"
ENROL = "/api/v1/agents/enrol"
TOKEN = "/api/v1/agents/token"


def run(
    data: Path, scenario: Callable[[Served, httpx.AsyncClient], Awaitable[object]], world: World | None = None
) -> None:
    async def main() -> None:
        async with served(data, world) as one, one.client() as client:
            await scenario(one, client)

    asyncio.run(main())


def body(key: AgentKey, token: str, name: str = "vps-9", **changed: Any) -> dict[str, Any]:
    proof = key.enrolment_proof(token_id=token.partition(".")[0], name=name, now=NOW)
    said = {"token": token, "name": name, "publicKey": key.public.model_dump(), "proof": proof, "address": "10.0.0.9"}
    return {**said, **changed}


def form(key: AgentKey, name: str = "vps-9") -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": key.client_assertion(name=name, issuer=ISSUER, now=NOW),
    }


async def new_token(one: Served, client: httpx.AsyncClient, name: str = "vps-9") -> str:
    answer = await client.post(TOKENS, json={"agent": name}, headers=one.operator_headers("enrol"))
    assert answer.status_code == 201
    return str(answer.json()["token"])


def test_the_whole_way_from_a_token_to_an_identity(tmp_path: Path) -> None:
    """An operator makes a token, an agent enrols, gets an access token, and is who it says it is."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        enrolled = await client.post(ENROL, json=body(key, await new_token(one, client)))
        early = await client.post(
            TOKEN, data=form(key), headers={"DPoP": key.dpop_proof("POST", ISSUER + TOKEN, now=NOW)}
        )
        one.publish()
        answer = await client.post(
            TOKEN, data=form(key), headers={"DPoP": key.dpop_proof("POST", ISSUER + TOKEN, now=NOW)}
        )
        token = answer.json()["access_token"]
        url = f"{ISSUER}/api/v1/agents/stream"
        headers = {
            "authorization": f"DPoP {token}",
            "dpop": key.dpop_proof("GET", url, now=NOW, access_token=token),
        }
        identity = one.authenticator.authenticate("GET", url, headers, NOW)

        assert enrolled.status_code == 201
        assert set(enrolled.json()) == {
            "state", "name", "thumbprint", "revision", "statusUrl", "message", "issuer", "tokenEndpoint", "jwks",
        }  # fmt: skip
        assert (early.status_code, early.json()["error"]) == (401, "invalid_client")
        assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
        assert answer.headers["cache-control"] == "no-store"
        assert (identity.name, identity.thumbprint) == ("vps-9", key.thumbprint)

    run(tmp_path, scenario)


def test_queued_is_202_and_the_status_is_for_the_same_key(tmp_path: Path) -> None:
    """While the remote is away: 202 with a place to ask, which answers nobody but the holder of the key."""
    world = World(answer_seconds=0.01)
    world.remote.failures = [Transient("away")] * 1000
    key, other = (AgentKey.load_or_create(tmp_path / name) for name in ("agent", "other"))

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        answer = await client.post(ENROL, json=body(key, await new_token(one, client)))
        url = answer.headers["location"]
        plain = await client.get(url)
        foreign = await client.get(url, headers={"DPoP": other.dpop_proof("GET", url, now=NOW)})
        proof = {"DPoP": key.dpop_proof("GET", url, now=NOW)}
        mine, replayed = await client.get(url, headers=proof), await client.get(url, headers=proof)
        unknown = await client.get(f"{url}0", headers=proof)

        assert (answer.status_code, answer.json()["state"], answer.headers["retry-after"]) == (202, "pending", "1")
        assert [plain.status_code, foreign.status_code, replayed.status_code] == [401] * 3
        assert (mine.status_code, mine.json()["state"]) == (200, "pending")
        assert unknown.status_code == 404

    run(tmp_path, scenario, world)


IDENTITIES = ["nobody", "read", "enrol", "admin", "agent", "other agent", "garbage"]
MATRIX = {
    "create a token": ("POST", TOKENS, [401, 403, 201, 201, 403, 403, 401]),
    "enrol without a token": ("POST", ENROL, [401] * 7),
    "a status": ("GET", "{status}", [401, 401, 401, 401, 401, 401, 401]),
    "an access token": ("POST", TOKEN, [401] * 7),
    "a certificate": ("POST", CERTIFICATE_PATH, [401, 403, 403, 403, 200, 200, 401]),
    "how certificates stand": ("GET", LIST_PATH, [401, 200, 403, 200, 403, 403, 401]),
    "an order at once": ("POST", RETRY_PATH.format(name="shop"), [401, 403, 403, 409, 403, 403, 401]),
    "the keys": ("GET", "/.well-known/jwks.json", [200] * 7),
    "the roots": ("GET", BUNDLE_PATH, [200] * 7),
    "the revocations": ("GET", CRL_PATH, [200] * 7),
    "no such page": ("GET", "/api/v1/none", [404] * 7),
    "another method": ("DELETE", TOKENS, [405] * 7),
}


async def agent_headers(client: httpx.AsyncClient, key: AgentKey, name: str, method: str, url: str) -> dict[str, str]:
    proof = key.dpop_proof("POST", ISSUER + TOKEN, now=NOW)
    answer = await client.post(TOKEN, data=form(key, name), headers={"DPoP": proof})
    token = answer.json()["access_token"]
    return {"Authorization": f"DPoP {token}", "DPoP": key.dpop_proof(method, url, now=NOW, access_token=token)}


async def headers_of(
    one: Served, client: httpx.AsyncClient, keys: dict[str, AgentKey], who: str, method: str, url: str
) -> dict[str, str]:
    if who in ("agent", "other agent"):
        name = "vps-1" if who == "agent" else "vps-2"
        return await agent_headers(client, keys[name], name, method, url)
    if who in ("read", "enrol", "admin"):
        return one.operator_headers(who)
    return {} if who == "nobody" else {"Authorization": "Bearer x.y.z", "DPoP": "x"}


def test_each_endpoint_for_each_identity(tmp_path: Path) -> None:
    """What an endpoint answers depends on who asks and on nothing else that they send."""
    keys = {name: AgentKey.load_or_create(tmp_path / name) for name in ("vps-1", "vps-2", "vps-3", "stranger")}
    contents: dict[str, dict[str, Any]] = {
        TOKENS: {"json": {"agent": "vps-9"}},
        ENROL: {"json": body(keys["vps-1"], "0" * 20 + "." + "x" * 32)},
        CERTIFICATE_PATH: {"json": {"csr": request()}},
    }
    found: dict[str, list[int]] = {}

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        for name in ("vps-1", "vps-2", "vps-3"):
            answer = await client.post(ENROL, json=body(keys[name], await new_token(one, client, name), name))
        one.publish()
        for case, (method, path, _) in MATRIX.items():
            url = answer.json()["statusUrl"] if path == "{status}" else f"{ISSUER}{path}"
            found[case] = []
            for who in IDENTITIES:
                headers = await headers_of(one, client, keys, who, method, url)
                content = {"data": form(keys["stranger"])} if path == TOKEN else contents.get(path, {})
                found[case].append((await client.request(method, url, headers=headers, **content)).status_code)

    run(tmp_path, scenario)
    assert found == {case: expected for case, (_, _, expected) in MATRIX.items()}


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[" * 60_000, "application/json", 422),
        (b"\xff", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"x" * 70_000, "application/json", 413),
    ],
)
def test_a_bad_body_is_a_problem(tmp_path: Path, content: bytes, content_type: str, status: int) -> None:
    """Whatever the body, the answer is problem+json and never an error of ours."""

    async def scenario(_: Served, client: httpx.AsyncClient) -> None:
        answer = await client.post(ENROL, content=content, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../../etc/passwd"}, "name"),
        ({"name": "VPS"}, "name"),
        ({"address": "10.0.0.1; rm -rf /"}, "address"),
        ({"capabilities": ["root"]}, "capabilities.0"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"extra": "canary-value"}, "extra"),
        ({"publicKey": {"kty": "RSA", "n": "x", "e": "AQAB"}}, "publicKey.kty"),
        ({"publicKey": {"kty": "EC", "crv": "P-384", "x": "x", "y": "y"}}, "publicKey.crv"),
        ({"version": "{{7*7}}"}, "version"),
        ({"token": {"secret": "canary-value"}}, "token"),
    ],
)
def test_a_bad_field_is_named_and_its_value_is_not_repeated(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    """422 names the field; what was sent does not come back."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(_: Served, client: httpx.AsyncClient) -> None:
        answer = await client.post(ENROL, json={**body(key, "canary-token.x"), **change})
        assert answer.status_code == 422
        assert any(error["field"].startswith(field) for error in answer.json()["errors"])
        assert "canary" not in answer.text

    run(tmp_path, scenario)


def test_a_key_off_the_curve_is_refused(tmp_path: Path) -> None:
    """A point that is not on P-256 is refused before it is used."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        public = {**key.public.model_dump(), "y": key.public.x}
        answer = await client.post(ENROL, json=body(key, await new_token(one, client), publicKey=public))
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:cloudlunacy:problem:bad-key")

    run(tmp_path, scenario)


def test_a_body_without_end_is_cut_off(tmp_path: Path) -> None:
    """A chunked body is counted while it comes: the server stops reading at the limit."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1024
            yield b"x" * 1024

    async def scenario(one: Served, _: httpx.AsyncClient) -> None:
        stream = endless()
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(stream), "more_body": True}

        async def send(message: Any) -> None:
            messages.append(message)

        scope = {
            "type": "http", "method": "POST", "path": ENROL, "raw_path": ENROL.encode(), "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"control.example.test")],
            "http_version": "1.1", "scheme": "https", "server": ("x", 1), "client": ("y", 2), "root_path": "",
        }  # fmt: skip
        await one.app(scope, receive, send)
        assert messages[0]["status"] == 413

    run(tmp_path, scenario)
    assert sent < 100_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Big", "x" * 20_000)], 431),
        ([(f"X-{number}", "x") for number in range(70)], 431),
        ([("Authorization", "a"), ("Authorization", "b")], 400),
        ([("DPoP", "a"), ("DPoP", "b")], 400),
        ([("Content-Length", "99999999999")], 413),
        ([("Content-Length", "-1")], 413),
    ],
    ids=["large", "many", "two authorizations", "two proofs", "long", "negative"],
)
def test_headers_are_bounded(tmp_path: Path, headers: list[tuple[str, str]], status: int) -> None:
    """Headers that are too large, too many, or doubled where there can be one, end the request."""

    async def scenario(_: Served, client: httpx.AsyncClient) -> None:
        answer = await client.request("GET", "/.well-known/jwks.json", headers=headers)
        assert answer.status_code == status

    run(tmp_path, scenario)


def test_the_token_endpoint_speaks_oauth(tmp_path: Path) -> None:
    """Errors carry RFC 6749's word besides the problem, and name the proof where it is the proof."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        await client.post(ENROL, json=body(key, await new_token(one, client)))
        one.publish()
        codes = []
        for data, headers in (
            ({**form(key), "grant_type": "password"}, {}),
            ({"grant_type": "client_credentials"}, {}),
            (form(key), {}),
            (form(key), {"DPoP": key.dpop_proof("GET", ISSUER + TOKEN, now=NOW)}),
        ):
            answer = await client.post(TOKEN, data=data, headers=headers)
            codes.append((answer.status_code, answer.json()["error"]))
        assert codes == [
            (400, "unsupported_grant_type"),
            (400, "invalid_request"),
            (401, "invalid_dpop_proof"),
            (401, "invalid_dpop_proof"),
        ]

    run(tmp_path, scenario)


def test_a_refusal_says_how_to_authenticate(tmp_path: Path) -> None:
    """401 carries a challenge; without credentials it names no error (RFC 6750, 3.1)."""

    async def scenario(_: Served, client: httpx.AsyncClient) -> None:
        plain = await client.post(TOKENS, json={"agent": "a"})
        wrong = await client.post(TOKENS, json={"agent": "a"}, headers={"Authorization": "Bearer x"})
        assert plain.headers["www-authenticate"] == 'DPoP algs="ES256", Bearer'
        assert 'error="invalid_token"' in wrong.headers["www-authenticate"]

    run(tmp_path, scenario)


def test_before_the_first_revision_enrolment_is_not_ready(tmp_path: Path) -> None:
    """Without a fleet in service the answer is 503 with a time to come back."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        token = await new_token(one, client)
        one.plane.enrolments._fleet = lambda: None
        answer = await client.post(ENROL, json=body(key, token))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")

    run(tmp_path, scenario)


def test_a_surprise_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error is 500; neither the answer nor the log holds its message."""

    def surprise(*_: object) -> None:
        raise RuntimeError("canary-secret")

    monkeypatch.setattr(enrolment_module, "check_policy", surprise)
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        answer = await client.post(ENROL, json=body(key, await new_token(one, client)))
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:cloudlunacy:problem:internal-error")
        assert "canary" not in answer.text

    run(tmp_path, scenario)
    assert "canary" not in "".join(capsys.readouterr())


def test_the_mode_pull_request_answers_202(tmp_path: Path) -> None:
    """A proposal is 202 with state proposed."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        answer = await client.post(ENROL, json=body(key, await new_token(one, client)))
        assert (answer.status_code, answer.json()["state"]) == (202, "proposed")

    run(tmp_path, scenario, World(fleet=fleet(registration={"mode": "pull-request"})))


def test_the_operators_credential_is_private_and_works_after_reading(tmp_path: Path) -> None:
    """The file is for its owner only; what was read from it signs tokens that are taken."""

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        credential = OperatorCredential.load(tmp_path)
        answer = await client.post(TOKENS, json={"agent": "a", "ttl": "5m"}, headers=credential.headers(NOW))
        assert answer.status_code == 201
        assert answer.json()["expiresAt"] == NOW + 300
        assert "PRIVATE" not in f"{credential!r}".replace("ECPrivateKey", "")

    run(tmp_path, scenario)
    path = tmp_path / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(Broken, match="open to other users"):
        OperatorCredential.load(tmp_path)
    path.chmod(0o600)
    path.write_text(json.dumps({"address": "x"}))
    with pytest.raises(Broken, match="damaged"):
        OperatorCredential.load(tmp_path)


def test_an_address_that_is_not_known_enrols_nobody(tmp_path: Path) -> None:
    """Where no proof would be good later nothing is committed, and the token stays fresh for the right address."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        said = body(key, await new_token(one, client))
        async with httpx.AsyncClient(transport=one.transport(), base_url="https://0.0.0.0:7300") as elsewhere:
            refused = await elsewhere.post(ENROL, json=said)
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (401, "wrong-target")
        assert ISSUER in refused.json()["hint"]
        assert (await client.post(ENROL, json=said)).status_code == 201

    run(tmp_path, scenario)


def test_behind_a_proxy_nobody_is_this_machine(tmp_path: Path) -> None:
    """Loopback is the proxy's address, so an agent that comes through one may not claim it."""
    key = AgentKey.load_or_create(tmp_path / "agent")

    async def scenario(one: Served, client: httpx.AsyncClient) -> None:
        said = body(key, await new_token(one, client), address="127.0.0.1")
        relayed = ISSUER.replace("https:", "http:")
        async with httpx.AsyncClient(transport=one.transport("127.0.0.1"), base_url=relayed) as proxy:
            refused = await proxy.post(ENROL, json=said)
            assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (422, "address-refused")
            assert (await proxy.post(ENROL, json={**said, "address": "192.0.2.9"})).status_code == 201

    run(tmp_path, scenario)
