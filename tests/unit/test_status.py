"""What a revision's record says, from what steps and agents report."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import pytest

from reconciler.convergence import Record, from_store, judge, plan_to_store, to_status, to_store
from reconciler.status import KEPT, Tracker
from reconciler.store.protocols import RevisionRecord
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.session import UNSUPPORTED
from schemas.status import STAGES, AgentProgress, CommitSummary, RevisionState, Stage

ONE: Final = "1" * 40
TWO: Final = "2" * 40
PUSHED: Final = STAGES[:-1]
APPLIED: Final = AgentProgress(state="applied")
FAILED: Final = AgentProgress(state="failed", reason="PullFailed", message="no such image")


class Records:
    """A whole record store in a dictionary."""

    def __init__(self) -> None:
        self.saved: dict[str, RevisionRecord] = {}

    async def save_record(self, record: RevisionRecord) -> None:
        self.saved[record.revision] = record

    async def record(self, revision: str) -> RevisionRecord | None:
        found = [one for name, one in self.saved.items() if name.startswith(revision)]
        return found[0] if len(found) == 1 else None

    async def records(
        self,
        *,
        limit: int = 50,
        before: float | None = None,
        plans: bool = True,
    ) -> Sequence[RevisionRecord]:
        newest = sorted(self.saved.values(), key=lambda one: one.updated_at, reverse=True)
        return [one for one in newest if before is None or one.updated_at < before][:limit]

    async def page_of_records(
        self, *, limit: int = 50, before: int | None = None, states: Collection[str] = ()
    ) -> Sequence[tuple[int, RevisionRecord]]:
        placed = [(place, one) for place, one in enumerate(self.saved.values(), 1) if not states or one.state in states]
        return [one for one in placed[::-1] if before is None or one[0] < before][:limit]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def tracker() -> Tracker:
    return Tracker(Records(), Clock())


def state_of(follower: Tracker, revision: str = ONE) -> tuple[RevisionState, str]:
    record = follower.get(revision)
    assert record is not None
    return judge(record)[:2]


def pushed(**wanted: str) -> Tracker:
    """A revision that every front has and that ``wanted`` agents must apply; all of them are connected."""
    follower = tracker()
    follower.begin(ONE)
    follower.reach(ONE, *PUSHED)
    follower.concern(ONE, wanted, wanted)
    return follower


@pytest.mark.parametrize("reached", range(len(STAGES) - 1))
def test_a_revision_waits_for_its_next_stage(reached: int) -> None:
    """The reason names the first stage that is not reached."""
    record = Record(ONE, stages=dict.fromkeys(STAGES[:reached], 1.0))
    state, reason, message = judge(record)
    assert state == "Progressing"
    assert reason == f"Waiting{STAGES[reached].capitalize()}"
    assert STAGES[reached] in message


def test_a_revision_that_concerns_no_agent_converges_when_pushed() -> None:
    """Nobody has to apply anything."""
    follower = pushed()
    assert state_of(follower) == ("Converged", "AllStagesReached")
    record = follower.get(ONE)
    assert record is not None
    assert set(record.stages) == set(STAGES)


def test_a_revision_converges_when_the_last_connected_agent_applied_it() -> None:
    """Until then it says for whom it waits."""
    follower = pushed(a="d1", b="d2")
    follower.agent_progress("a", "d1", APPLIED)
    assert state_of(follower) == ("Progressing", "WaitingAgents")
    follower.agent_progress("b", "d1", APPLIED)  # another document
    assert state_of(follower) == ("Progressing", "WaitingAgents")
    follower.agent_progress("b", "d2", APPLIED)
    assert state_of(follower) == ("Converged", "AllStagesReached")


def test_an_agent_that_is_away_holds_nothing_up() -> None:
    """It is shown as offline; when it comes back it applies late, and the revision stays converged."""
    follower = pushed(a="d1")
    follower.agent_presence("a", connected=False)
    assert state_of(follower)[0] == "Converged"
    record = follower.get(ONE)
    assert record is not None
    assert (record.agents["a"].state, judge(record)[2]) == ("offline", "1 agent(s) offline")


def test_what_a_machine_cannot_run_holds_nothing_up_and_is_said() -> None:
    """The revision converges, and its message has the agent and what it said."""
    follower = pushed(a="d1", b="d2")
    said = "Deployment/shop/web: There is no container engine at /run/docker.sock."
    follower.agent_progress("a", "d1", AgentProgress(state="applied", reason=UNSUPPORTED, message=said))
    follower.agent_progress("b", "d2", APPLIED)
    record = follower.get(ONE)
    assert record is not None
    assert judge(record) == ("Converged", "AllStagesReached", f"a cannot run all of it: {said}")


def test_an_agent_that_fails_fails_the_revision_until_it_succeeds() -> None:
    """With its name and what it said."""
    follower = pushed(a="d1")
    follower.agent_progress("a", "d1", FAILED)
    record = follower.get(ONE)
    assert record is not None
    assert judge(record) == ("Failed", "AgentFailed", "a could not apply it: no such image")
    follower.agent_progress("a", "d1", APPLIED)
    assert state_of(follower)[0] == "Converged"


def test_an_agent_that_has_the_content_already_is_done() -> None:
    """The document's digest counts, not the generation in which it was sent."""
    follower = pushed(a="d1")
    follower.agent_progress("a", "d1", APPLIED)
    follower.begin(TWO)
    follower.reach(TWO, *PUSHED)
    follower.concern(TWO, {"a": "d1"}, {"a"})
    assert state_of(follower, TWO)[0] == "Converged"


