"""Each status once: whatever is lost, killed or refused on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Broken, Rejected, Transient
from reconciler.forges.forge import CommitStatus, Forge
from reconciler.forges.patience import Patience
from reconciler.forges.posting import AT_ONCE, LONGEST_GAP, MOST_SHOWN, MOST_WANTED, Statuses, Timing, Wanted
from reconciler.store.forges import Shown

STATUSES = [CommitStatus("pending", "a", "u"), CommitStatus("success", "b", "u"), CommitStatus("failure", "c", "u")]
REVISIONS = ["1" * 40, "2" * 40]


class MemoryStore:
    """A store that outlives the process which uses it."""

    def __init__(self) -> None:
        self.rows: dict[str, Shown] = {}

    async def shown(self, limit: int) -> Sequence[Shown]:
        return list(reversed(self.rows.values()))[:limit]

    async def save_shown(self, shown: Shown, *, keep: int) -> None:
        self.rows.pop(shown.revision, None)
        self.rows[shown.revision] = shown


class ModelForge:
    """Shows statuses; ``plan`` says what becomes of the next posts: taken, answer lost, refused or away."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, CommitStatus]] = []
        self.plan: list[str] = []
        self.asked = 0

    def newest(self, revision: str) -> CommitStatus | None:
        return next((status for name, status in reversed(self.posts) if name == revision), None)

    async def has_status(self, revision: str, status: CommitStatus) -> bool:
        self.asked += 1
        return self.newest(revision) == status

    async def set_status(self, revision: str, status: CommitStatus) -> None:
        fate = self.plan.pop(0) if self.plan else "taken"
        if fate in ("taken", "lost", "killed"):
            self.posts.append((revision, status))
        if fate == "killed":
            raise asyncio.CancelledError
        if fate == "lost" or fate == "away":
            raise Transient("no answer", reason="ForgeUnavailable")
        if fate == "refused":
            raise Rejected("no", reason="ForgeRefused")


later = itertools.count(0.0, 2 * LONGEST_GAP).__next__
"""A clock by which everything is due the next time that somebody looks."""


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


def statuses(forge: ModelForge, store: MemoryStore) -> Statuses:
    as_forge: Forge = forge  # type: ignore[assignment]
    return Statuses(as_forge, store, Patience(), timing=Timing(0, 0), monotonic=later, sleep=no_pause)


async def live(forge: ModelForge, store: MemoryStore, wanted: Iterable[tuple[str, CommitStatus]]) -> None:
    """One process: takes up, posts until nothing is left or it is killed."""
    one = statuses(forge, store)
    await one.load()
    for revision, status in wanted:
        one.want(revision, status)
        task = asyncio.create_task(one.run())
        while len(one._wanted) and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


wants = st.tuples(st.sampled_from(REVISIONS), st.sampled_from(STATUSES))
fates = st.sampled_from(["taken", "lost", "away", "killed", "taken"])


@given(lives=st.lists(st.lists(wants, max_size=6), min_size=1, max_size=4), plan=st.lists(fates, max_size=12))
def test_no_status_follows_itself(lives: list[list[tuple[str, CommitStatus]]], plan: list[str]) -> None:
    """Whatever is lost or killed, a forge never gets the status that it shows, and in the end shows the last one."""

    async def run() -> ModelForge:
        forge, store = ModelForge(), MemoryStore()
        forge.plan = plan
        for wanted in lives:
            await live(forge, store, wanted)
        forge.plan = []
        last = {revision: status for one in lives for revision, status in one}
        await live(forge, store, last.items())
        for revision, status in last.items():
            assert forge.newest(revision) == status
        return forge

    posts = asyncio.run(run()).posts
    for revision in REVISIONS:
        own = [status for name, status in posts if name == revision]
        assert all(first != second for first, second in itertools.pairwise(own))


