"""What is looked at to tell people of it, and how a channel of the fleet file is reached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from reconciler.app.notifying import GRACE_SECONDS, Notices
from reconciler.desired.lookup import SecretUnavailable
from reconciler.notifications.webhook_channel import WebhookSender
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from schemas.api import FrontStatus
from tests.support.documents import agent, fleet, secret, state_of, team
from tests.unit.web.asking import asked

WEBHOOK = {"url": "https://hooks.example.com/fleet", "secret": {"team": "shop", "name": "pager", "key": "signing"}}
NOTIFICATIONS = {
    "channels": [{"name": "pager", "webhook": WEBHOOK, "digest": "1s"}],
    "rules": [{"channels": ["pager"], "after": "1s", "severities": ["error", "warning"]}],
}
FILES = {
    "fleet.yaml": fleet(team("shop"), notifications=NOTIFICATIONS),
    "agents/vps-1.yaml": agent("vps-1", identity={"thumbprint": "A" * 43}),
    "secrets/shop/pager.yaml": secret("pager", "signing"),
}


@dataclass
class World:
    """Notices about a fleet of one agent; ``got`` is what the receiver of the webhook got."""

    notices: Any
    plane: Any
    events: list[Event]
    now: float = 10_000.0
    got: list[httpx.Request] = field(default_factory=list)

    async def pass_time(self, *seconds: float) -> None:
        for more in seconds:
            self.now += more
            await self.notices.notifying.look()
            self.notices.notifying._send()
            await asyncio.gather(*self.notices.notifying._sending.values())

    @property
    def told(self) -> list[tuple[str, str]]:
        found = [event for request in self.got for event in json.loads(request.content)]
        return [(event["type"].rpartition(".")[2], event["data"]["type"]) for event in found]


def run(folder: Path, scenario: Callable[[World], Awaitable[None]], opened: str | None = "s" * 32) -> World:
    def open_sealed(_: str) -> str:
        if opened is None:
            raise SecretUnavailable("it is sealed to somebody else")
        return opened

    async def main() -> World:
        async with asked(folder) as one:
            fronts = (FrontStatus(name="front-1", file="/front.yml", loaded_generation=1),)

            async def ask_fronts() -> Any:
                return plane.told

            plane: Any = SimpleNamespace(
                published=Published(1, "1" * 40, state_of(FILES)), ready=True, problems=tuple, told=fronts,
                connected=lambda: plane.there, there=frozenset({"vps-1"}), observations=dict, fronts=ask_fronts,
            )  # fmt: skip
            world = World(None, plane, [])
            notices = world.notices = Notices(
                plane, folder, one.store, tracker=one.tracker, certificates=tuple, rotations=tuple,
                open_sealed=open_sealed, public_url="https://control.example.com", roots=str,
                registry=CollectorRegistry(), clock=lambda: world.now,
            )  # fmt: skip

            def take(request: httpx.Request) -> httpx.Response:
                world.got.append(request)
                return httpx.Response(204)

            notices._webhooks = WebhookSender(transport=httpx.MockTransport(take))
            await notices._store.open()
            try:
                await notices.notifying.load()
                await scenario(world)
                world.events = list(await one.store.events(limit=100))
            finally:
                await notices._store.close()
            return world

    return asyncio.run(main())


def test_a_front_that_does_not_answer_is_told_at_once_and_its_return_too(tmp_path: Path) -> None:
    """What the overview shows as needing a person goes to the channel of the rule, signed, with a link."""

    async def scenario(world: World) -> None:
        good, world.plane.told = world.plane.told, (FrontStatus(name="front-1", file="/front.yml"),)
        await world.pass_time(0, 5, 5)
        world.plane.told = good
        await world.pass_time(5, 30, 5)

    world = run(tmp_path, scenario)
    assert world.told == [("raised", "FrontAway"), ("recovered", "FrontAway")]
    assert json.loads(world.got[0].content)[0]["data"]["url"] == "https://control.example.com/traffic"
    assert world.got[0].headers["webhook-signature"].startswith("v1,")


def test_after_a_start_agents_have_time_to_come_back(tmp_path: Path) -> None:
    """Within the grace nobody is told that they are away; after it they are."""

    async def scenario(world: World) -> None:
        world.plane.there = frozenset()
        await world.pass_time(0, 30, 30)
        assert world.told == []
        await world.pass_time(GRACE_SECONDS, 5, 5)

    assert run(tmp_path, scenario).told == [("raised", "AgentAway")]


def test_a_secret_that_cannot_be_opened_is_an_event_and_loses_nothing(tmp_path: Path) -> None:
    """The channel fails with a sentence that names the file, and no value."""

    async def scenario(world: World) -> None:
        world.plane.told = (FrontStatus(name="front-1", file="/front.yml"),)
        await world.pass_time(0, 5, 5)

    world = run(tmp_path, scenario, opened=None)
    assert world.told == []
    (failed,) = [one for one in world.events if one.type == "ChannelFailed"]
    assert "secrets/shop/pager.yaml cannot be opened" in failed.message
