"""What changes, told to whoever listens: pages in a browser, programs, other parts of this process.

A change has a topic and a name, such as ``agent`` and ``vps-1``; a later one of the same name takes the place of the
earlier. Of each topic the newest names are kept, once for all listeners, each of whom only knows how far it has read.
So a listener costs nothing while it reads nothing, and one that was away takes up where it stopped. Who comes too late
for that is told that it has missed something of a topic, and looks at everything of it again.

What a change says is written when somebody first reads it: a record that changes five thousand times in a second is
written as often as it is read.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from reconciler.errors import Refused

Topic = Literal["revision", "agent", "object", "timeline", "front"]
"""A convergence record · presence, reports or workloads of an agent · an object in service, or what is wrong with a
file, by its path · an event of the timeline, by its id · what a front has loaded."""
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
KEPT: Final = 1024
"""Names of each topic."""
MAX_LISTENERS: Final = 256
MAX_OF_ONE: Final = 32
"""Listeners of one caller; the rest is for others."""
LONGEST_PLACE: Final = 64
_PLACE: Final = re.compile(r"([0-9a-f]{8})-(0|[1-9][0-9]{0,17})")

Text = Callable[[], str]
"""Makes JSON."""


@dataclass(slots=True)
class Change:
    """``id`` grows from change to change."""

    id: int
    topic: Topic
    name: str
    _text: Text | str

    @property
    def text(self) -> str:
        """JSON of what a listener is told: an object with the ``name``, or the whole record."""
        if not isinstance(self._text, str):
            self._text = self._text()
        return self._text


class Taken(NamedTuple):
    """What a listener had not read yet. ``place``: where to go on from, also after a while, with the same feed."""

    changes: tuple[Change, ...]
    missed: tuple[Topic, ...]
    """Topics of which changes are gone that nobody took."""
    place: str


class Feed:
    """All calls come from the event loop's thread."""

    def __init__(self, *, kept: int = KEPT, most: int = MAX_LISTENERS) -> None:
        self._kept = kept
        self._most = most
        self._epoch = secrets.token_hex(4)
        """Ids of another process mean nothing here."""
        self._id = 0
        self._changes: dict[Topic, OrderedDict[str, Change]] = {topic: OrderedDict() for topic in TOPICS}
        self._forgotten = dict.fromkeys(TOPICS, 0)
        """Topic → id of the newest change that made room for others."""
        self._listeners: set[Listener] = set()
        self._bell = asyncio.Event()
        self.ended = False

    def tell(self, topic: Topic, name: str, text: Text | None = None) -> None:
        """Say that something changed. ``text`` is not called where nobody reads it, or a later change comes first."""
        self._id += 1
        changes = self._changes[topic]
        changes[name] = Change(self._id, topic, name, text or json.dumps({"name": name}))
        changes.move_to_end(name)
        if len(changes) > self._kept:
            self._forgotten[topic] = changes.popitem(last=False)[1].id
        if self._listeners:
            self._ring()

    @contextmanager
    def listen(self, topics: Collection[Topic] = TOPICS, place: str = "", who: str = "") -> Iterator[Listener]:
        """Listen from now on, or from the ``place`` that one has come to before. ``who``: empty for our own parts.

        Raises:
            Refused: 503 ``busy``; 429 ``too-many-requests``, where one caller listens too often.
        """
        if len(self._listeners) >= self._most:
            raise Refused("Too many listen already.", status=503, code="busy", retry_after=10.0)
        if who and sum(one.who == who for one in self._listeners) >= MAX_OF_ONE:
            text = f"{who} listens {MAX_OF_ONE} times already."
            raise Refused(text, status=429, code="too-many-requests", hint="Close some pages.", retry_after=10.0)
        listener = Listener(self, topics, self._read_until(place), who)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def is_heard(self, topic: Topic) -> bool:
        """Say whether anybody listens to it: what has to be looked up to be told need not be, else."""
        return any(topic in listener.topics for listener in self._listeners)

    def close(self) -> None:
        """Send every listener home."""
        self.ended = True
        self._ring()

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    def _read_until(self, place: str) -> int:
        """Return the id that somebody has read everything up to; -1 where that was in another process's life."""
        if not place:
            return self._id
        found = _PLACE.fullmatch(place)
        if found is None or found[1] != self._epoch or int(found[2]) > self._id:
            return -1
        return int(found[2])

    def _since(self, last: int, topics: Collection[Topic]) -> Taken:
        found: list[Change] = []
        for topic in topics:
            for change in reversed(self._changes[topic].values()):
                if change.id <= last:
                    break
                found.append(change)
        missed = tuple(topic for topic in TOPICS if topic in topics and self._forgotten[topic] > last)
        if last < 0:
            missed = tuple(topic for topic in TOPICS if topic in topics)
        return Taken(tuple(sorted(found, key=_id_of)), missed, f"{self._epoch}-{self._id}")


class Listener:
    """Reads a feed at its own pace; one task at a time."""

    def __init__(self, feed: Feed, topics: Collection[Topic], read: int, who: str = "") -> None:
        self._feed = feed
        self.who = who
        self._read = read
        self.topics = frozenset(topics)

    async def take(self, seconds: float | None = None) -> Taken | None:
        """Return what is new, as soon as there is something, or nothing new after that time; None once the feed ends.

        Of several changes of one name it is the last.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._feed.ended and not self._has_news():
                    await self._feed._bell.wait()  # noqa: SLF001 - two halves of one thing
        if self._feed.ended:
            return None
        taken = self._feed._since(self._read, self.topics)  # noqa: SLF001
        self._read = self._feed._id  # noqa: SLF001
        return taken

    def _has_news(self) -> bool:
        newest = (next(reversed(self._feed._changes[topic].values()), None) for topic in self.topics)  # noqa: SLF001
        return self._read < 0 or any(one is not None and one.id > self._read for one in newest)


def _id_of(change: Change) -> int:
    return change.id
