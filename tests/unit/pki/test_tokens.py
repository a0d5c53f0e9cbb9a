"""Tokens: what is taken, and a table of what is not (row 11 of the threats).

Every bad token is the good one of its kind with one thing changed, signed by hand, so that a test fails when the check
it is about is removed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.pki.token_endpoint import TokenEndpoint
from reconciler.pki.tokens import issue_operator_token, verify_enrolment_proof
from schemas.enrolment import TokenAnswer
from schemas.jwk import PublicJwk
from tests.support.tokens import ISSUER, NOW, b64, es256, jwk, jws, new_key, thumbprint, without

URL = f"{ISSUER}/api/v1/agents/stream"
TOKEN_URL = f"{ISSUER}/api/v1/agents/token"
AGENT = new_key()
OTHER = new_key()
Claims = dict[str, Any]


@dataclass
class Agents:
    """vps-1 and vps-2 are enrolled; vps-2 is another machine."""

    thumbprints: dict[str, str] = field(
        default_factory=lambda: {"vps-1": thumbprint(AGENT), "vps-2": thumbprint(OTHER)}
    )
    kept_out: set[str] = field(default_factory=set)

    def thumbprint(self, name: str) -> str | None:
        return self.thumbprints.get(name)

    def quarantined(self, name: str) -> bool:
        return name in self.kept_out


class Plane:
    """A control plane's keys and its two doors."""

    def __init__(self, keys: KeyStore) -> None:
        self.keys = keys
        self.agents = Agents()
        replays = ReplayCache()
        self.door = Authenticator(issuer=ISSUER, origins=(), keys=keys, agents=self.agents, replays=replays)
        self.endpoint = TokenEndpoint(keys=keys, agents=self.agents, authenticator=self.door, replays=replays)

    def access_header(self) -> Claims:
        return {"alg": "ES256", "typ": "at+jwt", "kid": self.keys.signing("access").kid}

    def sign_access(self, claims: Claims, **header: Any) -> str:
        return jws(self.keys.signing("access").private, {**self.access_header(), **header}, claims)

    def call(
        self, token: str, proof: str | None, *, url: str = URL, scheme: str = "DPoP", now: float = NOW
    ) -> Identity:
        headers = {"Authorization": f"{scheme} {token}", **({} if proof is None else {"DPoP": proof})}
        return self.door.authenticate("GET", url, headers, now)

    def exchange(self, assertion: str, proof: str | None = None) -> TokenAnswer:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
        return self.endpoint.exchange(
            form, method="POST", url=TOKEN_URL, proof=proof or dpop(None, htm="POST", htu=TOKEN_URL), now=NOW
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("plane") / "keys")


@pytest.fixture
def plane(keys: KeyStore) -> Plane:
    return Plane(keys)


def access_claims() -> Claims:
    return {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": "agent:vps-1",
        "client_id": "agent:vps-1",
        "iat": NOW,
        "exp": NOW + 600,
        "jti": "a1",
        "scope": "agent",
        "cnf": {"jkt": thumbprint(AGENT)},
    }


