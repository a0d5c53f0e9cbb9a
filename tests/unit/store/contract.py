"""What every store must do: tests that the embedded engine and the fakes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

import pytest

from reconciler.store.protocols import (
    AgentObservation,
    ApiToken,
    ApiTokenStore,
    Approval,
    ApprovalStore,
    Barred,
    BarStore,
    EnrolmentToken,
    Event,
    EventFilter,
    EventStore,
    ObservationStore,
    Outbox,
    OutboxEntry,
    Publication,
    PublicationStore,
    RecordStore,
    Retained,
    RevisionRecord,
    TokenStore,
)
from schemas.problem import Problem


class Store(
    TokenStore,
    Outbox,
    BarStore,
    ApiTokenStore,
    PublicationStore,
    ApprovalStore,
    RecordStore,
    ObservationStore,
    EventStore,
    Protocol,
):
    """All protocols in one object."""


Opener = Callable[[], AbstractAsyncContextManager[Store]]

TOKEN = EnrolmentToken("t1", "vps-1", "ab" * 32, "ann", expires_at=1_000.0)
ENTRY = OutboxEntry("e1", "enrolment", {"agent": "vps-1", "jwk": {"kty": "EC"}}, accepted_at=10.0)
OF_CI = ApiToken("c1", "deploy", "ci", ("read", "plan"), "ab" * 32, "operator:local", 10.0, 90.0)
BARRED = Barred("vps-1", "thumb", True, "stolen", "operator:local", 20.0, "r1")
REVOCATION = OutboxEntry("r1", "revocation", {"name": "vps-1"}, accepted_at=20.0)
RECORD = RevisionRecord(
    revision="a1" * 20,
    generation=7,
    state="Progressing",
    reason="Rendering",
    message="Rendering 3 objects.",
    stages={"fetched": 1.25, "validated": 1.5},
    agents={"vps-1": ("applied", 2.5), "vps-2": ("offline", None)},
    quarantined=(Problem(file="routes/shop/web.yaml", line=7, column=5, code="unknown-agent", message="Grüße"),),
    plan={"checksum": "c", "changes": [{"path": "routes/shop/web.yaml"}]},
    commit={"author": "Ann", "subject": "Add web"},
    updated_at=100.0,
)
SEEN = AgentObservation(
    "vps-1", True, 50.0, 7, "sha256:1", "0.1.0", "applied", "", ({"id": "web", "ok": True},), {"load1": 0.5}
)
EVENT = Event(5.0, "AgentEnrolled", "info", "agent/vps-1", "vps-1 enrolled.", revision="a1" * 20, actor="ann")


def run(open_store: Opener, scenario: Callable[[Store], object]) -> None:
    async def main() -> None:
        async with open_store() as store:
            await scenario(store)  # type: ignore[misc]

    asyncio.run(main())


class PromisesContract:
    """Tokens and outbox. Subclass with a fixture ``open_store``."""

    def test_a_token_comes_back_as_it_was_added(self, open_store: Opener) -> None:
        """A token that was added is found by its id, an unknown one is None."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            assert await store.token("t1") == TOKEN
            assert await store.token("t2") is None

        run(open_store, scenario)

    def test_a_token_serves_one_key(self, open_store: Opener) -> None:
        """The first key uses the token, may do so again, and no other key ever can."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            answers = [await store.use_token("t1", key, 999.0) for key in ("first", "second", "first")]
            assert answers == [True, False, True]
            used = await store.token("t1")
            assert used is not None
            assert used.used_by == "first"

        run(open_store, scenario)

    def test_the_key_that_wins_has_the_entry(self, open_store: Opener) -> None:
        """The entry that comes with the winning key is in the outbox, and none of a key that lost."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            tries = [("first", "e1"), ("second", "e2"), ("first", "e1")]
            answers = [await store.use_token("t1", key, 999.0, entry=replace(ENTRY, id=entry)) for key, entry in tries]
            assert answers == [True, False, True]
            assert [entry.id for entry in await store.pending()] == ["e1"]

        run(open_store, scenario)

    def test_a_bar_ends_unused_tokens_and_brings_its_entry(self, open_store: Opener) -> None:
        """Barring a key is one step: the bar, its entry, and the tokens of that agent that nobody has used."""

        async def scenario(store: Store) -> None:
            for token_id, agent in (("t1", "vps-1"), ("t2", "vps-2"), ("t3", "vps-1")):
                await store.add_token(replace(TOKEN, id=token_id, agent=agent))
            assert await store.use_token("t3", "first", 999.0)
            await store.bar(BARRED, REVOCATION)
            assert [(await store.token(one)) is None for one in ("t1", "t2", "t3")] == [True, False, False]
            assert [entry.id for entry in await store.pending()] == ["r1"]
            assert list(await store.barred()) == [BARRED]

        run(open_store, scenario)

    def test_a_bar_is_taken_back_unless_another_took_its_place(self, open_store: Opener) -> None:
        """Of one key the newest bar counts, and taking an older one back changes nothing."""

        async def scenario(store: Store) -> None:
            newer = replace(BARRED, quarantine=False, entry_id="r2")
            await store.bar(BARRED, REVOCATION)
            await store.bar(newer, replace(REVOCATION, id="r2"))
            await store.unbar(BARRED)
            assert list(await store.barred()) == [newer]
            await store.unbar(newer)
            assert list(await store.barred()) == []

        run(open_store, scenario)

    def test_a_token_of_ci_comes_back_as_it_was_saved_last(self, open_store: Opener) -> None:
        """What is known of a token of CI is replaced as a whole; what ended long ago is forgotten."""

        async def scenario(store: Store) -> None:
            used = replace(OF_CI, first_used_at=20.0, last_used_at=30.0)
            revoked = replace(OF_CI, id="c2", name="old", created_at=11.0, expires_at=90.0, revoked_at=15.0)
            for token in (OF_CI, used, revoked):
                await store.save_api_token(token)
            assert list(await store.api_tokens()) == [used, revoked]
            assert await store.forget_api_tokens(16.0) == 1
            assert list(await store.api_tokens()) == [used]
            assert await store.forget_api_tokens(91.0) == 1

        run(open_store, scenario)

    def test_a_late_or_unknown_token_serves_nobody(self, open_store: Opener) -> None:
        """From the second of its expiry on a token is refused, and so is one that was never made."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            assert not await store.use_token("t1", "first", 1_000.5)
            assert not await store.use_token("never", "first", 1.0)

        run(open_store, scenario)

    def test_of_a_hundred_keys_at_once_one_wins(self, open_store: Opener) -> None:
        """A hundred keys that use one token at the same moment get one True among them."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            answers = await asyncio.gather(*(store.use_token("t1", f"key-{n}", 1.0) for n in range(100)))
            assert answers.count(True) == 1
            used = await store.token("t1")
            assert used is not None
            assert used.used_by == f"key-{answers.index(True)}"

        run(open_store, scenario)

    def test_old_tokens_are_pruned(self, open_store: Opener) -> None:
        """Pruning removes the tokens that expired before the given time and says how many."""

        async def scenario(store: Store) -> None:
            await store.add_token(TOKEN)
            await store.add_token(replace(TOKEN, id="t2", expires_at=2_000.0))
            assert await store.prune_tokens(1_500.0) == 1
            assert await store.token("t1") is None
            assert await store.token("t2") is not None

        run(open_store, scenario)

    def test_pending_entries_come_oldest_first(self, open_store: Opener) -> None:
        """Entries come in the order of acceptance, as many as were asked for."""

        async def scenario(store: Store) -> None:
            for number in (3, 1, 2):
                await store.put(replace(ENTRY, id=f"e{number}", accepted_at=float(number)))
            assert [entry.id for entry in await store.pending()] == ["e1", "e2", "e3"]
            assert [entry.id for entry in await store.pending(2)] == ["e1", "e2"]

        run(open_store, scenario)

    def test_putting_an_entry_again_changes_nothing(self, open_store: Opener) -> None:
        """The first version of an entry stays, also after it was settled."""

        async def scenario(store: Store) -> None:
            await store.put(ENTRY)
            await store.put(replace(ENTRY, payload={"agent": "other"}, accepted_at=99.0))
            assert list(await store.pending()) == [ENTRY]
            await store.settle({"e1": ("committed", "a1" * 20)}, 20.0)
            await store.put(ENTRY)
            assert list(await store.pending()) == []

        run(open_store, scenario)

    def test_a_settled_entry_is_pending_no_more_and_keeps_its_outcome(self, open_store: Opener) -> None:
        """The outcome is None while an entry is pending or unknown, then what it was settled with."""

        async def scenario(store: Store) -> None:
            await store.put(ENTRY)
            assert await store.outcome("e1") is None
            await store.settle({"e1": ("conflicted: taken", None)}, 20.0)
            assert await store.outcome("e1") == ("conflicted: taken", None)
            assert await store.outcome("never") is None
            assert list(await store.pending()) == []

        run(open_store, scenario)

    def test_a_group_is_settled_in_one_step(self, open_store: Opener) -> None:
        """Each entry with its own outcome; what is unknown is passed over."""

        async def scenario(store: Store) -> None:
            for name in ("e1", "e2", "e3"):
                await store.put(replace(ENTRY, id=name))
            outcomes = {"e1": ("committed", "a1" * 20), "never": ("committed", None), "e3": ("conflicted: taken", None)}
            await store.settle(outcomes, 20.0)
            assert [entry.id for entry in await store.pending()] == ["e2"]
            assert [await store.outcome(name) for name in ("e1", "e2", "e3", "never")] == [
                ("committed", "a1" * 20),
                None,
                ("conflicted: taken", None),
                None,
            ]

        run(open_store, scenario)

    def test_a_failed_attempt_is_counted(self, open_store: Opener) -> None:
        """A failure adds an attempt and its error to the entries named, and leaves them pending."""

        async def scenario(store: Store) -> None:
            await store.put(ENTRY)
            await store.put(replace(ENTRY, id="e2", accepted_at=11.0))
            await store.failed(["e1"], "remote away")
            await store.failed(["e1"], "remote slow")
            assert list(await store.pending()) == [
                replace(ENTRY, attempts=2, last_error="remote slow"),
                replace(ENTRY, id="e2", accepted_at=11.0),
            ]

        run(open_store, scenario)


