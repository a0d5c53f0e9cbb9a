"""Every route × every kind of caller, on the running control plane: what each is answered (rows 8, 10, 11, 28).

The routes are those of the application itself, so a new one fails here until somebody has written down who may use it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.routing import Route, WebSocketRoute

from reconciler.app.running import control_plane
from reconciler.commands import serve_command
from reconciler.pki.keystore import KeyStore
from schemas.session import SUBPROTOCOL
from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.git_repos import BareRepo
from tests.support.signing_requests import request as signing_request
from tests.support.tokens import b64, jwk, jws, new_key, thumbprint
from tests.support.waiting import wait_for

WEBHOOK_SECRET: Final = b"the secret of the git host"
SCOPES: Final = ("read", "plan", "approve", "enrol", "operate", "write", "exec")
OF_A_TEAM: Final = ("read", "operate", "write", "exec")
TEAMS: Final = {"token of shop": "shop", "token of blog": "blog"}
PEOPLE: Final[dict[str, dict[str, Any]]] = {
    "viewer": {"role": "viewer"},
    "role operator": {"role": "operator"},
    "member of shop": {"teams": ["shop"]},
    "member of blog": {"teams": ["blog"]},
    "administrator": {"role": "administrator"},
}
"""Who is logged in with a browser, and by what link."""
MAY: Final = {
    "viewer": {"read", "plan"},
    "role operator": {"read", "plan", "approve", "enrol", "operate", "write"},
    "member of shop": {"read", "plan"},
    "member of blog": {"read", "plan"},
    "administrator": {*SCOPES, "admin"},
}
"""What the table of docs/access.md says, with what is no team's."""
OF_MEMBERS: Final = {"operate", "write", "exec"}
AGENTS: Final = {"agent": "vps-1", "other agent": "vps-2", "quarantined agent": "vps-3", "revoked agent": "vps-4"}
WHO: Final = (
    "nobody",
    *AGENTS,
    "expired access token",
    "enrolment token",
    "operator",
    *SCOPES,
    *TEAMS,
    *PEOPLE,
    "ended session",
    "expired token",
    "revoked token",
    "webhook",
)
OPENING: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
}


class Row(NamedTuple):
    """Who gets through to an endpoint (caller → status), and what to send. Everybody else is refused."""

    through: dict[str, int]
    body: Any = None


def holders(scope: str, status: int = 200, *, team: bool = False) -> dict[str, int]:
    """Who may do what needs a scope. ``team``: with what is the team shop's."""
    included = {"plan": ("plan", "read")}.get(scope, (scope,))
    who = ["operator", *(one for one in included if one in SCOPES)]
    who += [one for one, may in MAY.items() if scope in may]
    if team:
        who += [one for one in ("member of shop",) if scope in OF_MEMBERS]
        who += [one for one in ("token of shop",) if any(one in OF_A_TEAM for one in included)]
    return dict.fromkeys(who, status)


def of_shop(scope: str, status: int = 200) -> dict[str, int]:
    return holders(scope, status, team=True)


def writers() -> dict[str, int]:
    """Who may write something, and may see this: what of it is theirs is found later."""
    return {who: LET_IN for who in (*holders("write"), "member of shop", "member of blog") if who != "write"}


def known(status: int = 200) -> dict[str, int]:
    """Whoever shows something that is good."""
    return dict.fromkeys(("operator", *SCOPES, *TEAMS, *PEOPLE, "agent", "other agent"), status)


def pages(status: int = 200) -> dict[str, int]:
    """A page that shows what is known: for who may read, and nobody else."""
    return holders("read", status)


def agents(status: int = 200) -> dict[str, int]:
    return dict.fromkeys(("agent", "other agent"), status)


def everybody(status: int = 200) -> dict[str, int]:
    return dict.fromkeys(WHO, status)


