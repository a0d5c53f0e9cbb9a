"""What goes wrong around the control plane: fronts, remotes, disks. The last good stays, and it mends by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation, served, start_files, web
from tests.support.git_repos import git
from tests.support.git_server import git_server
from tests.support.traefik import backends
from tests.support.waiting import wait_for

QUICK_READ_BACK = """
import dataclasses
import reconciler.commands.serve_command as serve
make = serve.settings_of
serve.settings_of = lambda options: dataclasses.replace(make(options), read_back_seconds=1.5)
"""

IMPATIENT = """
import functools
import reconciler.app.building as app
from reconciler.git.runner import GitLimits
app.Mirror = functools.partial(app.Mirror, limits=GitLimits(head_seconds=3, fetch_seconds=3))
"""
POISON = """
import reconciler.traefik.publish as publish
good = publish._write
def _write(path, text):
    return good(path, [*text, b"http: [\\n"] if any(b"shop_poison" in part for part in text) else text)
publish._write = _write
"""

# --- fronts -------------------------------------------------------------------------------------------------------


def test_a_file_edited_by_hand_is_put_right(tmp_path: Path) -> None:
    """A published file that is changed, cut short or removed while ``serve`` runs is written again."""
    with served(tmp_path, "web") as (one, _):
        good = one.published.read_bytes()
        for spoilt in (b"# mine now\n", good[: len(good) // 2], None):
            if spoilt is None:
                one.published.unlink()
            else:
                one.published.write_bytes(spoilt)
            wait_for(lambda: one.published.exists() and one.published.read_bytes() == good, what="the file's repair")
        wait_for(lambda: one.get("web").status_code == 200, what="the route")
        assert one.ask("/events")["events"][-1]["type"] == "FrontRepaired"


@pytest.mark.parametrize("spoilt", ["edited", "truncated", "deleted"])
def test_routes_come_back_after_everything_went_down(tmp_path: Path, spoilt: str) -> None:
    """Traefik killed, its file spoilt, both restarted, Traefik first: the routes come back."""
    with served(tmp_path, "web", "two") as (one, _):
        assert one.front is not None
        one.kill()
        one.front.stop()
        good = one.published.read_bytes()
        if spoilt == "deleted":
            one.published.unlink()
        else:
            one.published.write_bytes(b"http: {routers: {}}" if spoilt == "edited" else good[:300])
        one.front.start()
        assert one.answers(["web", "two"]) == {"web": 404, "two": 404}
        one.start()
        wait_for(lambda: one.answers(["web", "two"]) == {"web": 200, "two": 200}, what="the routes")
        assert one.published.read_bytes() == good


def test_a_restarted_traefik_serves_without_the_control_plane(tmp_path: Path) -> None:
    """Traefik restarted while the control plane is down serves what was published last."""
    with served(tmp_path, "web") as (one, _):
        assert one.front is not None
        one.kill()
        one.front.stop()
        one.front.start()
        wait_for(lambda: one.get("web").status_code == 200, what="the route")


def test_a_front_that_loads_nothing_is_given_the_former_file_and_everything_again(tmp_path: Path) -> None:
    """Frozen by a foreign file, a front gets the last good back; once that is gone, the held revision goes live."""
    entry = _program(tmp_path, QUICK_READ_BACK)
    with served(tmp_path / "one", "web", entry=entry) as (one, backend):
        assert one.front is not None
        foreign = one.front.directory / "foreign.yml"
        foreign.write_text("http: {routers: [")
        before = one.published.read_text()
        revision = one.push({"routes/shop/next.yaml": web("next", backend.port)})
        held = one.status_wait(revision)
        assert (held["state"], held["reason"]) == ("Held", "ReadBackFailed")
        assert "a front did not take generation 2" in held["message"]
        assert "still runs generation 1" in held["message"]
        assert one.answers(["web", "next"]) == {"web": 200, "next": 404}
        assert _without_generation(one.published.read_text()) == _without_generation(before)
        assert one.ask("/status")["generation"] == 3
        foreign.unlink()
        assert one.status_wait(revision, "Converged")["generation"] == 4
        assert one.answers(["web", "next"]) == {"web": 200, "next": 200}


def test_a_file_that_the_front_refuses_is_tried_once_more_and_then_held(tmp_path: Path) -> None:
    """A revision that poisons the front's file waits for a person; approved it fails again; a better one goes live."""
    entry = _program(tmp_path, QUICK_READ_BACK + POISON)
    with served(tmp_path / "one", "web", entry=entry) as (one, backend):
        revision = one.push({"routes/shop/poison.yaml": web("poison", backend.port)})
        wait_for(lambda: one.metric("cloudlunacy_restores_total") == 2, 20, what="the second restore")
        held = one.status_wait(revision)
        assert (held["state"], held["reason"]) == ("Held", "ReadBackFailed")
        generation = one.ask("/status")["generation"]
        assert one.get("web").status_code == 200
        assert one.post("/approvals", {"checksum": held["planChecksum"]}).status_code == 201
        wait_for(lambda: one.metric("cloudlunacy_restores_total") == 3, 20, what="the third restore")
        assert one.status_wait(revision)["state"] == "Held"
        assert one.ask("/status")["generation"] == generation + 2
        better = {"routes/shop/poison.yaml": None, "routes/shop/next.yaml": web("next", backend.port)}
        assert one.live(better)["generation"] == generation + 3
        assert one.answers(["web", "next"]) == {"web": 200, "next": 200}


