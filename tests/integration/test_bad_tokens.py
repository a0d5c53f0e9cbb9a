"""The table of bad tokens (row 11 of the threats) at the doors of the running control plane.

The tables are those of the unit tests, and some that only HTTP can carry. Every token is made by hand with the keys
that the running process uses, at the time that its clock shows, for the public address that it was given.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.authority.pairs import key_pem
from reconciler.pki.keystore import KeyStore, write_private
from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.tokens import ISSUER, b64, jwk, jws, new_key, thumbprint
from tests.unit.pki import doors, test_bad_tokens
from tests.unit.pki.doors import AGENT, OTHER, TOKEN_URL, URL, Plane, access_claims, assertion_claims, dpop
from tests.unit.pki.test_bad_tokens import BAD_ACCESS, BAD_ASSERTION, BAD_OPERATOR, BAD_PROOF

STREAM: Final = "/api/v1/agents/stream"
TOKEN: Final = "/api/v1/agents/token"
OPENING: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "cloudlunacy.agent.v1",
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A control plane in whose fleet vps-1 and vps-2 are enrolled with keys of this test."""
    files: dict[str, bytes | str | None] = {"fleet.yaml": documents.fleet()}
    for name, key in (("vps-1", AGENT), ("vps-2", OTHER)):
        files[f"agents/{name}.yaml"] = documents.agent(name, identity={"thumbprint": thumbprint(key)})
    folder = tmp_path_factory.mktemp("bad-tokens")
    with installation(folder / "one", files, traefik=False, start=False, options=["--public-url", ISSUER]) as running:
        KeyStore(running.data / "keys")
        write_private(running.data / "keys" / "access-previous.pem", key_pem(new_key()))  # as after a rotation
        running.start()
        running.status_wait(running.repo.tip() or "")
        yield running


@pytest.fixture
def plane(one: Installation, monkeypatch: pytest.MonkeyPatch) -> Plane:
    """The keys of the running process; the tables are made for its time."""
    for module in (doors, test_bad_tokens):
        monkeypatch.setattr(module, "NOW", now())
    return Plane(KeyStore(one.data / "keys"))


def ask(one: Installation, method: str, path: str, headers: list[tuple[str, str]], **more: Any) -> httpx.Response:
    sent = [("Host", "control.example.test"), *headers]
    raw = [(name.encode(), value.encode()) for name, value in sent]  # as UTF-8, whatever a header should be
    return one.client.request(method, path, headers=raw, **more)


def open_stream(one: Installation, token: str, proof: str | None, scheme: str = "DPoP") -> httpx.Response:
    """Open the WebSocket as an HTTP client would; a refusal is a plain response."""
    proofs: list[tuple[str, str]] = [] if proof is None else [("DPoP", proof)]
    sent: list[tuple[str, str]] = [("Authorization", f"{scheme} {token}".strip()), *proofs]
    return ask(one, "GET", STREAM, [*OPENING.items(), *sent])


