"""Logging in and out, in memory: real pages, sessions and store, and a provider of wax."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.applications import Starlette

from reconciler.access.audit import Audit
from reconciler.access.login import ATTEMPT_COOKIE, ATTEMPT_SECONDS, Attempt
from reconciler.access.login_links import LoginLinks
from reconciler.access.sessions import Person, Sessions
from reconciler.app.pages import make_site
from reconciler.errors import Refused, Transient
from reconciler.pki.authenticator import SESSION_COOKIE, Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.audited import audited
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from reconciler.web.pages.login import RETURNS, LoginPages
from reconciler.web.pages.session_pages import SessionPages
from reconciler.web.session_api import SessionApi
from schemas.fleet import Access
from schemas.login_api import LoginLinkRequest
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents

HTML = {"Accept": "text/html, */*;q=0.5"}
FORM = {**HTML, "Origin": ISSUER}
EVE = Person("eve@example.com", "Eve", "eve@example.com", "https://idp.example", "248", groups=("ops",))


class Wax:
    """A provider that lets in whom a test wants, and remembers what came back."""

    label = "Wax"

    def __init__(self) -> None:
        self.person: Person | Exception = EVE
        self.answers: list[tuple[Attempt, dict[str, str]]] = []

    async def address(self, attempt: Attempt) -> str:
        return f"https://idp.example/authorize?state={attempt.state}"

    async def identify(self, attempt: Attempt, answer: Mapping[str, str]) -> Person:
        self.answers.append((attempt, dict(answer)))
        if isinstance(self.person, Exception):
            raise self.person
        return self.person


class World:
    def __init__(self, store: SQLiteStore, keys: KeyStore) -> None:
        self.now = NOW
        self.store = store
        self.provider = Wax()
        self.access = Access.model_validate({"groups": [{"group": "ops", "role": "operator"}]})
        self.audit = Audit(store, clock=self.clock)
        self.sessions = Sessions(store, self.audit, lambda: self.access, issuer=EVE.issuer, clock=self.clock)
        self.links = LoginLinks(store, self.audit, clock=self.clock)
        door = Authenticator(
            issuer=ISSUER, origins=["https://10.0.0.1:7300"], keys=keys, agents=Agents(), replays=ReplayCache(),
            sessions=self.sessions,
        )  # fmt: skip
        site = make_site(door)
        site.clock = self.clock
        api = SessionApi(authenticator=door, sessions=self.sessions, links=self.links, clock=self.clock)
        pages = LoginPages(
            site, sessions=self.sessions, links=self.links, audit=self.audit, provider=self.provider,  # type: ignore[arg-type]
            monotonic=self.clock,
        )  # fmt: skip
        routes = routes_of(
            [
                *api.endpoints(),
                *pages.endpoints(),
                *SessionPages(site, sessions=self.sessions, views=api.views).endpoints(),
            ]
        )
        self.app = Limits(Starlette(routes=routes, exception_handlers=dict(audited(site.handlers(), self.audit))))

    def clock(self) -> float:
        return self.now

    def browser(self, base: str = ISSUER) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=base, headers=HTML)

    async def key(self, **wanted: object) -> str:
        request = LoginLinkRequest.model_validate({"name": "ada", "role": "viewer", **wanted})
        _, url = await self.links.create(request, by="operator:local", base=ISSUER)
        return parse_qs(urlsplit(url).query)["key"][0]

    async def events(self) -> list[str]:
        await self.audit.written()
        return [event.type for event in await self.store.events()]


def run(path: Path, keys: KeyStore, scenario: Callable[[World], Awaitable[object]]) -> None:
    async def main() -> None:
        store = await SQLiteStore.open(path)
        try:
            await scenario(World(store, keys))
        finally:
            await store.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("keys"))


def test_a_link_lets_in_by_its_button_alone(tmp_path: Path, keys: KeyStore) -> None:
    """Looking at it, however often, uses nothing up; pressing the button does; the cookie is as strict as it can be."""

    async def scenario(world: World) -> None:
        key = await world.key(name="ada", teams=["shop"])
        async with world.browser() as browser:
            for _ in range(3):
                page = await browser.get("/login/link", params={"key": key})
                assert page.status_code == 200
                assert "ada" in page.text
                assert "member of shop" in page.text
                assert "set-cookie" not in page.headers
            assert (await browser.get("/api/v1/whoami")).status_code == 401
            answer = await browser.post("/login/link", data={"key": key}, headers=FORM)
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            [cookie] = answer.headers.get_list("set-cookie")
            name, _, rest = cookie.partition("=")
            assert name == SESSION_COOKIE
            assert {one.strip().lower() for one in rest.split(";")[1:]} == {
                "httponly", "max-age=43200", "path=/", "samesite=lax", "secure"
            }  # fmt: skip
            said = (await browser.get("/api/v1/whoami")).json()
            assert (said["actor"], said["scopes"]) == ("person:ada", ["plan", "read"])
            assert said["ofTeams"] == {"shop": ["exec", "operate", "write"]}
            again = await browser.post("/login/link", data={"key": key}, headers=FORM)
            assert again.status_code == 403
            assert "good no more" in again.text
        assert await world.events() == ["LoginLinkCreated", "LoggedIn", "LoginRefused"]
        secret = key.partition(".")[2]
        assert secret not in repr(await world.store.events())

    run(tmp_path, keys, scenario)


def test_no_other_site_logs_anybody_in_or_out(tmp_path: Path, keys: KeyStore) -> None:
    """A form of another page, or of no page, is refused before anything of it counts."""

    async def scenario(world: World) -> None:
        key = await world.key()
        async with world.browser() as browser:
            for headers in (HTML, {**HTML, "Origin": "https://evil.example"}, {**HTML, "Origin": "null"}):
                answer = await browser.post("/login/link", data={"key": key}, headers=headers)
                assert answer.status_code == 403
            await browser.post("/login/link", data={"key": key}, headers=FORM)
            assert (await browser.post("/logout", headers={**HTML, "Origin": f"https://x.{ISSUER[8:]}"})).is_error
            assert (await browser.get("/api/v1/whoami")).status_code == 200
            out = await browser.post("/logout", headers=FORM)
            assert out.headers["location"] == "/login"
            assert SESSION_COOKIE not in browser.cookies
            assert world.sessions.all() == ()

    run(tmp_path, keys, scenario)


def test_who_comes_in_has_a_new_cookie_and_loses_the_old_one(tmp_path: Path, keys: KeyStore) -> None:
    """Whatever cookie the browser had before, somebody else may know it (session fixation)."""

    async def scenario(world: World) -> None:
        planted = await world.sessions.begin(Person("mallory", roles=("viewer",)), "by a link")
        async with world.browser() as browser:
            browser.cookies.set(SESSION_COOKIE, planted)
            answer = await browser.post("/login/link", data={"key": await world.key()}, headers=FORM)
            assert planted not in answer.headers["set-cookie"]
            browser.cookies.clear()
            browser.cookies.set(SESSION_COOKIE, planted)
            assert (await browser.get("/api/v1/whoami")).status_code == 401
        assert [one.name for one in world.sessions.all()] == ["ada"]

    run(tmp_path, keys, scenario)


async def come_back(browser: httpx.AsyncClient, onward: str = "/", **changed: str) -> httpx.Response:
    """Go to the provider and back."""
    left = await browser.get("/login/oidc", params={"next": onward})
    state = parse_qs(urlsplit(left.headers["location"]).query)["state"][0]
    return await browser.get("/login/oidc/callback", params={"code": "c", "state": state, **changed})


def test_the_provider_lets_in_who_began_here(tmp_path: Path, keys: KeyStore) -> None:
    """And leads on to the path on this site that was wanted; the attempt is used up with that."""

    async def scenario(world: World) -> None:
        async with world.browser() as browser:
            assert "Log in with Wax" in (await browser.get("/login", params={"next": "/agents"})).text
            left = await browser.get("/login/oidc", params={"next": "/agents?x=1"})
            assert left.headers["location"].startswith("https://idp.example/")
            sealed = browser.cookies[ATTEMPT_COOKIE]
            state = parse_qs(urlsplit(left.headers["location"]).query)["state"][0]
            back = await browser.get("/login/oidc/callback", params={"code": "c", "state": state})
            assert (back.status_code, back.headers["location"]) == (303, "/agents?x=1")
            assert ATTEMPT_COOKIE not in browser.cookies
            assert (await browser.get("/api/v1/whoami")).json()["mail"] == "eve@example.com"
            assert (await browser.get("/login", params={"next": "/agents"})).headers["location"] == "/agents"
            [(attempt, _)] = world.provider.answers
            assert len({attempt.state, attempt.nonce, attempt.verifier}) == 3
            assert attempt.nonce not in sealed
            browser.cookies.set(ATTEMPT_COOKIE, sealed)
            replayed = await browser.get("/login/oidc/callback", params={"code": "c", "state": state})
            assert replayed.status_code == 403
            assert len(world.provider.answers) == 1
        assert await world.events() == ["LoggedIn", "LoginRefused"]

    run(tmp_path, keys, scenario)


def test_an_answer_to_nobodys_question_counts_nothing(tmp_path: Path, keys: KeyStore) -> None:
    """Another state, another browser's, one that is too old, or a cookie that we did not seal (login CSRF)."""

    async def scenario(world: World) -> None:
        async with world.browser() as browser, world.browser() as victim:
            left = await browser.get("/login/oidc")
            state = parse_qs(urlsplit(left.headers["location"]).query)["state"][0]
            answer = {"code": "c", "state": state}
            assert (await victim.get("/login/oidc/callback", params=answer)).status_code == 403
            await victim.get("/login/oidc")
            assert (await victim.get("/login/oidc/callback", params=answer)).status_code == 403
            for wrong in ({"code": "c"}, {**answer, "state": f"{state}x"}, {**answer, "state": ""}):
                assert (await browser.get("/login/oidc/callback", params=wrong)).status_code == 403
            world.now += ATTEMPT_SECONDS + 1
            assert (await browser.get("/login/oidc/callback", params=answer)).status_code == 403
            browser.cookies.set(ATTEMPT_COOKIE, "gAAAAAB")
            assert (await browser.get("/login/oidc/callback", params=answer)).status_code == 403
        assert world.provider.answers == []
        assert world.sessions.all() == ()

    run(tmp_path, keys, scenario)


