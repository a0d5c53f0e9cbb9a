"""The embedded engine against a model made of dictionaries."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconciler.store.blobs import BlobCache
from reconciler.store.protocols import AgentObservation, EnrolmentToken, Event, OutboxEntry, RevisionRecord
from reconciler.store.sqlite import SQLiteStore

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "c"])
TIMES = st.floats(0, 100)
TEXTS = st.text(max_size=20)
REVISIONS = st.sampled_from(["ab" * 20, "ab" * 19 + "cd", "cd" * 20])


class StoreMachine(RuleBasedStateMachine):
    """Each rule does the same to the store and to the dictionaries; restarts come at any point."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.entries: dict[str, OutboxEntry] = {}
        self.outcomes: dict[str, tuple[str, str | None]] = {}
        self.tokens: dict[str, EnrolmentToken] = {}
        self.records: dict[str, RevisionRecord] = {}
        self.seen: dict[str, AgentObservation] = {}
        self.timeline: list[Event] = []
        self.store = self.wait(SQLiteStore.open(self.directory, observation_interval=0.001))

    def wait(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(_coroutine(call))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.wait(self.store.close())
            self.loop.close()
            shutil.rmtree(self.directory)

    @rule()
    def restart(self) -> None:
        self.wait(self.store.close())
        self.store = self.wait(SQLiteStore.open(self.directory, observation_interval=0.001))

    @rule(name=NAMES, accepted=TIMES, payload=st.dictionaries(TEXTS, TEXTS | st.none() | st.booleans(), max_size=3))
    def put(self, name: str, accepted: float, payload: dict[str, object]) -> None:
        entry = OutboxEntry(name, "enrolment", payload, accepted)
        self.wait(self.store.put(entry))
        if name not in self.outcomes:
            self.entries.setdefault(name, entry)

    @rule(name=NAMES, revision=REVISIONS | st.none(), now=TIMES)
    def settle(self, name: str, revision: str | None, now: float) -> None:
        self.wait(self.store.settle({name: ("committed", revision)}, now))
        if self.entries.pop(name, None):
            self.outcomes[name] = ("committed", revision)

    @rule(names=st.lists(NAMES, unique=True), error=TEXTS)
    def failed(self, names: list[str], error: str) -> None:
        self.wait(self.store.failed(names, error))
        for name in names:
            if name in self.entries:
                entry = self.entries[name]
                self.entries[name] = replace(entry, attempts=entry.attempts + 1, last_error=error)

    @rule(name=NAMES, expires=TIMES)
    def add_token(self, name: str, expires: float) -> None:
        if name not in self.tokens:
            self.tokens[name] = EnrolmentToken(name, "vps-1", "0" * 64, "ann", expires)
            self.wait(self.store.add_token(self.tokens[name]))

    @rule(name=NAMES, key=NAMES, now=TIMES)
    def use_token(self, name: str, key: str, now: float) -> None:
        token = self.tokens.get(name)
        expected = token is not None and now < token.expires_at and token.used_by in (None, key)
        assert self.wait(self.store.use_token(name, key, now)) is expected
        if token is not None and expected:
            self.tokens[name] = replace(token, used_by=key)

    @rule(before=TIMES)
    def prune_tokens(self, before: float) -> None:
        kept = {name: token for name, token in self.tokens.items() if token.expires_at >= before}
        assert self.wait(self.store.prune_tokens(before)) == len(self.tokens) - len(kept)
        self.tokens = kept

    @rule(revision=REVISIONS, message=TEXTS, at=TIMES)
    def save_record(self, revision: str, message: str, at: float) -> None:
        record = RevisionRecord(revision, 1, "Held", "Why", message, {"fetched": at}, {}, (), None, {}, at)
        self.wait(self.store.save_record(record))
        self.records[revision] = record

    @rule(prefix=st.sampled_from(["abababa", "ab" * 19, "cdcdcdc", "abc", "ab" * 20]))
    def look_up(self, prefix: str) -> None:
        found = [record for revision, record in self.records.items() if revision.startswith(prefix)]
        expected = found[0] if len(found) == 1 and len(prefix) >= 7 else None
        assert self.wait(self.store.record(prefix)) == expected

    @rule(names=st.lists(NAMES), at=TIMES)
    def observe(self, names: list[str], at: float) -> None:
        seen = [AgentObservation(name, True, at, 1, None, "1", "applied", "", (), {}) for name in names]
        self.wait(self.store.save_observations(seen))
        self.seen.update({one.name: one for one in seen})

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        self.wait(self.store.forget_agent(name))
        self.seen.pop(name, None)

    @rule(subject=NAMES, message=TEXTS)
    def append(self, subject: str, message: str) -> None:
        event = self.wait(self.store.append(Event(1.0, "Type", "info", subject, message)))
        assert all(event.id > former.id for former in self.timeline)
        self.timeline.append(event)

    @rule(subject=NAMES | st.none(), limit=st.integers(0, 5), skip=st.integers(0, 5))
    def read_events(self, subject: str | None, limit: int, skip: int) -> None:
        after = self.timeline[skip].id if skip < len(self.timeline) else 0
        wanted = [e for e in self.timeline if e.id > after and subject in (None, e.subject)]
        assert list(self.wait(self.store.events(after=after, limit=limit, subject=subject))) == wanted[:limit]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        pending = self.wait(self.store.pending())
        assert {entry.id: entry for entry in pending} == self.entries
        assert [entry.accepted_at for entry in pending] == sorted(entry.accepted_at for entry in pending)
        for name in ("a", "b", "c"):
            assert self.wait(self.store.outcome(name)) == self.outcomes.get(name)
            assert self.wait(self.store.token(name)) == self.tokens.get(name)
        assert {seen.name: seen for seen in self.wait(self.store.observations())} == self.seen
        assert {record.revision: record for record in self.wait(self.store.records())} == self.records


class CacheMachine(RuleBasedStateMachine):
    """The parse cache against a dictionary of the tree and one of everything it was ever given."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.cache = BlobCache(self.directory / "cache.db", "1", kept_generations=1_000)
        self.tree: dict[str, tuple[str, bytes]] = {}
        self.known: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
            shutil.rmtree(self.directory)

    rows = st.dictionaries(NAMES, st.tuples(NAMES, st.binary(max_size=5)))

    @rule(changed=rows, removed=st.sets(NAMES))
    def replace(self, changed: dict[str, tuple[str, bytes]], removed: set[str]) -> None:
        removed -= changed.keys()
        self.cache.replace([(path, *value) for path, value in changed.items()], removed)
        self.tree = {path: value for path, value in self.tree.items() if path not in removed} | changed
        self.known.update({(path, blob): document for path, (blob, document) in changed.items()})

    @rule()
    def restart(self) -> None:
        self.cache.close()
        self.cache = BlobCache(self.directory / "cache.db", "1", kept_generations=1_000)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "cache"):
            assert {path: (blob, document) for path, blob, document in self.cache.load_tree()} == self.tree
            assert self.cache.lookup([(p, b) for p in "abc" for b in "abc"]) == self.known
            assert (self.cache.failures, self.cache.replaced) == (0, 0)


async def _coroutine(call: Awaitable[T]) -> T:
    return await call


BOUNDED = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestStore = StoreMachine.TestCase
TestStore.settings = BOUNDED
TestCache = CacheMachine.TestCase
TestCache.settings = BOUNDED
