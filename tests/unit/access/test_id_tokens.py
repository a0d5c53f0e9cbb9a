"""ID tokens, good and bad, and who somebody is by them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jwt

from reconciler.access.id_tokens import Expected, UnknownKeyError, groups_of, person_of, verify
from reconciler.errors import Refused
from tests.support.tokens import NOW

ISSUER = "https://idp.example/realms/main"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EXPECTED = Expected(ISSUER, "cloudlunacy", "nonce-1", NOW)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "aud": "cloudlunacy", "sub": "248", "exp": NOW + 300, "iat": NOW, "nonce": "nonce-1"
}  # fmt: skip
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def imported(key: Private) -> jwk.RSAKey | jwk.ECKey:
    kind = jwk.RSAKey if isinstance(key, rsa.RSAPrivateKey) else jwk.ECKey
    return kind.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public(key: Private, kid: str, **more: str) -> dict[str, Any]:
    kind = jwk.RSAKey if isinstance(key, rsa.RSAPrivateKey) else jwk.ECKey
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {**kind.import_key(pem).as_dict(private=False), "kid": kid, **more}


KEYS = [public(RSA, "r1", use="sig", alg="RS256"), public(EC, "e1"), public(RSA, "enc", use="enc"), {"kty": "oct"}]


def sign(claims: dict[str, Any], key: Private = RSA, **header: Any) -> str:
    head = {"alg": "RS256" if key is not EC else "ES256", "kid": "r1" if key is not EC else "e1", **header}
    return jwt.encode(head, claims, imported(key), algorithms=[head["alg"]])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"xx") -> str:
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(claims).encode()), b64(signature)))


def shared_key_token() -> str:
    """HS256 with the provider's public key as the secret."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = by_hand({"alg": "HS256", "kid": "r1"}, CLAIMS).rpartition(".")[0]
    return f"{body}.{b64(hmac.new(pem, body.encode(), hashlib.sha256).digest())}"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


