"""Cookies at the door, and what an identity may do."""

from __future__ import annotations

import pytest

from reconciler.errors import Refused
from reconciler.pki.authenticator import OPERATOR_SCOPES, Authenticator, Identity, session_cookie
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents

ADA = Identity("person", "ada", frozenset({"read"}), "s1", of_teams={"shop": frozenset({"write", "exec"})})
COOKIE = {"Cookie": "a=b; __Host-cloudlunacy=good"}
OTHER_URL = "https://10.0.0.1:7300"


class Sessions:
    """One is good."""

    def __init__(self) -> None:
        self.active: list[bool] = []

    def check(self, cookie: str, now: float, *, active: bool) -> Identity:
        self.active.append(active)
        if cookie != "good":
            raise Refused("gone", status=401, code="session-ended")
        return ADA

    def is_good(self, identity: Identity, now: float) -> bool:
        return identity is ADA


@pytest.fixture
def door(keys: KeyStore) -> Authenticator:
    return Authenticator(
        issuer=ISSUER, origins=[OTHER_URL], keys=keys, agents=Agents(), replays=ReplayCache(), sessions=Sessions()
    )


def refusal(door: Authenticator, method: str, headers: dict[str, str], url: str = ISSUER) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        door.authenticate(method, url, headers, NOW)
    return caught.value.status, caught.value.code


def test_a_session_counts_where_nothing_else_is_sent(door: Authenticator) -> None:
    """With an Authorization header, however bad, the cookie is as if it were not there."""
    assert door.authenticate("GET", f"{ISSUER}/x", COOKIE, NOW) is ADA
    for authorization in ("", "Bearer clt_x", "Basic YTpi"):
        assert refusal(door, "GET", {**COOKIE, "Authorization": authorization})[0] == 401
    assert refusal(door, "GET", {"Cookie": "__Host-cloudlunacy=bad"}) == (401, "session-ended")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "get"])
def test_what_changes_something_comes_from_a_page_of_ours(door: Authenticator, method: str) -> None:
    """Without Origin, or with that of another page, nothing is changed: a sibling, another scheme or port, nobody."""
    for own in (ISSUER, OTHER_URL):
        assert door.authenticate(method, ISSUER, {**COOKIE, "Origin": own}, NOW) is ADA
    assert refusal(door, method, COOKIE) == (403, "foreign-origin")
    host = ISSUER.removeprefix("https://")
    for origin in ("null", "", f"http://{host}", f"https://x.{host}", f"{ISSUER}:8443", f"{ISSUER}.evil.example",
                   f"{ISSUER}/", f"{ISSUER} ", ISSUER.upper(), f"https://{host}@evil.example"):  # fmt: skip
        assert refusal(door, method, {**COOKIE, "Origin": origin}) == (403, "foreign-origin"), origin


def test_a_page_of_others_reads_nothing_either(door: Authenticator) -> None:
    """A foreign Origin is refused with a GET too: whoever sends one is a script."""
    assert door.authenticate("GET", ISSUER, {**COOKIE, "Origin": ISSUER}, NOW) is ADA
    assert refusal(door, "GET", {**COOKIE, "Origin": "https://evil.example"}) == (403, "foreign-origin")


def test_what_a_page_fetches_by_itself_is_nobodys_doing(keys: KeyStore) -> None:
    """A page that is left open keeps itself up to date, and its session comes to its end all the same."""
    sessions = Sessions()
    door = Authenticator(
        issuer=ISSUER, origins=(), keys=keys, agents=Agents(), replays=ReplayCache(), sessions=sessions
    )
    for method, destination in (("GET", "document"), ("GET", ""), ("GET", "empty"), ("POST", "empty")):
        fields = {"Sec-Fetch-Dest": destination} if destination else {}
        door.authenticate(method, ISSUER, {**COOKIE, "Origin": ISSUER, **fields}, NOW)
    assert sessions.active == [True, True, False, True]


def test_a_websocket_takes_no_cookie(door: Authenticator) -> None:
    """Its opening is a GET that any page may make."""
    for url in (ISSUER.replace("https:", "wss:"), ISSUER.replace("https:", "ws:")):
        assert refusal(door, "GET", {**COOKIE, "Origin": ISSUER}, url) == (401, "credentials-missing")


def test_a_cookie_that_is_there_twice_is_not_there() -> None:
    """Of two values nobody knows which one the browser was given by us."""
    assert session_cookie({"cookie": "x=1;__Host-cloudlunacy=a; y=2"}) == "a"
    assert session_cookie({"cookie": "__Host-cloudlunacy=a; __Host-cloudlunacy=b"}) == ""
    for other in ("", "__host-cloudlunacy=a", "cloudlunacy=a", "__Host-cloudlunacy", "x__Host-cloudlunacy=a"):
        assert session_cookie({"cookie": other}) == ""


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x1c", "\x0b", "\x0c"])
def test_a_name_behind_a_strange_space_is_another_name(space: str) -> None:
    """To a browser it has no ``__Host-`` in front, so that a sibling subdomain could set it."""
    strange = f"{space}__Host-cloudlunacy=evil"
    assert session_cookie({"cookie": strange}) == ""
    assert session_cookie({"cookie": f"a=b;{strange}"}) == ""
    assert session_cookie({"cookie": f"__Host-cloudlunacy=own; {strange}"}) == "own"


def test_a_member_may_do_more_with_what_is_the_teams() -> None:
    """Scopes of a team count where it is about that team alone, and never make more of the others."""
    assert ADA.may("read")
    assert ADA.may("plan", "other")
    assert ADA.may("write", "shop")
    for scope, team in (("write", None), ("write", "other"), ("write", ""), ("operate", "shop"), ("admin", "shop")):
        assert not ADA.may(scope, team)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="scope"):
        ADA.require("write", team="other")
    ADA.require("exec", team="shop")


def test_a_token_of_a_team_stays_within_it() -> None:
    """Whatever it may do, it is about that team alone."""
    token = Identity("ci", "ci", frozenset({"read", "write"}), "t1", team="shop")
    assert token.may("write", "shop")
    assert not token.may("read")
    assert not token.may("write", "other")


def test_admin_includes_every_scope_but_the_agents() -> None:
    """Who may do everything may write too."""
    root = Identity("operator", "local", frozenset({"admin"}), "t")
    assert all(root.may(scope) for scope in OPERATOR_SCOPES)  # type: ignore[arg-type]
    assert not root.may("agent")


def test_commits_have_an_author() -> None:
    """Who logged in is named as the provider named them; others by what they are, at an address that leads nowhere."""
    assert Identity("operator", "local", frozenset(), "t").author == ("local", "local@operators.localhost")
    assert Identity("ci", "deploy", frozenset(), "t").author == ("deploy", "deploy@ci.localhost")
    ada = Identity("person", "ada@example.com", frozenset(), "t", full_name="Ada L.", mail="ada@example.com")
    assert ada.author == ("Ada L.", "ada@example.com")


def test_what_goes_on_ends_with_its_session(door: Authenticator) -> None:
    """An answer that goes on asks again whether its caller is still let in."""
    assert door.is_still_good(ADA, NOW)
    assert not door.is_still_good(Identity("person", "bob", frozenset(), "s2"), NOW)
