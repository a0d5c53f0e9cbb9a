"""The bare mirror on real git, with a local remote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.desired.snapshot import Change, File
from reconciler.errors import CloudLunacyError, Rejected, Transient
from reconciler.git.mirror import GitLimits, Mirror, TooLarge
from reconciler.git.remote import Remote
from tests.support.git_repos import EPOCH, BareRepo, git, wait_until_ended
from tests.support.parts import require

NOWHERE = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    return BareRepo.create(tmp_path / "remote.git")


@pytest.fixture
def mirror(tmp_path: Path, remote: BareRepo) -> Mirror:
    return Mirror(tmp_path / "mirror", Remote.parse(str(remote.path)), "main")


def run(mirror: Mirror, scenario: Callable[[], Awaitable[None]]) -> None:
    async def scene() -> None:
        try:
            await scenario()
        finally:
            await mirror.close()

    asyncio.run(scene())


def test_head_is_the_tip_of_the_branch(remote: BareRepo, mirror: Mirror) -> None:
    """Only the branch itself counts, not another ref whose name ends alike."""
    tip = remote.commit({"fleet.yaml": "a"})
    remote.commit({"fleet.yaml": "b"}, branch="refs/heads/main")

    async def scenario() -> None:
        assert tip == await mirror.head()

    run(mirror, scenario)


def test_missing_branch_is_said(remote: BareRepo, mirror: Mirror) -> None:
    """A remote without the branch is a mistake that a person must mend."""
    remote.commit({"fleet.yaml": "a"}, branch="other")

    async def scenario() -> None:
        with pytest.raises(Rejected, match='no branch "main"') as caught:
            await mirror.head()
        assert caught.value.reason == "BranchMissing"

    run(mirror, scenario)


def test_missing_remote_is_transient(tmp_path: Path) -> None:
    """A remote that is not there may come back."""
    mirror = Mirror(tmp_path / "mirror", Remote.parse(str(tmp_path / "nowhere.git")), "main")

    async def scenario() -> None:
        with pytest.raises(Transient, match="does not appear to be a git repository"):
            await mirror.head()

    run(mirror, scenario)


def test_snapshot_changes_and_contents(remote: BareRepo, mirror: Mirror) -> None:
    """After a fetch the files, what changed, and the contents are local."""
    first = remote.commit({"fleet.yaml": "fleet", "agents/a.yaml": "a", "agents/b.yaml": "b"})
    second = remote.commit({"agents/a.yaml": None, "agents/b.yaml": "B", "routes/shop/web.yaml": "web"})

    async def scenario() -> None:
        await mirror.fetch(second)
        snapshot = await mirror.snapshot(second)
        assert sorted(snapshot.files) == ["agents/b.yaml", "fleet.yaml", "routes/shop/web.yaml"]
        changes = await mirror.changes(first, second)
        web = snapshot.files["routes/shop/web.yaml"]
        assert changes == (
            Change("agents/a.yaml", None),
            Change("agents/b.yaml", snapshot.files["agents/b.yaml"]),
            Change("routes/shop/web.yaml", web),
        )
        assert await mirror.read([web.blob, web.blob]) == {web.blob: b"web"}
        assert await mirror.read([]) == {}

    run(mirror, scenario)


def test_fetch_of_what_is_here_needs_no_remote(remote: BareRepo, mirror: Mirror, tmp_path: Path) -> None:
    """Once here, a commit and its history are fetched without the remote, by a new process as well."""
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})

    async def scenario() -> None:
        await mirror.fetch(second)
        remote.path.rename(tmp_path / "away.git")
        await mirror.fetch(second)
        await mirror.fetch(first)
        later = Mirror(tmp_path / "mirror", mirror.remote, "main")
        await later.fetch(first)
        assert list((await later.snapshot(second)).files) == ["a"]
        await later.close()

    run(mirror, scenario)


def test_rewritten_history_does_not_descend(remote: BareRepo, mirror: Mirror) -> None:
    """A force-push is fetched like any commit, and ``descends`` tells it from a fast-forward."""
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})

    async def scenario() -> None:
        await mirror.fetch(second)
        assert await mirror.descends(second, first)
        assert await mirror.descends(second, second)
        assert not await mirror.descends(first, second)
        remote.set_tip(first)
        aside = remote.commit({"a": "3"})
        assert await mirror.head() == aside
        await mirror.fetch(aside)
        assert not await mirror.descends(aside, second)
        assert await mirror.descends(aside, first)
        unrelated = remote.commit_on_nothing({"a": "4"})
        await mirror.fetch(unrelated)
        assert not await mirror.descends(unrelated, first)
        assert not await mirror.descends(unrelated, NOWHERE)
        assert list((await mirror.snapshot(second)).files) == ["a"]  # the last good one stays readable

    run(mirror, scenario)


def test_revision_that_is_gone_from_the_remote_is_transient(remote: BareRepo, mirror: Mirror) -> None:
    """When the branch moved away between look and fetch, the next look will tell."""
    remote.commit({"a": "1"})

    async def scenario() -> None:
        with pytest.raises(Transient) as caught:
            await mirror.fetch(NOWHERE)
        assert caught.value.reason == "RemoteMoved"

    run(mirror, scenario)


@pytest.mark.parametrize(
    "revision", [NOWHERE, "--help", "HEAD", "", "main", "a..b", NOWHERE[:12], f"{NOWHERE}^{{tree}}"]
)
def test_unknown_revision_is_refused_without_harm(remote: BareRepo, mirror: Mirror, revision: str) -> None:
    """A mistyped or hostile revision is no option, no range and no reason to rebuild the mirror."""
    tip = remote.commit({"a": "1"})

    async def scenario() -> None:
        await mirror.fetch(tip)
        place = mirror.keeper.repository.path.stat().st_ino
        for call in (mirror.snapshot(revision), mirror.commit(revision), mirror.changes(tip, revision)):
            with pytest.raises(Rejected) as caught:
                await call
            assert caught.value.reason == "UnknownRevision"
        assert mirror.keeper.repository.path.stat().st_ino == place

    run(mirror, scenario)


def test_modes_are_reported_as_they_are(remote: BareRepo, mirror: Mirror) -> None:
    """Symlinks, submodules and executables keep their modes; nothing follows them."""
    files = {"link": "/etc/passwd", "module": NOWHERE, "run": "#!", "plain": "x"}
    tip = remote.commit(files, modes={"link": "120000", "module": "160000", "run": "100755"})

    async def scenario() -> None:
        await mirror.fetch(tip)
        found = (await mirror.snapshot(tip)).files
        assert {path: file.mode for path, file in found.items()} == {
            "link": "120000",
            "module": "160000",
            "plain": "100644",
            "run": "100755",
        }
        assert found["module"] == File("160000", NOWHERE)
        assert await mirror.read([found["link"].blob]) == {found["link"].blob: b"/etc/passwd"}

    run(mirror, scenario)


def test_any_file_name_survives(remote: BareRepo, mirror: Mirror) -> None:
    """Spaces, quotes, line feeds, tabs, Unicode and bytes that are not UTF-8 come through."""
    names = ["a b", 'q"uote', "line\nfeed", "tab\tbed", "ünïcode/☃", "b\udcffyte", " lead", ":(glob)x", "-dash"]
    first = remote.commit({"start": "x"})
    tip = remote.commit(dict.fromkeys(names, "x"))

    async def scenario() -> None:
        await mirror.fetch(tip)
        assert sorted((await mirror.snapshot(tip)).files) == sorted([*names, "start"])
        assert [change.path for change in await mirror.changes(first, tip)] == sorted(names)

    run(mirror, scenario)


def test_contents_over_the_limit_are_not_read(remote: BareRepo, mirror: Mirror) -> None:
    """In place of a large blob stands its size; the small ones around it are read."""
    files = {f"f{number}": f"small {number}" for number in range(20)}
    tip = remote.commit({**files, "f07": "x" * 101, "f13": b"\0" * 3_000_000, "edge": "x" * 100})

    async def scenario() -> None:
        await mirror.fetch(tip)
        found = (await mirror.snapshot(tip)).files
        contents = await mirror.read([file.blob for file in found.values()], max_bytes=100)
        assert contents[found["f07"].blob] == TooLarge(101)
        assert contents[found["f13"].blob] == TooLarge(3_000_000)
        assert contents[found["edge"].blob] == b"x" * 100
        assert contents[found["f8"].blob] == b"small 8"
        assert len(contents) == 22

    run(mirror, scenario)


def test_tree_bomb_is_refused(remote: BareRepo, tmp_path: Path) -> None:
    """A few objects that list thousands of millions of files are refused in bounded memory."""
    tip = _tree_bomb(remote)
    limits = GitLimits(max_output_bytes=1_000_000)
    mirror = Mirror(tmp_path / "mirror", Remote.parse(str(remote.path)), "main", limits=limits)

    async def scenario() -> None:
        await mirror.fetch(tip)
        with pytest.raises(Rejected, match="more than fits") as caught:
            await mirror.snapshot(tip)
        assert caught.value.reason == "TooManyFiles"
        wait_until_ended(tmp_path / "mirror")

    run(mirror, scenario)


def _tree_bomb(remote: BareRepo) -> str:
    name = git("-C", remote.path, "hash-object", "-w", "--stdin", stdin=b"boom")
    kind, mode = "blob", "100644"
    for _ in range(9):
        lines = "".join(f"{mode} {kind} {name}\td{number}\n" for number in range(10))
        name = git("-C", remote.path, "mktree", stdin=lines.encode())
        kind, mode = "tree", "040000"
    tip = git("-C", remote.path, "commit-tree", "-m", "bomb", name)
    remote.set_tip(tip)
    return tip


def test_commits_are_described(remote: BareRepo, mirror: Mirror) -> None:
    """Author, subject, time and trailers come cleaned; history is newest first and bounded."""
    first = remote.commit({"a": "1"}, message="One")
    second = remote.commit({"a": "2"}, message="Two \x1b[31mred\n\nBody.\n\nCloudLunacy-Request: abc\nReviewed-By: x\n")
    third = remote.commit({"a": "3"}, message="Three")

    async def scenario() -> None:
        await mirror.fetch(third)
        info = await mirror.commit(second)
        assert (info.revision, info.parents, info.subject) == (second, (first,), "Two red")
        assert (info.author_name, info.author_email) == ("Committer", "committer@example.test")
        assert info.time == datetime.fromtimestamp(EPOCH + 2, UTC)
        assert info.trailers == {"CloudLunacy-Request": "abc", "Reviewed-By": "x"}
        assert [commit.subject for commit in await mirror.commits_between(None, third)] == ["Three", "Two red", "One"]
        assert [commit.revision for commit in await mirror.commits_between(first, third)] == [third, second]
        assert [commit.revision for commit in await mirror.commits_between(None, third, limit=1)] == [third]
        assert await mirror.commits_between(third, third) == ()

    run(mirror, scenario)


def test_a_poll_is_one_process_and_a_fetch_one_more(
    remote: BareRepo, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle poll starts ``ls-remote`` and nothing else; a new commit costs one ``fetch``, its changes one process."""
    log = _spy_on_git(tmp_path, monkeypatch)
    first = remote.commit({"a": "1"})

    async def scenario() -> None:
        await mirror.fetch(await mirror.head())
        log.write_text("")
        await mirror.fetch(await mirror.head())
        assert log.read_text().split() == ["ls-remote"]
        second = remote.commit({"a": "2"})
        log.write_text("")
        await mirror.fetch(await mirror.head())
        assert await mirror.descends(second, first)
        changes = await mirror.changes(first, second)
        await mirror.read([change.file.blob for change in changes if change.file])
        assert log.read_text().split() == ["ls-remote", "fetch", "merge-base", "diff-tree", "cat-file"]

    run(mirror, scenario)


