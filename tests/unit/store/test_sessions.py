"""What the store keeps of sessions and of the links that begin one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from reconciler.store.sessions import LoginLink, Session
from reconciler.store.sqlite import SQLiteStore

ADA = Session("s1", "ab" * 32, "ada@example.com", 1.0, 2.0, 3.0, "Ada \U0001f600", "ada@example.com", "https://idp",
              "248", ("a,b", 'c"d', "ä"), ("viewer",), ("shop",))  # fmt: skip
LINK = LoginLink("l1", "cd" * 32, "ada", "operator:local", 5.0, ("administrator",), ())


def with_store(path: Path, scenario: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await SQLiteStore.open(path)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_sessions_outlive_the_process(tmp_path: Path) -> None:
    """With all that is known of them; a later use replaces an earlier one; what is forgotten is gone."""
    used, later = replace(ADA, last_used_at=2.5), replace(ADA, id="s2", created_at=1.5, name="bob\ud800")

    async def first(store: SQLiteStore) -> None:
        for session in (later, ADA, used):
            await store.save_session(session)

    async def second(store: SQLiteStore) -> None:
        found = await store.sessions()
        assert found[0] == used
        assert found[1].id == "s2"
        await store.forget_session("s1")
        await store.forget_session("s1")
        assert [one.id for one in await store.sessions()] == ["s2"]

    with_store(tmp_path, first)
    with_store(tmp_path, second)


def test_a_link_is_used_once(tmp_path: Path) -> None:
    """Of many who use it at once exactly one is told that it was there."""

    async def scenario(store: SQLiteStore) -> None:
        await store.add_login_link(replace(LINK, id="l2", expires_at=6.0))
        await store.add_login_link(LINK)
        assert [one.id for one in await store.login_links()] == ["l1", "l2"]
        assert (await store.login_links())[0] == LINK
        used = await asyncio.gather(*(store.use_login_link("l1") for _ in range(8)))
        assert sorted(used) == [False] * 7 + [True]

    with_store(tmp_path, scenario)


def test_no_secret_is_printed() -> None:
    """Not even its hash."""
    assert "ab" * 32 not in repr(ADA)
    assert "cd" * 32 not in repr(LINK)