LET_IN: Final = 0
"""Any answer but 401 and 403: who may gets as far as there is something to answer with."""
FORM: Final = "form"
"""A form of the dashboard, sent from a page of ours."""
CHECKSUM: Final = f"sha256:{'0' * 64}"
TABLE: Final[dict[tuple[str, str], Row]] = {
    ("GET", "/api/v1/status"): Row(holders("read")),
    ("GET", "/api/v1/revisions"): Row(holders("read")),
    ("GET", "/api/v1/revisions/{revision}"): Row(holders("read")),
    ("GET", "/api/v1/revisions/{revision}/plan"): Row(holders("plan")),
    ("GET", "/api/v1/objects"): Row(holders("read")),
    ("GET", "/api/v1/state"): Row(holders("plan")),
    ("GET", "/api/v1/agents"): Row(holders("read")),
    ("GET", "/api/v1/agents/{name}"): Row(holders("read", 404)),
    ("GET", "/api/v1/agents/{name}/metrics"): Row(holders("read", 404)),
    ("GET", "/api/v1/deployments/{team}/{name}/metrics"): Row(of_shop("read", 404)),
    ("GET", "/metrics/agents"): Row(holders("read")),
    ("GET", "/api/v1/deployments"): Row(holders("read") | dict.fromkeys(TEAMS, 200)),
    ("GET", "/api/v1/whoami"): Row(known()),
    ("GET", "/api/v1/sessions"): Row(holders("admin")),
    ("DELETE", "/api/v1/sessions/{session}"): Row(holders("admin", 404)),
    ("POST", "/api/v1/login-links"): Row(holders("admin", 201), {"role": "viewer"}),
    ("GET", "/login"): Row(dict.fromkeys(WHO, 200) | known(303)),
    ("GET", "/login/link"): Row({}),
    ("POST", "/login/link"): Row({}, FORM),
    ("GET", "/login/oidc"): Row({}),
    ("GET", "/login/oidc/callback"): Row({}),
    ("POST", "/logout"): Row(dict.fromkeys(("nobody", *PEOPLE, "ended session"), 303), "logout"),
    ("GET", "/api/v1/deployments/{team}/{name}"): Row(of_shop("read", 404)),
    ("GET", "/api/v1/deployments/{team}/{name}/rollout"): Row(of_shop("read", 404)),
    ("POST", "/api/v1/deployments/{team}/{name}/rollout/pause"): Row(of_shop("operate", 404)),
    ("POST", "/api/v1/deployments/{team}/{name}/rollout/resume"): Row(of_shop("operate", 404)),
    ("GET", "/api/v1/deployments/{team}/{name}/logs"): Row(of_shop("operate", 404)),
    ("POST", "/api/v1/deployments/{team}/{name}/restart"): Row(of_shop("operate", 404), {}),
    ("POST", "/api/v1/deployments/{team}/{name}/exec"): Row(of_shop("exec", 404), {"command": ["true"]}),
    ("POST", "/api/v1/deployments/{team}/{name}/backup"): Row(of_shop("operate", 404), {}),
    ("GET", "/api/v1/deployments/{team}/{name}/backups"): Row(of_shop("operate", 404)),
    ("POST", "/api/v1/deployments/{team}/{name}/restore"): Row(
        of_shop("operate", 404), {"archive": "a", "confirm": "shop/nobody"}
    ),
    ("GET", "/api/v1/events"): Row(holders("read")),
    ("GET", "/api/v1/stream"): Row(holders("read")),
    ("GET", "/api/v1/certificates"): Row(holders("read")),
    ("POST", "/api/v1/certificates/{name}/retry"): Row(holders("operate", 409), {}),
    ("POST", "/api/v1/approvals"): Row(holders("approve", 409), {"checksum": CHECKSUM}),
    ("POST", "/api/v1/reconcile"): Row(holders("operate", 202), {}),
    ("POST", "/api/v1/enrolment-tokens"): Row(holders("enrol", 201), {"agent": "vps-9"}),
    ("GET", "/api/v1/tokens"): Row(holders("admin")),
    ("POST", "/api/v1/tokens"): Row(holders("admin", 201), {"kind": "ci", "scopes": ["read"]}),
    ("POST", "/api/v1/tokens/{token}/revocation"): Row(holders("admin", 404), {}),
    ("POST", "/api/v1/agents/{name}/revocation"): Row(holders("operate", 404), {}),
    ("POST", "/api/v1/agents/{name}/drain"): Row(holders("operate", 404), {}),
    ("POST", "/api/v1/agents/{name}/undrain"): Row(holders("operate", 404), {}),
    ("GET", "/api/v1/pki/rotations"): Row(holders("read")),
    ("POST", "/api/v1/pki/rotations"): Row(holders("admin", LET_IN), {"subject": "access"}),
    ("POST", "/api/v1/pki/rotations/{subject}/cancellation"): Row(holders("admin", 404), {}),
    ("GET", "/.well-known/crl/{key}.der"): Row(everybody(404)),
    ("POST", "/api/v1/routes"): Row(agents(403), {"team": "shop", "deployment": "web", "hostname": "a.example.com"}),
    ("GET", "/api/v1/routes/{team}/{name}"): Row(agents(404)),
    ("DELETE", "/api/v1/routes/{team}/{name}"): Row(agents(404)),
    ("POST", "/api/v1/agents/certificate"): Row(agents(), {"csr": signing_request()}),
    ("GET", "/api/v1/agents/stream"): Row(everybody(426)),
    ("WS", "/api/v1/agents/stream"): Row(agents(101)),
    ("POST", "/api/v1/agents/enrol"): Row({"enrolment token": 201}, "enrolment"),
    ("GET", "/api/v1/agents/enrolments/{id}"): Row({"enrolment token": 200}, "standing"),
    ("POST", "/api/v1/agents/token"): Row(agents(), "assertion"),
    ("POST", "/webhooks/git"): Row({"webhook": 202}, {}),
    ("GET", "/install/{wheel}"): Row(everybody(404)),
    **{("GET", path): Row(everybody()) for path in (
        "/install.sh", "/install/release.json", "/install/constraints.txt",
        "/healthz", "/readyz", "/metrics", "/openapi.json",
        "/.well-known/jwks.json", "/.well-known/ca.pem", "/.well-known/crl.der",
    )},
}  # fmt: skip
NO_CHANGE: Final = {"edits": [{"path": "routes/shop/none.yaml"}]}
TABLE.update({
    at: Row(holders(scope, LET_IN))
    for scope, ats in {
        "read": (
            ("GET", "/api/v1/approvals"), ("GET", "/api/v1/approvals/{checksum}"), ("GET", "/api/v1/changes/{change}"),
            ("GET", "/api/v1/events/{event}"), ("GET", "/api/v1/explain"),
            ("GET", "/api/v1/revisions/{revision}/convergence"),
            ("GET", "/api/v1/revisions/{revision}/diff"), ("GET", "/api/v1/revisions/{revision}/revert"),
            ("GET", "/api/v1/secrets"), ("GET", "/api/v1/traffic"), ("GET", "/api/v1/conditions"),
            *(("GET", path) for path in (
                "/", "/agents", "/agents/new/{name}", "/agents/{name}", "/certificates", "/certificates/{name}",
                "/databases", "/deployments", "/events", "/revisions", "/revisions/{revision}", "/secrets", "/traffic",
                "/traffic/{host}", "/api", "/sessions",
            )),
        ),
        "enrol": (("GET", "/agents/new"),),
        "admin": (("GET", "/tokens"),),
    }.items()
    for at in ats
})  # fmt: skip
TABLE.update(
    {
        ("POST", path): Row(holders(scope, LET_IN), FORM)
        for path, scope in {
            "/agents/new": "enrol",
            "/agents/{name}/cordon": "write",
            "/agents/{name}/uncordon": "write",
            "/agents/{name}/drain": "operate",
            "/agents/{name}/undrain": "operate",
            "/agents/{name}/revoke": "operate",
            "/certificates/{name}/order": "operate",
            "/certificates/{name}/probe": "operate",
            "/revisions/{revision}/approve": "approve",
            "/tokens": "admin",
            "/tokens/{token}/revoke": "admin",
        }.items()
    }
)
TABLE.update(
    {
        ("POST", path): Row(of_shop(scope, LET_IN), FORM)
        for path, scope in {
            "/databases/{team}/{name}/backup": "operate",
            "/deployments/{team}/{name}/pause": "operate",
            "/deployments/{team}/{name}/restart": "operate",
            "/deployments/{team}/{name}/resume": "operate",
            "/objects/{path:path}": "write",
        }.items()
    }
)
TABLE.update(
    {
        ("POST", "/api/v1/agents/{name}/cordon"): Row(holders("write", LET_IN), {}),
        ("POST", "/api/v1/agents/{name}/uncordon"): Row(holders("write", LET_IN), {}),
        ("POST", "/api/v1/changes"): Row(of_shop("write", LET_IN), NO_CHANGE),
        ("POST", "/api/v1/changes/check"): Row(of_shop("write", LET_IN), NO_CHANGE),
        ("DELETE", "/api/v1/objects/{path:path}"): Row(of_shop("write", LET_IN)),
        ("PATCH", "/api/v1/objects/{path:path}"): Row(of_shop("write", LET_IN), {"spec": {}}),
        ("PUT", "/api/v1/objects/{path:path}"): Row(of_shop("write", LET_IN), {}),
        ("POST", "/api/v1/revisions/{revision}/revert"): Row(writers() | dict.fromkeys(("write", *TEAMS), LET_IN), {}),
        ("POST", "/revisions/{revision}/revert"): Row(writers(), FORM),
        ("POST", "/routes/new"): Row(holders("read", LET_IN), FORM),
        ("PUT", "/api/v1/routes/{team}/{name}/weights"): Row(of_shop("write", LET_IN), {"backends": []}),
        ("GET", "/databases/{team}/{name}/backups"): Row(of_shop("operate", LET_IN)),
        ("GET", "/deployments/{team}/{name}/logs"): Row(of_shop("operate", LET_IN)),
        ("GET", "/routes/new"): Row(holders("read", LET_IN)),
        ("GET", "/revisions/{revision}/revert"): Row(writers()),
        ("POST", "/sessions/{session}/end"): Row(holders("read", LET_IN), FORM),
        ("POST", "/traffic/{host}/weights"): Row(holders("read", LET_IN), FORM),
        ("POST", "/api/v1/channels/{name}/test"): Row(holders("operate", LET_IN), {}),
        ("GET", "/api/v1/databases"): Row(holders("read") | dict.fromkeys(TEAMS, 200)),
        **{
            ("GET", path): Row(of_shop("read", LET_IN))
            for path in (
                "/api/v1/objects/{path:path}",
                "/api/v1/objects/{path:path}/history",
                "/databases/{team}/{name}",
                "/deployments/{team}/{name}",
                "/objects/{path:path}",
            )
        },
        ("GET", "/static/{digest}/{name}"): Row(everybody(404)),
    }
)
REFUSED: Final = {
    "nobody": (401, "credentials-missing"),
    "agent": (403, "insufficient-scope"),
    "other agent": (403, "insufficient-scope"),
    "quarantined agent": (403, "agent-quarantined"),
    "revoked agent": (401, "agent-revoked"),
    "expired access token": (401, "expired"),
    "enrolment token": (401, "malformed-token"),
    "operator": (403, "insufficient-scope"),
    **dict.fromkeys((*SCOPES, *PEOPLE), (403, "insufficient-scope")),
    **dict.fromkeys(TEAMS, (403, "other-team")),
    "ended session": (401, "session-ended"),
    "expired token": (401, "expired"),
    "revoked token": (401, "token-revoked"),
    "webhook": (401, "credentials-missing"),
}
"""What who has no business at an endpoint is told, where the endpoint says nothing else."""
SPECIAL: Final[dict[tuple[str, str], dict[str, tuple[int, str]]]] = {
    ("WS", "/api/v1/agents/stream"): {
        **dict.fromkeys(("operator", *SCOPES, *TEAMS), (403, "not-an-agent")),
        **dict.fromkeys((*PEOPLE, "ended session"), (401, "credentials-missing")),  # it takes no cookie
    },
    ("GET", "/login/link"): dict.fromkeys(WHO, (403, "link-ended")),
    ("POST", "/login/link"): dict.fromkeys(WHO, (403, "link-ended")),
    ("GET", "/login/oidc"): dict.fromkeys(WHO, (404, "no-provider")),
    ("GET", "/login/oidc/callback"): dict.fromkeys(WHO, (404, "no-provider")),
    ("POST", "/logout"): dict.fromkeys(WHO, (403, "foreign-origin")),
    # Whoever enrols shows the token and proves a key in the body; other credentials count for nothing.
    ("POST", "/api/v1/agents/enrol"): dict.fromkeys(WHO, (401, "bad-token")),
    # The key that enrolled, and nobody else: an agent that shows another key's proof, or none.
    ("GET", "/api/v1/agents/enrolments/{id}"): {
        who: (401, "key-mismatch" if who in AGENTS or who == "expired access token" else "proof-missing") for who in WHO
    },
    ("POST", "/api/v1/agents/token"): {
        **dict.fromkeys(WHO, (401, "malformed-token")),
        "quarantined agent": (403, "agent-quarantined"),
        "revoked agent": (401, "unknown-agent"),
        "expired access token": (401, "expired"),
    },
    ("POST", "/webhooks/git"): dict.fromkeys(WHO, (401, "bad-signature")),
}


