"""One push after another: what is known of the branch from the last one, and what an earlier process left there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.desired.edits import Committed
from reconciler.errors import Transient
from reconciler.git.mirror import Mirror
from reconciler.git.write_back import WriteBack
from tests.integration.git.writing import AGENTS, open_mirror, request, run, write_back
from tests.support.git_repos import EPOCH, BareRepo


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "srv" / "remote.git")
    repo.commit({"agents/old.yaml": "old"}, message="Start")
    return repo


def operations(mirror: Mirror) -> list[str]:
    """Note git's operations from here on."""
    seen: list[str] = []
    mirror.keeper.runner.on_finished = lambda operation, _, __: seen.append(operation)
    return seen


def test_next_push_does_not_ask_for_the_tip(tmp_path: Path, remote: BareRepo) -> None:
    """Right after a push the branch is taken to be where it left it; later the remote is asked."""
    mirror, now = open_mirror(tmp_path, remote.path), [100.0]
    writer = WriteBack(mirror, allowed=AGENTS, monotonic=lambda: now[0])

    async def scenario() -> None:
        await writer.push([request("a")], branch="main")
        seen = operations(mirror)
        await writer.push([request("b")], branch="main")
        assert seen == ["ls-tree", "fast-import", "push"]
        now[0] += 6.0
        await writer.push([request("c")], branch="main")
        assert seen[3] == "ls-remote"
        assert remote.log() == ["Enrol c", "Enrol b", "Enrol a", "Start"]

    run(mirror, scenario)


def test_tip_that_has_moved_since_the_last_push_is_asked_for(tmp_path: Path, remote: BareRepo) -> None:
    """When others pushed, or took back, what our last push left, the next one is built on what they made of it."""
    mirror = open_mirror(tmp_path, remote.path)
    writer = write_back(mirror, tries=2)

    async def scenario() -> None:
        first = await writer.push([request("a")], branch="main")
        remote.commit({"x": "x"}, message="Theirs")
        await writer.push([request("b")], branch="main")
        assert remote.log() == ["Enrol b", "Theirs", "Enrol a", "Start"]
        remote.set_tip(first.tip)
        await writer.push([request("c")], branch="main")
        assert remote.log() == ["Enrol c", "Enrol a", "Start"]

    run(mirror, scenario)


def test_nothing_to_push_is_said_of_the_tip_that_the_remote_has(tmp_path: Path, remote: BareRepo) -> None:
    """A request whose content was there a moment ago, and was taken back since, is written again."""
    mirror, start = open_mirror(tmp_path, remote.path), remote.tip() or ""
    writer = write_back(mirror)

    async def scenario() -> None:
        await writer.push([request("a")], branch="main")
        remote.set_tip(start)
        pushed = await writer.push([request("a")], branch="main")
        assert pushed.outcomes["a"] == Committed(remote.tip() or "")
        assert remote.log() == ["Enrol a", "Start"]

    run(mirror, scenario)


def test_repeated_request_is_done_even_if_somebody_took_it_back(tmp_path: Path, remote: BareRepo) -> None:
    """What an earlier push brought is found in the history, also below commits of slow clocks, and stays done."""
    mirror = open_mirror(tmp_path, remote.path)
    writer = write_back(mirror)
    accepted = datetime.fromtimestamp(EPOCH, UTC) + timedelta(days=20)
    batch = [replace(request(name), time=accepted) for name in ("a", "aa", "b")]

    async def scenario() -> None:
        first = await writer.push(batch[:2], branch="main")
        remote.commit({"agents/a.yaml": None}, message="Revoke a")
        again = await writer.push(batch, branch="main", repeated={"a", "aa", "b"})
        assert {name: again.outcomes[name] for name in ("a", "aa")} == dict(first.outcomes)
        assert again.outcomes["b"] == Committed(remote.tip() or "")
        assert remote.log() == ["Enrol b", "Revoke a", "Enrol aa", "Enrol a", "Start"]

    run(mirror, scenario)


def test_trailer_in_the_text_of_another_commit_proves_nothing(tmp_path: Path, remote: BareRepo) -> None:
    """Only a trailer with exactly the request's id counts, not a mention of it."""
    mirror = open_mirror(tmp_path, remote.path)
    for mention in ("See\n\nCloudLunacy-Request: a\n\nabove.", "Other\n\nCloudLunacy-Request: a2"):
        remote.commit({"x": mention}, message=mention)

    async def scenario() -> None:
        pushed = await write_back(mirror).push([request("a")], branch="main", repeated={"a"})
        assert pushed.outcomes["a"] == Committed(remote.tip() or "")
        assert remote.show("agents/a.yaml") == "name: a"

    run(mirror, scenario)


def test_commits_are_on_record_before_anybody_can_see_them(tmp_path: Path, remote: BareRepo) -> None:
    """What is on record is what was pushed, each with its file; where it cannot be recorded, nothing is pushed."""
    mirror, recorded, failures = (
        open_mirror(tmp_path, remote.path),
        dict[str, tuple[str, ...]](),
        [Transient("disk full")],
    )

    async def record(commits: Mapping[str, tuple[str, ...]]) -> None:
        assert remote.log() == ["Start"]
        if failures:
            raise failures.pop()
        recorded.update(commits)

    writer = WriteBack(mirror, allowed=AGENTS, record=record)

    async def scenario() -> None:
        with pytest.raises(Transient, match="disk full"):
            await writer.push([request("a")], branch="main")
        assert remote.log() == ["Start"]
        pushed = await writer.push([request("a"), request("b")], branch="main")
        a, b = pushed.outcomes["a"], pushed.outcomes["b"]
        assert isinstance(a, Committed)
        assert isinstance(b, Committed)
        assert recorded == {a.revision: ("agents/a.yaml",), b.revision: ("agents/b.yaml",)}

    run(mirror, scenario)