class RebuildableContract:
    """Publications, approvals, records and observations. Subclass with a fixture ``open_store``."""

    def test_the_newest_publication_comes_back(self, open_store: Opener) -> None:
        """There is no publication at first, then the one saved last."""

        async def scenario(store: Store) -> None:
            assert await store.publication() is None
            findings = ({"code": "unknown-agent", "field": ["spec", 0]},)
            retained = (
                Retained(
                    "routes/shop/web.yaml", "b" * 40, "c" * 40, findings, [["routers", {"a": 1}]], [["http"]], ["a"]
                ),
                Retained("routes/\udcff.yaml", "d" * 40),
            )
            newest = Publication(2, "b2" * 20, 6.5, retained, {"vps-1": (2, "sha256:1")}, "sha256:2")
            await store.save_publication(Publication(1, "a1" * 20, 5.5))
            await store.save_publication(newest)
            assert await store.publication() == newest

        run(open_store, scenario)

    def test_an_older_generation_is_refused(self, open_store: Opener) -> None:
        """A generation below the stored one raises ValueError and changes nothing; the same one is replaced."""

        async def scenario(store: Store) -> None:
            await store.save_publication(Publication(5, "a1" * 20, 5.5))
            with pytest.raises(ValueError, match="generation"):
                await store.save_publication(Publication(4, "b2" * 20, 6.5))
            stored = await store.publication()
            assert stored is not None
            assert stored.generation == 5
            await store.save_publication(Publication(5, "a1" * 20, 5.5))

        run(open_store, scenario)

    def test_the_confirmed_publication_outlives_newer_ones(self, open_store: Opener) -> None:
        """What was confirmed last stays there to go back to, until a newer one is confirmed."""

        async def scenario(store: Store) -> None:
            assert await store.confirmed_publication() is None
            first, second = Publication(1, "a1" * 20, 5.5), Publication(2, "b2" * 20, 6.5)
            await store.save_publication(first)
            assert await store.confirmed_publication() is None
            await store.confirm_publication(1)
            await store.save_publication(second)
            assert await store.publication() == second
            assert await store.confirmed_publication() == replace(first, confirmed=True)
            await store.confirm_publication(1)
            await store.confirm_publication(2)
            assert await store.publication() == await store.confirmed_publication() == replace(second, confirmed=True)
            third = Publication(3, "a1" * 20, 7.5, confirmed=True)
            await store.save_publication(third)
            assert await store.confirmed_publication() == third
            await store.save_publication(replace(third, confirmed=False))
            assert await store.publication() == replace(third, confirmed=False)

        run(open_store, scenario)

    def test_the_last_generation_is_that_of_the_newest_publication(self, open_store: Opener) -> None:
        """It is 0 before the first publication."""

        async def scenario(store: Store) -> None:
            assert await store.last_generation() == 0
            await store.save_publication(Publication(5, "a1" * 20, 5.5))
            assert await store.last_generation() == 5

        run(open_store, scenario)

    def test_an_approval_comes_back(self, open_store: Opener) -> None:
        """An approval is found by the checksum of its plan only."""

        async def scenario(store: Store) -> None:
            approval = Approval("sum", "ann", 3.5)
            await store.approve(approval)
            assert await store.approval("sum") == approval
            assert await store.approval("other") is None

        run(open_store, scenario)

    def test_a_record_comes_back_and_is_replaced(self, open_store: Opener) -> None:
        """A record comes back with every field; saving the revision again replaces it."""

        async def scenario(store: Store) -> None:
            await store.save_record(RECORD)
            assert await store.record(RECORD.revision) == RECORD
            newer = replace(RECORD, state="Converged", stages={**RECORD.stages, "applied": 3.0}, updated_at=101.0)
            await store.save_record(newer)
            assert await store.record(RECORD.revision) == newer
            assert list(await store.records()) == [newer]

        run(open_store, scenario)

    def test_a_revision_may_be_abbreviated_when_unambiguous(self, open_store: Opener) -> None:
        """Seven digits find a record; fewer, an ambiguous start and an unknown one find None."""

        async def scenario(store: Store) -> None:
            await store.save_record(RECORD)
            await store.save_record(replace(RECORD, revision="b" * 20 + "1" * 20))
            await store.save_record(replace(RECORD, revision="b" * 20 + "2" * 20))
            assert await store.record("a1a1a1a") == RECORD
            for unknown in ("a1a1a1", "b" * 7, "c" * 7, "", "%", "a1a1a1_", "zzzzzzz"):
                assert await store.record(unknown) is None
            exact = await store.record("b" * 20 + "2" * 20)
            assert exact is not None
            assert exact.revision == "b" * 20 + "2" * 20

        run(open_store, scenario)

    def test_records_come_newest_first_in_pages(self, open_store: Opener) -> None:
        """Records are ordered by their last change; ``before`` asks for what is older."""

        async def scenario(store: Store) -> None:
            for number in (2, 4, 1, 3):
                await store.save_record(replace(RECORD, revision=f"{number:040x}", updated_at=float(number)))
            assert [record.updated_at for record in await store.records(limit=3)] == [4.0, 3.0, 2.0]
            assert [record.updated_at for record in await store.records(before=3.0)] == [2.0, 1.0]

        run(open_store, scenario)

    def test_plans_stay_where_they_are_when_records_are_listed(self, open_store: Opener) -> None:
        """A list may do with the checksum of each plan."""

        async def scenario(store: Store) -> None:
            plain = replace(RECORD, revision="c" * 40, plan=None, updated_at=RECORD.updated_at - 1)
            for one in (replace(RECORD, plan={"checksum": "sha256:1", "hosts": ["a"]}), plain):
                await store.save_record(one)
            summarised = [{"checksum": "sha256:1"}, None]
            assert [record.plan for record in await store.records(plans=False)] == summarised
            assert [record.plan for _, record in reversed(await store.page_of_records())] == summarised

        run(open_store, scenario)

    def test_the_last_observation_of_each_agent_is_kept(self, open_store: Opener) -> None:
        """An observation is seen at once; a newer one of the same agent replaces it."""

        async def scenario(store: Store) -> None:
            await store.save_observations([SEEN, replace(SEEN, name="vps-2")])
            newer = replace(SEEN, last_seen=60.0, connected=False)
            await store.save_observations([newer])
            assert {seen.name: seen for seen in await store.observations()} == {
                "vps-1": newer,
                "vps-2": replace(SEEN, name="vps-2"),
            }

        run(open_store, scenario)

    def test_a_forgotten_agent_is_gone(self, open_store: Opener) -> None:
        """Forgetting removes what was seen of that agent alone; an unknown one is nothing to forget."""

        async def scenario(store: Store) -> None:
            await store.save_observations([SEEN, replace(SEEN, name="vps-2")])
            await store.forget_agent("vps-1")
            await store.forget_agent("never")
            assert [seen.name for seen in await store.observations()] == ["vps-2"]

        run(open_store, scenario)