def assertion_claims() -> Claims:
    me = "agent:vps-1"
    return {"iss": me, "sub": me, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": "b1"}


def operator_claims() -> Claims:
    me = "operator:local"
    return {"iss": me, "sub": me, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": "c1", "scope": "read"}


def proof_header(key: ec.EllipticCurvePrivateKey = AGENT) -> Claims:
    return {"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk(key)}


def proof_claims(token: str | None) -> Claims:
    claims: Claims = {"htm": "GET", "htu": URL, "iat": NOW, "jti": "d1"}
    return claims if token is None else {**claims, "ath": b64(hashlib.sha256(token.encode()).digest())}


def dpop(token: str | None, key: ec.EllipticCurvePrivateKey = AGENT, **changed: Any) -> str:
    return jws(key, proof_header(key), {**proof_claims(token), **changed})


def assertion_header(key: ec.EllipticCurvePrivateKey = AGENT) -> Claims:
    return {"alg": "ES256", "typ": "client-authentication+jwt", "jwk": jwk(key)}


def test_a_good_token_and_proof_are_an_identity(plane: Plane) -> None:
    """The way that is meant: token and proof by the same key."""
    token = plane.sign_access(access_claims())
    expected = Identity("agent", "vps-1", frozenset({"agent"}), thumbprint(AGENT))

    assert plane.call(token, dpop(token)) == expected


def test_the_endpoint_gives_tokens_that_the_door_takes(plane: Plane) -> None:
    """What the token endpoint issues opens the door, and lives ten minutes."""
    answer = plane.exchange(jws(AGENT, assertion_header(), assertion_claims()))

    assert plane.call(answer.access_token, dpop(answer.access_token, jti="d2")).name == "vps-1"
    assert answer.expires_in == 600
    assert answer.token_type == "DPoP"


def test_an_operator_signs_for_itself(plane: Plane) -> None:
    """A token made with the operator's key has the scopes it asks for and no more."""
    token = issue_operator_token(
        plane.keys.signing("operator"), issuer=ISSUER, name="local", scopes=frozenset({"read"}), now=NOW, jti="x"
    )
    identity = plane.call(token, None, scheme="Bearer")

    assert str(identity) == "operator:local"
    identity.require("read")
    with pytest.raises(Refused) as caught:
        identity.require("enrol")
    assert (caught.value.status, caught.value.code) == (403, "insufficient-scope")


def test_the_websocket_opening_is_a_request(plane: Plane) -> None:
    """A proof for https covers the same address asked for as wss, with query and default port."""
    token = plane.sign_access(access_claims())

    assert plane.call(token, dpop(token), url=URL.replace("https", "wss").replace("test/", "test:443/") + "?x=1")


def test_admin_includes_what_operators_may_do_but_no_agent(plane: Plane) -> None:
    """The scope admin does not let an operator pass for an agent."""
    identity = plane.call(sign_operator(plane, {**operator_claims(), "scope": "admin agent"}), None, scheme="Bearer")

    identity.require("enrol")
    with pytest.raises(Refused):
        identity.require("agent")


def hs256(plane: Plane, claims: Claims) -> str:
    public = plane.keys.signing("access").private.public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = {**plane.access_header(), "alg": "HS256"}
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), 'sha256').digest().ljust(64, b'0'))}"


def unsigned(plane: Plane, alg: str) -> str:
    header = {**plane.access_header(), "alg": alg}
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(access_claims()).encode())}.{'A' * 86}"


def repeated_member(plane: Plane) -> str:
    text = json.dumps(access_claims())
    return jws(
        plane.keys.signing("access").private, plane.access_header(), (text[:-1] + ', "sub": "agent:x"}').encode()
    )


def tampered(plane: Plane) -> str:
    head, _, signature = plane.sign_access(access_claims()).split(".")
    return f"{head}.{b64(json.dumps({**access_claims(), 'sub': 'agent:vps-2'}).encode())}.{signature}"


def sign_operator(plane: Plane, claims: Claims, **header: Any) -> str:
    key = plane.keys.signing("operator")
    return jws(key.private, {"alg": "ES256", "typ": "cloudlunacy-operator+jwt", "kid": key.kid, **header}, claims)


def json_serialised(plane: Plane) -> str:
    head, body, signature = plane.sign_access(access_claims()).split(".")
    one = {"protected": head, "signature": signature}
    return json.dumps({"payload": body, "signatures": [one, one]})


BadToken = Callable[[Plane], str]


def access_without(name: str) -> BadToken:
    return lambda plane: plane.sign_access(without(access_claims(), name))


def assertion_without(name: str) -> BadToken:
    return lambda _: jws(AGENT, assertion_header(), without(assertion_claims(), name))


