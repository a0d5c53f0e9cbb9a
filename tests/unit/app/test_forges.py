"""What the control plane tells a forge, from one process to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.agents.group_commit import Job
from reconciler.app.forges import Forges
from reconciler.convergence import Record
from reconciler.desired.edits import CommitRequest
from reconciler.errors import Broken
from reconciler.store.protocols import Event
from schemas.status import STAGES, RevisionStatus
from tests.support.forges import FakeGitHub
from tests.support.forges.fake import REPOSITORY, TOKEN
from tests.support.waiting import eventually
from tests.unit.app.test_certificate import Timeline

OLD, NEW = "0" * 40, "1" * 40
DONE = dict.fromkeys(STAGES, 1.0)


def status(revision: str, state: str) -> RevisionStatus:
    return RevisionStatus.model_validate({"revision": revision, "state": state, "stages": {}})


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    fake = FakeGitHub()
    with fake.listening():
        yield fake


def settings(folder: Path, github: FakeGitHub) -> Path:
    (folder / "token").write_text(TOKEN)
    file = folder / "forge.toml"
    lines = f'kind = "github"\nurl = "{github.api}"\nrepository = "{REPOSITORY}"\ntoken-file = "{folder}/token"\n'
    file.write_text(lines)
    file.chmod(0o600)
    return file


def process(
    folder: Path,
    file: Path | None,
    work: Callable[[Forges], Awaitable[None]],
    recent: Sequence[RevisionStatus] = (),
) -> list[Event]:
    """One life of the control plane, as far as the forge is concerned; returns its timeline."""

    async def statuses(limit: int) -> Sequence[RevisionStatus]:
        return recent[:limit]

    async def run() -> list[Event]:
        timeline = Timeline()
        forges = Forges(
            file, remote="/srv/fleet.git", public_url="https://control.test", data=folder, events=timeline,
            statuses=statuses,
        )  # fmt: skip
        await forges.load()
        tasks = [asyncio.create_task(coroutine) for coroutine in forges.tasks().values()]
        try:
            await work(forges)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await forges.close()
        return timeline.said

    return asyncio.run(run())


def test_without_a_forge_nothing_happens(tmp_path: Path) -> None:
    """Every call is free, and no file is made."""

    async def work(forges: Forges) -> None:
        forges.judged(Record(NEW))
        assert await forges.proposed("change/1", "main", "Change", "") == ""
        assert not forges.tasks()

    assert process(tmp_path, None, work) == []
    assert list(tmp_path.iterdir()) == []


def test_a_restart_catches_up_with_what_it_may_have_missed(tmp_path: Path, github: FakeGitHub) -> None:
    """The newest commit and those that it had posted for; older ones stay as they are."""
    file = settings(tmp_path, github)

    async def first(forges: Forges) -> None:
        forges.judged(Record(OLD))
        await eventually(lambda: len(github.statuses) == 1, 30)

    process(tmp_path, file, first)
    recent = [status(NEW, "Progressing"), status(OLD, "Converged"), status("2" * 40, "Converged")]

    async def second(_: Forges) -> None:
        await eventually(lambda: len(github.statuses) == 3, 30)

    process(tmp_path, file, second, recent)
    assert {(one.revision, one.state) for one in github.statuses[1:]} == {(NEW, "pending"), (OLD, "success")}


def test_what_converges_at_once_is_posted_once(tmp_path: Path, github: FakeGitHub) -> None:
    """The states on the way are gone before the post."""

    async def work(forges: Forges) -> None:
        forges.judged(Record(NEW))
        forges.judged(Record(NEW, stages=DONE))
        await eventually(lambda: github.statuses, 30)

    process(tmp_path, settings(tmp_path, github), work)
    assert [(one.state, one.url) for one in github.statuses] == [("success", f"https://control.test/revisions/{NEW}")]


def test_only_proposals_get_pull_requests(tmp_path: Path, github: FakeGitHub) -> None:
    """A commit on the branch itself needs none; the timeline names the page of the other one."""
    request = CommitRequest(
        "r", "agents/vps-1.yaml", lambda _: None, "Enrol agent vps-1", "vps-1", "vps-1@agents.test", datetime.now(UTC)
    )

    async def work(forges: Forges) -> None:
        await forges.pushed(Job(request, "main"))
        await forges.pushed(Job(request, "enrol/vps-1", base="main", proposal=True))
        url = await forges.proposed("enrol/vps-1", "main", "Enrol agent vps-1", "")
        assert url == "https://github.test/platform/fleet/pull/1"

    (event,) = process(tmp_path, settings(tmp_path, github), work)
    assert (event.type, event.subject, [one.branch for one in github.pulls]) == (
        "PullRequestOpened", "branch/enrol/vps-1", ["enrol/vps-1"],
    )  # fmt: skip
    assert event.message.endswith("https://github.test/platform/fleet/pull/1")


def test_a_wrong_token_is_told_to_a_person(tmp_path: Path, github: FakeGitHub) -> None:
    """At once and once, without the token, while everything else goes on."""
    file = settings(tmp_path, github)
    (tmp_path / "token").write_text("hunter2hunter2")

    async def work(forges: Forges) -> None:
        forges.judged(Record(NEW))
        await eventually(lambda: len(github.requests) > 1, 60)

    events = process(tmp_path, file, work)
    assert [event.type for event in events] == ["ForgeUnavailable"]
    assert "put a new one into its file" in events[0].message
    assert "hunter2" not in str(events)


def test_a_file_that_makes_no_sense_stops_the_start(tmp_path: Path) -> None:
    """It is a mistake of the settings, as any other."""
    with pytest.raises(Broken, match="CLOUDLUNACY_FORGE_FILE"):
        process(tmp_path, tmp_path / "missing.toml", lambda _: asyncio.sleep(0))


def test_a_store_that_cannot_be_had_costs_the_forge_and_nothing_else(tmp_path: Path, github: FakeGitHub) -> None:
    """The start goes on, and the timeline says it."""
    (tmp_path / "forges.db").mkdir()

    async def work(forges: Forges) -> None:
        forges.judged(Record(NEW))
        assert not forges.tasks()

    events = process(tmp_path, settings(tmp_path, github), work)
    assert [event.type for event in events] == ["ForgeUnavailable"]
