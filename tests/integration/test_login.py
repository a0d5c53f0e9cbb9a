"""Logging in at a running control plane: with a real provider, and by the command's link (rows 11, 18, 28)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.orphans import tied
from tests.support.ports import free_port
from tests.support.waiting import wait_for

EVE: Final = {"sub": "eve", "email": "eve@corp.example", "email_verified": True, "name": "Eve", "groups": ["ops"]}
HTML: Final = {"Accept": "text/html, */*;q=0.5"}


class Idp:
    """The provider's process, asked as a browser asks it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.http = httpx.Client(base_url=self.url, trust_env=False)

    def up(self) -> bool:
        try:
            return self.http.get("/jwks").is_success
        except httpx.HTTPError:
            return False

    def authorize(self, address: str, sub: str = "eve") -> str:
        """Consent on the provider's page; return where it leads the browser back to."""
        answer = self.http.post(address, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def say(self, sub: str, **claims: Any) -> None:
        assert self.http.put(f"/users/{sub}", json=claims).is_success


@contextmanager
def provider(folder: Path, *options: str) -> Iterator[Idp]:
    port = free_port()
    words = [
        sys.executable,
        "-m",
        "oidc_provider_mock",
        "--port",
        str(port),
        "--user-claims",
        json.dumps(EVE),
        *options,
    ]
    with (folder / "idp.log").open("wb") as log, subprocess.Popen(tied(words), stdout=log, stderr=log) as process:
        try:
            idp = Idp(port)
            wait_for(idp.up, 30, what="the provider")
            yield idp
            idp.http.close()
        finally:
            process.kill()


def fleet(*groups: dict[str, str]) -> dict[str, bytes | str | None]:
    teams = [documents.team("shop", agents=["vps-1"])]
    return {"fleet.yaml": documents.document(
        "Fleet", "example", {"domain": documents.DOMAIN, "teams": teams, "access": {"groups": list(groups)}}
    )}  # fmt: skip


OPS: Final = {"group": "ops", "role": "operator"}
SHOP: Final = {"group": "shop", "team": "shop"}


def settings_file(folder: Path, issuer: str) -> Path:
    path, secret = folder / "oidc.toml", folder / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    path.write_text(
        f'issuer = "{issuer}"\nclient-id = "cloudlunacy"\nclient-secret-file = "{secret}"\n'
        'scopes = ["openid", "profile", "email"]\n'
    )
    return path


@contextmanager
def plane(folder: Path, issuer: str) -> Iterator[Installation]:
    with installation(folder / "one", fleet(OPS, SHOP), traefik=False, start=False) as one:
        path = settings_file(folder, issuer)
        one.environment["CLOUDLUNACY_OIDC_FILE"] = str(path)
        one.start()
        one.status_wait(one.repo.tip() or "")
        yield one


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Idp]]:
    folder = tmp_path_factory.mktemp("login")
    with provider(folder) as idp, plane(folder, idp.url) as one:
        yield one, idp


