"""Sessions of browsers: begun anew each time, good for what the role says now, and ended in many ways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.access import sessions as module
from reconciler.access.audit import Audit
from reconciler.access.sessions import IDLE, LIFETIME, Person, Sessions
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.store.sqlite import SQLiteStore
from schemas.fleet import Access
from tests.support.tokens import NOW

ADMIN = Person("ada", roles=("administrator",))
EVE = Person("eve@example.com", "Eve", "eve@example.com", "https://idp.example", "248", groups=("shop", "ops"))
OPS = Access.model_validate({"groups": [{"group": "ops", "role": "operator"}]})
SHOP = Access.model_validate({"groups": [{"group": "shop", "team": "shop"}]})


class Clocked:
    """The sessions of a control plane whose clock is ``now``, and whose fleet file says ``access``."""

    def __init__(self, store: SQLiteStore) -> None:
        self.now = NOW
        self.access = OPS
        self.store = store
        self.audit = Audit(store, clock=lambda: self.now)
        self.sessions = self.opened()

    def opened(self, issuer: str | None = "https://idp.example") -> Sessions:
        return Sessions(self.store, self.audit, lambda: self.access, issuer=issuer, clock=lambda: self.now)

    def check(self, cookie: str, *, active: bool = True) -> Identity:
        return self.sessions.check(cookie, self.now, active=active)

    def refusal(self, cookie: str) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            self.check(cookie)
        assert not cookie or cookie not in str(caught.value)
        return caught.value.status, caught.value.code

    async def events(self) -> list[tuple[str, str]]:
        return [(event.type, event.actor) for event in await self.store.events()]


def run(path: Path, scenario: Callable[[Clocked], Awaitable[object]]) -> None:
    async def main() -> None:
        store = await SQLiteStore.open(path)
        try:
            one = Clocked(store)
            await one.sessions.load()
            await scenario(one)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_session_is_known_by_its_cookie_alone(tmp_path: Path) -> None:
    """Each is new; neither disk nor events nor any list has the secret; one letter off is nobody."""

    async def scenario(one: Clocked) -> None:
        cookies = [await one.sessions.begin(ADMIN, "by a link") for _ in range(3)]
        assert len({*cookies}) == 3
        identity = one.check(cookies[0])
        assert (str(identity), identity.may("admin"), identity.thumbprint) == ("person:ada", True, cookies[0][:20])
        secret = cookies[0].partition(".")[2]
        assert len(secret) == 43  # 256 bits
        for wrong in ("", "x", cookies[0][:-1], f"{cookies[0]}A", f"{cookies[0][:20]}.{cookies[1][21:]}",
                      f"{'0' * 20}.{secret}", cookies[0].upper()):  # fmt: skip
            assert one.refusal(wrong) == (401, "session-ended")
        told = repr((one.sessions.all(), await one.store.sessions(), await one.store.events()))
        assert secret not in told
        assert module.hash_of(secret) not in told

    run(tmp_path, scenario)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"LoggedIn" in stored


def test_it_ends_when_nobody_does_anything_and_at_the_latest_after_half_a_day(tmp_path: Path) -> None:
    """What a page fetches by itself keeps no session alive; what a person does does, until the time is up."""

    async def scenario(one: Clocked) -> None:
        busy, left = [await one.sessions.begin(ADMIN, "by a link") for _ in range(2)]
        for _ in range(int(LIFETIME / IDLE * 2) - 1):
            one.now += IDLE / 2
            one.check(busy)
            if one.now < NOW + IDLE:
                one.check(left, active=False)
            else:
                assert one.refusal(left) == (401, "session-ended")
            await one.sessions.look()
        one.now += IDLE / 2
        assert one.refusal(busy) == (401, "session-ended")
        await one.sessions.look()
        assert await one.store.sessions() == ()
        assert [kind for kind, _ in await one.events()] == ["LoggedIn", "LoggedIn", "SessionExpired", "SessionExpired"]

    run(tmp_path, scenario)


def test_a_role_counts_from_the_next_request_on(tmp_path: Path) -> None:
    """Groups are kept, the role is found anew each time; what goes on ends where less may be done than before."""

    async def scenario(one: Clocked) -> None:
        cookie = await one.sessions.begin(EVE, "as Eve")
        operator = one.check(cookie)
        assert operator.may("approve")
        assert operator.author == ("Eve", "eve@example.com")
        one.access = SHOP
        assert not one.sessions.is_good(operator, one.now)
        member = one.check(cookie)
        assert (member.may("approve"), member.may("write", "shop"), member.may("write")) == (False, True, False)
        assert one.sessions.is_good(member, one.now)
        one.access = Access.model_validate({"groups": [*SHOP.groups, *OPS.groups]})
        assert one.sessions.is_good(member, one.now)
        one.access = Access()
        assert one.refusal(cookie) == (403, "no-role")
        with pytest.raises(Refused, match="no role"):
            await one.sessions.begin(EVE, "as Eve")
        one.access = OPS
        one.check(cookie)

    run(tmp_path, scenario)


def test_it_is_ended_by_its_person_or_by_an_administrator(tmp_path: Path) -> None:
    """At once, also for what goes on; and it stays ended after a restart."""

    async def scenario(one: Clocked) -> None:
        first, second, third = [await one.sessions.begin(ADMIN, "by a link") for _ in range(3)]
        before = one.check(second)
        await one.sessions.leave(first)
        await one.sessions.leave(first)
        await one.sessions.leave(f"{third[:20]}.{first[21:]}")
        await one.sessions.end(before.thumbprint, by="operator:local")
        assert one.refusal(first) == one.refusal(second) == (401, "session-ended")
        assert not one.sessions.is_good(before, one.now)
        with pytest.raises(Refused) as caught:
            await one.sessions.end(before.thumbprint, by="operator:local")
        assert caught.value.code == "unknown-session"
        one.sessions = one.opened()
        await one.sessions.load()
        assert one.refusal(first) == (401, "session-ended")
        assert one.check(third).name == "ada"
        assert (await one.events())[3:] == [("LoggedOut", "person:ada"), ("SessionEnded", "operator:local")]

    run(tmp_path, scenario)


def test_a_use_outlives_the_process(tmp_path: Path) -> None:
    """To the minute; so a restart neither ends a session that is used, nor prolongs one that is not."""

    async def scenario(one: Clocked) -> None:
        cookie = await one.sessions.begin(ADMIN, "by a link")
        one.now += IDLE - 1
        one.check(cookie)
        await one.sessions.look()
        one.sessions = one.opened()
        await one.sessions.load()
        one.now += IDLE - 1
        one.check(cookie, active=False)
        one.now += 2
        assert one.refusal(cookie) == (401, "session-ended")

    run(tmp_path, scenario)


def test_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs in too often loses the own session that was used least lately, and nobody else's."""
    monkeypatch.setattr(module, "MAX_OF_ONE", 2)
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)

    async def scenario(one: Clocked) -> None:
        other = await one.sessions.begin(EVE, "as Eve")
        cookies = []
        for _ in range(3):
            one.now += 1
            cookies.append(await one.sessions.begin(ADMIN, "by a link"))
        assert one.refusal(cookies[0]) == (401, "session-ended")
        assert len(one.sessions.all()) == len(await one.store.sessions()) == 3
        for cookie in (other, *cookies[1:]):
            one.check(cookie)
        one.now += 1
        await one.sessions.begin(Person("bob", roles=("viewer",)), "by a link")
        assert len(one.sessions.all()) == 3

    run(tmp_path, scenario)


@pytest.mark.parametrize("issuer", ["https://other.example", None])
def test_a_former_provider_vouches_for_nobody(tmp_path: Path, issuer: str | None) -> None:
    """Whoever takes a provider out of the settings ends what it said; what links let in goes on."""

    async def scenario(one: Clocked) -> None:
        cookie, own = await one.sessions.begin(EVE, "there"), await one.sessions.begin(ADMIN, "by a link")
        one.sessions = one.opened(issuer)
        await one.sessions.load()
        assert one.refusal(cookie) == (403, "no-role")
        assert one.check(own).name == "ada"
        with pytest.raises(Refused, match="has no role here"):
            await one.sessions.begin(EVE, "there")

    run(tmp_path, scenario)