def test_what_is_known_costs_no_request() -> None:
    """After a restart the store knows: the forge is not even asked."""

    async def run() -> tuple[int, int]:
        forge, store = ModelForge(), MemoryStore()
        await live(forge, store, [(REVISIONS[0], STATUSES[1])])
        asked = forge.asked
        await live(forge, store, [(REVISIONS[0], STATUSES[1])])
        return len(forge.posts), forge.asked - asked

    assert asyncio.run(run()) == (1, 0)


def test_what_is_refused_is_given_up() -> None:
    """It is no reason to try for ever, and the next status of the commit is posted."""

    async def run() -> list[tuple[str, CommitStatus]]:
        forge, store = ModelForge(), MemoryStore()
        forge.plan = ["refused"]
        await live(forge, store, [(REVISIONS[0], STATUSES[0]), (REVISIONS[0], STATUSES[1])])
        return forge.posts

    assert asyncio.run(run()) == [(REVISIONS[0], STATUSES[1])]


def test_what_is_remembered_is_bounded() -> None:
    """A thousand commits in an outage take no more room than a hundred; the newest are kept, and come first."""
    wanted = Wanted()
    for number in range(2 * MOST_SHOWN):
        wanted.want(str(number), STATUSES[0])
    assert len(wanted) == MOST_WANTED
    assert wanted.next(0.0) == (str(2 * MOST_SHOWN - 1), STATUSES[0])
    for number in range(2 * MOST_SHOWN):
        wanted.shows(str(number), STATUSES[0])
    assert (wanted.is_known("0"), wanted.is_known(str(2 * MOST_SHOWN - 1)), len(wanted)) == (False, True, 0)


def test_a_change_of_mind_posts_nothing() -> None:
    """What is shown, and wanted again before anything else was posted, is left alone."""
    wanted = Wanted()
    wanted.shows("1", STATUSES[0])
    wanted.want("1", STATUSES[1])
    wanted.want("1", STATUSES[0])
    assert wanted.next(0.0) is None


@pytest.mark.parametrize(("error", "told"), [(Transient("away"), 5), (Broken("the token is wrong"), 1)])
def test_a_person_hears_of_trouble_once_and_of_its_end(error: Exception, told: int) -> None:
    """An outage is told when it lasts, what only a person can mend at once; neither is told again."""

    async def run() -> list[str]:
        heard: list[str] = []
        pauses: list[float] = []

        async def tell(kind: str, _: str) -> None:
            heard.append(f"{kind} after {len(pauses) + 1}")

        patience = Patience(tell, jitter=lambda least, most: most)
        for _ in range(11):
            pauses += [await patience.failed(error)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == 300.0
        await patience.succeeded()
        await patience.succeeded()
        return heard

    assert asyncio.run(run()) == [f"ForgeUnavailable after {told}", "ForgeAvailable after 12"]


def test_no_sooner_than_the_forge_asks() -> None:
    """Retry-After is the least."""
    assert asyncio.run(Patience().failed(Transient("slow down", retry_after=1234.0))) == 1234.0


def test_a_row_says_all_of_a_status() -> None:
    """Nothing of it is lost between two processes."""
    assert {field.name for field in dataclasses.fields(CommitStatus)} < {
        field.name for field in dataclasses.fields(Shown)
    }


def test_who_changes_all_the_time_is_posted_for_more_and_more_rarely() -> None:
    """In a day of flapping there are less than 200 posts, and the last word is posted in the end."""
    wanted, posts = Wanted(), 0
    for second in range(86_400):
        status = STATUSES[second % 2]
        wanted.want("1", status)
        if wanted.next(float(second)) is not None:
            wanted.posts("1", float(second))
            wanted.shows("1", status)
            posts += 1
    assert AT_ONCE < posts < 200
    wanted.want("1", STATUSES[2])
    assert wanted.next(86_400 + LONGEST_GAP) == ("1", STATUSES[2])
    assert 0 < (wanted.due_in(86_400.0) or 0) <= LONGEST_GAP
