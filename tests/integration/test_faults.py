"""What goes wrong around the control plane: fronts, remotes, disks. The last good stays, and it mends by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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

        wait_for(waits, 60, what="the record that says what it waits for")
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


# --- the process --------------------------------------------------------------------------------------------------


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