def test_a_made_up_answer_asks_the_provider_once(tmp_path: Path, keys: KeyStore) -> None:
    """The same attempt again asks it nothing; new attempts from one address soon have to wait, and logins free it."""

    async def scenario(world: World) -> None:
        world.provider.person = Refused("no", status=403, code="login-refused")
        async with world.browser() as browser:
            left = await browser.get("/login/oidc")
            answer = {"code": "made up", "state": parse_qs(urlsplit(left.headers["location"]).query)["state"][0]}
            sealed = browser.cookies[ATTEMPT_COOKIE]
            for _ in range(3):
                assert (await browser.get("/login/oidc/callback", params=answer)).status_code == 403
                browser.cookies.set(ATTEMPT_COOKIE, sealed)
            assert len(world.provider.answers) == 1
            browser.cookies.clear()
            for _ in range(RETURNS - 1):
                assert (await come_back(browser)).status_code == 403
            waiting = await come_back(browser)
            assert (waiting.status_code, int(waiting.headers["retry-after"])) == (429, 5)
            assert len(world.provider.answers) == RETURNS
            world.now += 5
            world.provider.person = EVE
            for _ in range(3):
                assert (await come_back(browser)).status_code == 303
                await browser.post("/logout", headers=FORM)

    run(tmp_path, keys, scenario)


