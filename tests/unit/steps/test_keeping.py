"""What a start goes on from: the store, its copy in the outbox's file, or what a front's file names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.snapshot import REGULAR_FILE, Change, File, Snapshot, changes_between
from reconciler.errors import Rejected, Transient
from reconciler.git.commits import CommitInfo
from reconciler.steps.keeping import Keeper, Resumed
from reconciler.steps.passing import Published
from reconciler.steps.reading import DocumentReader
from reconciler.steps.rebuilding import LOOKED_BACK, Rebuilding
from reconciler.store.sqlite import SQLiteStore
from reconciler.traefik.publish import Named
from schemas.objects import ObjectKey
from tests.support import documents

Contents = Mapping[str, bytes | None]
START: Contents = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": documents.agent("vps-1"),
    "routes/shop/web.yaml": documents.route("web", f"web.app.{documents.DOMAIN}"),
}
BROKEN: Contents = {"routes/shop/web.yaml": b"spec: ["}
WEB = ObjectKey("Route", "shop", "web")
GONE = Transient("no longer has the commit", reason="RemoteMoved")


class History:
    """A remote with one branch, and the mirror of it. ``here``: commits that the mirror has."""

    def __init__(self) -> None:
        self.head = ""
        self.parents: dict[str, str] = {}
        self.files: dict[str, dict[str, File]] = {}
        self.blobs: dict[str, bytes] = {}
        self.here: set[str] = set()
        self.refused: dict[str, Exception] = {}

    def push(self, files: Contents, *, onto: str | None = None) -> str:
        """Commit on top of the branch, or of ``onto``; return the revision."""
        parent = self.head if onto is None else onto
        self.head = f"{len(self.files) + 1:040x}"
        self.parents[self.head] = parent
        tree = dict(self.files.get(parent, {}))
        for path, content in files.items():
            tree.pop(path, None)
            if content is not None:
                blob = documents.blob_of(content)
                self.blobs[blob] = content
                tree[path] = File(REGULAR_FILE, blob)
        self.files[self.head] = tree
        return self.head

    def line(self, revision: str) -> list[str]:
        line = []
        while revision:
            line.append(revision)
            revision = self.parents[revision]
        return line

    async def ask_head(self) -> str:
        return self.head

    async def fetch(self, revision: str) -> None:
        if revision in self.refused:
            raise self.refused[revision]
        self.here.update(self.line(revision))

    async def descends(self, revision: str, ancestor: str) -> bool:
        return ancestor in self.line(revision)

    async def snapshot(self, revision: str) -> Snapshot:
        if revision not in self.here:
            raise Rejected("not here", reason="UnknownRevision")
        return Snapshot(revision, self.files[revision])

    async def changes(self, old: str, new: str) -> tuple[Change, ...]:
        return changes_between(self.files[old], self.files[new])

    async def commit(self, revision: str) -> CommitInfo:
        parents = tuple(filter(None, [self.parents[revision]]))
        return CommitInfo(revision, parents, "Ada", "ada@example.org", "Change", datetime.now(UTC), {})

    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> dict[str, bytes]:
        return {blob: self.blobs[blob] for blob in blobs}

    # the parse cache, which knows nothing
    def load_tree(self) -> list[Any]:
        return []

    def lookup(self, pairs: object) -> dict[Any, bytes]:
        return {}


@pytest.fixture
def history() -> History:
    return History()


def with_keeper(
    folder: Path, history: History, scenario: Callable[[Keeper, Rebuilding], Awaitable[Resumed | None]]
) -> Resumed | None:
    """Run a scenario on the real store, and on ``history``."""

    async def main() -> Resumed | None:
        store = await SQLiteStore.open(folder)
        parts: Any = history
        try:
            reader = DocumentReader(parts, parts, folder / "parsing")
            rebuilding = Rebuilding(parts, history.ask_head, reader, lambda _: documents.HTPASSWD)
            return await scenario(Keeper(store, reader, rebuilding), rebuilding)
        finally:
            await store.close()

    return asyncio.run(main())


def publish(folder: Path, history: History, *revisions: str) -> None:
    """Publish the revisions in turn, as generations 1, 2, …"""

    async def scenario(keeper: Keeper, rebuilding: Rebuilding) -> None:
        published = Published()
        for revision in revisions:
            await history.fetch(revision)
            state = await rebuilding._after(published.state, revision)
            published = Published(await keeper.next_generation(), revision, state)
            await keeper.save(published, 1.0, revision)

    with_keeper(folder, history, scenario)


def load(folder: Path, history: History, named: Named | None = None) -> Resumed:
    async def scenario(keeper: Keeper, _: Rebuilding) -> Resumed:
        return await keeper.load(named)

    found = with_keeper(folder, history, scenario)
    assert found is not None
    return found


def lose(folder: Path, *names: str) -> None:
    for name in names:
        for path in folder.glob(f"{name}*"):
            path.unlink()


BOTH = ("state.db", "outbox.db")


def test_without_a_publication_there_is_nothing_to_go_on_from(tmp_path: Path, history: History) -> None:
    """The first start ever finds nothing, and nothing was lost."""
    found = load(tmp_path, history)
    assert (found.published.revision, found.is_recovered) == ("", False)


def test_a_whole_store_is_believed_more_than_a_file(tmp_path: Path, history: History) -> None:
    """What a front's file says does not count while the store knows better, whatever number it claims."""
    first = history.push(START)
    publish(tmp_path, history, first)
    second = history.push({"routes/shop/web.yaml": None})
    found = load(tmp_path, history, Named(99, second))
    assert (found.published.generation, found.published.revision, found.is_recovered) == (1, first, False)