def test_a_front_that_was_never_mended_gets_the_first_generation(tmp_path: Path) -> None:
    """Frozen from the start, there is nothing to go back to: the revision is held until the front loads it."""
    entry = _program(tmp_path, QUICK_READ_BACK)
    with backends("app") as (app,), _not_started(tmp_path / "one", entry) as one:
        assert one.front is not None
        foreign = one.front.directory / "foreign.yml"
        foreign.write_text("http: {routers: [")
        revision = one.push(start_files("web", port=app.port))
        one.start()
        held = one.status_wait(revision)
        assert (held["state"], held["reason"]) == ("Held", "ReadBackFailed")
        assert "there is none to go back to" in held["message"]
        foreign.unlink()
        assert one.status_wait(revision, "Converged")["generation"] == 1
        assert one.get("web").status_code == 200


def test_without_traefiks_api_it_is_published_and_confirmed_later(tmp_path: Path) -> None:
    """While Traefik is away its file is written and said to be unconfirmed; when it is back the revision converges."""
    with served(tmp_path, "web") as (one, backend):
        assert one.front is not None
        one.front.stop()
        revision = one.push({"routes/shop/next.yaml": web("next", backend.port)})

        def waits() -> bool:
            found = one.status(revision)
            return found is not None and found["reason"] == "FrontNotReached"

        wait_for(waits, 20, what="the record that says what it waits for")
        assert "routers" in one.published.read_text()
        found = one.status(revision)
        assert found is not None
        assert (found["state"], found["stages"]["published"] is None, found["stages"]["loaded"]) == (
            "Progressing", False, None)  # fmt: skip
        note = one.push({"note.txt": "x"})  # changes nothing, and may not claim that it is loaded either
        wait_for(lambda: (one.status(note) or {}).get("generation"), what="the adoption of the note")
        assert (one.status(note) or {})["stages"]["loaded"] is None
        one.front.start()
        assert one.status_wait(note, "Converged", deadline=30)
        assert one.status_wait(revision, "Converged", "Superseded")
        assert one.get("next").status_code == 200


# --- remotes ------------------------------------------------------------------------------------------------------