BAD: dict[str, Callable[[], str]] = {
    "no token": lambda: "x",
    "two parts": lambda: ".".join(sign(CLAIMS).split(".")[:2]),
    "unsigned": lambda: by_hand({"alg": "none"}, CLAIMS),
    "unsigned, no signature": lambda: by_hand({"alg": "none"}, CLAIMS, b""),
    "None": lambda: by_hand({"alg": "None"}, CLAIMS),
    "shared key": shared_key_token,
    "key of its own": lambda: sign(CLAIMS, OTHER, kid="x", jwk=public(OTHER, "x")),
    "key from elsewhere": lambda: sign(CLAIMS, jku="https://evil.example/keys", kid="x"),
    "another key": lambda: sign(CLAIMS, OTHER),
    "key for encryption": lambda: sign(CLAIMS, kid="enc"),
    "algorithm of another key": lambda: sign(CLAIMS, EC, kid="r1"),
    "algorithm that the key is not for": lambda: sign(CLAIMS, alg="RS512"),
    "changed": lambda: sign(CLAIMS)[:-8] + "AAAAAAAA",
    "access token": lambda: sign(CLAIMS, typ="at+jwt"),
    "logout token": lambda: sign(CLAIMS, typ="logout+jwt"),
    "other issuer": lambda: sign({**CLAIMS, "iss": "https://idp.example/realms/other"}),
    "issuer with a slash": lambda: sign({**CLAIMS, "iss": f"{ISSUER}/"}),
    "issuers": lambda: sign({**CLAIMS, "iss": [ISSUER]}),
    "wrong audience": lambda: sign({**CLAIMS, "aud": "shop"}),
    "wrong audiences": lambda: sign({**CLAIMS, "aud": ["shop", "blog"]}),
    "audiences, no party": lambda: sign({**CLAIMS, "aud": ["cloudlunacy", "shop"]}),
    "other party": lambda: sign({**CLAIMS, "azp": "shop"}),
    "expired": lambda: sign({**CLAIMS, "exp": NOW - 61}),
    "expires never": lambda: sign({**CLAIMS, "exp": float("inf")}),
    "expires truly": lambda: sign({**CLAIMS, "exp": True}),
    "from the future": lambda: sign({**CLAIMS, "iat": NOW + 120, "exp": NOW + 900}),
    "old": lambda: sign({**CLAIMS, "iat": NOW - 3600}),
    "not yet": lambda: sign({**CLAIMS, "nbf": NOW + 120}),
    "other nonce": lambda: sign({**CLAIMS, "nonce": "nonce-2"}),
    "nonces": lambda: sign({**CLAIMS, "nonce": ["nonce-1"]}),
    "subject is a number": lambda: sign({**CLAIMS, "sub": 248}),
    "subject is empty": lambda: sign({**CLAIMS, "sub": ""}),
    "other access token": lambda: sign({**CLAIMS, "at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
    "much too long": lambda: sign({**CLAIMS, "x": "a" * 70_000}),
    **{f"no {name}": lambda name=name: sign(without(name)) for name in CLAIMS},  # type: ignore[misc]
}


@pytest.mark.parametrize("token", BAD)
def test_a_bad_token_lets_nobody_in(token: str) -> None:
    """Whatever is wrong with it; the message never repeats any of it."""
    text = BAD[token]()
    with pytest.raises(Refused) as caught:
        verify(text, KEYS, EXPECTED, "access")
    assert (caught.value.status, caught.value.code) == (403, "login-refused")
    assert text[:40] not in str(caught.value) or len(text) < 3


@pytest.mark.parametrize(
    "token",
    [
        lambda: sign(CLAIMS),
        lambda: sign(CLAIMS, EC),
        lambda: jwt.encode({"alg": "ES256"}, CLAIMS, imported(EC)),
        lambda: sign({**CLAIMS, "aud": ["cloudlunacy"]}),
        lambda: sign({**CLAIMS, "aud": ["cloudlunacy", "shop"], "azp": "cloudlunacy"}),
        lambda: sign({**CLAIMS, "exp": NOW - 30, "iat": NOW - 600}),
    ],
)
def test_a_good_token_says_who_somebody_is(token: Callable[[], str]) -> None:
    """Signed by a key of the provider, for us, now, for this attempt; clocks may differ by a minute."""
    assert verify(token(), KEYS, EXPECTED)["sub"] == "248"


def test_an_unknown_key_may_be_a_new_one() -> None:
    """So that a provider may change its keys; a weak one counts nothing."""
    with pytest.raises(UnknownKeyError):
        verify(sign(CLAIMS, kid="r2"), KEYS, EXPECTED)
    with pytest.raises(Refused, match="less than 2048"):
        verify(sign(CLAIMS), [{"kty": "RSA", "kid": "r1", "n": "A" * 171, "e": "AQAB"}], EXPECTED)
    with pytest.raises(Refused, match="cannot be read"):
        verify(sign(CLAIMS), [{"kty": "RSA", "kid": "r1", "n": "A" * 342, "e": 3}], EXPECTED)


@given(st.text(max_size=200))
def test_whatever_comes_is_refused(text: str) -> None:
    """Nothing but a refusal comes of it."""
    with pytest.raises(Refused):
        verify(text, KEYS, EXPECTED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from([*CLAIMS, "azp", "nbf", "at_hash", "amr", "auth_time"]), JSON, max_size=3))
def test_a_signed_token_may_say_anything(changed: dict[str, Any]) -> None:
    """It is good or refused, and good only where what must be said is said."""
    claims = {**CLAIMS, **changed}
    try:
        text = sign(claims, EC)
    except (ValueError, TypeError):
        return
    try:
        found = verify(text, KEYS, EXPECTED)
    except Refused:
        return
    assert (found["iss"], found["nonce"], found["sub"]) == (ISSUER, "nonce-1", claims["sub"])
    assert found["aud"] == "cloudlunacy" or "cloudlunacy" in found["aud"]
    assert found["exp"] > NOW - 61


@given(JSON, st.sampled_from(["groups", "a.b", "https://x/groups"]))
def test_groups_are_words_or_nothing(value: Any, claim: str) -> None:
    """Whatever the claim holds."""
    for claims in ({claim: value}, {"a": value}, {"a": {"b": value}}):
        groups = groups_of(claims, claim)
        assert groups is None or all(isinstance(one, str) and 0 < len(one) <= 256 for one in groups)


def test_groups_are_found_by_name_or_path() -> None:
    """A name that has dots itself is a name first."""
    assert groups_of({"groups": ["a", "b", "a", 3]}, "groups") == ("a", "b")
    assert groups_of({"realm": {"roles": ["a"]}}, "realm.roles") == ("a",)
    assert groups_of({"https://x.y/groups": "a"}, "https://x.y/groups") == ("a",)
    assert groups_of({}, "groups") is None
    assert groups_of({"groups": {"a": 1}}, "groups") == ()


def test_nobody_chooses_the_name_of_somebody_else() -> None:
    """A mail address counts where the provider vouches for it; every other name ends with the provider's host."""
    vouched = {"sub": "1", "email": "eve@corp.example", "email_verified": True, "name": "Eve <root@x>\u202e\n"}
    eve = person_of(vouched, ISSUER, ("ops",))
    assert (eve.name, eve.mail, eve.full_name) == ("eve@corp.example", "eve@corp.example", r"Eve root@x\u202e\n")
    for claims in ({**vouched, "email_verified": "true"}, {**vouched, "email": "eve@corp.example\n"},
                   {"sub": "1", "email": "eve@corp.example"}, {"sub": "1", "email_verified": True}):  # fmt: skip
        assert person_of(claims, ISSUER, ()).name == "1@idp.example"
        assert person_of(claims, ISSUER, ()).mail == ""
    posing = person_of({"sub": "2", "preferred_username": "eve@corp.example"}, ISSUER, ())
    assert posing.name == "eve-corp.example@idp.example"
