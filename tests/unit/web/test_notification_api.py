"""What the API answers about what is wrong, and how a channel is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from reconciler.errors import Rejected
from reconciler.notifications.conditions import Condition, Kept
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from reconciler.web.notification_api import TESTS, NotificationApi
from reconciler.web.problem import HANDLERS
from tests.support.tokens import NOW
from tests.unit.web.asking import Asked, asked, code


class WaxNotifying:
    """Knows what is wrong; has one channel."""

    def __init__(self, *kept: Kept) -> None:
        self.kept = {one.condition.key: one for one in kept}
        self.tested: list[tuple[str, str]] = []

    async def test(self, channel: str, by: str) -> None:
        if channel != "ops":
            raise Rejected(f'spec.notifications has no channel "{channel}".', reason="UnknownChannel")
        self.tested.append((channel, by))


def away(number: int, *, severity: Any = "warning", team: str = "", since: float = NOW) -> Kept:
    return Kept(Condition("AgentAway", f"agent/vps-{number}", severity, f"vps-{number} is away", team=team), since)


def run(data: Path, notifying: WaxNotifying, scenario: Callable[[Asked], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asked(data) as one:
            api = NotificationApi(authenticator=one.authenticator, notifying=notifying, clock=one.clock)  # type: ignore[arg-type]
            one.app = Limits(Starlette(routes=routes_of(api.endpoints()), exception_handlers=dict(HANDLERS)))
            await scenario(one)

    asyncio.run(main())


async def subjects(one: Asked, **query: Any) -> list[str]:
    """Read page by page."""
    found: list[str] = []
    while True:
        page = (await one.get("/conditions", **query)).json()
        found += [condition["subject"].removeprefix("agent/") for condition in page["conditions"]]
        if not page["next"]:
            return found
        query["after"] = page["next"]


def test_the_worst_come_first_then_the_oldest(tmp_path: Path) -> None:
    """However many fit on a page."""
    kept = [away(3), away(2, since=NOW - 60), away(1, severity="error"), away(4, severity="info", since=NOW - 3600)]

    async def scenario(one: Asked) -> None:
        for limit in (1, 2, 3, 100):
            assert await subjects(one, limit=limit) == ["vps-1", "vps-2", "vps-3", "vps-4"]

    run(tmp_path, WaxNotifying(*kept), scenario)


def test_what_comes_and_goes_between_two_pages_hides_nothing(tmp_path: Path) -> None:
    """The next page begins behind the last one that was shown, whether that one is still there or not."""
    notifying = WaxNotifying(*(away(number, since=NOW - number) for number in range(6)))

    async def scenario(one: Asked) -> None:
        first = (await one.get("/conditions", limit=2)).json()
        assert [condition["subject"] for condition in first["conditions"]] == ["agent/vps-5", "agent/vps-4"]
        del notifying.kept["agent/vps-4", "AgentAway"]
        fresh = away(9, since=NOW + 1)
        notifying.kept[fresh.condition.key] = fresh
        assert await subjects(one, after=first["next"]) == ["vps-3", "vps-2", "vps-1", "vps-0", "vps-9"]

    run(tmp_path, notifying, scenario)


def test_filters_go_together(tmp_path: Path) -> None:
    """By type, subject, severity and team; one that is not known is refused."""
    kept = [away(1), away(2, severity="error"), away(3, severity="error", team="shop")]

    async def scenario(one: Asked) -> None:
        assert await subjects(one, severity="error") == ["vps-2", "vps-3"]
        assert await subjects(one, severity=["error", "warning"]) == ["vps-2", "vps-3", "vps-1"]
        assert await subjects(one, severity="error", team="shop") == ["vps-3"]
        assert await subjects(one, subject="agent/vps-1") == ["vps-1"]
        assert await subjects(one, type="DiskFull") == []
        for wrong in ({"severity": "bad"}, {"team": "A B"}, {"limit": "-1"}, {"nmae": "x"}):
            assert code(await one.get("/conditions", **wrong)) == "bad-query"

    run(tmp_path, WaxNotifying(*kept), scenario)


def test_a_channel_is_tried_a_few_times(tmp_path: Path) -> None:
    """Each message reaches people: who asks too often waits; a channel that is not there is a 404."""
    notifying = WaxNotifying()

    async def scenario(one: Asked) -> None:
        assert code(await one.post("/channels/none/test", {})) == "unknown-channel"
        for _ in range(TESTS - 1):
            assert (await one.post("/channels/ops/test", {})).status_code == 202
        assert code(await one.post("/channels/ops/test", {})) == "too-many-requests"
        one.now += 10
        assert (await one.post("/channels/ops/test", {})).status_code == 202
        assert notifying.tested == [("ops", "operator:ann")] * TESTS

    run(tmp_path, notifying, scenario)
