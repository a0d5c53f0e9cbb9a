"""SIGKILL at any moment: what is published is complete, what was acknowledged is there, the end is the last commit."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from agent.enrol import Wanted, enrol
from reconciler.traefik.publish import FrontFile
from schemas.enrolment import Enrolment
from tests.support.fleet import Installation, served, web
from tests.support.waiting import wait_for
from tests.support.watcher import Version, versions, watching

LONG = os.environ.get("CLOUDLUNACY_TEST_LONG") == "1"
ROUNDS = 200 if LONG else 50
"""Commits, and enrolments."""
STARTING = 0.25
"""Share of kills that hit a process which is still starting."""
ENROLLING = 10
COMMIT_SECONDS = 0.4


@dataclass
class Life:
    """A control plane that is killed and started again until somebody says that it is enough."""

    one: Installation
    seed: int = field(default_factory=lambda: random.randrange(2**32))
    kills: int = 0
    enough: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def hard(self) -> Iterator[None]:
        """Kill it at random moments while the block runs."""
        thread = threading.Thread(target=self._kill_and_start, name="killer")
        thread.start()
        try:
            yield
        finally:
            self.enough.set()
            thread.join()
            self.one.restart()  # what the thread has started ends with the thread (tests.support.orphans)

    def _kill_and_start(self) -> None:
        dice = random.Random(self.seed)
        while not self.enough.is_set():
            if dice.random() > STARTING:
                self.one.wait_until_up()
            if self.enough.wait(dice.uniform(0.0, 1.2)):
                break
            self.one.kill()
            self.kills += 1
            self.one.start(wait=False)


@pytest.mark.timeout(600)  # each start of a killed one takes seconds of a busy machine
def test_kill_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    """Killed at random during commits and enrolments, it publishes only complete renders and forgets no enrolment."""
    with served(tmp_path, "web") as (one, backend):
        life = Life(one)
        with watching(one.published, tmp_path / "seen.jsonl") as seen:
            with life.hard(), ThreadPoolExecutor(ENROLLING + 1) as pool:
                commits = pool.submit(_push_all, one, backend.port)
                enrolled = list(pool.map(lambda number: _enrol(one, number), range(ROUNDS)))
                revisions = commits.result()
            one.wait_until_up()
            tip = one.repo.tip() or ""
            assert one.status_wait(tip, "Converged", deadline=150)
        story = f"seed {life.seed}, {life.kills} kills"
        found = versions(seen)
        _assert_complete(one, found, story)
        assert life.kills >= (ROUNDS // 10), story
        assert (found[-1].revision, one.ask("/status")["revision"]) == (tip, tip), story
        for answer in enrolled:
            assert answer.state == "committed", f"{answer}\n{story}"
            assert answer.thumbprint in one.repo.show(f"agents/{answer.name}.yaml"), story
        known = {one_["path"]: one_["blob"] for one_ in one.ask("/state")["objects"]}
        assert known == _objects(one, tip), story
        assert len(revisions) == ROUNDS
        names = [f"r-{number}" for number in range(ROUNDS)]
        assert one.answers(["web", *names]) == dict.fromkeys(["web", *names], 200), story
        assert "Traceback" not in one.log()


@pytest.mark.parametrize("moment", ["FrontFile.put_in_place", "Fronts.publish"])
def test_kill_at_the_commit_point(tmp_path: Path, moment: str) -> None:
    """Killed once the file is staged, before or after the store knows of it, the next start brings the commit."""
    entry = tmp_path / "entry.py"
    entry.write_text(DIES.format(moment=moment))
    with served(tmp_path / "one", "web") as (one, backend):
        before = one.published.read_bytes()
        one.stop()
        one.entry = [sys.executable, str(entry)]
        one.start()
        revision = one.push({"routes/shop/next.yaml": web("next", backend.port)})
        process = one.process
        assert process is not None
        wait_for(lambda: process.poll() is not None, 20, what="the death of the process")
        assert one.published.read_bytes() == before
        assert [path.name for path in FrontFile(one.published).staging.iterdir()] == [one.published.name]
        one.entry = ()
        one.start()
        found = one.status_wait(revision)
        assert (found["state"], found["generation"]) == ("Converged", 2)
        assert one.answers(["web", "next"]) == {"web": 200, "next": 200}
        assert list(FrontFile(one.published).staging.iterdir()) == []


DIES = """
import os, signal, sys
from reconciler.steps.fronts import Fronts
from reconciler.traefik.publish import FrontFile
{moment} = lambda self, *_: os.kill(os.getpid(), signal.SIGKILL)
from reconciler.__main__ import main
sys.exit(main())
"""


def _push_all(one: Installation, port: int) -> list[str]:
    """Commit route after route as a person does: never by force, again when somebody else was faster."""
    revisions = []
    for number in range(ROUNDS):
        revisions.append(one.repo.push_on_top({f"routes/shop/r-{number}.yaml": web(f"r-{number}", port)}))
        time.sleep(COMMIT_SECONDS)  # people take their time; kills shall fall between commits too
    return revisions


def _enrol(one: Installation, number: int) -> Enrolment:
    """Enrol as the agent does, through every crash; the token is asked for until there is one."""
    name, address = f"vps-{100 + number}", f"10.1.2.{1 + number}"

    def ask_for_token() -> str | None:
        try:
            return one.token(name)
        except (httpx.HTTPError, AssertionError):
            return None

    token = wait_for(ask_for_token, 60, what="a token")
    assert token is not None
    secret, ca = SecretStr(token), one.ca_sha256
    wanted = Wanted(server=one.url, token=secret, name=name, ca_sha256=ca, address=address, version="1")
    # as the agent does, but for its pauses: the control plane is up for no more than a second at a time, and what is
    # left of the time is reckoned by the pauses that are not made
    return asyncio.run(enrol(wanted, one.agent_data(name), wait_seconds=100_000, sleep=lambda _: asyncio.sleep(0.2)))


def _assert_complete(one: Installation, found: list[Version], story: str) -> None:
    """Every version that was seen is the whole render of some revision of the branch, and generations only grow."""
    bad = [version for version in found if version.error]
    assert not bad, f"{bad[:3]}\n{story}"
    generations = [version.generation for version in found]
    assert generations == sorted(generations), f"{generations}\n{story}"
    for version in found:
        routes = {
            f"shop_{Path(path).stem}" for path in _objects(one, version.revision) if path.startswith("routes/shop/")
        }
        assert version.routers == routes, f"{version.generation} of {version.revision}\n{story}"


def _objects(one: Installation, revision: str) -> dict[str, str]:
    return {path: blob for path, blob in one.repo.blobs(revision).items() if path.endswith(".yaml")}
