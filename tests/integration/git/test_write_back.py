"""Commits of our own on a real remote: nothing lost, nothing overwritten, nothing written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.desired.edits import AlreadyThere, CommitRequest, Committed, Conflicted, EditConflict
from reconciler.errors import Rejected, Transient
from reconciler.git.mirror import Mirror
from reconciler.git.write_back import WriteBack
from tests.integration.git.writing import AGENTS, TIME, appends, open_mirror, request, run, write_back, writes
from tests.support.git_repos import BareRepo, git, wait_until_ended
from tests.support.git_server import git_server


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "srv" / "remote.git")
    repo.commit(
        {"fleet.yaml": "fleet", "agents/old.yaml": "old", "run": "#!"}, modes={"run": "100755"}, message="Start"
    )
    return repo


def test_one_commit_for_each_request(tmp_path: Path, remote: BareRepo) -> None:
    """Fifty requests become fifty commits in their order; all else of the tree stays as it was."""
    mirror = open_mirror(tmp_path, remote.path)
    before = git("-C", remote.path, "ls-tree", "-r", "main")

    async def scenario() -> None:
        names = [f"vps-{number}" for number in range(50)]
        pushed = await write_back(mirror).push([request(name) for name in names], branch="main")
        assert pushed.tip == remote.tip()
        ids = [outcome.revision for outcome in pushed.outcomes.values() if isinstance(outcome, Committed)]
        assert list(reversed(ids)) == git("-C", remote.path, "log", "--format=%H", "-50", "main").split("\n")
        assert list(reversed(remote.log())) == ["Start", *(f"Enrol {name}" for name in names)]
        after = git("-C", remote.path, "ls-tree", "-r", "main").split("\n")
        assert set(before.split("\n")) <= set(after)
        assert len(after) == 53
        assert await mirror.head() == pushed.tip
        await mirror.fetch(pushed.tip)

    run(mirror, scenario)
    git("-C", remote.path, "fsck", "--strict")


def test_commit_says_who_and_why(tmp_path: Path, remote: BareRepo) -> None:
    """Author, committer, time, message and trailers are the request's, and no value can forge another line."""
    mirror = open_mirror(tmp_path, remote.path)
    evil = CommitRequest(
        id="r1",
        path="agents/a.yaml",
        edit=writes(b"x"),
        subject="Enrol a\n\nSigned-off-by: boss",
        body="Because.\x1b[31m",
        author_name="Eve> <root@x>\nparent 0",
        author_email="eve@x\n\nfrom main",
        time=TIME,
        trailers={"Reason": "a\nApproved-By: boss", "Bad key": "x"},
    )

    async def scenario() -> None:
        pushed = await write_back(mirror).push([evil], branch="main")
        info = await mirror.commit(pushed.tip)
        assert info.time == TIME
        assert info.trailers == {"CloudLunacy-Request": "r1", "Reason": "a Approved-By: boss"}

    run(mirror, scenario)
    shown = git("-C", remote.path, "log", "-1", "--format=%an|%ae|%cn|%ce|%at|%B", "main").rstrip()
    assert shown == (
        f"Eve root@x parent 0|eve@x from main|CloudLunacy|cloudlunacy@localhost|{int(TIME.timestamp())}|"
        "Enrol a Signed-off-by: boss\n\nBecause. [31m\n\nCloudLunacy-Request: r1\nReason: a Approved-By: boss"
    )