def test_a_newer_document_overtakes_who_waits_for_an_older_one() -> None:
    """The older revision is superseded by name; what else it waited for is waited for by the newer."""
    follower = pushed(a="d1", b="d2")
    follower.begin(TWO)
    follower.reach(TWO, *PUSHED)
    follower.concern(TWO, {"a": "d3"}, {"a", "b"})
    assert state_of(follower)[0] == "Superseded"
    newer = follower.get(TWO)
    assert newer is not None
    assert set(newer.wanted) == {"a", "b"}


def test_a_stage_keeps_the_time_at_which_it_was_reached_first() -> None:
    """Taking a revision up again does not rewrite its history."""
    follower = tracker()
    follower.begin(ONE)
    follower.reach(ONE, "fetched")
    first = dict(follower.get(ONE).stages)  # type: ignore[union-attr]
    follower.begin(ONE)
    follower.reach(ONE, "fetched", "validated")
    record = follower.get(ONE)
    assert record is not None
    assert record.stages["fetched"] == first["fetched"] < record.stages["validated"]


def test_a_stop_ends_a_revision_and_a_new_attempt_opens_it_again() -> None:
    """Held and Failed are said with their reason; waiting is cleared by the next attempt."""
    follower = tracker()
    follower.begin(ONE)
    follower.wait(ONE, "RemoteAway", "no answer")
    assert state_of(follower) == ("Progressing", "RemoteAway")
    follower.stop(ONE, "Held", "DeletionGuard", "deletes everything")
    assert state_of(follower) == ("Held", "DeletionGuard")
    follower.begin(ONE)
    assert state_of(follower) == ("Progressing", "WaitingFetched")


def test_what_was_superseded_says_by_whom_and_what_it_was() -> None:
    """Somebody who follows the old revision is led to the new one, or told that the branch lost it."""
    follower = tracker()
    follower.begin(ONE)
    follower.stop(ONE, "Held", "DeletionGuard", "deletes everything")
    follower.supersede(ONE, TWO)
    record = follower.get(ONE)
    assert record is not None
    state, reason, message = judge(record)
    assert (state, reason, record.superseded_by) == ("Superseded", "NewerRevision", TWO)
    assert "Held, DeletionGuard: deletes everything" in message
    follower.begin(ONE)
    follower.supersede(ONE, TWO, part=False)
    assert state_of(follower) == ("Superseded", "NotOnBranch")


def test_quarantined_objects_do_not_keep_a_revision_from_converging() -> None:
    """They are counted, and the reason says so."""
    problem = Problem(file="a.yaml", code="yaml-syntax", message="no")
    record = Record(ONE, stages=dict.fromkeys(STAGES, 1.0), quarantined=(problem,))
    assert judge(record) == ("Converged", "Quarantined", "1 problem(s), see quarantined")


def test_a_record_survives_the_store() -> None:
    """What the API shows is the same from memory and from the store."""
    record = Record(
        ONE,
        commit=CommitSummary(author="A", subject="S"),
        generation=3,
        stages=dict.fromkeys(STAGES, 5.5),
        agents={"a": AgentProgress(state="applied", applied=None)},
        quarantined=(Problem(file="a.yaml", code="x", message="m"),),
        superseded_by=TWO,
    )
    assert from_store(to_store(record, 7.0, plan_to_store(record))) == to_status(record)


@pytest.mark.parametrize("state", ["Held", "Superseded"])
def test_what_is_to_be_approved_survives_the_store(state: RevisionState) -> None:
    """It is shown while the revision is held, and no longer."""
    record = Record(ONE, stopped=(state, "HistoryRewritten", "rewritten"), approve="rewrite:a..b")
    assert from_store(to_store(record, 7.0, plan_to_store(record))) == to_status(record)
    assert to_status(record).approve == ("rewrite:a..b" if state == "Held" else "")