def test_the_copy_brings_back_what_no_revision_holds(tmp_path: Path, history: History) -> None:
    """With state.db lost, a last good version is there, as compiled when the agent that it names was still there."""
    moved = documents.route("web", f"web.app.{documents.DOMAIN}", backends=[{"agent": "vps-2", "port": 9000}])
    first = history.push({**START, "agents/vps-2.yaml": documents.agent("vps-2", address="10.0.0.2"), WEB.path: moved})
    second = history.push({"agents/vps-2.yaml": None})
    publish(tmp_path, history, first, second)
    lose(tmp_path, "state.db")
    published = load(tmp_path, history).published
    assert (published.revision, published.confirmed) == (second, False)
    assert "10.0.0.2:9000" in str(published.state.compiled[WEB])
    assert list(published.agents) == ["vps-1"]


def test_what_was_lost_gets_a_generation_that_nobody_has_seen(tmp_path: Path, history: History) -> None:
    """Agents and fronts refuse what is not newer, so the recovered state is newer than all that was given out."""
    first = history.push(START)
    publish(tmp_path, history, first)
    for lost in (BOTH[:1], BOTH):
        lose(tmp_path, *lost)
        found = load(tmp_path, history, Named(41, first))
        assert found.is_recovered
        assert found.published.generation > 41
        assert {at for at, _ in found.published.agents.values()} == {found.published.generation}


def test_a_newer_file_goes_on_from_an_older_copy(tmp_path: Path, history: History) -> None:
    """An outbox from a backup knows an older revision; the file names the newer, the copy knows the last good one."""
    first = history.push(START)
    second = history.push(BROKEN)
    publish(tmp_path, history, first, second)
    lose(tmp_path, "state.db")
    for _ in range(LOOKED_BACK + 1):
        history.push({"note.txt": f"{len(history.files)}".encode()})
    third = history.push({"agents/vps-2.yaml": documents.agent("vps-2")})
    published = load(tmp_path, history, Named(5, third)).published
    assert published.revision == third
    assert WEB in published.state.served
    assert sorted(published.agents) == ["vps-1", "vps-2"]


