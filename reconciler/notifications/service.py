"""Looks at what is wrong, decides who is to be told, and tells them.

1. Every few seconds: what is wrong now, and what the timeline says since the last look.
2. :mod:`reconciler.notifications.conditions` compares that with what was told before.
3. What is new is written down, with what it is about, before anybody is told: a restart tells neither twice nor never.
4. Each channel has a task of its own, so that one that hangs holds up no other. What it takes is told once; a message
   that may have arrived is sent again under the same id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from reconciler.errors import CloudLunacyError, Rejected
from reconciler.notifications.conditions import Condition, Kept, Key, Notice, collapse, of_event, step
from reconciler.notifications.documents import kept_from, kept_to, notice_from, notice_to
from reconciler.notifications.timing import due, pause
from reconciler.observability.logs import get_logger
from reconciler.store.notices import NoticeStore, WaitingNotice
from reconciler.store.protocols import Event, EventFilter
from schemas.notifications import Channel, Notifications

log = get_logger(__name__)

LOOK_SECONDS: Final = 5.0
MOST_WAITING: Final = 1000
"""For one channel; of more the oldest are dropped, and the next message says so."""
EVENTS_AT_ONCE: Final = 500


class Timeline(Protocol):
    """:class:`reconciler.store.sqlite.SQLiteStore`."""

    async def append(self, event: Event) -> Event: ...
    async def events(
        self, *, after: int = ..., limit: int = ..., newest_first: bool = ..., wanted: EventFilter = ...
    ) -> Sequence[Event]: ...


class Looked(Protocol):
    """What is wrong now."""

    @property
    def conditions(self) -> Iterable[Condition]: ...
    @property
    def unjudged(self) -> frozenset[str]:
        """Types of which nothing can be said now."""
        ...


Deliver = Callable[[Channel, Sequence[Notice], str, int], Awaitable[None]]
"""Channel, notices, id of the message, how many were dropped → told. Raises Transient, Rejected, Broken."""


class Notifying:
    """``settings`` are the fleet's, ``look`` says what is wrong, ``as_condition`` what an event is about."""

    def __init__(
        self,
        store: NoticeStore,
        timeline: Timeline,
        *,
        settings: Callable[[], Notifications],
        look: Callable[[], Awaitable[Looked | None]],
        deliver: Deliver,
        as_condition: Callable[[Event], Condition],
        count: Callable[[str, int], None] = lambda _outcome, _number: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._timeline = timeline
        self._settings = settings
        self._look = look
        self._deliver = deliver
        self._as_condition = as_condition
        self._count = count
        self._clock = clock
        self.kept: dict[Key, Kept] = {}
        self._waiting: dict[str, list[tuple[int, Notice]]] = {}
        self._dropped: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, frozenset[int]] = {}
        """Channel → what its last message said, until it was taken."""
        self._event = 0

    # --- looking ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up what an earlier process knew."""
        found = await self._store.remembered()
        self.kept = {key: kept_from(document) for key, document in found.conditions.items()}
        self._event = found.event
        for one in found.waiting:
            self._waiting.setdefault(one.channel, []).append((one.id, notice_from(one.document)))

    async def run(self) -> None:
        """Look and tell, for ever."""
        try:
            while True:
                try:
                    await self.look()
                    self._send()
                except CloudLunacyError as error:
                    log.warning("what is wrong cannot be looked at", error=str(error))
                except Exception:
                    log.exception("a look at what is wrong ended by a bug")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def look(self) -> None:
        """Compare what is wrong with what was told, and write down what is to be told."""
        settings, now = self._settings(), self._clock()
        looked = await self._look()
        if looked is None:
            return
        # thousands of agents may be away, and requests wait for no look at them
        kept, notices = await asyncio.to_thread(
            step, self.kept, looked.conditions, settings.rules, now, unjudged=looked.unjudged
        )
        event, of_events = await self._read_timeline(settings, now)
        known = {channel.name for channel in settings.channels}
        notices = [one for one in (*notices, *of_events) if one.channel in known]
        changed = {key: kept_to(one) for key, one in kept.items() if self.kept.get(key) != one}
        gone = self.kept.keys() - kept.keys()
        if changed or gone or notices or event != self._event:
            added = await self._store.keep(changed, gone, [_to_wait(one) for one in notices], event)
            self._add(zip(added, notices, strict=True))
        self.kept, self._event = kept, event

    async def test(self, channel: str, by: str) -> None:
        """Have a channel told that it works.

        Raises:
            Rejected: there is no such channel (``UnknownChannel``).
        """
        if all(one.name != channel for one in self._settings().channels):
            raise Rejected(f'spec.notifications has no channel "{channel}".', reason="UnknownChannel")
        title = f"A test of channel {channel}, asked for by {by}"
        notice = Notice(channel, "test", Condition("Test", f"channel/{channel}", "info", title), *(self._clock(),) * 2)
        self._add(zip(await self._store.keep({}, (), [_to_wait(notice)], self._event), [notice], strict=True))
        self._not_before.pop(channel, None)
        self._send()

    async def _read_timeline(self, settings: Notifications, now: float) -> tuple[int, list[Notice]]:
        types = frozenset(name for rule in settings.rules for name in rule.events)
        newest = await self._timeline.events(limit=1, newest_first=True)
        end = newest[0].id if newest else 0
        if not self._event or not types or end <= self._event:  # below: another timeline took the place of the former
            return end, []
        found = await self._timeline.events(after=self._event, limit=EVENTS_AT_ONCE, wanted=EventFilter(types=types))
        notices = [notice for one in found for notice in of_event(settings.rules, self._as_condition(one), now)]
        # what is no event of a rule is not read again at each look
        return (found[-1].id if len(found) == EVENTS_AT_ONCE else max(end, *(one.id for one in found), 0)), notices

    def _add(self, found: Iterable[tuple[WaitingNotice, Notice]]) -> None:
        for row, notice in found:
            self._waiting.setdefault(row.channel, []).append((row.id, notice))

    # --- telling ------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Begin to tell every channel that something is due for."""
        now = self._clock()
        channels = {channel.name: channel for channel in self._settings().channels}
        for name, waiting in list(self._waiting.items()):
            is_busy = name in self._sending and not self._sending[name].done()
            if is_busy or now < self._not_before.get(name, 0.0):
                continue
            channel = channels.get(name)
            self._sending[name] = asyncio.create_task(
                self._forget(name, waiting) if channel is None else self._tell(channel, now), name=f"channel-{name}"
            )

    async def _forget(self, name: str, waiting: Sequence[tuple[int, Notice]]) -> None:
        """The fleet has no such channel any more."""
        await self._done(name, [number for number, _ in waiting])

    async def _tell(self, channel: Channel, now: float) -> None:
        name = channel.name
        try:
            await self._drop_oldest(name)
            chosen = self._chosen(channel, now)
            if not chosen:
                return
            self._tried[name] = frozenset(number for number, _ in chosen)
            told = collapse([notice for _, notice in chosen])
            await self._deliver(channel, told, f"msg-{chosen[0][0]}-{chosen[-1][0]}", self._dropped.get(name, 0))
            await self._done(name, [number for number, _ in chosen])
        except CloudLunacyError as error:
            await self._failed(name, error)
        except Exception:
            log.exception("telling a channel ended by a bug", channel=name)
            self._failures[name] = self._failures.get(name, 0) + 1
            self._not_before[name] = self._clock() + pause(self._failures[name])
        else:
            await self._succeeded(name, len(told))

    def _chosen(self, channel: Channel, now: float) -> list[tuple[int, Notice]]:
        """Return what one message is to say: what the last one said that may not have arrived, else what is due."""
        waiting = self._waiting.get(channel.name, [])
        tried = self._tried.get(channel.name, frozenset[int]())
        if again := [(number, notice) for number, notice in waiting if number in tried]:
            return again
        ripe = set(map(id, due(channel, [notice for _, notice in waiting], now)))
        return [(number, notice) for number, notice in waiting if id(notice) in ripe]

    async def _drop_oldest(self, name: str) -> None:
        waiting = self._waiting.get(name, [])
        if (many := len(waiting) - MOST_WAITING) > 0:
            await self._done(name, [number for number, _ in waiting[:many]])
            self._dropped[name] = self._dropped.get(name, 0) + many
            self._count("dropped", many)

    async def _done(self, name: str, ids: Sequence[int]) -> None:
        await self._store.told(ids)
        gone = set(ids)
        left = [one for one in self._waiting.get(name, ()) if one[0] not in gone]
        if left:
            self._waiting[name] = left
        else:
            self._waiting.pop(name, None)

    async def _succeeded(self, name: str, told: int) -> None:
        self._count("told", told)
        self._dropped.pop(name, None)
        self._tried.pop(name, None)
        self._not_before.pop(name, None)
        if self._failures.pop(name, 0):
            await self._note("ChannelRecovered", "info", name, f"Channel {name} takes messages again.")

    async def _failed(self, name: str, error: CloudLunacyError) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        self._count("failed", 1)
        self._not_before[name] = self._clock() + pause(failures)
        log.warning("a channel cannot be told", channel=name, failures=failures, error=str(error))
        if failures == 1:
            text = f"Channel {name} cannot be told, and is tried again: {error}"
            await self._note("ChannelFailed", "warning", name, text)

    async def _note(self, kind: str, severity: str, name: str, text: str) -> None:
        try:
            event = Event(self._clock(), kind, "warning" if severity == "warning" else "info", f"channel/{name}", text)
            await self._timeline.append(event)
        except CloudLunacyError as error:
            log.warning("what became of a channel is not in the timeline", channel=name, error=str(error))


def _to_wait(notice: Notice) -> WaitingNotice:
    return WaitingNotice(notice.channel, notice_to(notice))
