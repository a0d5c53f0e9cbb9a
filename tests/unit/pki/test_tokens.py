"""What tokens open, once, for whom, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.pki.tokens import issue_operator_token, verify_enrolment_proof
from schemas.jwk import PublicJwk
from tests.support.tokens import ISSUER, NOW, es256, jwk, jws, thumbprint
from tests.unit.pki.doors import (
    AGENT,
    OTHER,
    TOKEN_URL,
    URL,
    Agents,
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


@pytest.mark.parametrize("early", [60, 61])
def test_a_clock_may_be_a_minute_ahead(plane: Plane, early: int) -> None:
    """What begins within the next minute is good, be it token or proof; what begins later is not."""
    usual = plane.sign_access(access_claims())
    later = [plane.sign_access({**access_claims(), name: NOW + early}) for name in ("iat", "nbf")]
    calls = [(token, dpop(token, jti=f"{number}")) for number, token in enumerate(later)]
    codes = set()
    for token, proof in (*calls, (usual, dpop(usual, iat=NOW + early))):
        try:
            codes.add(plane.call(token, proof).name)
        except Refused as refusal:
            codes.add(refusal.code)

    assert codes == {"vps-1" if early == 60 else "not-yet-valid"}


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


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_behind_a_proxy_that_ends_tls_the_public_scheme_counts(plane: Plane, scheme: str) -> None:
    """The request comes in clear under the public Host, and its proof is for what the agent wrote, nothing else."""
    token, url = plane.sign_access(access_claims()), URL.replace("https", scheme)
    assert plane.call(token, dpop(token), url=url).name == "vps-1"
    with pytest.raises(Refused) as caught:
        plane.call(token, dpop(token, htu=url, jti="d2"), url=url)
    assert caught.value.code == "wrong-target"


def test_a_proxy_under_another_host_is_not_known(plane: Plane) -> None:
    """Only the public Host stands for the public URL: a proxy has to keep it."""
    token = plane.sign_access(access_claims())
    with pytest.raises(Refused) as caught:
        plane.call(token, dpop(token), url=URL.replace("https://", "http://inner."))
    assert caught.value.code == "wrong-target"


@pytest.mark.parametrize("public", ["https://Control.Example.com", "https://control.example.com:443"])
def test_the_public_address_counts_however_it_is_written(keys: KeyStore, public: str) -> None:
    """Case and the usual port make no difference."""
    door = Authenticator(issuer=public, origins=(), keys=keys, agents=Agents(), replays=ReplayCache())
    assert door.addressed("http://control.example.com/x") == "https://control.example.com/x"


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
