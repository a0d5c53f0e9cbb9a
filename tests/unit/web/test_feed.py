"""The feed: each listener at its own pace, the newest of each name, and a word to who missed something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Refused
from reconciler.web.feed import MAX_OF_ONE, TOPICS, Feed, Topic

NAMES = st.sampled_from([f"vps-{number}" for number in range(6)])


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


def test_a_listener_takes_what_changed_since() -> None:
    """What was told before it came, and what it took, does not come again."""

    async def scenario() -> None:
        feed = Feed()
        feed.tell("agent", "before")
        with feed.listen() as listener:
            feed.tell("agent", "vps-1")
            feed.tell("object", "fleet.yaml")
            taken = await listener.take()
            assert taken is not None
            assert [(one.topic, one.text) for one in taken.changes] == [
                ("agent", '{"name": "vps-1"}'), ("object", '{"name": "fleet.yaml"}'),
            ]  # fmt: skip
            again = await listener.take(0.01)
            assert again is not None
            assert again.changes == ()

    run(scenario)


def test_waiting_ends_with_a_change() -> None:
    """Of a topic that the listener asked for."""

    async def scenario() -> None:
        feed = Feed()
        with feed.listen({"front"}) as listener:
            waiting = asyncio.ensure_future(listener.take(30))
            await asyncio.sleep(0)
            feed.tell("agent", "vps-1")
            await asyncio.sleep(0)
            assert not waiting.done()
            feed.tell("front", "front-1")
            taken = await waiting
            assert taken is not None
            assert [one.name for one in taken.changes] == ["front-1"]

    run(scenario)


def test_what_nobody_reads_is_not_written() -> None:
    """The newest of a name takes the place of the others, whose text is never made; two listeners share one text."""

    async def scenario() -> None:
        feed, made = Feed(), list[int]()

        def text(number: int) -> str:
            made.append(number)
            return str(number)

        with feed.listen() as one, feed.listen() as other:
            for number in range(1000):
                feed.tell("revision", "abc", partial(text, number))
            for listener in (one, other):
                taken = await listener.take()
                assert taken is not None
                assert [change.text for change in taken.changes] == ["999"]
        assert made == [999]

    run(scenario)


def test_who_reads_too_slowly_is_told_so() -> None:
    """Of the topic of which something is gone, and of no other; afterwards it is up to date."""

    async def scenario() -> None:
        feed = Feed(kept=3)
        with feed.listen() as listener:
            feed.tell("front", "front-1")
            for number in range(5):
                feed.tell("agent", f"vps-{number}")
            taken = await listener.take()
            assert taken is not None
            assert taken.missed == ("agent",)
            assert [one.name for one in taken.changes] == ["front-1", "vps-2", "vps-3", "vps-4"]
            feed.tell("agent", "vps-0")
            taken = await listener.take()
            assert taken is not None
            assert (taken.missed, [one.name for one in taken.changes]) == ((), ["vps-0"])

    run(scenario)


@pytest.mark.parametrize("place", ["x", "00000000-0", "{epoch}-99", "{epoch}-01", "{epoch}--1", "{epoch}-" + "9" * 40])
def test_a_place_that_nobody_knows_has_missed_everything(place: str) -> None:
    """What a stranger writes there ends in a word to look again."""

    async def scenario() -> None:
        feed = Feed()
        with feed.listen() as listener:
            feed.tell("agent", "vps-1")
            taken = await listener.take()
            assert taken is not None
        with feed.listen(place=place.replace("{epoch}", taken.place.partition("-")[0])) as listener:
            again = await listener.take()
            assert again is not None
            assert again.missed == TOPICS

    run(scenario)


def test_the_end_sends_everybody_home() -> None:
    """Who waits, and who comes later."""

    async def scenario() -> None:
        feed = Feed()
        with feed.listen() as listener:
            waiting = asyncio.ensure_future(listener.take())
            await asyncio.sleep(0)
            feed.close()
            assert await waiting is None
            assert await listener.take() is None

    run(scenario)


def test_too_many_listeners_are_turned_away() -> None:
    """And get in when another one leaves."""
    feed = Feed(most=1)
    with feed.listen({"agent"}), pytest.raises(Refused, match="Too many"), feed.listen():
        pass
    assert not feed.is_heard("agent")
    with feed.listen():
        assert feed.is_heard("agent")


@given(
    st.lists(st.tuples(st.sampled_from(["agent", "object"]), NAMES) | st.just("take") | st.just("return"), max_size=40)
)
def test_nothing_is_lost_but_what_the_listener_is_told_of(steps: list[tuple[Topic, str] | str]) -> None:
    """However often it takes, and goes and comes back: each change is heard, is overtaken, or its topic is missed."""

    async def scenario() -> None:
        feed, place = Feed(kept=4), ""
        with feed.listen() as first:
            taken = await first.take(0)
            assert taken is not None
            place = taken.place
        unheard: set[tuple[str, str]] = set()
        reading = None
        for step in (*steps, "take"):
            if isinstance(step, tuple):
                feed.tell(*step)
                unheard.add(step)
                continue
            if reading is None or step == "return":
                if reading is not None:
                    reading.__exit__(None, None, None)
                reading = feed.listen(place=place)
                listener = reading.__enter__()
            taken = await listener.take(0)
            assert taken is not None
            heard = [(one.topic, one.name) for one in taken.changes]
            assert len(heard) == len(set(heard))
            assert set(heard) <= unheard
            assert all(topic in taken.missed for topic, name in unheard - set(heard))
            unheard, place = set(), taken.place
        if reading is not None:
            reading.__exit__(None, None, None)

    run(scenario)


def test_one_caller_leaves_room_for_others() -> None:
    """Who opens stream after stream is told so; others listen on."""

    async def scenario() -> None:
        feed = Feed()
        with ExitStack() as many:
            for _ in range(MAX_OF_ONE):
                many.enter_context(feed.listen(who="person:eve"))
            with (
                pytest.raises(Refused, match="person:eve listens 32 times already") as refused,
                feed.listen(who="person:eve"),
            ):
                pass
            assert (refused.value.status, refused.value.code) == (429, "too-many-requests")
            many.enter_context(feed.listen(who="person:ann"))
            many.enter_context(feed.listen())

    run(scenario)
