"""A mirror whose files were damaged: it repairs itself, and a failing repair makes nothing worse."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import Rejected, Transient
from reconciler.git.mirror import GitLimits, Mirror
from reconciler.git.remote import Remote
from tests.support.git_repos import BareRepo, git

Damage = Callable[[Path], None]


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "remote.git")
    repo.commit({f"f{number}": f"content {number}\n" * 50 for number in range(120)})
    return repo


def delete_head(path: Path) -> None:
    (path / "HEAD").unlink()


def garble_config(path: Path) -> None:
    (path / "config").write_bytes(b"\0[[[")


def delete_objects(path: Path) -> None:
    shutil.rmtree(path / "objects")


def truncate_packs(path: Path) -> None:
    for pack in (path / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:200])


def garble_packs(path: Path) -> None:
    for pack in (path / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        content[12:] = bytes(byte ^ 0x5A for byte in content[12:])
        pack.write_bytes(content)


def delete_indexes(path: Path) -> None:
    for index in (path / "objects" / "pack").glob("*.idx"):
        index.unlink()


def empty_loose_objects(path: Path) -> None:
    for pack in list((path / "objects" / "pack").glob("*.pack")):
        moved = path.parent / pack.name
        pack.rename(moved)
        shutil.rmtree(path / "objects" / "pack")
        git("-C", path, "unpack-objects", "-q", stdin=moved.read_bytes())
        moved.unlink()
    for loose in (path / "objects").glob("??/*"):
        loose.chmod(0o600)
        loose.write_bytes(b"")


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def delete_all(path: Path) -> None:
    shutil.rmtree(path)


DAMAGES: list[Damage] = [
    delete_head,
    garble_config,
    delete_objects,
    truncate_packs,
    garble_packs,
    delete_indexes,
    empty_loose_objects,
    replace_by_file,
    delete_all,
]


def open_mirror(tmp_path: Path, remote: BareRepo) -> Mirror:
    return Mirror(tmp_path / "mirror", Remote.parse(str(remote.path)), "main", limits=GitLimits(local_seconds=20))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
def test_damage_is_repaired(tmp_path: Path, remote: BareRepo, damage: Damage, is_restarted: bool) -> None:
    """Whatever is wrong with the files, the next reads answer as if nothing had been, before and after a restart."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        first = await mirror.head()
        await mirror.fetch(first)
        before = await mirror.snapshot(first)
        damage(mirror.keeper.repository.path)
        if is_restarted:
            await mirror.close()
            mirror = open_mirror(tmp_path, remote)
            await mirror.fetch(first)
        assert await mirror.snapshot(first) == before
        blobs = [file.blob for file in before.files.values()]
        assert (await mirror.read(blobs))[before.files["f7"].blob] == b"content 7\n" * 50
        second = remote.commit({"f7": "new"})
        await mirror.fetch(await mirror.head())
        assert [change.path for change in await mirror.changes(first, second)] == ["f7"]
        await mirror.close()
        assert sorted(path.name for path in (tmp_path / "mirror").iterdir()) == ["home", "repository.git"]

    asyncio.run(scenario())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_met_by_read_or_fetch(tmp_path: Path, remote: BareRepo, damage: Damage) -> None:
    """The first call after the damage may as well be a read of blobs or the fetch of a new commit."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        first = await mirror.head()
        await mirror.fetch(first)
        blob = (await mirror.snapshot(first)).files["f7"].blob
        damage(mirror.keeper.repository.path)
        assert await mirror.read([blob]) == {blob: b"content 7\n" * 50}
        damage(mirror.keeper.repository.path)
        second = remote.commit({"f7": "new"})
        await mirror.fetch(await mirror.head())
        found = (await mirror.snapshot(second)).files
        assert len(await mirror.read([file.blob for file in found.values()])) == 120
        await mirror.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("lock", ["refs/fetched/followed.lock", "packed-refs.lock", "config.lock", "HEAD.lock"])
def test_stale_lock(tmp_path: Path, remote: BareRepo, lock: str) -> None:
    """A lock that a killed process left does not stop the next fetch."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        await mirror.fetch(await mirror.head())
        place = mirror.keeper.repository.path.stat().st_ino
        (mirror.keeper.repository.path / lock).touch()
        second = remote.commit({"f7": "new"})
        await mirror.fetch(second)
        assert len((await mirror.snapshot(second)).files) == 120
        assert mirror.keeper.repository.path.stat().st_ino == place
        await mirror.close()

    asyncio.run(scenario())


def test_damage_while_the_remote_is_away(tmp_path: Path, remote: BareRepo) -> None:
    """Without the remote the repair fails as transient, the damaged files stay, and later all is well."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        first = await mirror.head()
        await mirror.fetch(first)
        delete_head(mirror.keeper.repository.path)
        away = remote.path.rename(tmp_path / "away.git")
        with pytest.raises(Transient):
            await mirror.snapshot(first)
        assert (mirror.keeper.repository.path / "objects").is_dir()
        assert not list((tmp_path / "mirror").glob("rebuild-*"))
        away.rename(remote.path)
        assert len((await mirror.snapshot(first)).files) == 120
        await mirror.close()

    asyncio.run(scenario())


def test_readers_at_once_cause_one_repair(tmp_path: Path, remote: BareRepo) -> None:
    """Twenty reads that meet the damage together all succeed, and the mirror is rebuilt once."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        first = await mirror.head()
        await mirror.fetch(first)
        before = mirror.keeper.repository.epoch
        delete_objects(mirror.keeper.repository.path)
        snapshots = await asyncio.gather(*(mirror.snapshot(first) for _ in range(20)))
        assert {len(snapshot.files) for snapshot in snapshots} == {120}
        assert mirror.keeper.repository.epoch == before + 1
        await mirror.close()

    asyncio.run(scenario())


def test_leftovers_of_a_crash_are_deleted(tmp_path: Path, remote: BareRepo) -> None:
    """A crash in the middle of a rebuild leaves directories that the next start removes."""

    async def scenario() -> None:
        for name in ("rebuild-abc", "broken-def"):
            (tmp_path / "mirror" / name / "objects").mkdir(parents=True)
        mirror = open_mirror(tmp_path, remote)
        await mirror.fetch(await mirror.head())
        assert sorted(path.name for path in (tmp_path / "mirror").iterdir()) == ["home", "repository.git"]
        await mirror.close()

    asyncio.run(scenario())


def test_commit_that_fails_the_checks(tmp_path: Path, remote: BareRepo) -> None:
    """Objects that git's own checks refuse do not enter the mirror, and what is there stays."""

    async def scenario() -> None:
        mirror = open_mirror(tmp_path, remote)
        first = await mirror.head()
        await mirror.fetch(first)
        remote.set_tip(_commit_with_evil_tree(remote))
        with pytest.raises(Rejected, match="checks") as caught:
            await mirror.fetch(await mirror.head())
        assert caught.value.reason == "FetchRefused"
        assert len((await mirror.snapshot(first)).files) == 120
        await mirror.close()

    asyncio.run(scenario())


def _commit_with_evil_tree(remote: BareRepo) -> str:
    blob = bytes.fromhex(git("-C", remote.path, "hash-object", "-w", "--stdin", stdin=b"x"))
    inner = b"100644 config\0" + blob
    options = ("hash-object", "-w", "--literally", "--stdin", "-t", "tree")
    folder = bytes.fromhex(git("-C", remote.path, *options, stdin=inner))
    tree = git("-C", remote.path, *options, stdin=b"40000 .git\0" + folder)
    return git("-C", remote.path, "commit-tree", "-m", "evil", tree)