BAD_ACCESS: dict[str, tuple[BadToken, str]] = {
    "alg none": (lambda p: unsigned(p, "none"), "wrong-algorithm"),
    "alg None": (lambda p: unsigned(p, "None"), "wrong-algorithm"),
    "alg none, no signature": (lambda p: unsigned(p, "none")[:-86], "malformed-token"),
    "HS256 with the public key": (lambda p: hs256(p, access_claims()), "wrong-algorithm"),
    "ES384 in the header": (lambda p: p.sign_access(access_claims(), alg="ES384"), "wrong-algorithm"),
    "alg is a list": (lambda p: p.sign_access(access_claims(), alg=["ES256"]), "wrong-algorithm"),
    "unknown kid": (lambda p: p.sign_access(access_claims(), kid="x"), "unknown-key"),
    "kid is a path": (lambda p: p.sign_access(access_claims(), kid="../../etc/passwd"), "unknown-key"),
    "kid is a list": (lambda p: p.sign_access(access_claims(), kid=["x"]), "unknown-key"),
    "kid of the desired-state key": (
        lambda p: p.sign_access(access_claims(), kid=p.keys.signing("desired").kid),
        "unknown-key",
    ),
    "signed with the desired-state key": (
        lambda p: jws(p.keys.signing("desired").private, p.access_header(), access_claims()),
        "bad-signature",
    ),
    "signed by the agent": (lambda p: jws(AGENT, p.access_header(), access_claims()), "bad-signature"),
    "signed by the agent, its key in the header": (
        lambda p: jws(AGENT, {**p.access_header(), "jwk": jwk(AGENT)}, access_claims()),
        "unexpected-header",
    ),
    "jku": (lambda p: p.sign_access(access_claims(), jku="https://evil.example/jwks"), "unexpected-header"),
    "x5u": (lambda p: p.sign_access(access_claims(), x5u="https://evil.example/x"), "unexpected-header"),
    "x5c": (lambda p: p.sign_access(access_claims(), x5c=["AAAA"]), "unexpected-header"),
    "crit": (lambda p: p.sign_access(access_claims(), crit=["exp"]), "unexpected-header"),
    "b64 false": (lambda p: p.sign_access(access_claims(), b64=False, crit=["b64"]), "unexpected-header"),
    "zip": (lambda p: p.sign_access(access_claims(), zip="DEF"), "unexpected-header"),
    "nested": (lambda p: p.sign_access(access_claims(), cty="JWT"), "unexpected-header"),
    "typ of a plain JWT": (lambda p: p.sign_access(access_claims(), typ="JWT"), "wrong-token-type"),
    "typ missing": (
        lambda p: jws(p.keys.signing("access").private, without(p.access_header(), "typ"), access_claims()),
        "wrong-token-type",
    ),
    "typ in capitals": (lambda p: p.sign_access(access_claims(), typ="AT+JWT"), "wrong-token-type"),
    "a proof as token": (lambda p: dpop(None), "wrong-token-type"),
    "an assertion as token": (lambda p: jws(AGENT, assertion_header(), assertion_claims()), "wrong-token-type"),
    "an operator's token as an agent's": (lambda p: sign_operator(p, operator_claims()), "wrong-token-type"),
    **{f"without {name}": (access_without(name), "missing-claim") for name in access_claims()},
    "expired": (lambda p: p.sign_access({**access_claims(), "iat": NOW - 600, "exp": NOW - 61}), "expired"),
    "issued in the future": (
        lambda p: p.sign_access({**access_claims(), "iat": NOW + 61, "exp": NOW + 100}),
        "not-yet-valid",
    ),
    "nbf in the future": (lambda p: p.sign_access({**access_claims(), "nbf": NOW + 61}), "not-yet-valid"),
    "nbf is a text": (lambda p: p.sign_access({**access_claims(), "nbf": "now"}), "bad-claim"),
    "lives for a year": (lambda p: p.sign_access({**access_claims(), "exp": NOW + 31_536_000}), "lives-too-long"),
    "exp is a text": (lambda p: p.sign_access({**access_claims(), "exp": str(NOW + 600)}), "bad-claim"),
    "exp is true": (lambda p: p.sign_access({**access_claims(), "exp": True}), "bad-claim"),
    "exp is infinite": (lambda p: p.sign_access({**access_claims(), "exp": float("inf")}), "malformed-token"),
    "exp overflows": (
        lambda p: jws(
            p.keys.signing("access").private,
            p.access_header(),
            json.dumps(access_claims()).replace(str(NOW + 600), "1e999").encode(),
        ),
        "bad-claim",
    ),
    "another issuer": (lambda p: p.sign_access({**access_claims(), "iss": "https://evil.example"}), "wrong-issuer"),
    "another audience": (lambda p: p.sign_access({**access_claims(), "aud": "https://x.example"}), "wrong-audience"),
    "a list of audiences": (lambda p: p.sign_access({**access_claims(), "aud": [ISSUER]}), "bad-claim"),
    "another client": (lambda p: p.sign_access({**access_claims(), "client_id": "agent:vps-2"}), "wrong-subject"),
    "an operator as subject": (
        lambda p: p.sign_access({**access_claims(), "sub": "operator:x", "client_id": "operator:x"}),
        "wrong-subject",
    ),
    "no name in the subject": (
        lambda p: p.sign_access({**access_claims(), "sub": "agent:", "client_id": "agent:"}),
        "wrong-subject",
    ),
    "an unknown agent": (
        lambda p: p.sign_access({**access_claims(), "sub": "agent:gone", "client_id": "agent:gone"}),
        "agent-revoked",
    ),
    "another agent's name": (
        lambda p: p.sign_access({**access_claims(), "sub": "agent:vps-2", "client_id": "agent:vps-2"}),
        "agent-revoked",
    ),
    "not bound": (lambda p: p.sign_access({**access_claims(), "cnf": {}}), "missing-claim"),
    "bound twice": (
        lambda p: p.sign_access({**access_claims(), "cnf": {"jkt": thumbprint(AGENT), "jku": "x"}}),
        "missing-claim",
    ),
    "bound to a list": (lambda p: p.sign_access({**access_claims(), "cnf": {"jkt": [1]}}), "bad-claim"),
    "giant": (lambda p: p.sign_access({**access_claims(), "x": "y" * 5000}), "malformed-token"),
    "megabytes": (lambda p: "A" * 5_000_000, "malformed-token"),
    "deeply nested JSON": (
        lambda p: jws(p.keys.signing("access").private, p.access_header(), b"[" * 2500),
        "malformed-token",
    ),
    "a list as payload": (
        lambda p: jws(p.keys.signing("access").private, p.access_header(), b"[]"),
        "malformed-token",
    ),
    "not UTF-8": (lambda p: jws(p.keys.signing("access").private, p.access_header(), b"\xff{}"), "malformed-token"),
    "a member twice": (repeated_member, "malformed-token"),
    "payload exchanged": (tampered, "bad-signature"),
    "bad base64": (lambda p: p.sign_access(access_claims()).replace(".", ".!", 1), "malformed-token"),
    "padding": (lambda p: p.sign_access(access_claims()) + "==", "malformed-token"),
    "a line break": (lambda p: p.sign_access(access_claims()).replace(".", ".\n", 1), "malformed-token"),
    "four parts": (lambda p: p.sign_access(access_claims()) + ".AAAA", "malformed-token"),
    "five parts, encrypted": (lambda p: "AAAA.AAAA.AAAA.AAAA.AAAA", "malformed-token"),
    "two signatures": (json_serialised, "malformed-token"),
    "a zero signature": (lambda p: p.sign_access(access_claims())[:-86] + "A" * 86, "bad-signature"),
    "a DER signature": (
        lambda p: p.sign_access(access_claims())[:-86] + b64(b"0" * 71),
        "malformed-token",
    ),
    "empty": (lambda p: "", "malformed-token"),
    "not ASCII": (lambda p: "ä.ö.ü", "malformed-token"),
}