def _spy_on_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git on PATH that notes its first argument; git's own helpers are found without PATH."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    spy = folder / "git"
    spy.write_text(f'#!/bin/sh\necho "$1" >>"{log}"\nexec "{require("git")}" "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def test_relative_directory(remote: BareRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror in a relative directory works, whatever the working directory becomes."""
    tip = remote.commit({"a": "1"})
    monkeypatch.chdir(tmp_path)
    mirror = Mirror(Path("data/mirror"), Remote.parse(str(remote.path)), "main")
    monkeypatch.chdir("/")

    async def scenario() -> None:
        await mirror.fetch(tip)
        assert list((await mirror.snapshot(tip)).files) == ["a"]

    run(mirror, scenario)
    assert (tmp_path / "data" / "mirror" / "repository.git").is_dir()


def test_directory_that_cannot_be_written(remote: BareRepo, tmp_path: Path) -> None:
    """A data directory that is a file is the operator's matter, in a sentence."""
    tip = remote.commit({"a": "1"})
    (tmp_path / "file").touch()
    mirror = Mirror(tmp_path / "file" / "mirror", Remote.parse(str(remote.path)), "main")

    async def scenario() -> None:
        with pytest.raises(CloudLunacyError, match="Not a directory"):
            await mirror.head()
        with pytest.raises(CloudLunacyError, match="Not a directory"):
            await mirror.fetch(tip)

    run(mirror, scenario)


def test_tidy_packs_what_piled_up(remote: BareRepo, mirror: Mirror) -> None:
    """Loose objects are packed, and a commit that no ref reaches any more stays readable."""
    old = remote.commit({f"f{number}": f"{number}" for number in range(90)})

    async def scenario() -> None:
        await mirror.fetch(old)
        new = remote.commit_on_nothing({"a": "1"})
        await mirror.fetch(new)
        assert not await mirror.tidy()
        mirror.keeper.repository.loose_and_packs = lambda: (100_000, 1)  # type: ignore[method-assign]
        assert await mirror.tidy()
        objects = mirror.keeper.repository.path / "objects"
        assert not list(objects.glob("??/*"))
        assert len((await mirror.snapshot(old)).files) == 90

    run(mirror, scenario)
