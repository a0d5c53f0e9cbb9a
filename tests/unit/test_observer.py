"""What agents say is kept: at once in records, soon in the store, and not lost to a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from reconciler.convergence import judge
from reconciler.errors import Transient
from reconciler.observability.metrics import Metrics
from reconciler.observer import MAX_PENDING_EVENTS, AgentObserver
from reconciler.status import Tracker
from reconciler.store.protocols import AgentObservation, Event
from schemas.session import Heartbeat, Hello, ItemResult, Report
from schemas.status import STAGES
from tests.unit.test_status import Records

REVISION = "a" * 40
DIGEST = "sha256:" + "1" * 64


class Store:
    """Observations and events in memory; fails while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.rows: dict[str, AgentObservation] = {}
        self.written: list[Event] = []

    def _check(self) -> None:
        if self.full:
            raise Transient("the disk is full", reason="DiskFull")

    async def save_observations(self, observations: Sequence[AgentObservation]) -> None:
        self._check()
        self.rows |= {one.name: one for one in observations}

    async def observations(self) -> Sequence[AgentObservation]:
        return list(self.rows.values())

    async def forget_agent(self, name: str) -> None:
        self.rows.pop(name, None)

    async def append(self, event: Event) -> Event:
        self._check()
        self.written.append(event)
        return event

    async def events(self, **_: Any) -> Sequence[Event]:
        return self.written


def observer(store: Store | None = None) -> tuple[AgentObserver, Store, Tracker]:
    store = store or Store()
    tracker = Tracker(Records(), lambda: 1000.0)
    return AgentObserver(tracker, store, store, Metrics()), store, tracker


def hello(**more: object) -> Hello:
    said = {"type": "hello", "sequence": 1, "protocol": 1, "agent": "vps-1", "version": "1", **more}
    return Hello.model_validate(said)


def applied(**more: object) -> Report:
    said = {"type": "report", "sequence": 2, "generation": 1, "digest": DIGEST, "outcome": "applied", **more}
    return Report.model_validate(said)


def test_a_report_moves_the_record_at_once() -> None:
    """The record of a revision converges with the report, before anything is written."""
    seen, store, tracker = observer()
    tracker.begin(REVISION)
    tracker.reach(REVISION, *STAGES[:-1])
    seen.connected("vps-1", hello(), 1.0)
    tracker.concern(REVISION, {"vps-1": DIGEST}, ["vps-1"])
    record = tracker.get(REVISION)
    assert record is not None
    assert judge(record)[0] == "Progressing"
    seen.reported("vps-1", applied(), 2.0)
    record = tracker.get(REVISION)
    assert record is not None
    assert judge(record)[0] == "Converged"
    assert store.rows == {}


def test_what_was_seen_survives_a_store_that_fails() -> None:
    """While nothing can be written nothing is forgotten; once it can, everything is there in its order."""

    async def scenario() -> None:
        seen, store, _ = observer()
        seen.connected("vps-1", hello(), 1.0)
        seen.heartbeat(
            "vps-1", Heartbeat.model_validate({"type": "heartbeat", "sequence": 2, "metrics": {"x": 1}}), 2.0
        )
        store.full = True
        for _ in range(2):
            with pytest.raises(Transient):
                await seen.flush()
        seen.disconnected("vps-1", "lost", 3.0)
        store.full = False
        await seen.flush()
        assert [event.type for event in store.written] == ["AgentConnected", "AgentDisconnected"]
        row = store.rows["vps-1"]
        assert (row.connected, row.last_seen, dict(row.metrics)) == (False, 3.0, {"x": 1.0})
        await seen.flush()
        assert len(store.written) == 2

    asyncio.run(scenario())


def test_nobody_is_connected_after_a_restart() -> None:
    """What was seen before a restart is known again, without the connection."""

    async def scenario() -> None:
        seen, store, _ = observer()
        seen.connected("vps-1", hello(), 1.0)
        await seen.flush()
        again, _, _ = observer(store)
        await again.load()
        assert {name: one.connected for name, one in again.seen.items()} == {"vps-1": False}

    asyncio.run(scenario())


def test_events_that_cannot_be_written_are_bounded() -> None:
    """A thousand agents that come and go while the store is away fill no memory."""
    seen, store, _ = observer()
    for number in range(MAX_PENDING_EVENTS + 10):
        seen.disconnected(f"vps-{number % 3}", "lost", 1.0)
    asyncio.run(seen.flush())
    assert len(store.written) == MAX_PENDING_EVENTS


def test_a_failure_is_an_event_once_and_names_the_item() -> None:
    """An agent tries again and again and says so each time; a timeline that repeats it hides what else happens."""

    async def scenario() -> None:
        one, store, _ = observer()
        failed = ItemResult(id="Deployment/shop/web", state="Failed", reason="Exited", message="It exited with 1.")

        def say(outcome: Literal["applied", "failed"], *items: ItemResult) -> None:
            reason = "ItemsFailed" if outcome == "failed" else ""
            report = Report(sequence=2, generation=1, digest=DIGEST, outcome=outcome, reason=reason, items=items)
            one.reported("vps-1", report, 1000.0)

        say("failed", failed)
        say("failed", failed)
        say("failed", failed.model_copy(update={"reason": "PullFailed"}), failed)
        say("applied")
        say("failed", failed)
        await one.flush()
        again = "ItemsFailed: Deployment/shop/web: Exited: It exited with 1."
        other = "ItemsFailed: Deployment/shop/web: PullFailed: It exited with 1. (and 1 more)"
        assert [event.message for event in store.written] == [again, other, again]

    asyncio.run(scenario())
