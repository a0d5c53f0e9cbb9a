"""The commit point: what is staged while the throwaway Traefik looks, and in which order store and files change."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.errors import Rejected, Transient
from reconciler.steps.fronts import Front, Fronts, PreflightRefused
from reconciler.steps.passing import Pass, Published
from reconciler.traefik.api import ObjectFailure
from reconciler.traefik.publish import FrontFile
from reconciler.traefik.templates import load_templates
from tests.support.documents import HTPASSWD, agent, fleet, route, settled
from tests.support.waiting import eventually

REVISION = "a" * 40
FILES = {"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1"), "routes/shop/web.yaml": route("web")}
DISABLED = ObjectFailure("http.routers", "shop_web", "no")


@dataclass
class World:
    """A throwaway Traefik that answers when it may, and a keeper that looks at the disk whenever it saves."""

    files: tuple[FrontFile, ...]
    answer: tuple[ObjectFailure, ...] = ()
    fault: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    unavailable_reason: str | None = None
    generation: int = 6
    saved: list[tuple[int, str | None]] = field(default_factory=list)
    in_place_at_save: list[bool] = field(default_factory=list)

    async def prepare(self, entry_points: Collection[str] | None = None) -> None:
        pass

    async def check(self, document: str) -> Sequence[ObjectFailure]:
        await self.may_answer.wait()
        if self.fault is not None:
            raise self.fault
        return self.answer

    async def next_generation(self) -> int:
        return self.generation + 1

    async def save(self, published: Published, now: float, front_digest: str | None) -> None:
        self.saved.append((published.generation, front_digest))
        self.in_place_at_save += [file.path.exists() for file in self.files]

    @property
    def staged(self) -> list[bytes]:
        found = (file.staging / file.path.name for file in self.files)
        return [path.read_bytes() for path in found if path.exists()]


def a_pass() -> Pass:
    this = Pass(REVISION, Published())
    this.settled = settled(State(), FILES, REVISION)
    return this


def with_fronts(folder: Path, scenario: Callable[[World, Fronts, Pass], Awaitable[None]], *, count: int = 2) -> None:
    async def main() -> None:
        files = []
        for number in range(count):
            (folder / f"{number}" / "dynamic").mkdir(parents=True)
            files.append(FrontFile(folder / f"{number}" / "dynamic" / "cloudlunacy.yml"))
        world = World(tuple(files))
        parts: Any = world
        fronts = Fronts(
            [Front(f"{number}", file, parts) for number, file in enumerate(files)],
            Renderer(load_templates()),
            parts,
            parts,
            lambda _: HTPASSWD,
        )
        this = a_pass()
        await fronts.render(this)
        await scenario(world, fronts, this)

    asyncio.run(main())


def published(this: Pass) -> Published:
    return Published(this.generation, this.revision, this.state, this.rendered)


def test_files_are_staged_while_the_throwaway_traefik_looks_and_put_in_place_when_it_agrees(tmp_path: Path) -> None:
    """The text lies beside each front's file before the verdict; after it the store is told first, then all files."""

    async def scenario(world: World, fronts: Fronts, this: Pass) -> None:
        checking = asyncio.create_task(fronts.preflight(this))
        await eventually(lambda: len(world.staged) == 2 and b"generation 7," in world.staged[1], 5)
        assert not checking.done()
        world.may_answer.set()
        await checking
        assert (world.saved, [file.path.exists() for file in world.files]) == ([], [False, False])
        await fronts.publish(published(this), 1.0, this.staged)
        text = world.files[0].path.read_bytes()
        assert world.saved == [(7, hashlib.sha256(text).hexdigest())]
        assert world.in_place_at_save == [False, False]
        assert (world.files[1].path.read_bytes(), world.staged) == (text, [])
        assert [file.drifted() for file in world.files] == [None, None]

    with_fronts(tmp_path, scenario)


@pytest.mark.parametrize(
    ("answer", "fault", "raised"),
    [
        ((DISABLED,), None, PreflightRefused),
        ((ObjectFailure("", "", "field not found"),), None, Rejected),
        ((), Transient("none can be started", reason="PreflightUnavailable"), Transient),
    ],
)
def test_what_the_throwaway_traefik_does_not_agree_to_is_given_up(
    tmp_path: Path, answer: tuple[ObjectFailure, ...], fault: Exception | None, raised: type[Exception]
) -> None:
    """Refused or not checked at all, nothing stays staged, nothing is in place, and the store knows of nothing."""

    async def scenario(world: World, fronts: Fronts, this: Pass) -> None:
        world.answer, world.fault = answer, fault
        world.may_answer.set()
        with pytest.raises(raised):
            await fronts.preflight(this)
        assert (world.staged, world.saved, this.staged) == ([], [], None)
        assert not any(file.path.exists() for file in world.files)

    with_fronts(tmp_path, scenario)


def test_a_disk_that_takes_no_text_is_told_before_the_store_is_asked(tmp_path: Path) -> None:
    """One front's disk fails while the file is staged: the pass ends with that fault, and no front has changed."""

    async def scenario(world: World, fronts: Fronts, this: Pass) -> None:
        world.may_answer.set()
        world.files[1].path.parent.rmdir()
        with pytest.raises(Transient) as caught:
            await fronts.preflight(this)
        assert caught.value.reason == "DirectoryMissing"
        assert (world.saved, this.staged, world.files[0].path.exists()) == ([], None, False)
        world.files[1].path.parent.mkdir()
        await fronts.preflight(this)
        await fronts.publish(published(this), 1.0, this.staged)
        assert all(file.path.exists() for file in world.files)

    with_fronts(tmp_path, scenario)


def test_a_refusal_counts_more_than_a_full_disk(tmp_path: Path) -> None:
    """Both at once: the routes at fault are named, so that the pass goes on without them."""

    async def scenario(world: World, fronts: Fronts, this: Pass) -> None:
        world.answer = (DISABLED,)
        world.may_answer.set()
        world.files[0].path.parent.rmdir()
        with pytest.raises(PreflightRefused):
            await fronts.preflight(this)

    with_fronts(tmp_path, scenario)


def test_a_leftover_of_a_crash_is_written_over(tmp_path: Path) -> None:
    """What a killed process had staged is neither put in place nor in the way."""

    async def scenario(world: World, fronts: Fronts, this: Pass) -> None:
        for file in world.files:
            file.staging.mkdir()
            (file.staging / file.path.name).write_bytes(b"x" * 1_000_000)
        world.may_answer.set()
        await fronts.preflight(this)
        await fronts.publish(published(this), 1.0, this.staged)
        assert all(b"xxx" not in file.path.read_bytes() for file in world.files)

    with_fronts(tmp_path, scenario)