@pytest.mark.parametrize("case", BAD_ACCESS)
def test_a_bad_access_token_is_refused(plane: Plane, case: str) -> None:
    """Each is refused with 401 and its own code, and the message does not repeat the token."""
    make, code = BAD_ACCESS[case]
    token = make(plane)

    with pytest.raises(Refused) as caught:
        plane.call(token, dpop(token) if token.isascii() else None)
    assert (caught.value.status, caught.value.code) == (401, code)
    assert len(str(caught.value)) < 300
    assert not token or token not in str(caught.value)


def off_curve() -> Claims:
    return {**proof_header(), "jwk": {**jwk(AGENT), "y": b64(b"\x01" * 32)}}


def with_private_part() -> Claims:
    return {**proof_header(), "jwk": {**jwk(AGENT), "d": b64(b"\x01" * 32)}}


BadProof = Callable[[str], str | None]
BAD_PROOF: dict[str, tuple[BadProof, str]] = {
    "missing": (lambda t: None, "proof-missing"),
    "empty": (lambda t: "", "proof-missing"),
    "garbage": (lambda t: "x", "malformed-token"),
    "by another key": (lambda t: dpop(t, OTHER), "key-mismatch"),
    "another's key in the header": (lambda t: jws(OTHER, proof_header(), proof_claims(t)), "bad-signature"),
    "for another token": (lambda t: dpop(t + "x"), "wrong-token"),
    "for no token": (lambda t: dpop(None), "missing-claim"),
    "for another method": (lambda t: dpop(t, htm="POST"), "wrong-target"),
    "method in small letters": (lambda t: dpop(t, htm="get"), "wrong-target"),
    "for another path": (lambda t: dpop(t, htu=f"{ISSUER}/api/v1/agents/token"), "wrong-target"),
    "for another host": (lambda t: dpop(t, htu=URL.replace("control", "evil")), "wrong-target"),
    "for another port": (lambda t: dpop(t, htu=URL.replace("test/", "test:8443/")), "wrong-target"),
    "for http": (lambda t: dpop(t, htu=URL.replace("https", "http")), "wrong-target"),
    "for no URL": (lambda t: dpop(t, htu="x"), "wrong-target"),
    "for a bad port": (lambda t: dpop(t, htu="https://h:99999/"), "wrong-target"),
    "too old": (lambda t: dpop(t, iat=NOW - 121), "expired"),
    "from the future": (lambda t: dpop(t, iat=NOW + 61), "not-yet-valid"),
    "without htm": (lambda t: jws(AGENT, proof_header(), without(proof_claims(t), "htm")), "missing-claim"),
    "without htu": (lambda t: jws(AGENT, proof_header(), without(proof_claims(t), "htu")), "missing-claim"),
    "without iat": (lambda t: jws(AGENT, proof_header(), without(proof_claims(t), "iat")), "missing-claim"),
    "without jti": (lambda t: jws(AGENT, proof_header(), without(proof_claims(t), "jti")), "missing-claim"),
    "a giant jti": (lambda t: dpop(t, jti="x" * 129), "bad-claim"),
    "without a key": (lambda t: jws(AGENT, without(proof_header(), "jwk"), proof_claims(t)), "unexpected-header"),
    "kid in place of a key": (
        lambda t: jws(AGENT, {**without(proof_header(), "jwk"), "kid": "x"}, proof_claims(t)),
        "unexpected-header",
    ),
    "a key off the curve": (lambda t: jws(AGENT, off_curve(), proof_claims(t)), "bad-key"),
    "a private key": (lambda t: jws(AGENT, with_private_part(), proof_claims(t)), "bad-key"),
    "a symmetric key": (
        lambda t: jws(AGENT, {**proof_header(), "jwk": {"kty": "oct", "k": "AA"}}, proof_claims(t)),
        "bad-key",
    ),
    "a key that is a text": (lambda t: jws(AGENT, {**proof_header(), "jwk": "x"}, proof_claims(t)), "bad-key"),
    "an assertion": (lambda t: jws(AGENT, assertion_header(), assertion_claims()), "wrong-token-type"),
    "the token itself": (lambda t: t, "wrong-token-type"),
}