def test_who_has_no_role_is_not_let_in(tmp_path: Path, keys: KeyStore) -> None:
    """And is told what to do; a provider that is away is said to be away."""

    async def scenario(world: World) -> None:
        world.access = Access()
        async with world.browser() as browser:
            answer = await come_back(browser)
            assert answer.status_code == 403
            assert "access.groups" in answer.text
            world.provider.person = Transient("The provider Wax cannot be reached.")
            assert (await come_back(browser)).status_code == 503
            assert SESSION_COOKIE not in browser.cookies
        assert await world.events() == ["LoginRefused", "LoginRefused"]

    run(tmp_path, keys, scenario)


def test_nobody_is_led_to_another_site(tmp_path: Path, keys: KeyStore) -> None:
    """Neither before nor after logging in."""

    async def scenario(world: World) -> None:
        async with world.browser() as browser:
            for onward in ("https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil",
                           "javascript:alert(1)", "evil", ""):  # fmt: skip
                assert "evil" not in (await browser.get("/login", params={"next": onward})).text
                assert (await come_back(browser, onward)).headers["location"] == "/"

    run(tmp_path, keys, scenario)


def test_at_another_address_of_ours_one_is_led_to_the_public_one_first(tmp_path: Path, keys: KeyStore) -> None:
    """The provider leads back there, and a cookie does not go from one host to another."""

    async def scenario(world: World) -> None:
        async with world.browser("https://10.0.0.1:7300") as browser:
            left = await browser.get("/login/oidc", params={"next": "/agents"})
            assert left.headers["location"] == f"{ISSUER}/login/oidc?next=%2Fagents"
            assert not browser.cookies

    run(tmp_path, keys, scenario)