def test_a_remote_that_is_away_slow_or_wrong_moves_nothing(tmp_path: Path) -> None:
    """Down at the start, down later, answering garbage, stalled: it serves on, and follows once the remote is well."""
    with (
        backends("app") as (app,),
        git_server(tmp_path) as server,
        _not_started(tmp_path / "one", _program(tmp_path, IMPATIENT)) as one,
    ):
        one.repo_url = server.url_of(one.repo.path)
        first = one.push(start_files("web", port=app.port))
        server.behaviour = "error"
        one.start()
        wait_for(lambda: one.metric("cloudlunacy_poll_failures_total") >= 2, what="failed polls")
        ready = one.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "starting")
        assert one.client.get("/healthz").status_code == 200
        server.behaviour = "serve"
        assert one.status_wait(first)["state"] == "Converged"
        assert one.client.get("/readyz").status_code == 200
        for number, behaviour in enumerate(("error", "garbage", "redirect", "stall")):
            server.behaviour = behaviour  # type: ignore[assignment]
            seen = len(server.requests)
            revision = one.push({f"routes/shop/r-{number}.yaml": web(f"r-{number}", app.port)})
            wait_for(lambda seen=seen: len(server.requests) > seen, what=f"a poll that meets {behaviour}")  # type: ignore[misc]
            assert one.get("web").status_code == 200
            server.behaviour = "serve"
            assert one.status_wait(revision, deadline=40)["state"] == "Converged", behaviour
        assert "Traceback" not in one.log()


def test_a_deleted_branch_is_no_deletion(tmp_path: Path) -> None:
    """When the branch is gone everything stays; when it is back it is followed again."""
    with served(tmp_path, "web") as (one, backend):
        tip = one.repo.tip()
        git("-C", one.repo.path, "update-ref", "-d", "refs/heads/main")
        before = one.metric("cloudlunacy_poll_failures_total")
        wait_for(lambda: one.metric("cloudlunacy_poll_failures_total") > before, what="a failed poll")
        assert one.get("web").status_code == 200
        assert 'has no branch \\"main\\"' in one.log()
        one.repo.set_tip(tip or "")
        assert one.live({"routes/shop/next.yaml": web("next", backend.port)})
        assert "Traceback" not in one.log()


# --- data directory -----------------------------------------------------------------------------------------------


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
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
                    file.flush()
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


@pytest.mark.parametrize("ends", ["return", "raise KeyError('a bug')", "raise OSError(24, 'Too many open files')"])
def test_a_task_that_ends_ends_the_process_with_a_sentence(tmp_path: Path, ends: str) -> None:
    """No part dies alone: the process ends with exit code 1 and a sentence, for its supervisor to start it again."""
    source = (
        f"import reconciler.agents.group_commit as m\nasync def run(self):\n    {ends}\nm.GroupCommitter.run = run\n"
    )
    with _not_started(tmp_path / "one", _program(tmp_path, source)) as one:
        one.push(start_files("web"))
        one.start(wait=False)
        assert one.process is not None
        assert one.process.wait(20) == 1
        last = one.log().splitlines()[-1]
        assert last.startswith('cloudlunacy: the task "'), last
        assert "ended unexpectedly." in last


def test_sigterm_ends_it_within_seconds(tmp_path: Path) -> None:
    """Asked to end, it ends with exit code 0, also while somebody listens to the stream."""
    with served(tmp_path, "web") as (one, _):
        with one.client.stream("GET", "/api/v1/stream", headers=one.headers()) as stream:
            next(stream.iter_text())
            assert one.stop(seconds=8) == 0
        assert "Traceback" not in one.log()


# ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _not_started(folder: Path, entry: list[str] | tuple[str, ...]) -> Iterator[Installation]:
    with installation(folder, start=False, entry=entry) as one:
        yield one


def _program(tmp_path: Path, source: str) -> list[str]:
    entry = tmp_path / "entry.py"
    entry.write_text(f"import sys\n{source}\nfrom reconciler.__main__ import main\nsys.exit(main())\n")
    return [sys.executable, str(entry)]


def _without_generation(text: str) -> list[str]:
    return [line for line in text.splitlines() if "generation" not in line]


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
