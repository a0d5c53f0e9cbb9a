"""What was accepted reaches the remote: in groups, at a pace, through failures and crashes."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from reconciler.agents.rates import Bucket
from reconciler.errors import Rejected, Transient
from tests.support.memory_store import Died
from tests.support.tokens import thumbprint
from tests.support.waiting import eventually
from tests.unit.agents.enrolling import KEY, OTHER, PEER, Plane, World, refusal, request, run


def test_a_remote_that_is_away_means_accepted_and_later_committed() -> None:
    """While pushing fails the answer is pending; once the remote is back the enrolment is there by itself."""
    world = World(answer_seconds=0.02)
    world.remote.failures = [Transient("away") for _ in range(30)]

    async def scenario(one: Plane) -> None:
        token = await one.token()
        answer = await one.enrolments.enrol(request(KEY, token), peer=PEER)
        assert (answer.state, answer.revision) == ("pending", None)
        assert answer.status_url.endswith(f"/api/v1/agents/enrolments/{token.split('.')[0]}")
        await eventually(lambda: world.remote.main)
        proven: list[str] = []
        await eventually(lambda: not one.committer.backlog)
        status = await one.enrolments.status(token.split(".")[0], proven.append)
        assert (status.state, proven) == ("committed", [thumbprint(KEY)])

    run(scenario, world)


def test_a_refusing_remote_keeps_everything() -> None:
    """A push that the remote's rules refuse loses nothing, and one refused entry does not hold up the others."""
    world = World(answer_seconds=0.01)
    world.remote.refuse = lambda commit: (
        Rejected("no", reason="PushRefused") if commit.path.endswith("/bad.yaml") else None
    )

    async def scenario(one: Plane) -> None:
        names = ["bad", "one", "two"]
        tokens = {name: await one.token(name) for name in names}
        calls = (one.enrolments.enrol(request(KEY, tokens[name], name), peer=PEER) for name in names)
        await asyncio.gather(*calls)
        await eventually(lambda: one.committer.backlog == 1)
        assert len(world.remote.main) == 2
        world.remote.refuse = lambda _: None
        await eventually(lambda: len(world.remote.main) == 3)

    run(scenario, world)


def test_those_who_come_together_go_together() -> None:
    """Fifty at once take a few pushes, each with its own commit."""

    async def scenario(one: Plane) -> None:
        tokens = [await one.token(f"a{number}") for number in range(50)]
        calls = (one.enrolments.enrol(request(KEY, token, f"a{n}"), peer=PEER) for n, token in enumerate(tokens))
        answers = await asyncio.gather(*calls)
        assert {answer.state for answer in answers} == {"committed"}

    world = run(scenario)
    assert len(world.remote.log) == 50
    assert len(world.remote.pushes) <= 5


def test_pushes_keep_their_pace() -> None:
    """With one push allowed at once, the second waits until the pace allows it, and takes everybody along."""
    bucket = Bucket(1, 5)

    async def scenario(one: Plane) -> None:
        tokens = [await one.token(f"a{number}") for number in range(10)]
        first = one.enrolments.enrol(request(KEY, tokens[0], "a0"), peer=PEER)
        await first
        calls = (one.enrolments.enrol(request(KEY, tokens[n], f"a{n}"), peer=PEER) for n in range(1, 10))
        await asyncio.gather(*calls)

    assert run(scenario, pace=bucket).remote.pushes == [1, 9]


