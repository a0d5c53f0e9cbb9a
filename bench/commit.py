"""One file of 10,000 changes: the way to the published file, against ``git fetch`` and against rendering everything.

The way is measured from the look at the remote (``ls-remote`` included) to the end of the commit point: the publication
durable in the store, the front's file renamed and its directory flushed. All that lies between counts: fetch, parse,
settle, plan, render, the throwaway Traefik, the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from bench.pairs import Pairs, Row, settle_down, timed
from bench.plain import render_everything
from bench.plane import Plane, plane, settings
from bench.state_repo import BareRepo, git, route, route_path, tree

OBJECTS = 10_000
ROUNDS = 15
RENDERS = 5
POLLS = 40
WARM_UP = 2


class Site:
    """The remote, a mirror that plain git fetches into, and a work tree that plain git pulls into."""

    def __init__(self, folder: Path) -> None:
        files = tree(OBJECTS)
        self.agents = sum(path.startswith("agents/") for path in files)
        self.routes = [number for number in range(OBJECTS) if route_path(number) in files]
        self.remote = BareRepo(folder / "remote.git", files)
        self.mirror = folder / "fetched.git"
        self.work = folder / "work"
        git("clone", "--quiet", "--mirror", self.remote.path, self.mirror)
        self._number = 0

    def clone(self) -> None:
        git("clone", "--quiet", self.remote.path, self.work)

    def commit(self) -> None:
        """Change one route."""
        self._number += 1
        number = self.routes[(self._number * 997) % len(self.routes)]
        text = route(number, agents=self.agents, average=100 + self._number)
        self.remote.push({route_path(number): text})

    def fetch(self) -> float:
        with timed() as watch:
            git("-C", self.mirror, "fetch", "--quiet", "origin")
        return watch.seconds

    def pull_and_render(self, loader: object) -> float:
        with timed() as watch:
            git("-C", self.work, "pull", "--quiet")
            render_everything(self.work, self.work.parent / "plain.yml", loader)
        return watch.seconds

    def ls_remote(self) -> float:
        with timed() as watch:
            git("ls-remote", self.remote.path, "refs/heads/main")
        return watch.seconds


def measure_commit(folder: Path) -> list[Row]:
    """Return the rows against ``git fetch``, with and without the throwaway Traefik."""
    return asyncio.run(_commit(folder))


async def _commit(folder: Path) -> list[Row]:
    site = Site(folder)
    whole, without = Pairs(), Pairs()
    async with plane(settings(site.remote.path, folder / "with")) as running:
        await running.loop.reconcile_once()
        for number in range(-WARM_UP, ROUNDS):
            _keep(whole if number >= 0 else Pairs(), *await _round(site, running, site.fetch))
        assert running.parts._preflight.unavailable_reason is None  # noqa: SLF001
    async with plane(settings(site.remote.path, folder / "without", traefik="/nowhere")) as running:
        await running.loop.reconcile_once()
        for number in range(-WARM_UP, ROUNDS // 2):
            _keep(without if number >= 0 else Pairs(), *await _round(site, running, site.fetch))
    name, against = f"one-file commit → published, {OBJECTS:,} objects", "git fetch of that commit"
    return [
        whole.row(name, against, 3.0, notes="from ls-remote to the renamed file, preflight included"),
        without.row("… without a throwaway Traefik", against, 3.0, counts=False),
    ]


def _keep(pairs: Pairs, ours: float, reference: float) -> None:
    pairs.add(ours, reference)


async def _round(site: Site, running: Plane, reference: Callable[[], float]) -> tuple[float, float]:
    site.commit()
    settle_down()
    theirs = reference()
    ours = await running.commit_to_published()
    return ours, theirs


def measure_rerender(folder: Path) -> list[Row]:
    """Return the row against pull and full render."""
    return asyncio.run(_rerender(folder))


async def _rerender(folder: Path) -> list[Row]:
    site = Site(folder)
    site.clone()
    plain, quick = Pairs(), Pairs()
    async with plane(settings(site.remote.path, folder / "ours")) as running:
        await running.loop.reconcile_once()
        for number in range(-WARM_UP, RENDERS):
            _keep(
                quick if number >= 0 else Pairs(),
                *await _round(site, running, lambda: site.pull_and_render(yaml.CSafeLoader)),
            )
        # half a minute a round: once is enough for a line that explains the one above
        _keep(plain, *await _round(site, running, lambda: site.pull_and_render(yaml.SafeLoader)))
    name = f"one-file commit → published, {OBJECTS:,} objects"
    return [
        quick.row(name, "git pull and a full render, PyYAML's C loader and Jinja", 40.0, sense="least"),
        plain.row("… the same script", "with yaml.safe_load, as most are written", 40.0, sense="least", counts=False),
    ]


def measure_idle(folder: Path) -> list[Row]:
    """Return the row of a poll that finds nothing new."""
    return asyncio.run(_idle(folder))


async def _idle(folder: Path) -> list[Row]:
    site = Site(folder)
    pairs = Pairs()
    async with plane(settings(site.remote.path, folder / "ours")) as running:
        await running.loop.reconcile_once()
        parsed = _count_reads(running)
        for number in range(-WARM_UP, POLLS):
            theirs = site.ls_remote()
            with timed() as watch:
                await running.loop.reconcile_once()
            _keep(pairs if number >= 0 else Pairs(), watch.seconds, theirs)
    row = pairs.row("idle poll", "git ls-remote", 1.5, notes=f"{parsed[0]} files read or parsed", parsed=parsed[0])
    return [row]


def _count_reads(running: Plane) -> list[int]:
    """Count what the mirror is asked for beside the tip, and what is parsed."""
    calls = [0]
    mirror = running.parts.mirror
    run = mirror.keeper.runner.run

    async def counted(command: object) -> object:
        calls[0] += "ls-remote" not in command.arguments  # type: ignore[attr-defined]
        return await run(command)  # type: ignore[arg-type]

    mirror.keeper.runner.run = counted  # type: ignore[method-assign, assignment]
    reader = running.loop._desire._reader  # noqa: SLF001
    read = reader.read

    async def counted_read(changes: object) -> object:
        calls[0] += 1
        return await read(changes)  # type: ignore[arg-type]

    reader.read = counted_read  # type: ignore[method-assign, assignment]
    return calls