@pytest.mark.parametrize(("between", "is_served"), [(0, True), (LOOKED_BACK - 1, True), (LOOKED_BACK, False)])
def test_a_last_good_version_is_looked_for_in_history(
    tmp_path: Path, history: History, between: int, is_served: bool
) -> None:
    """With nothing but a front's file left, it is found within some commits; beyond, only that object is missing."""
    history.push(START)
    for number in range(between):
        history.push({**BROKEN, "note.txt": b"%d" % number})
    last = history.push({**BROKEN, "note.txt": b"last"})
    published = load(tmp_path, history, Named(7, last)).published
    assert (published.revision, WEB in published.state.served) == (last, is_served)
    assert WEB.path in published.state.quarantined
    assert published.state.fleet is not None


def test_a_fleet_file_that_is_broken_now_is_looked_for_too(tmp_path: Path, history: History) -> None:
    """A quarantined fleet file has its last good version in history as well, and without it nothing could be judged."""
    history.push(START)
    last = history.push({"fleet.yaml": b"kind: ["})
    assert load(tmp_path, history, Named(7, last)).published.state.fleet is not None


def test_a_file_cannot_choose_what_goes_live(tmp_path: Path, history: History) -> None:
    """A revision that is no part of the branch bars the way to another history, and is not itself brought in."""
    first = history.push(START)
    proposed = history.push({"routes/shop/evil.yaml": START["routes/shop/web.yaml"]})
    history.push({"note.txt": b"x"}, onto=first)
    found = load(tmp_path, history, Named(7, proposed))
    assert (found.published.generation, found.published.revision) == (7, proposed)
    assert (dict(found.published.state.served), found.is_recovered) == ({}, False)


def test_a_revision_that_the_remote_dropped_bars_the_way(tmp_path: Path, history: History) -> None:
    """With the mirror lost too, and the commit gone from the remote, its id is all that is left, and counts until the
    branch holds the commit again."""
    first = history.push(START)
    publish(tmp_path, history, first)
    history.here.clear()
    history.refused[first] = GONE
    history.push(START, onto="")
    found = load(tmp_path, history)
    assert (found.published.revision, found.published.state.fleet, found.published.is_lost) == (first, None, True)
    history.push({"note.txt": b"x"}, onto=first)
    found = load(tmp_path, history)
    assert (found.published.revision, found.published.is_lost, WEB in found.published.state.served) == (
        first,
        False,
        True,
    )


def test_a_revision_that_is_not_handed_out_alone_comes_with_the_branch(tmp_path: Path, history: History) -> None:
    """A remote that gives nothing but its branches still has the published commit in the history of the newest."""
    first = history.push(START)
    publish(tmp_path, history, first)
    history.here.clear()
    history.refused[first] = GONE
    history.push({"note.txt": b"x"})
    assert WEB in load(tmp_path, history).published.state.served


@pytest.mark.parametrize("lost", [(), ("state.db",), BOTH])
def test_a_remote_that_is_away_is_waited_for(tmp_path: Path, history: History, lost: tuple[str, ...]) -> None:
    """What is in service cannot be found out just now: that is said, and nothing is taken for granted."""
    first = history.push(START)
    publish(tmp_path, history, first)
    lose(tmp_path, *lost)
    history.here.clear()
    history.refused[first] = Transient("away", reason="RemoteUnavailable")
    with pytest.raises(Transient, match="away"):
        load(tmp_path, history, Named(1, first))


def test_a_data_directory_that_cannot_be_written_is_waited_for(tmp_path: Path, history: History) -> None:
    """Files are parsed only once it is on disk which they are; a disk that refuses that is tried again."""
    first = history.push(START)
    publish(tmp_path, history, first)
    (tmp_path / "parsing").mkdir()
    with pytest.raises(Transient, match=r"parsing cannot be written: Is a directory\."):
        load(tmp_path, history)