def test_only_the_newest_revision_waits_for_an_approval() -> None:
    """Also while a pass looks at it again; what was held before it, or fails now, waits for nothing."""
    follower = tracker()
    follower.begin(ONE)
    assert follower.awaited == ""
    follower.stop(ONE, "Held", "DeletionGuard", "too much", approve="sha256:1")
    assert follower.awaited == "sha256:1"
    follower.begin(ONE)
    assert follower.awaited == "sha256:1"
    follower.begin(TWO)
    assert follower.awaited == ""
    follower.stop(ONE, "Failed", "NoFleet", "none")
    follower.newest = ONE
    assert follower.awaited == ""


@pytest.mark.parametrize(("reason", "expected"), [("ReadBackFailed", "sha256:1"), ("SignatureMissing", "")])
def test_what_a_front_refused_may_be_tried_again(reason: str, expected: str) -> None:
    """Approving its plan once more is how a person asks for that; a missing signature cannot be approved."""
    follower = tracker()
    follower.begin(ONE)
    follower.note(ONE, plan=Plan(base="", revision=ONE, checksum="sha256:1"))
    follower.stop(ONE, "Held", reason, "no")
    assert follower.awaited == expected


def test_a_status_is_found_by_an_abbreviated_revision() -> None:
    """In memory first, then in the store."""

    async def scenario() -> None:
        follower = tracker()
        follower.begin(ONE)
        follower.reach(ONE, "fetched")
        found = await follower.status(ONE[:7])
        assert found is not None
        assert found.revision == ONE
        assert await follower.status("3" * 7) is None
        assert [one.revision for one in await follower.statuses()] == [ONE]

    asyncio.run(scenario())


def test_every_change_is_told_and_what_changes_nothing_is_not() -> None:
    """Whoever hears of it may count on the record as it is then."""
    follower, heard = tracker(), list[Record]()
    follower.on_change = heard.append
    follower.begin(ONE)
    follower.wait(ONE, "Away", "the remote is away")
    follower.wait(ONE, "Away", "the remote is away")
    assert [one.waiting for one in heard] == [("", ""), ("Away", "the remote is away")]


def test_memory_holds_only_the_newest_records() -> None:
    """Older ones are in the store."""

    async def scenario() -> None:
        records = Records()
        follower = Tracker(records, Clock())
        for number in range(KEPT + 20):
            revision = f"{number:040}"
            follower.begin(revision)
            follower.stop(revision, "Failed", "No", "no")
        await follower.flush()
        await follower.flush()
        assert len(records.saved) == KEPT + 20
        assert sum(follower.get(f"{number:040}") is not None for number in range(KEPT + 20)) <= KEPT

    asyncio.run(scenario())


def test_stages_are_typed_in_order() -> None:
    """The last one is what agents say."""
    last: Stage = STAGES[-1]
    assert last == "applied"


def test_nobody_hears_of_convergence_before_it_is_noted_as_applied() -> None:
    """Between the last push and the note that it concerns nobody, a listener still sees it progress."""
    assert judge(Record(ONE, stages=dict.fromkeys(PUSHED, 1.0))) == ("Progressing", "WaitingApplied", "not yet applied")


def test_two_tasks_may_write_at_the_same_time() -> None:
    """The loop and the observer of agents do; each record that has changed is written once."""

    class Slow(Records):
        async def save_record(self, record: RevisionRecord) -> None:
            await asyncio.sleep(0)
            await super().save_record(record)

    store = Slow()
    slow = Tracker(store, Clock())
    for revision in (ONE, TWO):
        slow.begin(revision)

    async def scenario() -> None:
        await asyncio.gather(slow.flush(), slow.flush())

    asyncio.run(scenario())
    assert sorted(store.saved) == sorted([ONE, TWO])


def test_what_has_converged_and_is_published_again_after_a_restart_stays_converged() -> None:
    """A renewed certificate, or a wave, means the same revision once more, and that was fetched and planned before."""

    async def scenario() -> None:
        records = Records()
        before = Tracker(records, Clock())
        before.begin(ONE)
        before.reach(ONE, *PUSHED)
        before.note(ONE, generation=3, commit=CommitSummary(subject="Begin"))
        before.concern(ONE, {}, ())
        await before.flush()

        after = Tracker(records, Clock())
        await after.load({}, ONE)
        assert await after.is_done(ONE)
        after.note(ONE, quarantined=(), generation=4)
        after.concern(ONE, {}, ())
        await after.flush()

        status = await after.status(ONE)
        assert status is not None
        assert (status.state, status.generation, status.commit.subject) == ("Converged", 4, "Begin")
        assert (await records.record(ONE)).state == "Converged"  # type: ignore[union-attr]

    asyncio.run(scenario())
