"""What happens to the data directory: lost in part or whole, damaged, full, not writable, wanted twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation, served, start_files, web
from tests.support.waiting import wait_for


def test_a_restart_publishes_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    """After a restart a quarantined object is still served in its last good version, under the same generation."""
    with served(tmp_path, "web", "two") as (one, backend):
        bad = web("web", backend.port).replace(b"vps-1", b"vsp-1")
        found = one.live({"routes/shop/web.yaml": bad, "routes/shop/two.yaml": web("two", backend.port, sticky={})})
        before, status = one.published.stat(), one.ask("/status")
        for how in (one.kill, one.stop):
            how()
            one.start()
            assert one.status_wait(found["revision"]) == found
            wait_for(lambda: one.polls() >= 2, what="two polls")
            after = one.published.stat()
            assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
            again = one.ask("/status")
            assert again == status
        assert one.answers(["web", "two"]) == {"web": 200, "two": 200}
        states = {each["path"]: each["state"] for each in one.ask("/objects")["objects"]}
        assert states["routes/shop/web.yaml"] == "LastGood"
        assert one.live({"routes/shop/next.yaml": web("next", backend.port)})["generation"] == found["generation"] + 1
        assert one.answers(["web", "next"]) == {"web": 200, "next": 200}


@pytest.mark.parametrize("what", ["state.db", "cache.db", "mirror", "cache.db corrupt", "state.db corrupt"])
def test_what_is_deleted_is_built_again(tmp_path: Path, what: str) -> None:
    """Databases and the mirror, deleted or damaged, cost a rebuild; traffic does not notice, generations only grow."""
    with served(tmp_path, "web") as (one, backend):
        found = one.live({"routes/shop/two.yaml": web("two", backend.port)})
        one.kill()
        name, _, corrupt = what.partition(" ")
        for path in one.data.glob(f"{name}*"):
            if corrupt and path.name == name:
                path.write_bytes(os.urandom(8192))
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with _always_served(one, "web", "two"):
            one.start()
            assert one.status_wait(found["revision"], "Converged")
            after = one.live({"routes/shop/three.yaml": web("three", backend.port)})
        assert after["generation"] > found["generation"]
        assert one.metric("cloudlunacy_store_replaced_total") == (what == "state.db corrupt")
        assert one.answers(["web", "two", "three"]) == {"web": 200, "two": 200, "three": 200}
        assert "Traceback" not in one.log()


MANY = [f"r-{number}" for number in range(12)]


def lose(one: Installation, *kept: str) -> None:
    """Delete everything in the data directory but what begins like one of ``kept``."""
    for path in one.data.iterdir():
        if path.name.startswith(kept):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


LOST: dict[str, tuple[str, ...]] = {
    "state.db": ("keys", "outbox.db", "cache.db", "mirror"),
    "all but keys and outbox": ("keys", "outbox.db"),
    "all but keys": ("keys",),
}


@pytest.mark.parametrize("what", LOST)
def test_a_deletion_that_waits_is_held_although_the_state_is_lost(tmp_path: Path, what: str) -> None:
    """With the state lost, a commit that deletes too much is compared with what the front serves, and held."""
    with served(tmp_path, *MANY) as (one, _):
        generation = one.ask("/status")["generation"]
        one.kill()
        lose(one, *LOST[what])
        revision = one.push({f"routes/shop/{name}.yaml": None for name in MANY[:-1]})
        with _always_served(one, *MANY):
            one.start()
            held = one.status_wait(revision)
            assert (held["state"], held["reason"]) == ("Held", "DeletionGuard"), held
        assert one.ask("/status")["generation"] > generation
        assert "PublicationRecovered" in [event["type"] for event in one.ask("/events")["events"]]
        assert one.post("/approvals", {"checksum": held["approve"]}).status_code == 201
        assert one.status_wait(revision, "Converged")
        assert one.answers(MANY[-2:]) == {MANY[-2]: 404, MANY[-1]: 200}


def test_without_fronts_too_a_deletion_is_held_although_the_state_is_lost(tmp_path: Path) -> None:
    """Where there are agents alone and no front's file names anything, the outbox's file says what is in service."""
    with installation(tmp_path, start_files(*MANY), traefik=False) as one:
        one.kill()
        lose(one, *LOST["all but keys and outbox"])
        revision = one.push({f"routes/shop/{name}.yaml": None for name in MANY[:-1]})
        one.start()
        held = one.status_wait(revision)
        assert (held["state"], held["reason"]) == ("Held", "DeletionGuard"), held


@pytest.mark.parametrize("what", LOST)
def test_a_rewritten_history_is_held_although_the_state_is_lost(tmp_path: Path, what: str) -> None:
    """With the state lost, a branch that was rewritten meanwhile waits for a person, and traffic does not notice."""
    with served(tmp_path, "web") as (one, backend):
        base = one.repo.tip()
        one.live({"routes/shop/two.yaml": web("two", backend.port)})
        one.kill()
        lose(one, *LOST[what])
        revision = one.push({"routes/shop/three.yaml": web("three", backend.port)}, parent=base)
        with _always_served(one, "web", "two"):
            one.start()
            held = one.status_wait(revision)
            assert (held["state"], held["reason"]) == ("Held", "HistoryRewritten"), held
            wait_for(lambda: one.polls() >= 2, what="another poll")
        assert one.post("/approvals", {"checksum": held["approve"]}).status_code == 201
        assert one.status_wait(revision, "Converged")
        assert one.answers(["web", "two", "three"]) == {"web": 200, "two": 404, "three": 200}


@pytest.mark.parametrize("what", LOST)
def test_what_was_quarantined_keeps_its_last_good_version_although_the_state_is_lost(tmp_path: Path, what: str) -> None:
    """With the state lost, the last good version of a quarantined object is found again and served on."""
    with served(tmp_path, "web", "two") as (one, backend):
        one.live({"routes/shop/web.yaml": web("web", backend.port).replace(b"vps-1", b"vsp-1")})
        one.live({"routes/shop/two.yaml": web("two", backend.port, sticky={})})
        one.kill()
        lose(one, *LOST[what])
        with _always_served(one, "web", "two"):
            one.start()
            after = one.live({"routes/shop/three.yaml": web("three", backend.port)})
            assert [problem["file"] for problem in after["quarantined"]] == ["routes/shop/web.yaml"]
        states = {each["path"]: each["state"] for each in one.ask("/objects")["objects"]}
        assert states["routes/shop/web.yaml"] == "LastGood"
        assert one.answers(["web", "two", "three"]) == {"web": 200, "two": 200, "three": 200}


@pytest.mark.parametrize("what", LOST)
def test_agents_take_new_documents_although_the_state_is_lost(tmp_path: Path, what: str) -> None:
    """With the state lost, a connected agent comes back by itself and takes what changes: nothing looks older to it."""
    with served(tmp_path, "web") as (one, _):
        assert one.enrol("vps-1").returncode == 0
        one.run_agent("vps-1")
        one.wait_connected("vps-1")
        for port in (9001, 9002, 9003):
            found = one.live(_deployed(port))
            assert found["agents"]["vps-1"]["state"] == "applied", found
        one.kill()
        lose(one, *LOST[what])
        one.start()
        one.wait_connected("vps-1")
        after = one.live(_deployed(9004))
        assert after["agents"]["vps-1"]["state"] == "applied", after
        assert after["generation"] > found["generation"]
        assert "was refused" not in one.agent_log("vps-1")


def _deployed(port: int) -> dict[str, bytes | str | None]:
    return {"deployments/shop/app.yaml": documents.deployment("app", "vps-1", port=port)}


def test_a_full_disk_stops_nothing_that_works(tmp_path: Path) -> None:
    """With its data directory full the control plane says so and serves on; with room it follows again."""
    data = tmp_path / "small"
    with _small_disk(data), served(tmp_path / "one", "web", data=data / "data") as (one, backend):
        filler = data / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        blob = os.urandom(200_000).hex()
        revision = one.push({"routes/shop/next.yaml": web("next", backend.port), "big.txt": blob})
        wait_for(lambda: one.metric("cloudlunacy_poll_failures_total") >= 1, 20, what="a pass that fails")
        assert one.get("web").status_code == 200
        assert one.client.get("/healthz").status_code == 200
        assert "DiskFull" in one.log()
        filler.unlink()
        assert one.status_wait(revision, deadline=40)["state"] == "Converged"
        assert one.get("next").status_code == 200
        assert "Traceback" not in one.log()


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
BOUND_BY_MODES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Modes do not bind root, unless it gives this capability away."""


