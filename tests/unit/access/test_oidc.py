"""The way to a provider and back, with one on this machine that answers as a test wants."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwk, jwt

from reconciler.access import oidc
from reconciler.access.login import Attempt
from reconciler.access.oidc import Provider
from reconciler.access.oidc_settings import OidcSettings, is_safe, read_settings
from reconciler.access.sessions import Person
from reconciler.errors import Broken, Refused, Transient

REDIRECT = "https://control.example.com/login/oidc/callback"
SECRET = "s3cret of the client"


class Idp(ThreadingHTTPServer):
    """Changes codes for tokens with the right verifier, secret and redirect URI only (RFC 7636, 4.6)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] | None = None
        self.answers: dict[str, tuple[int, bytes]] = {}
        """Path → what is answered in place of what would be."""
        self.edit: Callable[[str], str] = str
        self.asked: list[str] = []
        self.codes: dict[str, tuple[str, str]] = {}
        self.change_keys()

    def change_keys(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = f"k{time.monotonic_ns()}"

    def authorize(self, address: str) -> dict[str, str]:
        """What a browser brings back that was led to ``address``."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert (query["response_type"], query["code_challenge_method"], query["redirect_uri"]) == (
            "code", "S256", REDIRECT
        )  # fmt: skip
        assert "openid" in query["scope"].split()
        code = f"code{len(self.codes)}"
        self.codes[code] = (query["code_challenge"], query["nonce"])
        return {"code": code, "state": query["state"]}

    def answer(self, path: str, headers: Any, body: str) -> tuple[int, Any]:
        if path == "/.well-known/openid-configuration":
            named = {name: f"{self.url}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
            more = {} if self.userinfo is None else {"userinfo_endpoint": f"{self.url}/userinfo"}
            return 200, {"issuer": self.url, **named, **more, **self.metadata}
        if path == "/jwks_uri":
            pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return 200, {"keys": [{**jwk.ECKey.import_key(pem).as_dict(private=False), "kid": self.kid}]}
        if path == "/userinfo":
            assert headers["authorization"] == "Bearer access"
            return 200, self.userinfo
        form = {name: values[0] for name, values in parse_qs(body).items()}
        challenge, nonce = self.codes.pop(form.get("code", ""), ("", ""))
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        basic = base64.b64encode(f"cloudlunacy:{SECRET}".encode()).decode()
        good = (
            challenge == base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
            and headers["authorization"] == f"Basic {basic}"
            and form["redirect_uri"] == REDIRECT
        )
        if not good:
            return 400, {"error": "invalid_grant", "error_description": "<script>"}
        now = int(time.time())
        claims = {"iss": self.url, "aud": "cloudlunacy", "sub": "248", "iat": now, "exp": now + 300, "nonce": nonce}
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        token = jwt.encode({"alg": "ES256", "kid": self.kid}, {**claims, **self.claims}, jwk.ECKey.import_key(pem))
        return 200, {"access_token": "access", "token_type": "Bearer", "id_token": self.edit(token)}


class Answering(BaseHTTPRequestHandler):
    server: Idp

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
        self.server.asked.append(self.path)
        if self.path in self.server.answers:
            status, content = self.server.answers[self.path]
        else:
            status, said = self.server.answer(self.path, self.headers, body)
            content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def idp() -> Iterator[Idp]:
    with Idp() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def provider(idp: Idp, tmp_path: Path) -> Provider:
    return Provider(settings_for(idp.url, tmp_path), REDIRECT)


def settings_for(issuer: str, folder: Path, **more: Any) -> OidcSettings:
    secret = folder / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    return OidcSettings(issuer=issuer, client_id="cloudlunacy", client_secret_file=secret, **more)


def log_in(provider: Provider, idp: Idp, **changed: str) -> Person:
    async def main() -> Person:
        attempt = Attempt.new("/")
        answer = idp.authorize(await provider.address(attempt))
        return await provider.identify(attempt, {**answer, **changed})

    return asyncio.run(main())


def refusal(provider: Provider, idp: Idp, **changed: str) -> str:
    with pytest.raises(Refused) as caught:
        log_in(provider, idp, **changed)
    assert (caught.value.status, caught.value.code) == (403, "login-refused")
    return caught.value.message


def test_a_code_becomes_a_person(provider: Provider, idp: Idp) -> None:
    """With secret, verifier and redirect URI; the provider is described and its keys are read once."""
    idp.claims = {"email": "eve@corp.example", "email_verified": True, "name": "Eve", "groups": ["ops"]}
    for _ in range(2):
        assert log_in(provider, idp) == Person(
            "eve@corp.example", "Eve", "eve@corp.example", idp.url, "248", ("ops",)
        )  # fmt: skip
    assert [path for path in idp.asked if path != "/token_endpoint"] == [
        "/.well-known/openid-configuration", "/jwks_uri"
    ]  # fmt: skip


def test_what_the_id_token_lacks_is_asked_for(provider: Provider, idp: Idp) -> None:
    """Groups that only userinfo names count, where it is about the same person; what is signed wins."""
    idp.claims = {"name": "Eve"}
    idp.userinfo = {"sub": "248", "groups": ["ops"], "name": "Mallory", "email": "a@b.example"}
    assert (log_in(provider, idp).groups, log_in(provider, idp).full_name) == (("ops",), "Eve")
    idp.userinfo["sub"] = "249"
    assert "somebody else" in refusal(provider, idp)


def test_another_provider_that_answers_is_not_believed(provider: Provider, idp: Idp) -> None:
    """RFC 9207: an issuer that is named must be ours, and must be named where the provider says that it does."""
    assert log_in(provider, idp, iss=idp.url).subject == "248"
    asked = len(idp.asked)
    assert "Another provider" in refusal(provider, idp, iss="https://evil.example")
    assert "/token_endpoint" not in idp.asked[asked:]
    idp.metadata = {"authorization_response_iss_parameter_supported": True}
    strict = Provider(provider._settings, REDIRECT)
    assert "Another provider" in refusal(strict, idp)
    assert log_in(strict, idp, iss=idp.url).subject == "248"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "shop"}, "aud"),
        ({"nonce": "x"}, "nonce"),
        ({"exp": 1}, "expired"),
        ({"iat": 1}, "too long ago"),
        ({"azp": "shop"}, "azp"),
    ],
)
def test_a_token_for_others_lets_nobody_in(provider: Provider, idp: Idp, claims: dict[str, Any], why: str) -> None:
    """Also where it is signed well."""
    idp.claims = claims
    assert why in refusal(provider, idp)


def test_an_unsigned_token_lets_nobody_in(provider: Provider, idp: Idp) -> None:
    """Nor one of another form, nor none."""
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    idp.edit = lambda token: f"{head}.{token.split('.')[1]}."
    assert "no signed token" in refusal(provider, idp)
    idp.edit = lambda token: f"{head}.{token.split('.')[1]}.AAAA"
    assert "algorithm" in refusal(provider, idp)
    idp.answers["/token_endpoint"] = (200, b'{"access_token": "a"}')
    assert "there is none" in refusal(provider, idp)


def test_new_keys_are_found(provider: Provider, idp: Idp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the provider signs with another one; who sends tokens with unknown keys does not make us ask each time."""
    log_in(provider, idp)
    idp.change_keys()
    assert "no single key" in refusal(provider, idp)
    monkeypatch.setattr(oidc, "KEYS_PAUSE", 0.0)
    assert log_in(provider, idp).subject == "248"


def test_a_code_is_worth_nothing_without_the_verifier(provider: Provider, idp: Idp) -> None:
    """Whoever injects a code of another browser is refused by the provider (RFC 9700, 4.5)."""

    async def stolen() -> None:
        answer = idp.authorize(await provider.address(Attempt.new("/")))
        await provider.identify(Attempt.new("/"), answer)

    with pytest.raises(Refused, match="invalid_grant") as caught:
        asyncio.run(stolen())
    assert "script" not in str(caught.value)


def test_a_provider_that_says_no_is_quoted_in_a_word(provider: Provider, idp: Idp) -> None:
    """Nothing else of what it leads back with is shown."""
    assert "access_denied" in refusal(provider, idp, error="access_denied", error_description="<b>")
    assert "<" not in refusal(provider, idp, error="<script>")
    for code in ("", "x" * 5000, "a\nb", "ä"):
        assert "no code" in refusal(provider, idp, code=code)


def test_it_must_be_who_the_settings_name(idp: Idp, tmp_path: Path) -> None:
    """A provider that calls itself otherwise is not taken for it, and neither is one that sends us elsewhere."""
    with pytest.raises(Broken, match="not this provider") as caught:
        log_in(Provider(settings_for(idp.url.replace("127.0.0.1", "localhost"), tmp_path), REDIRECT), idp)
    assert idp.url in str(caught.value)
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        for wrong in ("http://idp.example/x", "javascript:alert(1)", "https://a@b.example/", None, 3):
            idp.metadata = {name: wrong}
            with pytest.raises(Broken, match=name):
                log_in(Provider(settings_for(idp.url, tmp_path), REDIRECT), idp)


def test_a_provider_that_is_away_or_endless_is_waited_for_in_bounds(
    idp: Idp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that redirects: nothing is followed."""
    for path, answer in (
        ("/.well-known/openid-configuration", (200, b"x" * (oidc.MAX_ANSWER + 1))),
        ("/.well-known/openid-configuration", (500, b"")),
        ("/jwks_uri", (302, b"")),
        ("/jwks_uri", (200, b"[" * 100_000)),
        ("/token_endpoint", (503, b"")),
    ):
        idp.answers = {path: answer}
        with pytest.raises(Transient):
            log_in(Provider(settings_for(idp.url, tmp_path), REDIRECT), idp)
    assert "/elsewhere" not in idp.asked
    with pytest.raises(Transient, match="cannot be reached"):
        log_in(Provider(settings_for("http://127.0.0.1:9", tmp_path), REDIRECT), idp)


def test_only_safe_addresses_are_spoken_to() -> None:
    """TLS, or this machine itself."""
    for good in ("https://a.example", "http://127.0.0.1:9400", "http://localhost", "http://[::1]:1/x"):
        assert is_safe(good)
    for bad in ("http://a.example", "http://127.0.0.1.a.example", "ftp://127.0.0.1", "https://", "https://a@b",
                "https://a b", "//a", "https://[x", "https://a:x", "http://localhost.a.example",
                "https://a\\b"):  # fmt: skip
        assert not is_safe(bad), bad


def test_settings_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    """And never what the secret is; without a file there is no provider."""
    path, secret = tmp_path / "oidc.toml", tmp_path / "secret"
    assert read_settings(None) is None
    for text, why in (
        ("issuer = 3", "issuer"),
        ('issuer = "http://a.example"\nclient-id = "x"', "https"),
        ('issuer = "https://a.example?x"\nclient-id = "x"', "query"),
        ('issuer = "https://a.example"', "client-id"),
        ('issuer = "https://a.example"\nclient-id = "x"\nclient-secret = "y"', "client-secret"),
        ("[", "TOML"),
        (f'issuer = "https://a.example"\nclient-id = "x"\nclient-secret-file = "{secret}"', "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(Broken, match=why):
            read_settings(path)
    secret.write_text("hidden")
    secret.chmod(0o644)
    with pytest.raises(Broken, match="open to other users") as caught:
        read_settings(path)
    assert "hidden" not in str(caught.value)
    secret.chmod(0o600)
    found = read_settings(path)
    assert found is not None
    assert (found.groups_claim, found.host) == ("groups", "a.example")
    with pytest.raises(Broken, match="roots"):
        Provider(found.model_copy(update={"ca_file": secret}), REDIRECT)