def test_edits_of_one_file_see_each_other(tmp_path: Path, remote: BareRepo) -> None:
    """Edits in one push run in order, each on what the one before left; a deletion too."""
    mirror = open_mirror(tmp_path, remote.path)
    path = "agents/log.yaml"

    async def scenario() -> None:
        batch = [
            request("a", path, appends(b"a\n")),
            request("b", path, appends(b"b\n")),
            request("c", path, appends(b"a\n")),
            request("d", "agents/old.yaml", writes(None)),
            request("e", "agents/old.yaml", writes(None)),
        ]
        pushed = await write_back(mirror).push(batch, branch="main")
        assert remote.show(path) == "a\nb"
        assert pushed.outcomes["c"] == AlreadyThere(pushed.outcomes["b"].revision)  # type: ignore[union-attr]
        assert pushed.outcomes["d"] == Committed(pushed.tip)
        assert pushed.outcomes["e"] == AlreadyThere(pushed.tip)
        assert "agents/old.yaml" not in git("-C", remote.path, "ls-tree", "-r", "--name-only", "main").split("\n")

    run(mirror, scenario)


def test_same_requests_again_write_nothing(tmp_path: Path, remote: BareRepo) -> None:
    """After a crash between push and note the same requests find their content there."""
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        batch = [request("a"), request("b")]
        first = await write_back(mirror).push(batch, branch="main")
        again = await write_back(mirror).push(batch, branch="main")
        assert again.tip == first.tip == remote.tip()
        assert set(again.outcomes.values()) == {AlreadyThere(first.tip)}

    run(mirror, scenario)


def test_conflict_holds_up_nobody(tmp_path: Path, remote: BareRepo) -> None:
    """A request that its edit refuses is answered; the others of the push are written."""
    mirror = open_mirror(tmp_path, remote.path)

    def refuse(before: bytes | None) -> bytes:
        raise EditConflict("taken by another key")

    async def scenario() -> None:
        batch = [request("a"), request("b", "agents/old.yaml", refuse), request("c")]
        pushed = await write_back(mirror).push(batch, branch="main")
        assert pushed.outcomes["b"] == Conflicted("taken by another key")
        assert remote.log() == ["Enrol c", "Enrol a", "Start"]

    run(mirror, scenario)


@pytest.mark.parametrize(
    "path",
    [
        "fleet.yaml",
        "agents/../fleet.yaml",
        "agents/a/b.yaml",
        "/agents/a.yaml",
        "agents/A.yaml",
        "agents/a.yaml\nD fleet.yaml",
    ],
)
def test_only_allowed_files_are_written(tmp_path: Path, remote: BareRepo, path: str) -> None:
    """A path outside the list conflicts, and the remote is not touched."""
    mirror = open_mirror(tmp_path, remote.path)
    tip = remote.tip()

    async def scenario() -> None:
        pushed = await write_back(mirror).push([request("a", path)], branch="main")
        assert isinstance(pushed.outcomes["a"], Conflicted)
        assert remote.tip() == tip

    run(mirror, scenario)


@pytest.mark.parametrize("mode", ["120000", "100755", "160000"])
def test_what_is_no_regular_file_is_left_alone(tmp_path: Path, remote: BareRepo, mode: str) -> None:
    """A symlink, an executable or a submodule at the path, or a symlink for the folder, is not replaced."""
    content = "0123456789abcdef0123456789abcdef01234567"
    remote.commit({"agents/link.yaml": content}, modes={"agents/link.yaml": mode})
    remote.commit(
        {"agents/old.yaml": None, "agents/link.yaml": None, "agents": content}, modes={"agents": mode}, branch="flat"
    )
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        pushed = await write_back(mirror).push([request("a", "agents/link.yaml")], branch="main")
        assert isinstance(pushed.outcomes["a"], Conflicted)
        flat = await write_back(mirror).push([request("a")], branch="flat")
        assert isinstance(flat.outcomes["a"], Conflicted)

    run(mirror, scenario)