@dataclass
class Plane:
    """The running control plane, and what each caller has."""

    one: Installation
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    enrolled: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    enrolment_token: str = ""

    def __post_init__(self) -> None:
        self.store = KeyStore(self.one.data / "keys")

    # --- what callers send ------------------------------------------------------------------------------------------

    def headers(self, who: str, method: str, url: str, body: bytes = b"") -> dict[str, str]:
        if who in PEOPLE or who == "ended session":
            # a browser names the page that asks with what changes something
            return self.cookie(who) | ({} if method in ("GET", "WS") else {"Origin": self.one.url})
        if who in AGENTS:
            return self.of_agent(AGENTS[who], method, url)
        if who == "expired access token":
            return self.of_agent("vps-1", method, url, age=700)
        if who == "operator":
            return self.one.headers()
        if who == "webhook":
            return {"X-Hub-Signature-256": f"sha256={hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()}"}
        if who == "nobody":
            return {"Origin": self.one.url} if url.endswith("/logout") else {}
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def cookie(self, who: str) -> dict[str, str]:
        return {"Cookie": f"__Host-cloudlunacy={self.sessions[who]}"}

    def log_in(self, **link: Any) -> str:
        """Log in by a link, as a browser does; return the value of the cookie."""
        made = self.one.post("/login-links", link).json()
        key = parse_qs(urlsplit(made["url"]).query)["key"][0]
        answer = self.one.client.post("/login/link", data={"key": key}, headers={"Origin": self.one.url})
        assert answer.status_code == 303, answer.text
        found = SimpleCookie(answer.headers["set-cookie"])["__Host-cloudlunacy"].value
        self.one.client.cookies.clear()
        return found

    def of_agent(self, name: str, method: str, url: str, age: float = 0.0) -> dict[str, str]:
        now = int(time.time() - age)
        key, subject = self.store.signing("access"), f"agent:{name}"
        said = {"iss": self.one.url, "aud": self.one.url, "sub": subject, "client_id": subject, "iat": now,
                "exp": now + 600, "jti": "a", "scope": "agent",
                "cnf": {"jkt": thumbprint(self.keys[name])}}  # fmt: skip
        token = jws(key.private, {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}, said)
        return {"Authorization": f"DPoP {token}", "DPoP": self.proof(self.keys[name], method, url, token)}

    def proof(self, key: ec.EllipticCurvePrivateKey, method: str, url: str, token: str | None = None) -> str:
        claims = {"htm": method, "htu": url, "iat": int(time.time()), "jti": b64(hashlib.sha256(url.encode()).digest())}
        claims["jti"] = f"{time.monotonic_ns()}"
        if token is not None:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        return jws(key, {"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk(key)}, claims)

    def enrolment(self, who: str) -> dict[str, Any]:
        """A request to enrol vps-8: with the token, or with something in its place."""
        token = self.enrolment_token if who == "enrolment token" else self.tokens.get(who, "x")
        claims = {"token": token.partition(".")[0], "name": "vps-8", "iat": int(time.time()), "jti": "j"}
        proof = jws(self.enrolled, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)
        return {
            "token": token,
            "name": "vps-8",
            "publicKey": jwk(self.enrolled),
            "proof": proof,
            "address": "127.0.0.8",
        }

    def assertion(self, who: str) -> dict[str, str]:
        """What the token endpoint is sent: an assertion by the agent's key, else the caller's token."""
        assertion = self.tokens.get(who, "x")
        if who in AGENTS or who == "expired access token":
            name = AGENTS.get(who, "vps-1")
            now, me, key = (
                int(time.time() - (200 if who == "expired access token" else 0)),
                f"agent:{name}",
                self.keys[name],
            )
            said = {
                "iss": me,
                "sub": me,
                "aud": self.one.url,
                "iat": now,
                "exp": now + 60,
                "jti": f"{time.monotonic_ns()}",
            }
            assertion = jws(key, {"alg": "ES256", "typ": "client-authentication+jwt", "jwk": jwk(key)}, said)
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }

    # --- asking -----------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, who: str) -> httpx.Response:
        return self.one.client.send(self.request(method, path, who), stream=True)

    def request(self, method: str, path: str, who: str) -> httpx.Request:
        body = TABLE[method, path].body
        own = {
            "{revision}": "newest",
            "{name}": "nobody",
            "{team}": "shop",
            "{token}": "none",
            "{session}": "none",
            "{path:path}": "routes/shop/none.yaml",
            "{change}": "none",
            "{host}": "none.example.com",
            "{digest}": "none",
            "{wheel}": "none.whl",
            "{subject}": "age",
            "{key}": "00",
            "{id}": self.enrolment_token.partition(".")[0],
        }
        if path.endswith("/revert"):
            own["{revision}"] = "0" * 40  # none, so that nothing is taken back
        for name, value in own.items():
            path = path.replace(name, value)
        url, more = f"{self.one.url}{path}", self._content(body, who)
        if method == "WS":
            return self.one.client.build_request("GET", path, headers={**OPENING, **self.headers(who, "GET", url)})
        request = self.one.client.build_request(method, path, **more)
        request.headers.update(self.headers(who, method, url, request.content))
        if body == "logout" and "cookie" in request.headers:
            request.headers["cookie"] += "x"  # no session's, so that those of the others go on
        if body == "assertion":
            request.headers["DPoP"] = self.proof(self.keys[AGENTS.get(who, "vps-1")], method, url)
        if body == "standing" and who == "enrolment token":
            request.headers["DPoP"] = self.proof(self.enrolled, method, url)
        return request

    def _content(self, body: Any, who: str) -> dict[str, Any]:
        match body:
            case None | "standing" | "logout":
                return {}
            case "form":
                return {"data": {"key": "none"}, "headers": {"Origin": self.one.url}}
            case "enrolment":
                return {"json": self.enrolment(who)}
            case "assertion":
                return {"data": self.assertion(who)}
        return {"json": body}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """vps-1 and vps-2 are in service, vps-3 is quarantined in git, vps-4 was locked out by the command."""
    folder = tmp_path_factory.mktemp("matrix")
    keys = {name: new_key() for name in AGENTS.values()}
    files: dict[str, bytes | str | None] = {"fleet.yaml": documents.fleet()}
    for name, key in keys.items():
        state = "quarantined" if name == "vps-3" else "active"
        files[f"agents/{name}.yaml"] = documents.agent(name, identity={"thumbprint": thumbprint(key)}, state=state)
    (folder / "webhook").write_bytes(WEBHOOK_SECRET)
    with installation(folder / "one", files, traefik=False, start=False) as one:
        one.environment["CLOUDLUNACY_WEBHOOK_SECRET_FILE"] = str(folder / "webhook")
        one.start()
        one.status_wait(one.repo.tip() or "")
        running = Plane(one, keys)
        for who in (*SCOPES, "revoked token", "expired token"):
            scopes = [who] if who in SCOPES else list(SCOPES)
            expires = "1s" if who == "expired token" else "1h"
            made = one.post("/tokens", {"kind": "ci", "scopes": scopes, "expires": expires}).json()
            running.tokens[who] = made["token"]
            if who == "revoked token":
                assert one.post(f"/tokens/{made['id']}/revocation", {}).is_success
        for who, team in TEAMS.items():
            wanted = {"kind": "ci", "scopes": OF_A_TEAM, "team": team}
            running.tokens[who] = one.post("/tokens", wanted).json()["token"]
        for number, (who, link) in enumerate(PEOPLE.items()):
            running.sessions[who] = running.log_in(name=f"person-{number}", **link)
        ended = running.sessions["ended session"] = running.log_in(role="administrator")
        ending = one.client.delete(f"/api/v1/sessions/{ended[:20]}", headers=one.headers())
        assert ending.is_success, ending.text
        running.enrolment_token = running.tokens["enrolment token"] = one.token("vps-8")
        assert one.post("/agents/vps-4/revocation", {}).is_success
        wait_for(partial(_is_refused, running, "expired token"), 10, what="the end of a token")
        yield running


def _is_refused(plane: Plane, who: str) -> bool:
    return plane.one.client.get("/api/v1/status", headers=plane.headers(who, "GET", "")).status_code == 401


def test_the_table_has_every_route(tmp_path: Path) -> None:
    """The application that serve builds has exactly the routes of the table."""
    repo = BareRepo.create(tmp_path / "remote.git")
    parser = argparse.ArgumentParser()
    serve_command.add_parser(parser.add_subparsers())
    options = parser.parse_args(
        ["serve", "--repo", str(repo.path), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    )

    async def routes() -> set[tuple[str, str]]:
        async with control_plane(serve_command.settings_of(options)) as built:
            application: Any = built.server.config.app
            while not hasattr(application, "routes"):
                application = application._app
            found: set[tuple[str, str]] = set()
            for route in application.routes:
                if isinstance(route, WebSocketRoute):
                    found.add(("WS", route.path))
                elif isinstance(route, Route):
                    found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
                else:
                    pytest.fail(f"{route} is of a kind that this test does not know")
            return found

    assert asyncio.run(routes()) == TABLE.keys()


@pytest.mark.parametrize(("method", "path"), TABLE, ids=lambda value: value)
def test_each_caller_is_answered_as_the_table_says(plane: Plane, method: str, path: str) -> None:
    """Who may gets through; everybody else is refused with the status and code of why."""
    row, told, expected = TABLE[method, path], {}, {}
    for who in WHO:
        answer = plane.ask(method, path, who)
        try:
            status = answer.status_code
            let_in = row.through.get(who) == LET_IN and status not in (401, 403)
            status = LET_IN if let_in else status
            refused = status >= 400 and not (who in row.through and status == row.through[who])
            code = answer.read() and answer.json()["type"].rpartition(":")[2] if refused else ""
        finally:
            answer.close()
        told[who] = (status, code)
        default = SPECIAL.get((method, path), {}).get(who, REFUSED[who])
        expected[who] = (row.through[who], "") if who in row.through else default
    assert {who: (told[who], expected[who]) for who in WHO if told[who] != expected[who]} == {}


def test_the_description_names_the_scope_that_is_asked_for(plane: Plane) -> None:
    """For each endpoint that takes tokens, openapi.json says the scope by which its callers get through."""
    paths = plane.one.client.get("/openapi.json").json()["paths"]
    for_teams = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation.get("x-team")
    }
    described = {at for at in TABLE if re.sub(r":\w+}", "}", at[1]) in paths}
    assert for_teams == {
        (method, re.sub(r":\w+}", "}", path))
        for method, path in described
        if TABLE[method, path].through != known()
        and {"token of shop", "nobody"} & set(TABLE[method, path].through) == {"token of shop"}
    }
    said = {
        (method.upper(), path): next((one["token"] for one in operation.get("security", ()) if "token" in one), None)
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    for at, row in TABLE.items():
        if scopes := said.get(at):
            assert len(scopes) == 1
            ways = [holders(scopes[0]).keys(), of_shop(scopes[0]).keys(), holders(scopes[0]).keys() | TEAMS.keys()]
            ways += [{*holders(scopes[0]), "member of shop", "member of blog", *TEAMS}]  # what is theirs is seen later
            assert row.through.keys() in ways, at
        elif row.through == known():
            assert said[at] == [], at
        elif at in said:
            assert "operator" not in row.through or "nobody" in row.through, at


SENDS_A_COOKIE: Final = [
    at for at, row in TABLE.items() if at[0] not in ("GET", "WS") and set(PEOPLE) & set(row.through)
]
"""What changes something, and counts a cookie."""


@pytest.mark.parametrize(("method", "path"), SENDS_A_COOKIE, ids=lambda value: value)
def test_no_other_site_changes_anything_by_a_browser_of_ours(plane: Plane, method: str, path: str) -> None:
    """With the administrator's cookie: a page of a stranger, of a sibling, of the same host without TLS or at another
    port, of a sandbox, and whoever says nothing of where it comes from.
    """
    host = urlsplit(plane.one.url).netloc
    for origin in ("https://evil.example", f"https://x.{host}", f"http://{host}", "https://127.0.0.1:1", "null", None):
        request = plane.request(method, path, "administrator")
        request.headers.pop("origin")
        if origin is not None:
            request.headers["Origin"] = origin
        answer = plane.one.client.send(request)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "foreign-origin"), origin


def test_no_endpoint_but_those_changes_anything_for_a_cookie() -> None:
    """What else is no GET takes no cookie: agents, newcomers and the git host show something else."""
    others = {at for at in TABLE if at[0] not in ("GET", "WS") and at not in SENDS_A_COOKIE}
    assert others == {
        ("POST", "/api/v1/routes"), ("DELETE", "/api/v1/routes/{team}/{name}"), ("POST", "/api/v1/agents/certificate"),
        ("POST", "/api/v1/agents/enrol"), ("POST", "/api/v1/agents/token"), ("POST", "/webhooks/git"),
        ("POST", "/login/link"),
    }  # fmt: skip


def test_no_page_of_another_site_opens_the_stream_of_an_agent(plane: Plane) -> None:
    """A browser sends cookies with a WebSocket that any page opens (CWE-1385); here none counts, and none may try."""
    for origin in (plane.one.url, "https://evil.example"):
        headers = {**OPENING, **plane.cookie("administrator"), "Origin": origin}
        answer = plane.one.client.get("/api/v1/agents/stream", headers=headers)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "origin-refused")


def test_every_scope_opens_something_and_admin_opens_all() -> None:
    """No scope is for nothing, and nothing that a scope opens is closed to the operator."""
    for scope in SCOPES:
        rows = [row for row in TABLE.values() if scope in row.through and "nobody" not in row.through]
        assert rows
        assert all("operator" in row.through for row in rows)