@pytest.mark.parametrize("case", BAD_PROOF)
def test_a_bad_proof_is_refused(plane: Plane, case: str) -> None:
    """A good token opens nothing without a good proof for this request."""
    make, code = BAD_PROOF[case]
    token = plane.sign_access(access_claims())

    with pytest.raises(Refused) as caught:
        plane.call(token, make(token))
    assert (caught.value.status, caught.value.code) == (401, code)


def test_a_proof_works_once(plane: Plane) -> None:
    """The same proof again is a replay; a new one with the same token is not."""
    token = plane.sign_access(access_claims())
    proof = dpop(token)
    plane.call(token, proof)

    with pytest.raises(Refused) as caught:
        plane.call(token, proof)
    assert caught.value.code == "replayed"
    assert plane.call(token, dpop(token, jti="d2"))


def test_a_proof_for_another_server_is_worth_nothing_here(plane: Plane) -> None:
    """A forged Host header does not make a proof for evil.example good: unknown origins are refused first."""
    token = plane.sign_access(access_claims())
    url = "https://evil.example/api/v1/agents/stream"

    with pytest.raises(Refused) as caught:
        plane.call(token, dpop(token, htu=url), url=url)
    assert caught.value.code == "wrong-target"


BAD_ASSERTION: dict[str, tuple[BadToken, str]] = {
    "by another key": (lambda p: jws(OTHER, assertion_header(OTHER), assertion_claims()), "unknown-agent"),
    "another's key in the header": (lambda p: jws(OTHER, assertion_header(), assertion_claims()), "bad-signature"),
    "for another agent": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "iss": "agent:vps-2", "sub": "agent:vps-2"}),
        "unknown-agent",
    ),
    "unknown agent": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "iss": "agent:gone", "sub": "agent:gone"}),
        "unknown-agent",
    ),
    "iss is not sub": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "iss": "agent:vps-2"}),
        "wrong-issuer",
    ),
    "for another server": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "aud": "https://evil.example"}),
        "wrong-audience",
    ),
    "lives an hour": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "exp": NOW + 3600}),
        "lives-too-long",
    ),
    "expired": (
        lambda p: jws(AGENT, assertion_header(), {**assertion_claims(), "iat": NOW - 121, "exp": NOW - 61}),
        "expired",
    ),
    "kid besides the key": (
        lambda p: jws(AGENT, {**assertion_header(), "kid": "x"}, assertion_claims()),
        "unexpected-header",
    ),
    "jku": (
        lambda p: jws(AGENT, {**assertion_header(), "jku": "https://evil.example"}, assertion_claims()),
        "unexpected-header",
    ),
    "crit": (lambda p: jws(AGENT, {**assertion_header(), "crit": []}, assertion_claims()), "unexpected-header"),
    "an access token": (lambda p: p.sign_access(access_claims()), "wrong-token-type"),
    "a proof": (lambda p: dpop(None), "wrong-token-type"),
    **{f"without {name}": (assertion_without(name), "missing-claim") for name in assertion_claims()},
}


