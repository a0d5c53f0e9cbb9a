"""Pull requests of our own branches: once each, late after an outage, and known to who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from starlette.responses import JSONResponse, Response

from reconciler.forges.forge import Proposal, PullRequest
from reconciler.forges.patience import Patience
from reconciler.forges.proposals import Proposals
from reconciler.store.forges import ForgeStore
from tests.support.forges import FakeGitHub
from tests.support.waiting import eventually

T = TypeVar("T")
PROPOSAL = Proposal("change/1", "main", "Change web", "By Ada.")


class Heard:
    def __init__(self) -> None:
        self.opened: list[int] = []
        self.refused: list[str] = []

    async def on_opened(self, _: Proposal, found: PullRequest) -> None:
        self.opened.append(found.number)

    async def on_refused(self, _: Proposal, why: str) -> None:
        self.refused.append(why)


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


def process(
    folder: Path, github: FakeGitHub, heard: Heard, work: Callable[[Proposals], Awaitable[T]], *, runs: bool = True
) -> T:
    """One process of the control plane, as far as proposals are concerned."""

    async def run() -> T:
        store, forge = ForgeStore(folder), github.forge()
        await store.open()
        proposals = Proposals(
            forge, store, Patience(), on_opened=heard.on_opened, on_refused=heard.on_refused, sleep=no_pause
        )
        await proposals.load()
        task = asyncio.create_task(proposals.run()) if runs else None
        try:
            return await work(proposals)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await forge.close()
            await store.close()

    return asyncio.run(run())


def test_who_proposes_gets_the_page(tmp_path: Path) -> None:
    """Asked again, it is the same one, and the timeline hears of it once."""
    github, heard = FakeGitHub(), Heard()
    for _ in range(2):
        url = process(tmp_path, github, heard, lambda one: one.open(PROPOSAL, 30))
        assert url == "https://github.test/platform/fleet/pull/1"
    assert (heard.opened, len(github.pulls)) == ([1], 1)


def test_a_proposal_outlives_process_and_outage(tmp_path: Path) -> None:
    """It was accepted while the forge was away and the process was killed: the next one opens it."""
    github, heard = FakeGitHub(), Heard()
    assert process(tmp_path, github, heard, lambda one: one.open(PROPOSAL, 0.01), runs=False) == ""
    github.failures = [lambda: Response("", 503) for _ in range(3)]

    async def until_opened(_: Proposals) -> None:
        await eventually(lambda: heard.opened, 30)

    process(tmp_path, github, heard, until_opened)
    assert [one.branch for one in github.pulls] == ["change/1"]
    process(tmp_path, github, heard, lambda one: one.open(PROPOSAL, 30))
    assert heard.opened == [1]


def test_what_the_forge_refuses_is_told_and_given_up(tmp_path: Path) -> None:
    """Such as a branch that has nothing new; the ones behind it are opened."""
    github, heard = FakeGitHub(), Heard()
    refusal = {"message": "Validation Failed", "errors": [{"message": "No commits between main and change/1"}]}
    github.failures = [lambda: JSONResponse([]), lambda: JSONResponse(refusal, 422), lambda: JSONResponse([])]
    other = Proposal("change/2", "main", "Other", "")

    async def both(one: Proposals) -> list[str]:
        return [await one.open(PROPOSAL, 30), await one.open(other, 30)]

    assert process(tmp_path, github, heard, both) == ["", "https://github.test/platform/fleet/pull/1"]
    assert "No commits between main and change/1" in heard.refused[0]
    assert [one.branch for one in github.pulls] == ["change/2"]