class EventContract:
    """The timeline. Subclass with a fixture ``open_store``."""

    def test_events_get_growing_ids_and_come_oldest_first(self, open_store: Opener) -> None:
        """Each event gets an id above the former; ``after`` continues where a reader stopped."""

        async def scenario(store: Store) -> None:
            appended = [await store.append(replace(EVENT, message=str(number))) for number in range(5)]
            ids = [event.id for event in appended]
            assert ids == sorted(set(ids))
            assert ids[0] > 0
            assert list(await store.events()) == appended
            assert list(await store.events(after=ids[1], limit=2)) == appended[2:4]

        run(open_store, scenario)

    def test_events_of_one_subject(self, open_store: Opener) -> None:
        """With a subject only its events come."""

        async def scenario(store: Store) -> None:
            await store.append(EVENT)
            other = await store.append(replace(EVENT, subject="agent/vps-2"))
            assert list(await store.events(subject="agent/vps-2")) == [other]

        run(open_store, scenario)

    def test_events_can_be_read_backwards(self, open_store: Opener) -> None:
        """Newest first, a page after the other, nothing comes twice and nothing is left out while more happens."""

        async def scenario(store: Store) -> None:
            appended = [await store.append(replace(EVENT, message=str(number))) for number in range(5)]
            first = await store.events(newest_first=True, limit=2)
            await store.append(replace(EVENT, message="meanwhile"))
            second = await store.events(newest_first=True, limit=9, before=first[-1].id)
            assert [*first, *second] == appended[::-1]
            between = await store.events(after=appended[0].id, before=appended[3].id)
            assert list(between) == appended[1:3]

        run(open_store, scenario)

    def test_events_that_are_wanted(self, open_store: Opener) -> None:
        """Each word of a filter counts, all of them together, and what is empty asks for nothing."""

        async def scenario(store: Store) -> None:
            moved = Event(5.0, "TrafficMoved", "info", "Route/shop/web", "95_% go to Blue", "ab" * 20, "person:ann")
            failed = Event(6.0, "AgentFailed", "error", "agent/vps-1", "pull refused", actor="agent:vps-1")
            every = [await store.append(one) for one in (moved, failed)]
            for wanted, which in (
                (EventFilter(), (0, 1)),
                (EventFilter(types=frozenset({"AgentFailed", "Other"})), (1,)),
                (EventFilter(severities=frozenset({"info"})), (0,)),
                (EventFilter(under="Route/shop/"), (0,)),
                (EventFilter(under="Route/Shop/"), ()),
                (EventFilter(actor="person:ann"), (0,)),
                (EventFilter(actor="person"), ()),
                (EventFilter(revision="ababab"), (0,)),
                (EventFilter(words=("blue", "SHOP")), (0,)),
                (EventFilter(words=("blue", "vps-1")), ()),
                (EventFilter(words=("_%",)), (0,)),
                (EventFilter(words=("p_ll",)), ()),
                (EventFilter(words=("agentf",)), (1,)),
                (EventFilter(since=6.0), (1,)),
                (EventFilter(until=6.0), (0,)),
            ):
                assert list(await store.events(wanted=wanted)) == [every[one] for one in which], wanted
            assert list(await store.events(subject="agent/vps-1", wanted=EventFilter(words=("refused",)))) == every[1:]

        run(open_store, scenario)
