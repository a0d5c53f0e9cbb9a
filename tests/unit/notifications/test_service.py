"""Looking, deciding and telling: nothing twice, nothing lost, and no channel in another one's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pytest

from reconciler.errors import Rejected, Transient
from reconciler.notifications.conditions import Condition, Notice
from reconciler.notifications.service import MOST_WAITING, Notifying
from reconciler.store.notices import SQLiteNotices
from reconciler.store.protocols import ANY_EVENT, Event, EventFilter
from schemas.notifications import Channel, Notifications
from tests.support.waiting import eventually

AWAY = Condition("AgentAway", "agent/vps-1", "warning", "vps-1 is away")


def settings(*channels: str, **rule: object) -> Notifications:
    secret = {"team": "ops", "name": "chat", "key": "url"}
    return Notifications.model_validate(
        {
            "channels": [{"name": name, "apprise": secret, "digest": "1s"} for name in channels],
            "rules": [{"channels": list(channels), "after": "1s", **rule}] if channels else [],
        }
    )


@dataclass
class Timeline:
    events_: list[Event] = field(default_factory=list)

    async def append(self, event: Event) -> Event:
        self.events_.append(replace(event, id=len(self.events_) + 1))
        return self.events_[-1]

    async def events(
        self, *, after: int = 0, limit: int = 100, newest_first: bool = False, wanted: EventFilter = ANY_EVENT
    ) -> Sequence[Event]:
        found = [one for one in self.events_ if one.id > after and (not wanted.types or one.type in wanted.types)]
        return (found[::-1] if newest_first else found)[:limit]


@dataclass
class Looked:
    conditions: Sequence[Condition]
    unjudged: frozenset[str] = frozenset()


@dataclass
class World:
    """A service with a clock, a timeline and channels of the test's own; ``said`` is what channels were told."""

    folder: Path
    settings: Notifications
    wrong: tuple[Condition, ...] = ()
    now: float = 1000.0
    said: list[tuple[str, str, list[str], int]] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)

    async def __aenter__(self) -> Self:
        self.store = SQLiteNotices(self.folder)
        await self.store.open()
        self.service = Notifying(
            self.store, self.timeline, settings=lambda: self.settings, look=self._look, deliver=self._deliver,
            as_condition=lambda event: Condition(event.type, event.subject, event.severity, event.message),
            clock=lambda: self.now,
        )  # fmt: skip
        await self.service.load()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self.service._sending.values())
        await self.store.close()

    async def _look(self) -> Looked:
        return Looked(self.wrong)

    async def _deliver(self, channel: Channel, notices: Sequence[Notice], message: str, dropped: int) -> None:
        if channel.name in self.failing:
            raise self.failing[channel.name]
        self.said.append((channel.name, message, [one.kind for one in notices], dropped))

    async def pass_time(self, *seconds: float) -> None:
        """Look after each of them, and tell."""
        for more in seconds:
            self.now += more
            await self.service.look()
            self.service._send()
            await asyncio.gather(*self.service._sending.values())

    @property
    def kinds(self) -> list[str]:
        return [kind for _, _, kinds, _ in self.said for kind in kinds]


def in_world(folder: Path, told: Notifications, scenario: Callable[[World], Awaitable[None]]) -> World:
    async def run() -> World:
        async with World(folder, told) as world:
            await scenario(world)
        return world

    return asyncio.run(run())


def test_a_channel_hears_of_what_is_wrong_and_of_its_end(tmp_path: Path) -> None:
    """Raised once, over once, however often it is looked at."""

    async def scenario(world: World) -> None:
        world.wrong = (AWAY,)
        await world.pass_time(0, 5, 5, 5)
        world.wrong = ()
        await world.pass_time(5, 30, 5, 5)

    assert in_world(tmp_path, settings("ops"), scenario).kinds == ["raised", "recovered"]


