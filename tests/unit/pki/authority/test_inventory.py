"""The list of what was issued and revoked, and what a crash can do to it."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.authority import inventory as inventory_module
from reconciler.pki.authority.inventory import Inventory, Issued
from reconciler.pki.private_files import exclusive
from tests.support.certificates import NOW

DAY = dt.timedelta(days=1)
ONE = Issued(
    serial=2**159 - 1,
    kind="agent",
    holder="agent/vps-1",
    names=("DNS:vps-1.agents.fleet.test", "URI:spiffe://fleet.test/agent/vps-1"),
    issuer="ab" * 20,
    sha256="cd" * 32,
    at=NOW,
    not_before=NOW - dt.timedelta(minutes=5),
    not_after=NOW + DAY,
)


def numbered(serial: int, holder: str = "agent/vps-1", not_after: dt.datetime = ONE.not_after) -> Issued:
    return replace(ONE, serial=serial, holder=holder, not_after=not_after)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.jsonl"


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: what a full disk does, half-written lines included."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def append_many(path: str, start: int) -> None:
    for serial in range(start, start + 50):
        with exclusive(Path(path).with_name("lock")):
            inventory = Inventory(Path(path))
            inventory.record(numbered(serial, f"agent/{start}"))


def test_what_was_recorded_is_read_back(path: Path) -> None:
    """Every field, also of a revoked one, survives a restart."""
    inventory = Inventory(path)
    inventory.record(ONE)
    inventory.record(numbered(7, "server"))
    inventory.revoke(7, "superseded", NOW)
    again = Inventory(path)

    assert again.find(ONE.serial) == inventory.find(ONE.serial) == ONE
    assert again.find(7) == replace(numbered(7, "server"), revoked_at=NOW, reason="superseded")
    assert again.find(8) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_latest_of_a_holder_is_the_last_that_was_recorded(path: Path) -> None:
    """Also when it is revoked; of an unknown holder there is none."""
    inventory = Inventory(path)
    for serial in (1, 2, 3):
        inventory.record(numbered(serial))
    inventory.revoke(3, "unspecified", NOW)
    latest = Inventory(path).latest("agent/vps-1")

    assert latest is not None
    assert (latest.serial, latest.revoked_at) == (3, NOW)
    assert inventory.latest("agent/vps-2") is None


def test_it_counts_by_kind_and_state(path: Path) -> None:
    """Good, expired and revoked add up to what there is."""
    inventory = Inventory(path)
    for serial in (1, 2, 3):
        inventory.record(numbered(serial))
    inventory.record(numbered(4, not_after=NOW - DAY))
    inventory.record(replace(numbered(5, "server"), kind="server"))
    inventory.revoke(1, "keyCompromise", NOW)

    assert inventory.counts(NOW) == {"agent": {"good": 2, "expired": 1, "revoked": 1}, "server": {"good": 1}}


@pytest.mark.parametrize("cut", [1, 10, 100, 300])
def test_a_torn_last_line_is_dropped(path: Path, cut: int) -> None:
    """Power went while it was written: it is as if it had never been, and the next line starts where it did."""
    inventory = Inventory(path)
    inventory.record(numbered(1))
    whole = path.read_bytes()
    inventory.record(numbered(2))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    again = Inventory(path)
    again.record(numbered(3))

    assert [one.serial for one in again] == [1, 3]
    assert [one.serial for one in Inventory(path)] == [1, 3]


@pytest.mark.parametrize("tail", [b"\x00" * 300, b"\x00" * 300 + b"\n", b'{"event":"issued"}\n', b"[]\n"])
def test_a_last_line_of_which_pages_are_missing_is_dropped(path: Path, tail: bytes) -> None:
    """A file may have grown before its content was there; that line was never handed out either."""
    inventory = Inventory(path)
    inventory.record(numbered(1))
    with path.open("ab") as file:
        file.write(tail)
    again = Inventory(path)
    again.record(numbered(2))

    assert [one.serial for one in Inventory(path)] == [1, 2]


@pytest.mark.parametrize("line", [b"\x00" * 300 + b"\n", b"{}\n", b'{"event":"revoked","serial":"9","reason":"x"}\n'])
def test_damage_before_the_end_is_not_guessed_at(path: Path, line: bytes) -> None:
    """A revocation may have stood there: the sentence names the file, the place and what to do."""
    inventory = Inventory(path)
    inventory.record(numbered(1))
    good = path.read_bytes()
    path.write_bytes(good + line + good)

    with pytest.raises(Broken, match=f"damaged at byte {len(good)}") as caught:
        Inventory(path)
    assert "backup" in caught.value.hint


def test_a_full_disk_records_nothing_and_breaks_nothing(path: Path) -> None:
    """Half a line is taken back; once there is room again it goes on."""
    inventory = Inventory(path)
    inventory.record(numbered(1))
    with full_disk(path.stat().st_size + 100), pytest.raises(Broken, match="cannot be used: File too large"):
        inventory.record(numbered(2))
    assert [one.serial for one in Inventory(path)] == [1]
    inventory.record(numbered(3))

    assert [one.serial for one in inventory] == [one.serial for one in Inventory(path)] == [1, 3]


def test_it_sees_what_others_append_and_replace(path: Path) -> None:
    """A command that revokes is known to a process that has been running, also after the file was compacted."""
    here, there = Inventory(path), Inventory(path)
    there.record(numbered(1))
    here.refresh()
    there.revoke(1, "keyCompromise", NOW)
    here.record(numbered(2))
    seen = here.find(1)

    assert seen is not None
    assert seen.reason == "keyCompromise"
    path.with_name("other").write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    path.with_name("other").chmod(0o600)
    path.with_name("other").replace(path)
    here.refresh()
    assert [one.serial for one in here] == [1]


def test_several_processes_append_whole_lines(path: Path) -> None:
    """200 issuances by four processes under the lock are 200 lines."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(append_many, [(str(path), start) for start in (0, 100, 200, 300)])

    assert len(Inventory(path)) == 200


