"""Tokens, outbox and events in memory, behaving as ``reconciler.store.protocols`` says, with faults on demand.

``Disk`` is what survives; a ``MemoryStore`` is one process that uses it. A test lets the process die at a named step
(``store.die_before("put")``), then opens another ``MemoryStore`` on the same disk.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.store.protocols import ANY_EVENT, ApiToken, Barred, EnrolmentToken, Event, EventFilter, OutboxEntry


class Died(BaseException):
    """The process ended here; nobody may catch it and go on."""


@dataclass
class Disk:
    tokens: dict[str, EnrolmentToken] = field(default_factory=dict)
    entries: dict[str, OutboxEntry] = field(default_factory=dict)
    outcomes: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    api_tokens: dict[str, ApiToken] = field(default_factory=dict)
    bars: dict[tuple[str, str], Barred] = field(default_factory=dict)

    def text(self) -> str:
        """Everything that is stored, to search for secrets."""
        return repr(self)


def fits(event: Event, wanted: EventFilter) -> bool:
    """Say whether an event is one of those that are wanted."""
    texts = [text.lower() for text in (event.type, event.subject, event.message)]
    return (
        (not wanted.types or event.type in wanted.types)
        and (not wanted.severities or event.severity in wanted.severities)
        and event.subject.startswith(wanted.under)
        and event.revision.startswith(wanted.revision)
        and wanted.actor in ("", event.actor)
        and all(any(word.lower() in text for text in texts) for word in wanted.words)
        and (wanted.since is None or event.time >= wanted.since)
        and (wanted.until is None or event.time < wanted.until)
    )


class MemoryStore:
    """Each call yields to the event loop once before and once after it changes something, as a real one does."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._before: set[str] = set()
        self._after: set[str] = set()
        self.calls: list[str] = []

    def die_before(self, step: str) -> None:
        self._before.add(step)

    def die_after(self, step: str) -> None:
        self._after.add(step)

    async def add_token(self, token: EnrolmentToken) -> None:
        await self._begin("add_token")
        if token.id in self.disk.tokens:
            raise ValueError(f"there is a token {token.id!r} already")
        self.disk.tokens[token.id] = token
        await self._end("add_token")

    async def token(self, token_id: str) -> EnrolmentToken | None:
        await self._begin("token")
        await self._end("token")
        return self.disk.tokens.get(token_id)

    async def use_token(self, token_id: str, thumbprint: str, now: float, *, entry: OutboxEntry | None = None) -> bool:
        await self._begin("use_token")
        token = self.disk.tokens.get(token_id)
        good = token is not None and token.expires_at > now and token.used_by in (None, thumbprint)
        if token is not None and good:
            self.disk.tokens[token_id] = replace(token, used_by=thumbprint)
            if entry is not None:
                self._put(entry)
        await self._end("use_token")
        return good

    async def prune_tokens(self, before: float) -> int:
        old = [token.id for token in self.disk.tokens.values() if token.expires_at < before]
        for token_id in old:
            del self.disk.tokens[token_id]
        return len(old)

    async def put(self, entry: OutboxEntry) -> None:
        await self._begin("put")
        self._put(entry)
        await self._end("put")

    async def pending(self, limit: int = 1000) -> Sequence[OutboxEntry]:
        await self._begin("pending")
        waiting = [entry for entry in self.disk.entries.values() if entry.id not in self.disk.outcomes]
        return sorted(waiting, key=lambda entry: entry.accepted_at)[:limit]

    async def settle(self, outcomes: Mapping[str, tuple[str, str | None]], now: float) -> None:
        await self._begin("settle")
        for entry_id, outcome in outcomes.items():
            if entry_id in self.disk.entries:
                self.disk.outcomes.setdefault(entry_id, outcome)
        await self._end("settle")

    async def failed(self, entry_ids: Sequence[str], error: str) -> None:
        await self._begin("failed")
        for entry_id in entry_ids:
            entry = self.disk.entries[entry_id]
            self.disk.entries[entry_id] = replace(entry, attempts=entry.attempts + 1, last_error=error)

    async def outcome(self, entry_id: str) -> tuple[str, str | None] | None:
        await self._begin("outcome")
        return self.disk.outcomes.get(entry_id)

    async def bar(self, barred: Barred, entry: OutboxEntry) -> None:
        await self._begin("bar")
        self.disk.bars[barred.name, barred.thumbprint] = barred
        unused = [one.id for one in self.disk.tokens.values() if one.agent == barred.name and one.used_by is None]
        for token_id in unused:
            del self.disk.tokens[token_id]
        self._put(entry)
        await self._end("bar")

    async def barred(self) -> Sequence[Barred]:
        return sorted(self.disk.bars.values(), key=lambda one: one.at)

    async def unbar(self, barred: Barred) -> None:
        await self._begin("unbar")
        if self.disk.bars.get((barred.name, barred.thumbprint)) == barred:
            del self.disk.bars[barred.name, barred.thumbprint]

    async def save_api_token(self, token: ApiToken) -> None:
        await self._begin("save_api_token")
        self.disk.api_tokens[token.id] = token

    async def api_tokens(self) -> Sequence[ApiToken]:
        return sorted(self.disk.api_tokens.values(), key=lambda one: (one.created_at, one.id))

    async def forget_api_tokens(self, ended_before: float) -> int:
        tokens = self.disk.api_tokens.values()
        old = [one.id for one in tokens if min(one.expires_at, one.revoked_at or one.expires_at) < ended_before]
        for token_id in old:
            del self.disk.api_tokens[token_id]
        return len(old)

    async def append(self, event: Event) -> Event:
        stored = replace(event, id=len(self.disk.events) + 1)
        self.disk.events.append(stored)
        return stored

    async def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        subject: str | None = None,
        wanted: EventFilter = ANY_EVENT,
    ) -> Sequence[Event]:
        found = [
            event
            for event in (reversed(self.disk.events) if newest_first else self.disk.events)
            if event.id > after
            and (before is None or event.id < before)
            and subject in (None, event.subject)
            and fits(event, wanted)
        ]
        return found[: max(limit, 0)]

    def _put(self, entry: OutboxEntry) -> None:
        self.disk.entries.setdefault(entry.id, replace(entry, payload=json.loads(json.dumps(dict(entry.payload)))))

    async def _begin(self, step: str) -> None:
        self.calls.append(step)
        await asyncio.sleep(0)
        if step in self._before:
            raise Died

    async def _end(self, step: str) -> None:
        await asyncio.sleep(0)
        if step in self._after:
            raise Died