def test_new_branch_starts_at_the_base(tmp_path: Path, remote: BareRepo) -> None:
    """A branch for a pull request is made from the tip of its base, which stays; a second push extends it."""
    mirror = open_mirror(tmp_path, remote.path)
    base = remote.tip()

    async def scenario() -> None:
        first = await write_back(mirror).push([request("a")], branch="enrol/a", base="main")
        assert (remote.tip(), remote.tip("enrol/a")) == (base, first.tip)
        assert (await mirror.commit(first.tip)).parents == (base,)
        second = await write_back(mirror).push([request("b")], branch="enrol/a", base="main")
        assert (await mirror.commit(second.tip)).parents == (first.tip,)
        for branch in ("nowhere", "-x", "a..b", "a b", "x.lock", "", "refs/../x"):
            with pytest.raises(Rejected) as caught:
                await write_back(mirror).push([request("c")], branch=branch)
            assert caught.value.reason == "BranchMissing"

    run(mirror, scenario)


def race(mirror: Mirror, push_of_others: Callable[[], object], times: int) -> None:
    """Let others push after our commits are built and before they are sent."""
    original = mirror.keeper.write
    left = [times]

    async def write(command: object) -> object:
        built = await original(command)  # type: ignore[arg-type]
        if left[0]:
            left[0] -= 1
            push_of_others()
        return built

    mirror.keeper.write = write  # type: ignore[method-assign, assignment]


def test_lost_race_is_replayed(tmp_path: Path, remote: BareRepo) -> None:
    """When others push in between, three times over, the edits run again on their work and both are there."""
    mirror = open_mirror(tmp_path, remote.path)
    theirs = iter(range(100))
    race(mirror, lambda: remote.commit({"agents/log.yaml": f"theirs {next(theirs)}\n"}, message="Theirs"), times=3)

    async def scenario() -> None:
        batch = [request("a"), request("b", "agents/log.yaml", appends(b"ours\n"))]
        pushed = await write_back(mirror).push(batch, branch="main")
        assert pushed.tip == remote.tip()
        assert remote.log() == ["Enrol b", "Enrol a", "Theirs", "Theirs", "Theirs", "Start"]
        assert remote.show("agents/log.yaml") == "theirs 2\nours"

    run(mirror, scenario)


def test_race_lost_every_time_is_transient(tmp_path: Path, remote: BareRepo) -> None:
    """After so many tries the caller is told to come back, and the remote holds only the others' work."""
    mirror = open_mirror(tmp_path, remote.path)
    race(mirror, lambda: remote.commit({"x": str(len(remote.log()))}, message="Theirs"), times=99)

    async def scenario() -> None:
        with pytest.raises(Transient) as caught:
            await write_back(mirror, tries=3).push([request("a")], branch="main")
        assert caught.value.reason == "PushRace"
        assert remote.log() == ["Theirs", "Theirs", "Theirs", "Start"]

    run(mirror, scenario)


def test_rewound_branch_is_not_undone(tmp_path: Path, remote: BareRepo) -> None:
    """When a person takes commits back by force in between, our push does not bring them back."""
    start = remote.tip() or ""
    remote.commit({"leak": "secret"}, message="Mistake")
    mirror = open_mirror(tmp_path, remote.path)
    race(mirror, lambda: remote.set_tip(start), times=1)

    async def scenario() -> None:
        await write_back(mirror).push([request("a")], branch="main")
        assert remote.log() == ["Enrol a", "Start"]

    run(mirror, scenario)


def test_two_writers_at_once(tmp_path: Path, remote: BareRepo) -> None:
    """Two control planes that push at the same time lose nothing."""
    one, two = open_mirror(tmp_path / "1", remote.path), open_mirror(tmp_path / "2", remote.path)

    async def scenario() -> None:
        writers = [WriteBack(one, allowed=AGENTS, tries=20), WriteBack(two, allowed=AGENTS, tries=20)]
        names = [[f"w{writer}-{number}" for number in range(12)] for writer in range(2)]
        await asyncio.gather(
            *(writers[writer].push([request(name)], branch="main") for writer in range(2) for name in names[writer])
        )
        expected = sorted(["Start", *(f"Enrol {name}" for group in names for name in group)])
        assert sorted(remote.log()) == expected
        await two.close()

    run(one, scenario)


