"""Links that let somebody in once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from reconciler.access import login_links
from reconciler.access.audit import Audit
from reconciler.access.login_links import LIFETIME, LoginLinks
from reconciler.access.sessions import Person
from reconciler.errors import Refused
from reconciler.store.sqlite import SQLiteStore
from schemas.login_api import LoginLinkRequest, NewLoginLink
from tests.support.tokens import ISSUER, NOW


class Clocked:
    def __init__(self, store: SQLiteStore) -> None:
        self.now = NOW
        self.store = store
        self.links = LoginLinks(store, Audit(store, clock=lambda: self.now), clock=lambda: self.now)

    async def new(self, **wanted: object) -> str:
        request = LoginLinkRequest.model_validate({"name": "ada", "role": "administrator", **wanted})
        _, url = await self.links.create(request, by="operator:local", base=ISSUER)
        parts = urlsplit(url)
        assert url.startswith(f"{ISSUER}/login/link?key=")
        return parse_qs(parts.query)["key"][0]

    async def refusal(self, key: str) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            await self.links.use(key)
        return caught.value.status, caught.value.code


def run(path: Path, scenario: Callable[[Clocked], Awaitable[object]]) -> None:
    async def main() -> None:
        store = await SQLiteStore.open(path)
        try:
            await scenario(Clocked(store))
        finally:
            await store.close()

    asyncio.run(main())


def test_of_many_who_use_a_link_at_once_one_is_let_in(tmp_path: Path) -> None:
    """As whom and what the link says; looking at it uses nothing up."""

    async def scenario(one: Clocked) -> None:
        key = await one.new(teams=["shop"])
        assert {one.links.find(key).name for _ in range(3)} == {"ada"}
        answers = await asyncio.gather(*(one.links.use(key) for _ in range(8)), return_exceptions=True)
        let_in = [answer for answer in answers if isinstance(answer, Person)]
        assert let_in == [Person("ada", roles=("administrator",), teams=("shop",))]
        assert {answer.code for answer in answers if isinstance(answer, Refused)} == {"link-ended"}
        assert await one.refusal(key) == (403, "link-ended")

    run(tmp_path, scenario)


def test_a_link_is_good_for_ten_minutes_and_outlives_the_process(tmp_path: Path) -> None:
    """And no other secret opens it."""

    async def scenario(one: Clocked) -> None:
        early, late, other = [await one.new() for _ in range(3)]
        for wrong in ("", early[:-1], f"{early[:20]}.{late[21:]}", f"{'0' * 20}{early[20:]}"):
            assert await one.refusal(wrong) == (403, "link-ended")
        one.links = LoginLinks(one.store, Audit(one.store), clock=lambda: one.now)
        await one.links.load()
        one.now += LIFETIME - 1
        assert (await one.links.use(early)).name == "ada"
        one.now += 1
        assert await one.refusal(late) == await one.refusal(other) == (403, "link-ended")

    run(tmp_path, scenario)


def test_a_link_is_shown_once_and_nowhere_stored(tmp_path: Path) -> None:
    """Neither disk nor events have its secret, and no way of printing the answer but its JSON."""

    async def scenario(one: Clocked) -> None:
        link, url = await one.links.create(LoginLinkRequest(role="viewer"), by="operator:local", base=ISSUER)
        secret = url.rpartition(".")[2]
        new = NewLoginLink.model_validate({"url": url, "name": "a", "roles": ["viewer"], "expiresAt": NOW})
        assert secret in new.model_dump_json()
        assert secret not in repr((new, link, await one.store.login_links(), await one.store.events()))
        [event] = await one.store.events()
        assert (event.type, event.actor) == ("LoginLinkCreated", "operator:local")

    run(tmp_path, scenario)


def test_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that ends first makes room."""
    monkeypatch.setattr(login_links, "MAX_LINKS", 2)

    async def scenario(one: Clocked) -> None:
        keys = []
        for _ in range(3):
            keys.append(await one.new())
            one.now += 1
        assert await one.refusal(keys[0]) == (403, "link-ended")
        assert len(await one.store.login_links()) == 2
        one.now += LIFETIME
        await one.new()
        assert len(await one.store.login_links()) == 1

    run(tmp_path, scenario)


def test_a_link_gives_something() -> None:
    """A role or teams."""
    with pytest.raises(ValueError, match="role or teams"):
        LoginLinkRequest()