def mounted_read_only(folder: Path) -> list[str]:
    """What to put before a command so that ``folder`` is on a read-only file system for it, and for nobody else."""
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", READ_ONLY, str(folder)]


@pytest.mark.parametrize(
    ("spoil", "ran_before", "told"),
    [
        ("file", False, "data cannot be used: File exists."),
        ("below a file", False, "data cannot be used: Not a directory."),
        ("read-only", False, "data cannot be used: Read-only file system."),
        ("read-only", True, "data cannot be used: Read-only file system."),
        ("directory", False, "data cannot be used: Permission denied."),
        ("directory", True, "data cannot be used: Permission denied."),
        ("lock", True, "data cannot be used: Permission denied."),
        ("keys", False, "/keys cannot be used: Permission denied."),
        ("keys", True, "/keys cannot be used: Permission denied."),
        ("outbox.db", True, "outbox.db cannot be used: "),
        ("state.db", True, "state.db cannot be used: "),
    ],
)
def test_a_data_directory_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, spoil: str, ran_before: bool, told: str
) -> None:
    """Whatever of it this user may not write, ``serve`` ends at once with exit code 1 and says what and where."""
    with installation(tmp_path, start_files("web"), traefik=False, start=ran_before) as one:
        if ran_before:
            one.stop()
        before = list(BOUND_BY_MODES)
        one.data.mkdir(mode=0o700, exist_ok=True)
        if spoil in ("file", "below a file"):
            shutil.rmtree(one.data)
            one.data.write_text("")
            one.data = one.data / "data" if spoil == "below a file" else one.data
        elif spoil == "read-only":
            before = mounted_read_only(one.data)
        elif spoil == "directory":
            for path in one.data.iterdir():
                path.chmod(0o500 if path.is_dir() else 0o400)
            one.data.chmod(0o500)
        else:
            path = one.data / spoil
            if spoil == "keys":
                path.mkdir(exist_ok=True)
            path.chmod(0o400 if path.is_file() else 0o000 if ran_before else 0o500)
        done = subprocess.run([*before, *one.serve_command()], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        (told_last,) = [line for line in done.stderr.splitlines() if line.startswith("cloudlunacy: ")]
        assert told in told_last, told_last


def test_two_control_planes_do_not_share_a_data_directory(tmp_path: Path) -> None:
    """The second one refuses and names the process that has it."""
    with served(tmp_path, "web") as (one, _):
        assert one.process is not None
        second = subprocess.run(one.serve_command(), capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert f"is in use by process {one.process.pid}." in second.stderr, second.stderr
        assert "Traceback" not in second.stderr


# ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _always_served(one: Installation, *names: str) -> Iterator[None]:
    """Ask for the routes over and over while the block runs; each answer must be 200."""
    done = threading.Event()
    bad: list[tuple[str, int]] = []

    def ask() -> None:
        while not done.wait(0.02):
            bad.extend((name, code) for name in names if (code := one.get(name).status_code) != 200)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not bad, bad[:5]


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs (root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)