def exchange(one: Installation, assertion: str, *proofs: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    return ask(one, "POST", TOKEN, [("DPoP", proof) for proof in proofs], data=form)


def require_refused(answer: httpx.Response, status: int, code: str, secret: str = "") -> None:
    """The right status and code, as a problem with a challenge, and without what was sent."""
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert (status == 401) == ("www-authenticate" in answer.headers)
    assert not secret or secret not in answer.text


def now() -> float:
    return float(int(time.time()))


def fresh() -> str:
    return secrets.token_urlsafe(12)


def proof_for(token: str | None, **changed: Any) -> str:
    return dpop(token, jti=fresh(), **changed)


def token_proof(**changed: Any) -> str:
    return dpop(None, jti=fresh(), **{"htm": "POST", "htu": TOKEN_URL, **changed})


def test_the_good_ones_are_taken(one: Installation, plane: Plane) -> None:
    """Without a mistake the same doors open: what the tables change is what is refused."""
    assertion = jws(AGENT, doors.assertion_header(), {**assertion_claims(), "jti": fresh()})
    answer = exchange(one, assertion, token_proof())
    assert answer.status_code == 200, answer.text
    for token in (answer.json()["access_token"], plane.sign_access(access_claims())):
        with one.connect() as connection:
            lines = {
                **OPENING,
                "Host": "control.example.test",
                "Authorization": f"DPoP {token}",
                "DPoP": proof_for(token),
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            connection.sendall(f"GET {STREAM} HTTP/1.1\r\n{head}\r\n".encode())
            assert connection.recv(1024).startswith(b"HTTP/1.1 101")
    operator = doors.sign_operator(plane, doors.operator_claims())
    assert ask(one, "GET", "/api/v1/status", [("Authorization", f"Bearer {operator}")]).status_code == 200


@pytest.mark.parametrize("case", BAD_ACCESS)
def test_a_bad_access_token_opens_no_stream(one: Installation, plane: Plane, case: str) -> None:
    """Each is refused before the WebSocket is accepted, with 401 and its own code."""
    make, code = BAD_ACCESS[case]
    token = make(plane)
    if case == "a line break":
        with pytest.raises(httpx.LocalProtocolError):
            open_stream(one, token, None)
        return
    if case in ("megabytes", "giant"):
        proof = None if case == "megabytes" else proof_for(token)
        assert open_stream(one, token, proof).status_code in (400, 401, 431)
        return
    if not token.isascii():
        require_refused(open_stream(one, token, None), 401, code)
        return
    require_refused(open_stream(one, token, proof_for(token)), 401, code, token)


@pytest.mark.parametrize("case", BAD_PROOF)
def test_a_bad_proof_opens_no_stream(one: Installation, plane: Plane, case: str) -> None:
    """A good token opens nothing without a good proof for this request."""
    make, code = BAD_PROOF[case]
    token = plane.sign_access({**access_claims(), "jti": fresh()})
    proof = make(token)
    require_refused(open_stream(one, token, proof), 401, code, proof if proof and len(proof) > 10 else "")


@pytest.mark.parametrize("case", BAD_ASSERTION)
def test_a_bad_assertion_brings_no_token(one: Installation, plane: Plane, case: str) -> None:
    """The token endpoint refuses in OAuth's words too."""
    make, code = BAD_ASSERTION[case]
    answer = exchange(one, make(plane), token_proof())
    require_refused(answer, 401, code)
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize("case", BAD_OPERATOR)
def test_a_bad_operator_token_reads_nothing(one: Installation, plane: Plane, case: str) -> None:
    """Only a short token by the operator's own key counts."""
    make, code = BAD_OPERATOR[case]
    token = make(plane)
    require_refused(ask(one, "GET", "/api/v1/status", [("Authorization", f"Bearer {token}")]), 401, code, token)


def der_signed(plane: Plane) -> str:
    """A good token whose signature is DER, as openssl writes it, in place of the two numbers (RFC 7518, 3.4)."""
    signed = plane.sign_access(access_claims()).rpartition(".")[0]
    der = plane.keys.signing("access").private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    return f"{signed}.{b64(der)}"


def by_role(plane: Plane, one: Installation, role: str, purpose: str) -> str:
    """An access token by the key that a file of the key store holds."""
    key = serialization.load_pem_private_key((one.data / "keys" / f"{purpose}-{role}.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return jws(key, {"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(key)}, {**access_claims(), "jti": fresh()})


def test_a_signature_in_der_is_refused(one: Installation, plane: Plane) -> None:
    """It is of another length than two numbers of 32 bytes, or does not fit."""
    token = der_signed(plane)
    require_refused(open_stream(one, token, proof_for(token)), 401, "malformed-token", token)


def test_only_keys_of_the_purpose_count(one: Installation, plane: Plane) -> None:
    """The previous, current and next key of access tokens verify; keys of other purposes and removed ones do not."""
    for role in ("previous", "current", "next"):
        token = by_role(plane, one, role, "access")
        proof = dpop(token, OTHER, jti=fresh())
        require_refused(open_stream(one, token, proof), 401, "key-mismatch")  # the token was good, the proof is not
    for purpose in ("desired", "operator"):
        token = by_role(plane, one, "current", purpose)
        require_refused(open_stream(one, token, proof_for(token)), 401, "unknown-key", token)
    removed = new_key()
    token = jws(removed, {"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(removed)}, access_claims())
    require_refused(open_stream(one, token, proof_for(token)), 401, "unknown-key", token)


def test_a_proof_is_good_once(one: Installation, plane: Plane) -> None:
    """The second use of a proof is refused, at every door, also with another good token of the same key."""
    token = plane.sign_access({**access_claims(), "jti": fresh()})
    url = "/api/v1/agents/certificate"
    proof = proof_for(token, htm="POST", htu=f"{ISSUER}{url}")
    sent: list[tuple[str, str]] = [("Authorization", f"DPoP {token}"), ("DPoP", proof)]
    first = ask(one, "POST", url, sent, json={"csr": "x"})
    assert first.status_code == 400, first.text  # it came in, and its signing request is none
    require_refused(ask(one, "POST", url, sent, json={"csr": "x"}), 401, "replayed")


def test_an_assertion_is_good_once(one: Installation, plane: Plane) -> None:
    """Also with a fresh proof."""
    assertion = jws(AGENT, doors.assertion_header(), {**assertion_claims(), "jti": fresh()})
    assert exchange(one, assertion, token_proof()).status_code == 200
    require_refused(exchange(one, assertion, token_proof()), 401, "replayed")


@pytest.mark.parametrize("code", ["proof-missing", "wrong-target", "expired", "key-mismatch", "bad-signature"])
def test_an_assertion_needs_a_proof_of_the_same_key(one: Installation, plane: Plane, code: str) -> None:
    """What goes with a good assertion is judged as strictly as itself."""
    assertion = jws(AGENT, doors.assertion_header(), {**assertion_claims(), "jti": fresh()})
    forged = jws(OTHER, doors.proof_header(), {**doors.proof_claims(None), "htm": "POST", "htu": TOKEN_URL})
    proofs = {
        "proof-missing": [],
        "wrong-target": [token_proof(htu=URL)],
        "expired": [token_proof(iat=now() - 121)],
        "key-mismatch": [dpop(None, OTHER, htm="POST", htu=TOKEN_URL, jti=fresh())],
        "bad-signature": [forged],
    }[code]
    require_refused(exchange(one, assertion, *proofs), 401, code)


def doubled(one: Installation, plane: Plane, name: str) -> httpx.Response:
    token = plane.sign_access({**access_claims(), "jti": fresh()})
    values = {"DPoP": proof_for(token), "Authorization": f"DPoP {token}"}
    return ask(one, "GET", STREAM, [*OPENING.items(), *values.items(), (name, values[name])])


@pytest.mark.parametrize("name", ["DPoP", "Authorization"])
def test_two_of_a_header_are_refused(one: Installation, plane: Plane, name: str) -> None:
    """RFC 9449, 4.3: exactly one proof; and which of two tokens counts is not guessed."""
    require_refused(doubled(one, plane, name), 400, "repeated-header")


@pytest.mark.parametrize(
    ("scheme", "code"),
    [("Bearer", "wrong-token-type"), ("Basic", "credentials-missing"), ("", "credentials-missing"),
     ("Digest", "credentials-missing"), ("DPoPX", "credentials-missing")],
)  # fmt: skip
def test_a_bound_token_is_no_bearer_token(one: Installation, plane: Plane, scheme: str, code: str) -> None:
    """RFC 9449, 7.1: a token that is bound to a key is not taken under another scheme."""
    token = plane.sign_access({**access_claims(), "jti": fresh()})
    require_refused(open_stream(one, token, proof_for(token), scheme), 401, code, token)


def test_a_proof_for_the_internal_address_counts_only_there(one: Installation, plane: Plane) -> None:
    """Which host was asked is part of what is proven; an address that is not ours is refused outright."""
    token = plane.sign_access({**access_claims(), "jti": fresh()})
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof_for(token), **OPENING}
    local = one.client.get(STREAM, headers=headers)
    require_refused(local, 401, "wrong-target")
    evil = one.client.get(STREAM, headers={**headers, "Host": "evil.example", "DPoP": proof_for(token)})
    require_refused(evil, 401, "wrong-target")


@pytest.mark.parametrize("where", ["query", "cookie", "body"])
def test_a_token_counts_in_its_header_alone(one: Installation, plane: Plane, where: str) -> None:
    """RFC 6750's other ways are none here: they would stand in logs and go along with cross-site requests."""
    operator = doors.sign_operator(plane, {**doors.operator_claims(), "scope": "admin"})
    sent: list[tuple[str, str]] = [("Cookie", f"access_token={operator}")] if where == "cookie" else []
    params = {"access_token": operator} if where == "query" else {}
    body = {"access_token": operator} if where == "body" else {}
    answer = ask(one, "POST", "/api/v1/reconcile", sent, params=params, json=body)
    if where == "query":
        require_refused(answer, 400, "bad-query", operator)
    else:
        require_refused(answer, 401, "credentials-missing", operator)


def enrolment(token: str, proof: str, name: str = "vps-9") -> dict[str, Any]:
    return {"token": token, "name": name, "publicKey": jwk(OTHER), "proof": proof, "address": "127.0.0.9"}


def enrolment_proof(**changed: Any) -> str:
    claims = {"token": "", "name": "vps-9", "iat": now(), "jti": fresh(), **changed}
    return jws(OTHER, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)


ENROLMENT: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "for another token": ({"token": "0" * 20}, "wrong-token"),
    "for another name": ({"name": "vps-8"}, "wrong-name"),
    "too old": ({"iat": 1.0}, "expired"),
    "from the future": ({"iat": 2.0**38}, "not-yet-valid"),
    "iat is a text": ({"iat": "now"}, "bad-claim"),
    "jti is a number": ({"jti": 1}, "bad-claim"),
}


@pytest.mark.parametrize("case", ENROLMENT)
def test_a_bad_proof_of_enrolment_is_refused(one: Installation, plane: Plane, case: str) -> None:
    """A good enrolment token enrols only whose key signed exactly this; it is not used up by a mistake."""
    changed, code = ENROLMENT[case]
    token = one.token("vps-9")
    proof = enrolment_proof(**{"token": token.partition(".")[0], **changed})
    require_refused(ask(one, "POST", "/api/v1/agents/enrol", [], json=enrolment(token, proof)), 401, code, token)


@pytest.mark.parametrize("make", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: "0" * 20 + t[20:],
                                  lambda t: t[:20], lambda t: "", lambda t: t + t])  # fmt: skip
def test_a_guessed_enrolment_token_is_refused(one: Installation, plane: Plane, make: Any) -> None:
    """An unknown id, a wrong secret and another form are one refusal."""
    token = one.token("vps-9")
    bad = make(token)
    answer = ask(one, "POST", "/api/v1/agents/enrol", [], json=enrolment(bad, enrolment_proof(token=bad[:20] or "x")))
    require_refused(answer, 401, "bad-token", bad)


GIVEN: Final[dict[str, Callable[[str], str]]] = {
    "unknown id": lambda t: "clt_" + "0" * 20 + t[24:],
    "wrong secret": lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"),
    "cut off": lambda t: t[:-1],
    "longer": lambda t: t + "A",
    "prefix alone": lambda _: "clt_",
    "giant": lambda t: t + "A" * 8000,
    "a JWT inside": lambda t: f"clt_{json.dumps({})}",
    "two of them": lambda t: f"{t} {t}",
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_bad_token_of_ci_reads_nothing(one: Installation, case: str) -> None:
    """Whatever is wrong with it, it is one refusal, which tells nothing of the good one."""
    new = one.post("/tokens", {"kind": "ci", "scopes": ["read"]}).json()
    good = ask(one, "GET", "/api/v1/status", [("Authorization", f"Bearer {new['token']}")])
    assert good.status_code == 200
    bad = GIVEN[case](new["token"])
    require_refused(ask(one, "GET", "/api/v1/status", [("Authorization", f"Bearer {bad}")]), 401, "bad-token", bad)


def test_the_table_is_long_enough() -> None:
    """The issue asks for at least 40."""
    assert len([*BAD_ACCESS, *BAD_PROOF, *BAD_ASSERTION, *BAD_OPERATOR, *ENROLMENT, *GIVEN]) >= 130