def test_refusal_of_the_remote_is_said_in_its_words(tmp_path: Path, remote: BareRepo) -> None:
    """A protected branch is a person's matter; what its hook says arrives without escape codes."""
    remote.install_hook(
        "pre-receive", r"printf '\033]0;evil\007\033[31mprotected branch:\033[0m ask ops\n' >&2; exit 1"
    )
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        with pytest.raises(Rejected, match="protected branch: ask ops") as caught:
            await write_back(mirror).push([request("a")], branch="main")
        assert caught.value.reason == "PushRefused"
        assert str(caught.value).isprintable()
        assert remote.log() == ["Start"]

    run(mirror, scenario)


def test_cut_answer_is_looked_up(tmp_path: Path, remote: BareRepo) -> None:
    """When the line is cut after the remote took the commits, they are found there and not made twice."""
    with git_server(remote.path.parent) as server:
        mirror = open_mirror(tmp_path, server.url_of(remote.path))
        server.behaviour = "cut-push-answer"

        async def scenario() -> None:
            counts = request("b", "agents/log.yaml", lambda before: (before or b"") + b"once\n")
            pushed = await write_back(mirror).push([request("a"), counts], branch="main")
            assert remote.log() == ["Enrol b", "Enrol a", "Start"]
            assert remote.show("agents/log.yaml") == "once"
            assert pushed.tip == remote.tip()
            assert pushed.outcomes["b"] == Committed(pushed.tip)

        run(mirror, scenario)


def test_push_that_hangs_is_transient(tmp_path: Path, remote: BareRepo) -> None:
    """A remote that takes a push and never answers ends in a time-out; asked again, nothing is written twice."""
    remote.install_hook("post-receive", "exec sleep 30")
    mirror = open_mirror(tmp_path, remote.path, push_seconds=1.0)

    async def scenario() -> None:
        pushed = await write_back(mirror).push([request("a")], branch="main")
        assert remote.log() == ["Enrol a", "Start"]
        assert pushed.outcomes["a"] == Committed(pushed.tip)
        wait_until_ended(tmp_path / "mirror")

    run(mirror, scenario)


def test_remote_that_is_away_is_transient(tmp_path: Path, remote: BareRepo) -> None:
    """Without the remote nothing is written, and the same call works once it is back."""
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        away = remote.path.rename(tmp_path / "away.git")
        with pytest.raises(Transient):
            await write_back(mirror).push([request("a")], branch="main")
        away.rename(remote.path)
        await write_back(mirror).push([request("a")], branch="main")
        assert remote.log() == ["Enrol a", "Start"]

    run(mirror, scenario)


def test_damaged_mirror_is_repaired_while_writing(tmp_path: Path, remote: BareRepo) -> None:
    """A mirror that lost its files, or holds a stale lock, is mended and the push goes through."""
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        await write_back(mirror).push([request("a")], branch="main")
        (mirror.keeper.repository.path / "HEAD").unlink()
        await write_back(mirror).push([request("b")], branch="main")
        lock = mirror.keeper.repository.path / "refs" / "outgoing" / "last.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        await write_back(mirror).push([request("c")], branch="main")
        assert remote.log() == ["Enrol c", "Enrol b", "Enrol a", "Start"]

    run(mirror, scenario)


def test_repository_with_sha256_ids(tmp_path: Path) -> None:
    """A remote whose ids are SHA-256 is mirrored and written like any other."""
    git("init", "--quiet", "--bare", "--initial-branch=main", "--object-format=sha256", tmp_path / "long.git")
    remote = BareRepo(tmp_path / "long.git")
    first = remote.commit({"agents/old.yaml": "old"}, message="Start")
    mirror = open_mirror(tmp_path, remote.path)

    async def scenario() -> None:
        pushed = await write_back(mirror).push([request("a")], branch="main")
        assert len(pushed.tip) == 64
        assert [change.path for change in await mirror.changes(first, pushed.tip)] == ["agents/a.yaml"]

    run(mirror, scenario)