def test_a_restart_tells_neither_twice_nor_never(tmp_path: Path) -> None:
    """What was told stays told; what was decided and not told goes out; its end is told by the next process."""

    async def before(world: World) -> None:
        world.wrong = (AWAY,)
        await world.pass_time(0, 5, 5)
        world.failing["ops"] = Transient("away", reason="ChannelUnavailable")
        world.wrong = (AWAY, Condition("FrontAway", "front/1", "error", "front-1 does not answer"))
        await world.pass_time(5, 5, 5)

    async def after(world: World) -> None:
        world.now = 2000.0
        world.wrong = (AWAY, Condition("FrontAway", "front/1", "error", "front-1 does not answer"))
        await world.pass_time(0, 5, 5)
        assert world.kinds == ["raised"]
        world.wrong = ()
        await world.pass_time(5, 30, 5)

    assert in_world(tmp_path, settings("ops"), before).kinds == ["raised"]
    assert in_world(tmp_path, settings("ops"), after).kinds == ["raised", "recovered", "recovered"]


def test_a_channel_that_fails_is_tried_again_under_the_same_id_and_said_once(tmp_path: Path) -> None:
    """Its failure and its return are one event each, and another channel hears everything meanwhile."""

    async def scenario(world: World) -> None:
        world.failing["pager"] = Transient("pager.example answered 503.", reason="ChannelUnavailable")
        world.wrong = (AWAY,)
        await world.pass_time(0, 5, 5, 10, 30)
        assert [name for name, *_ in world.said] == ["ops"]
        del world.failing["pager"]
        await world.pass_time(600, 5)

    world = in_world(tmp_path, settings("ops", "pager"), scenario)
    assert [(name, kinds) for name, _, kinds, _ in world.said] == [("ops", ["raised"]), ("pager", ["raised"])]
    assert [one.type for one in world.timeline.events_] == ["ChannelFailed", "ChannelRecovered"]


def test_a_second_try_says_the_same_under_the_same_id(tmp_path: Path) -> None:
    """What comes up while a message could not be told goes into the next one."""
    tried: list[str] = []

    async def scenario(world: World) -> None:
        async def refuse(_: Channel, notices: Sequence[Notice], message: str, __: int) -> None:
            tried.append(message)
            raise Transient("away", reason="ChannelUnavailable")

        deliver, world.service._deliver = world.service._deliver, refuse
        world.wrong = (AWAY,)
        await world.pass_time(0, 5, 5)
        world.wrong = (AWAY, Condition("FrontAway", "front/1", "error", "front-1 does not answer"))
        await world.pass_time(20, 5, 5)
        world.service._deliver = deliver
        await world.pass_time(600, 5)

    said = in_world(tmp_path, settings("ops"), scenario).said
    assert len(tried) > 1
    assert [message for _, message, *_ in said] == [tried[0], said[1][1]]
    assert set(tried) == {tried[0]}
    assert [kinds for _, _, kinds, _ in said] == [["raised"], ["raised"]]


def test_a_channel_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """While one does not come back, another is told."""

    async def scenario(world: World) -> None:
        told = asyncio.Event()

        async def deliver(channel: Channel, *_: object) -> None:
            if channel.name == "slow":
                await asyncio.Event().wait()
            told.set()

        world.service._deliver = deliver
        world.wrong = (AWAY,)
        for more in (0.0, 5.0, 5.0):
            world.now += more
            await world.service.look()
            world.service._send()
            await asyncio.sleep(0)
        await eventually(told.is_set)
        slow = world.service._sending.pop("slow")
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)

    in_world(tmp_path, settings("slow", "ops"), scenario)


def test_events_are_told_from_now_on(tmp_path: Path) -> None:
    """What happened before anybody asked is no news; what happens afterwards is told once, also over a restart."""
    told = settings("ops", events=["PlanApproved"])
    timeline = Timeline()

    async def first(world: World) -> None:
        world.timeline = world.service._timeline = timeline
        await timeline.append(Event(1.0, "PlanApproved", "info", "plan/1", "ada approved it"))
        await world.pass_time(0)
        await timeline.append(Event(2.0, "PlanApproved", "info", "plan/2", "ada approved it"))
        await timeline.append(Event(2.0, "TokenUsed", "info", "token/2", "not asked for"))
        await world.pass_time(5, 5)

    async def second(world: World) -> None:
        world.timeline = world.service._timeline = timeline
        await world.pass_time(5, 5)

    assert in_world(tmp_path, told, first).kinds == ["event"]
    assert in_world(tmp_path, told, second).kinds == []