STEPS = ["token", "use_token", "settle"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_nothing_and_burns_no_token(step: str, when: str) -> None:
    """The process dies at a step; after the restart the agent's next try with its key is committed, exactly once."""
    world = World(answer_seconds=1.0)
    token: list[str] = []

    async def dying(one: Plane) -> None:
        token.append(await one.token())
        getattr(one.store, f"die_{when}")(step)
        call = asyncio.create_task(one.enrolments.enrol(request(KEY, token[0]), peer=PEER))
        if step == "settle":
            await eventually(lambda: world.remote.main)
            call.cancel()
        with pytest.raises((Died, asyncio.CancelledError)):
            await call

    with pytest.raises(Died) if step == "settle" else nullcontext():
        run(dying, world)

    async def again(one: Plane) -> None:
        answer = await one.enrolments.enrol(request(KEY, token[0]), peer=PEER)
        assert answer.state == "committed"
        assert await refusal(one.enrolments.enrol(request(OTHER, token[0]), peer=PEER)) == (403, "token-spent")

    run(again, world)
    assert len(world.remote.log) == 1


def test_an_accepted_entry_is_committed_after_a_restart_without_anybody_asking() -> None:
    """Accepted, then the process ends before any push: the next process drains the outbox."""
    world = World(answer_seconds=0.01)

    async def accepted(one: Plane) -> None:
        answer = await one.enrolments.enrol(request(KEY, await one.token()), peer=PEER)
        assert answer.state == "pending"

    async def drained(one: Plane) -> None:
        await eventually(lambda: world.remote.main and not one.committer.backlog)

    world.remote.failures = [Transient("away")] * 1000
    run(accepted, world)
    world.remote.failures = []
    run(drained, world)
    assert len(world.remote.log) == 1


def test_right_after_the_start_nothing_is_said_about_entries() -> None:
    """Until the outbox is read, requests are answered 503: a queued enrolment is never taken for an unknown one."""

    async def scenario(one: Plane) -> None:
        token = await one.token()
        one.committer.resumed.clear()
        assert await refusal(one.enrolments.enrol(request(KEY, token), peer=PEER)) == (503, "not-ready")
        assert await refusal(one.enrolments.status(token.split(".")[0], lambda _: None)) == (503, "not-ready")

    run(scenario)


def test_a_push_whose_answer_is_lost_is_not_made_twice() -> None:
    """The remote has it, the answer is lost, a person takes it back: it is found in the history and stays away."""
    world = World()
    world.remote.lose_answers = [Transient("cut")]

    async def scenario(one: Plane) -> None:
        token = await one.token()
        call = asyncio.create_task(one.enrolments.enrol(request(KEY, token), peer=PEER))
        await eventually(lambda: world.remote.main)
        world.remote.main.clear()
        assert (await call).state == "committed"

    run(scenario, world)
    assert (len(world.remote.log), world.remote.main) == (1, {})
    assert world.disk.outcomes.popitem()[1][0] == "committed"


def test_half_of_many_goes_while_there_are_pushes_to_spare() -> None:
    """Of sixty that wait one half is pushed first; once the pace is used up, all go together."""

    async def accepted(one: Plane) -> None:
        for name in names:
            await one.enrolments.enrol(request(KEY, await one.token(name), name), peer=f"192.0.2.{len(name)}")

    async def drained(one: Plane) -> None:
        await eventually(lambda: not one.committer.backlog)

    names = [f"a{number}" for number in range(60)]
    for burst, groups in ((1000, [30, 30]), (1, [60])):
        world = World(answer_seconds=0.0)
        world.remote.failures = [Transient("away")] * 1000
        run(accepted, world)
        world.remote.failures = []
        bucket = Bucket(burst, 1000)
        bucket.take(0.0)
        run(drained, world, pace=bucket)
        assert world.remote.pushes == groups


def test_listener_is_told_at_once_and_then_in_turns() -> None:
    """The first enrolment wakes the loop at once; those of the next second wake it once more, and none is left out."""
    world = World()

    async def scenario(one: Plane) -> None:
        await one.enrolments.enrol(request(KEY, await one.token("a"), "a"), peer=PEER)
        await eventually(lambda: world.woken == 1)
        for name in "bcd":
            await one.enrolments.enrol(request(KEY, await one.token(name), name), peer=PEER)
        assert world.woken == 1
        await eventually(lambda: world.woken == 4)
        assert {event.subject for event in world.disk.events} == {f"agent/{name}" for name in "abcd"}

    run(scenario, world, tell=0.3)


def test_what_the_listener_was_not_told_it_is_told_at_the_end() -> None:
    """When the process ends in good order no event is missing."""
    world = World()

    async def scenario(one: Plane) -> None:
        for name in "ab":
            await one.enrolments.enrol(request(KEY, await one.token(name), name), peer=PEER)

    run(scenario, world, tell=60.0)
    assert {event.subject for event in world.disk.events} == {"agent/a", "agent/b"}
