"""Whom programs run as on a server, with ids that its owner granted their team and with others."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest

from agent.deployments import process_log
from agent.deployments.process_files import FOLDER
from agent.deployments.process_machine import look
from agent.deployments.process_users import OWN
from schemas.session import Item
from tests.support.parts import require
from tests.support.process_agent import SECONDS, SETTINGS, running, script, settled
from tests.support.waiting import eventually

WHO: Final = "import os, time\nprint(*os.getresuid(), *os.getresgid(), *os.getgroups(), flush=True)\ntime.sleep(600)"
GRANTED: Final = SETTINGS._replace(users={"shop": (1500, 1501), "data": (1000,)})


def who(user: str | None) -> Item:
    return script("web", WHO, **({} if user is None else {"user": user}))


def said(data: Path) -> list[list[int]]:
    """Return the users and groups of each program that there is."""
    places = [data / FOLDER / "shop" / "web" / slot for slot in "abc"]
    return [[int(word) for word in line.split()] for place in places for line in process_log.tail(place, 9)]


def test_an_account_of_the_server_is_taken_on_by_nobody_who_was_not_granted_it(data: Path) -> None:
    """What is refused names agent.toml and leaves the former version running; what is granted is what runs."""
    require("bwrap")
    if why := look().lacking:
        pytest.skip(why)
    if os.geteuid() != 0:
        pytest.skip("only root makes programs of other users")

    async def scenario() -> None:
        async with running(data, GRANTED) as found:
            await settled(found, who(None))
            await eventually(lambda: said(data), SECONDS, what="its word")
            before = said(data)
            own = before[0][0]
            assert own in OWN
            assert set(before[0]) == {own}
            for user in ("1000", "1500:4", "0", "1500:0", str(own)):
                result = (await settled(found, who(user)))["web"]
                assert (result.state, result.reason) == ("Failed", "NotGranted")
                assert "agent.toml" in result.message
                assert said(data) == before
            assert (await settled(found, who("1500:1501")))["web"].state == "Applied"
            await eventually(lambda: said(data) == [[1500] * 3 + [1501] * 3], SECONDS, what="the granted one")

    asyncio.run(scenario())