def test_an_administrator_sees_and_ends_sessions(tmp_path: Path, keys: KeyStore) -> None:
    """Nobody else does, and what was tried is written down once."""

    async def scenario(world: World) -> None:
        root = await world.sessions.begin(Person("root", roles=("administrator",)), "by a link")
        viewer = await world.sessions.begin(Person("bob", roles=("viewer",)), "by a link")
        async with world.browser() as browser:
            browser.cookies.set(SESSION_COOKIE, viewer)
            for _ in range(3):
                denied = await browser.delete(f"/api/v1/sessions/{root[:20]}", headers=FORM)
                assert (denied.status_code, denied.json()["type"]) == (
                    403, "urn:cloudlunacy:problem:insufficient-scope"
                )  # fmt: skip
            browser.cookies.clear()
            browser.cookies.set(SESSION_COOKIE, root)
            listed = (await browser.get("/api/v1/sessions")).json()["sessions"]
            assert [(one["name"], one["roles"], one["current"]) for one in listed] == [
                ("root", ["administrator"], True), ("bob", ["viewer"], False)
            ]  # fmt: skip
            assert viewer.partition(".")[2] not in repr(listed)
            ended = await browser.delete(f"/api/v1/sessions/{viewer[:20]}", headers=FORM)
            assert ended.json()["name"] == "bob"
            made = await browser.post("/api/v1/login-links", json={"role": "viewer"}, headers=FORM)
            assert made.json()["url"].startswith(f"{ISSUER}/login/link?key=")
        assert await world.events() == ["LoggedIn", "LoggedIn", "SessionEnded", "LoginLinkCreated", "AccessDenied"]

    run(tmp_path, keys, scenario)


def test_a_person_sees_and_ends_its_own_sessions_alone(tmp_path: Path, keys: KeyStore) -> None:
    """Somebody who goes by the same name elsewhere is somebody else; ending the own one logs out."""

    async def scenario(world: World) -> None:
        here = await world.sessions.begin(EVE, "at its provider", "Firefox \x1b[31m")
        phone = await world.sessions.begin(EVE, "at its provider", "Phone")
        other = await world.sessions.begin(Person(EVE.name, roles=("viewer",)), "by a link", "Lynx")
        async with world.browser() as browser:
            browser.cookies.set(SESSION_COOKIE, here)
            page = await browser.get("/sessions")
            assert "this one" in page.text
            assert "Phone" in page.text
            assert "Firefox" in page.text
            assert "\x1b" not in page.text
            assert "Lynx" not in page.text
            assert ">operator</p>" in page.text  # the menu says what who is logged in may do
            for session in (other, "none"):
                foreign = await browser.post(f"/sessions/{session[:20]}/end", data={"yes": ""}, headers=FORM)
                assert foreign.status_code == 404
            evil = {**HTML, "Origin": "https://evil.example"}
            refused = await browser.post(f"/sessions/{phone[:20]}/end", data={"yes": ""}, headers=evil)
            assert refused.status_code == 403
            ended = await browser.post(f"/sessions/{phone[:20]}/end", data={"yes": ""}, headers=FORM)
            assert ended.headers["location"] == "/sessions"
            out = await browser.post(f"/sessions/{here[:20]}/end", data={"yes": ""}, headers=FORM)
            assert out.headers["location"] == "/login"
            assert f'{SESSION_COOKIE}=""' in out.headers["set-cookie"]
        assert [one.id for one in world.sessions.all()] == [other[:20]]

    run(tmp_path, keys, scenario)


def test_the_page_of_sessions_shows_an_administrator_everybody(tmp_path: Path, keys: KeyStore) -> None:
    """It can be narrowed by a name, and what is ended there has ended."""

    async def scenario(world: World) -> None:
        root = await world.sessions.begin(Person("root", roles=("administrator",)), "by a link")
        bob = await world.sessions.begin(Person("bob", teams=("shop",)), "by a link", "Bobzilla")
        async with world.browser() as browser:
            browser.cookies.set(SESSION_COOKIE, root)
            assert "member of shop" in (await browser.get("/sessions")).text
            assert "Bobzilla" not in (await browser.get("/sessions", params={"q": "root"})).text
            assert "No session fits" in (await browser.get("/sessions", params={"q": "nobody"})).text
            answer = await browser.post(f"/sessions/{bob[:20]}/end", data={"yes": ""}, headers=FORM)
            assert answer.headers["location"] == "/sessions"
            assert "The session of bob has ended." in (await browser.get("/sessions")).text
        assert [one.name for one in world.sessions.all()] == ["root"]

    run(tmp_path, keys, scenario)
