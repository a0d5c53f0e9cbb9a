"""A table of tokens that are not taken (row 11 of the threats).

Every bad token is the good one of its kind with one thing changed, signed by hand, so that a test fails when the check
it is about is removed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization

from reconciler.errors import Refused
from tests.support.tokens import ISSUER, NOW, b64, jwk, jws, thumbprint, without
from tests.unit.pki.doors import (
    AGENT,
    OTHER,
    URL,
    Claims,
    Plane,
    access_claims,
    assertion_claims,
    assertion_header,
    dpop,
    operator_claims,
    proof_claims,
    proof_header,
    sign_operator,
)


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
        lambda p: p.sign_access({**access_claims(), "iat": NOW + 300, "exp": NOW + 400}),
        "not-yet-valid",
    ),
    "nbf in the future": (lambda p: p.sign_access({**access_claims(), "nbf": NOW + 300}), "not-yet-valid"),
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
    "from the future": (lambda t: dpop(t, iat=NOW + 300), "not-yet-valid"),
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