@pytest.mark.parametrize("case", BAD_ASSERTION)
def test_a_bad_assertion_is_refused(plane: Plane, case: str) -> None:
    """The token endpoint takes nothing but a fresh assertion by the enrolled key."""
    make, code = BAD_ASSERTION[case]

    with pytest.raises(Refused) as caught:
        plane.exchange(make(plane))
    assert (caught.value.status, caught.value.code) == (401, code)


def test_an_assertion_works_once(plane: Plane) -> None:
    """A stolen assertion is used up, even with a new proof; and the proof must be by the same key."""
    assertion = jws(AGENT, assertion_header(), assertion_claims())
    codes = []
    plane.exchange(assertion)
    for proof in (dpop(None, htm="POST", htu=TOKEN_URL, jti="z"), dpop(None, OTHER, htm="POST", htu=TOKEN_URL)):
        with pytest.raises(Refused) as caught:
            plane.exchange(assertion, proof)
        codes.append(caught.value.code)

    assert codes == ["replayed", "key-mismatch"]


BAD_OPERATOR: dict[str, tuple[BadToken, str]] = {
    "an agent's token as bearer": (lambda p: p.sign_access(access_claims()), "wrong-token-type"),
    "signed by an agent": (
        lambda p: jws(
            AGENT,
            {"alg": "ES256", "typ": "cloudlunacy-operator+jwt", "kid": p.keys.signing("operator").kid},
            operator_claims(),
        ),
        "bad-signature",
    ),
    "signed by the access key": (
        lambda p: jws(
            p.keys.signing("access").private,
            {"alg": "ES256", "typ": "cloudlunacy-operator+jwt", "kid": p.keys.signing("access").kid},
            operator_claims(),
        ),
        "unknown-key",
    ),
    "for another server": (lambda p: sign_operator(p, {**operator_claims(), "aud": "x"}), "wrong-audience"),
    "an agent as subject": (
        lambda p: sign_operator(p, {**operator_claims(), "iss": "agent:vps-1", "sub": "agent:vps-1"}),
        "wrong-subject",
    ),
    "lives a day": (lambda p: sign_operator(p, {**operator_claims(), "exp": NOW + 86400}), "lives-too-long"),
    "expired": (lambda p: sign_operator(p, {**operator_claims(), "iat": NOW - 200, "exp": NOW - 61}), "expired"),
    "no scope": (lambda p: sign_operator(p, without(operator_claims(), "scope")), "missing-claim"),
}