class Browser:
    """Keeps cookies by hand, so that a test sees what is sent."""

    def __init__(self, one: Installation) -> None:
        self.one = one
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        self.one.client.cookies.clear()
        headers = {**HTML, "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer = self.one.client.request(method, path, headers={**headers, **more.pop("headers", {})}, **more)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        self.one.client.cookies.clear()
        return answer

    def leave(self, onward: str = "/") -> str:
        answer = self.ask("GET", "/login/oidc", params={"next": onward})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def back(self, location: str) -> httpx.Response:
        parts = urlsplit(location)
        assert location.startswith(f"{self.one.url}/login/oidc/callback?")
        return self.ask("GET", f"{parts.path}?{parts.query}")

    def whoami(self) -> dict[str, Any]:
        answer = self.ask("GET", "/api/v1/whoami")
        return {"status": answer.status_code, **answer.json()}


def test_somebody_logs_in_and_out(world: tuple[Installation, Idp]) -> None:
    """By code, state, nonce and challenge; what a group may is what the fleet file says; each step is an event."""
    one, idp = world
    browser = Browser(one)
    address = browser.leave("/events?limit=5")
    asked = parse_qs(urlsplit(address).query)
    assert (asked["code_challenge_method"], asked["response_type"]) == (["S256"], ["code"])
    answer = browser.back(idp.authorize(address))
    assert (answer.status_code, answer.headers["location"]) == (303, "/events?limit=5"), answer.text
    said = browser.whoami()
    assert (said["actor"], said["fullName"], said["mail"]) == ("person:eve@corp.example", "Eve", "eve@corp.example")
    assert said["scopes"] == ["approve", "enrol", "operate", "plan", "read", "write"]
    refused = browser.ask("POST", "/api/v1/reconcile", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert browser.ask("POST", "/api/v1/reconcile", headers={"Origin": one.url}).status_code == 202
    out = browser.ask("POST", "/logout", headers={"Origin": one.url})
    assert out.headers["location"] == "/login"
    assert browser.whoami()["status"] == 401
    told = [event["type"] for event in one.ask("/events", limit=1000)["events"] if "eve@" in event["actor"]]
    assert told[-2:] == ["LoggedIn", "LoggedOut"]


def test_groups_count_from_the_next_login_and_their_role_from_the_next_request(
    world: tuple[Installation, Idp],
) -> None:
    """What the provider says of somebody is kept; what that is worth is found in the fleet file in service."""
    one, idp = world
    idp.say("bob", email="bob@corp.example", email_verified=True, groups=["shop"])
    browser = Browser(one)
    browser.back(idp.authorize(browser.leave(), "bob"))
    member = browser.whoami()
    assert (member["scopes"], member["ofTeams"]) == (["plan", "read"], {"shop": ["exec", "operate", "write"]})
    one.live(fleet(OPS, {**SHOP, "group": "others"}))
    assert browser.whoami()["status"] == 403
    one.live(fleet(OPS, SHOP, {"group": "shop", "role": "administrator"}))
    assert "admin" in browser.whoami()["scopes"]
    one.live(fleet(OPS, SHOP))
    assert {**browser.whoami(), "until": ""} == {**member, "until": ""}
    idp.say("bob", email="bob@corp.example", email_verified=True, groups=[])
    again = browser.back(idp.authorize(browser.leave(), "bob"))
    assert again.status_code == 403
    assert "no role here" in again.text


def test_an_answer_counts_once_and_in_the_browser_that_asked(world: tuple[Installation, Idp]) -> None:
    """Replayed, in another browser, changed, or of a code for another client: nobody is let in."""
    one, idp = world
    browser, victim = Browser(one), Browser(one)
    location = idp.authorize(browser.leave())
    kept = dict(browser.cookies)
    assert victim.back(location).status_code == 403
    assert browser.back(location).status_code == 303
    browser.cookies = kept
    assert browser.back(location).status_code == 403
    mixed = Browser(one)
    address = mixed.leave()
    assert mixed.back(f"{idp.authorize(address)}&iss=https%3A%2F%2Fevil.example").status_code == 403
    other = Browser(one)
    foreign = idp.authorize(other.leave().replace("client_id=cloudlunacy", "client_id=shop"))
    refused = other.back(foreign)
    assert refused.status_code == 403
    assert "lets nobody in" in refused.text
    assert all("__Host-cloudlunacy" not in one.cookies for one in (victim, mixed, other))


def test_a_link_of_the_command_lets_in_once(world: tuple[Installation, Idp]) -> None:
    """It outlives a kill, is in no log, and so does the session."""
    one, _ = world
    done = one.cli("login", "--name", "ada")
    assert done.returncode == 0, done.stderr
    url = urlsplit(done.stdout.strip())
    assert "lets ada in (administrator), once" in done.stderr
    key = parse_qs(url.query)["key"][0]
    one.restart()
    browser = Browser(one)
    assert "Log in as ada" in browser.ask("GET", f"{url.path}?{url.query}").text
    answer = browser.ask("POST", url.path, data={"key": key}, headers={"Origin": one.url})
    assert answer.status_code == 303, answer.text
    assert Browser(one).ask("POST", url.path, data={"key": key}, headers={"Origin": one.url}).status_code == 403
    one.restart()
    assert "admin" in browser.whoami()["scopes"]
    made = browser.ask("POST", "/api/v1/tokens", json={"kind": "ci", "scopes": ["write"]}, headers={"Origin": one.url})
    assert made.json()["createdBy"] == "person:ada"
    secrets = (key, key.partition(".")[2], browser.cookies["__Host-cloudlunacy"].partition(".")[2])
    stored = b"".join(path.read_bytes() for path in one.data.glob("*.db*"))
    assert not [secret for secret in secrets if secret in one.log() or secret.encode() in stored]


@pytest.mark.parametrize("option", ["--token-max-age=-120"])
def test_an_expired_token_lets_nobody_in(tmp_path: Path, option: str) -> None:
    """Also one of the right provider, for us, of this attempt. And a provider that calls itself otherwise is none."""
    with provider(tmp_path, option) as idp, plane(tmp_path, idp.url) as one:
        browser = Browser(one)
        answer = browser.back(idp.authorize(browser.leave()))
        assert answer.status_code == 403, answer.text
        assert "expired" in answer.text
        assert "__Host-cloudlunacy" not in browser.cookies
        settings_file(tmp_path, idp.url.replace("localhost", "127.0.0.1") + "/")
        one.restart()
        wait_for(partial(_says_it_is_another, browser), 20, what="the word of a wrong issuer")


def _says_it_is_another(browser: Browser) -> bool:
    answer = browser.ask("GET", "/login/oidc")
    return answer.status_code == 503 and "is not this provider" in answer.text