def test_what_expired_moves_to_the_archive_once_it_is_half(path: Path) -> None:
    """Authorities, the newest of each holder, what is good and what a list of revocations may name all stay."""
    inventory, archive = Inventory(path), path.with_name("inventory-2026.jsonl")
    inventory.record(replace(numbered(1, "root", NOW - 100 * DAY), kind="root"))
    for serial in range(2, 1002):
        inventory.record(numbered(serial, "agent/old", NOW - 2 * DAY))
    inventory.revoke(2, "superseded", NOW - 2 * DAY)
    assert inventory.compact(NOW - 10 * DAY) is False
    for serial in range(1002, 1302):
        inventory.record(numbered(serial))
    inventory.revoke(1300, "superseded", NOW)

    assert inventory.compact(NOW) is True
    assert [one.serial for one in Inventory(path)] == [1, 2, *range(1001, 1302)]
    assert [one.serial for one in Inventory(path) if one.revoked_at] == [2, 1300]
    assert [one.serial for one in Inventory(archive)] == list(range(3, 1001))
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert inventory.compact(NOW) is False


def test_a_compaction_that_was_cut_off_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is replaced last; what stands in both by then is no trouble."""
    inventory = Inventory(path)
    for serial in range(1, 1201):
        inventory.record(numbered(serial, not_after=NOW - 2 * DAY))
    with monkeypatch.context() as patch:
        patch.setattr(inventory_module, "write_private", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(Broken, match="I/O error"):
            inventory.compact(NOW)
    assert len(Inventory(path)) == 1200

    assert Inventory(path).compact(NOW) is True
    assert len(Inventory(path)) == 1
    assert len(Inventory(path.with_name("inventory-2026.jsonl"))) == 1199


def test_a_small_list_is_never_compacted(path: Path) -> None:
    """There is nothing to win."""
    inventory = Inventory(path)
    inventory.record(numbered(1, not_after=NOW - 100 * DAY))
    inventory.record(numbered(2, not_after=NOW - 100 * DAY))

    assert inventory.compact(NOW) is False


def test_a_list_that_others_may_write_is_refused(path: Path) -> None:
    """Whoever can write it can undo a revocation."""
    Inventory(path).record(ONE)
    path.chmod(0o620)

    with pytest.raises(Broken, match="open to other users"):
        Inventory(path)


def test_a_directory_in_its_place_is_a_sentence(path: Path) -> None:
    """Errors of the system are sentences."""
    path.mkdir(mode=0o700)

    with pytest.raises(Broken, match="cannot be used: Is a directory"):
        Inventory(path)
    assert list(path.iterdir()) == []