@pytest.mark.parametrize("case", BAD_OPERATOR)
def test_a_bad_operator_token_is_refused(plane: Plane, case: str) -> None:
    """Only a short token by the operator's own key counts."""
    make, code = BAD_OPERATOR[case]

    with pytest.raises(Refused) as caught:
        plane.call(make(plane), None, scheme="Bearer")
    assert (caught.value.status, caught.value.code) == (401, code)


@pytest.mark.parametrize("value", ["", "Basic YTpi", "DPoP", "Bearer", "Token x", "dpop  "])
def test_other_credentials_are_refused(plane: Plane, value: str) -> None:
    """Whatever else stands in Authorization, the answer is 401."""
    with pytest.raises(Refused) as caught:
        plane.door.authenticate("GET", URL, {"authorization": value, "cookie": "session=1"}, NOW)
    assert caught.value.status == 401


def test_a_revoked_agent_is_out_at_once(plane: Plane) -> None:
    """A token that would live for minutes ends with the agent's file, its key or its state."""
    token = plane.sign_access(access_claims())
    plane.agents.kept_out.add("vps-1")
    with pytest.raises(Refused) as quarantined:
        plane.call(token, dpop(token))
    plane.agents.thumbprints.pop("vps-1")
    with pytest.raises(Refused) as gone:
        plane.call(token, dpop(token))

    assert (quarantined.value.status, quarantined.value.code) == (403, "agent-quarantined")
    assert (gone.value.status, gone.value.code) == (401, "agent-revoked")


def enrolment_proof(key: ec.EllipticCurvePrivateKey = AGENT, **changed: Any) -> str:
    claims = {"token": "t1", "name": "vps-1", "iat": NOW, "jti": "e1", **changed}
    return jws(key, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (enrolment_proof(OTHER), "bad-signature"),
        (enrolment_proof(token="t2"), "wrong-token"),
        (enrolment_proof(name="vps-2"), "wrong-name"),
        (enrolment_proof(iat=NOW - 121), "expired"),
        (jws(AGENT, proof_header(), proof_claims(None)), "wrong-token-type"),
    ],
    ids=["other key", "other token", "other name", "old", "a DPoP proof"],
)
def test_an_enrolment_needs_a_proof_by_its_key(proof: str, code: str) -> None:
    """The proof is by the key that enrols, for this token and this name, and fresh."""
    key = PublicJwk.model_validate(jwk(AGENT))
    verify_enrolment_proof(enrolment_proof(), key=key, token_id="t1", name="vps-1", now=NOW)

    with pytest.raises(Refused) as caught:
        verify_enrolment_proof(proof, key=key, token_id="t1", name="vps-1", now=NOW)
    assert (caught.value.status, caught.value.code) == (401, code)


def test_the_replay_memory_is_bounded_for_each_key_and_forgets() -> None:
    """One key that floods is answered 429 while others pass; what is too old to matter is forgotten."""
    cache = ReplayCache(capacity=5, per_key=3)
    for number in range(3):
        cache.use("flooder", str(number), until=NOW + 60, now=NOW)
    with pytest.raises(Refused) as caught:
        cache.use("flooder", "3", until=NOW + 60, now=NOW)
    cache.use("other", "1", until=NOW + 60, now=NOW)

    assert (caught.value.status, len(cache)) == (429, 4)
    cache.use("flooder", "1", until=NOW + 200, now=NOW + 61)
    assert len(cache) == 1


def test_our_own_signatures_are_plain_es256(plane: Plane) -> None:
    """A signature made by hand verifies like one of PyJWT's: raw r and s (RFC 7518, 3.4)."""
    assert len(es256(AGENT, b"x")) == 64
    assert plane.sign_access(access_claims()).count(".") == 2
