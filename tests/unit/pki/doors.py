"""A control plane with its two doors, and the good tokens that open them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.pki.token_endpoint import TokenEndpoint
from schemas.enrolment import TokenAnswer
from tests.support.tokens import ISSUER, NOW, b64, jwk, jws, new_key, thumbprint

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


def sign_operator(plane: Plane, claims: Claims, **header: Any) -> str:
    key = plane.keys.signing("operator")
    return jws(key.private, {"alg": "ES256", "typ": "cloudlunacy-operator+jwt", "kid": key.kid, **header}, claims)