def test_who_tries_a_channel_is_told_at_once_or_that_there_is_none(tmp_path: Path) -> None:
    """A test goes the way of all messages; an unknown channel is refused with its name."""

    async def scenario(world: World) -> None:
        await world.service.test("ops", "person:ada")
        await asyncio.gather(*world.service._sending.values())
        with pytest.raises(Rejected, match="nowhere"):
            await world.service.test("nowhere", "person:ada")

    assert in_world(tmp_path, settings("ops"), scenario).kinds == ["test"]


def test_what_waits_for_too_long_is_bounded_and_counted(tmp_path: Path) -> None:
    """Of more than fits the oldest go, and the next message says how many."""

    async def scenario(world: World) -> None:
        world.failing["ops"] = Transient("away", reason="ChannelUnavailable")
        world.wrong = tuple(Condition("AgentAway", f"agent/{number}", "warning", "away") for number in range(1200))
        await world.pass_time(0, 5, 5)
        del world.failing["ops"]
        await world.pass_time(700)

    ((_, _, kinds, dropped),) = in_world(tmp_path, settings("ops"), scenario).said
    assert (len(kinds), dropped) == (MOST_WAITING, 200)


def test_a_channel_that_is_gone_keeps_nothing_waiting(tmp_path: Path) -> None:
    """What was for it is forgotten when the fleet file does not name it any more."""

    async def scenario(world: World) -> None:
        world.failing["ops"] = Transient("away", reason="ChannelUnavailable")
        world.wrong = (AWAY,)
        await world.pass_time(0, 5, 5)
        world.settings = settings()
        await world.pass_time(700, 5)
        assert (await world.store.remembered()).waiting == ()

    in_world(tmp_path, settings("ops"), scenario)


def test_what_no_rule_names_is_read_once(tmp_path: Path) -> None:
    """However long the timeline grows, a look reads what is new in it."""
    asked: list[int] = []

    class Counting(Timeline):
        async def events(
            self, *, after: int = 0, limit: int = 100, newest_first: bool = False, wanted: EventFilter = ANY_EVENT
        ) -> Sequence[Event]:
            if wanted.types:
                asked.append(after)
            return await super().events(after=after, limit=limit, newest_first=newest_first, wanted=wanted)

    async def scenario(world: World) -> None:
        world.timeline = world.service._timeline = Counting()
        await world.timeline.append(Event(1.0, "Other", "info", "x", "x"))
        await world.pass_time(1)
        for _ in range(3):
            await world.timeline.append(Event(1.0, "Other", "info", "x", "x"))
        await world.pass_time(1, 1, 1)
        await world.timeline.append(Event(1.0, "PlanApproved", "info", "plan", "approved"))
        await world.timeline.append(Event(1.0, "Other", "info", "x", "x"))
        await world.pass_time(2, 2, 2)

    world = in_world(tmp_path, settings("chat", events=["PlanApproved"]), scenario)
    assert asked == [1, 4]
    assert world.kinds == ["event"]


def test_a_timeline_that_begins_anew_is_followed(tmp_path: Path) -> None:
    """Its database was lost: what is new has smaller ids than what was read before."""

    async def scenario(world: World) -> None:
        for _ in range(5):
            await world.timeline.append(Event(1.0, "PlanApproved", "info", "plan", "approved"))
        await world.pass_time(1)
        world.timeline.events_.clear()
        await world.timeline.append(Event(1.0, "Other", "info", "x", "x"))
        await world.pass_time(1)
        await world.timeline.append(Event(1.0, "PlanApproved", "info", "plan", "approved"))
        await world.pass_time(2, 2)

    assert in_world(tmp_path, settings("chat", events=["PlanApproved"]), scenario).kinds == ["event"]
