"""What agent and keeper know of each other, whoever was cut off."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from agent.deployments import process_instances as instances
from agent.deployments.process_driver import ProcessDriver
from agent.deployments.process_files import FOLDER, KEPT, RECORD, STATUS, Program, Record, Status, holder, take_lock
from agent.deployments.process_keeper import pause_after
from agent.deployments.process_log import Follower, RotatingLog, tail
from agent.deployments.process_table import entry, send
from agent.deployments.workload import Key
from tests.support.waiting import eventually

RECORD_OF: Final = Record(
    "id-1", "sha256:d", {8080: 8080}, Program(["x"], {}, "/", False, 1.0, {}, "", [], [], [], []), []
)
KEY: Final = Key("shop", "web")


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """An instance that was set up and never started."""
    path = tmp_path / "shop" / "web" / "a"
    path.mkdir(parents=True)
    RECORD_OF.write(path)
    return path


def state(slot: Path) -> tuple[str, bool]:
    (found,) = instances.read(KEY, slot.parent)
    return found.state, found.killed


def test_what_is_written_is_read(slot: Path) -> None:
    """A record is read as it was written, and nobody else may read it."""
    assert Record.read(slot) == RECORD_OF
    assert (slot / RECORD).stat().st_mode & 0o777 == 0o600
    assert state(slot) == ("created", False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"id": 1}', b'{"id": "a", "ports": 3}', b"\xff"])
def test_a_torn_record_is_of_nothing_that_is_wanted(slot: Path, content: bytes) -> None:
    """An instance whose record cannot be read is another than what is wanted, so that it goes."""
    (slot / RECORD).write_bytes(content)
    (found,) = instances.read(KEY, slot.parent)
    assert (found.digest, found.up) == ("", False)


@pytest.mark.parametrize("content", [b"", b'{"state": "run', b"[]", b'{"unheard": 1}'])
def test_a_torn_status_counts_as_none(slot: Path, content: bytes) -> None:
    """A status that cannot be read says nothing, and is no traceback."""
    (slot / STATUS).write_bytes(content)
    assert state(slot) == ("created", False)


def test_a_status_without_a_keeper_is_of_a_program_that_was_killed(slot: Path) -> None:
    """After kill -9 of the keeper or a reboot nothing runs, whatever the file says; its process id is nobody's."""
    Status("running", "1", pid=os.getpid()).write(slot)
    assert state(slot) == ("exited", True)
    instances.stop(slot, 1.0)  # the process with that id is this one


def test_the_kernel_says_who_the_keeper_is(slot: Path) -> None:
    """The holder of the lock is found by the lock alone, and there is one at most."""
    assert holder(slot) == 0
    program = (
        "import sys; from pathlib import Path; from agent.deployments.process_files import take_lock; "
        "print(take_lock(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(slot)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert holder(slot) == child.pid
        assert not take_lock(slot)
        assert state(slot) == ("running", False)
    assert holder(slot) == 0


def test_a_signal_reaches_only_who_is_meant() -> None:
    """Where the process is found to be another one, none is sent; nor to one that has ended."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert not send(child.pid, 9, still=lambda: False)
        assert child.poll() is None
        found = entry(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert send(child.pid, 9, still=lambda: True)
    assert not send(child.pid, 9, still=lambda: True)


def test_an_instance_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What a former attempt left half made, or half removed, is cleared away."""
    directory = tmp_path / "shop" / "web"
    for left in (".new-1", ".gone-2"):
        (directory / left).mkdir(parents=True)
    instances.make(directory / "a", RECORD_OF, ["data"], None)
    assert sorted(path.name for path in directory.iterdir()) == ["a", "volumes"]
    (directory / "a" / KEPT).touch()
    instances.make(directory / "a", RECORD_OF._replace(id="id-2"), ["data"], None)
    assert Record.read(directory / "a").id == "id-1"


def half_made(root: Path) -> list[str]:
    """Names below a folder that begin with a dot; os.walk takes it that folders vanish meanwhile."""
    return [name for _, folders, files in os.walk(root) for name in (*folders, *files) if name.startswith(".")]


def test_a_new_agent_clears_away_what_a_killed_one_was_making(slot: Path, tmp_path: Path) -> None:
    """Secrets in what was never made do not lie there until that deployment changes again; the rest stays."""
    root = tmp_path / FOLDER / "shop"
    (root / "web").mkdir(parents=True)
    slot.rename(root / "web" / "a")
    for left in ("web/.new-1", "api/.new-1", "api/.gone-2"):
        (root / left).mkdir(parents=True)
        RECORD_OF.write(root / left)

    async def watch() -> None:
        task = asyncio.create_task(ProcessDriver(tmp_path, "vps-1").watch(lambda: None))
        try:
            await eventually(lambda: half_made(root) == [], what="nothing half made")
            await eventually(lambda: not (root / "api").exists(), what="the end of what is empty")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())
    assert Record.read(root / "web" / "a") == RECORD_OF


def test_what_a_program_closed_to_itself_is_removed(tmp_path: Path) -> None:
    """Directories without any rights do not stay behind."""
    closed = tmp_path / "a" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.chmod(0)
    instances.discard(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_log_ends_at_its_size_and_the_last_files_stay(tmp_path: Path) -> None:
    """However much is written, there are three files, and the newest lines are in them."""
    log = RotatingLog(tmp_path, file_bytes=100)
    for number in range(100):
        log.write(f"line {number:03}\n".encode())
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 330
    assert tail(tmp_path, 15) == [f"line {number:03}" for number in range(85, 100)]
    assert tail(tmp_path, 0) == []
    assert tail(tmp_path / "none", 5) == []


def test_following_misses_nothing_over_a_rotation(tmp_path: Path) -> None:
    """Every line that is written after one began to follow is read once, in order."""
    log = RotatingLog(tmp_path, file_bytes=1000)
    log.write(b"before\n")
    follower = Follower(tmp_path)
    found = []
    for number in range(500):
        log.write(f"{number}\n".encode())
        found += follower.lines()
    assert found == [str(number) for number in range(500)]
    log.close()
    follower.close()


def test_a_full_disk_loses_lines_and_says_so(tmp_path: Path) -> None:
    """What cannot be written is counted, and the count is written once it can be."""
    (tmp_path / "log").mkdir()  # refuses as a full disk would
    log = RotatingLog(tmp_path)
    log.write(b"lost\n")
    log.write(b"lost\n")
    (tmp_path / "log").rmdir()
    log.write(b"here\n")
    log.close()
    assert tail(tmp_path, 9) == ["[10 bytes could not be written here]", "here"]


def test_pauses_grow_to_a_minute_and_begin_anew() -> None:
    """A program that ends again and again is started later and later; one that ran steadily at once."""
    ended, pauses = 0, []
    for _ in range(10):
        ended, pause = pause_after(ended, 0.1)
        pauses.append(pause)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(ended, 31.0) == (1, 0.5)


def test_a_newer_agent_may_have_written_more(slot: Path) -> None:
    """Going back to an older agent restarts nothing: fields that it does not know are passed over."""
    found = json.loads((slot / RECORD).read_bytes())
    found["program"]["newer"] = found["newer"] = 1
    (slot / RECORD).write_text(json.dumps(found))
    assert Record.read(slot) == RECORD_OF
