"""A whole control plane in this process, put together by its own composition root and driven step by step."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from reconciler.app import ControlPlane, control_plane
from reconciler.observability import logs
from reconciler.settings import FrontSettings, GitSettings, Settings
from reconciler.steps.passing import Published, StagedFiles
from reconciler.traefik.api import TraefikAPI

DEVNULL: Final = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - logs are written, as in production


class LoadedAtOnce(TraefikAPI):
    """A front that has loaded whatever was published: what Traefik itself takes is another row."""

    async def has_loaded(self, generation: int, revision: str) -> bool:  # noqa: ARG002
        return True

    async def failures(self) -> tuple[()]:
        return ()


class Plane:
    """``published_at``: when the last publication was durable and its file in place (``time.perf_counter``)."""

    def __init__(self, parts: ControlPlane) -> None:
        self.parts = parts
        self.loop = parts.loop
        self.published_at = 0.0
        fronts = parts._fronts  # noqa: SLF001 - the one place in which the end of the commit point can be seen
        publish = fronts.publish

        async def noted(published: Published, now: float, staged: StagedFiles | None = None) -> None:
            await publish(published, now, staged)
            self.published_at = time.perf_counter()

        fronts.publish = noted  # type: ignore[method-assign]

    async def resume(self) -> None:
        """Do what ``serve`` does before its first look at the remote."""
        resumed = await self.parts._fronts.take_up(time.time())  # noqa: SLF001
        await self.loop.resume(resumed.published, resumed.confirmed)

    async def commit_to_published(self) -> float:
        """Reconcile; return the seconds from the look at the remote to the end of the commit point."""
        generation = self.loop.published.generation
        began = time.perf_counter()
        await self.loop.reconcile_once()
        if self.loop.published.generation != generation + 1:
            raise SystemExit("the commit was not published")
        return self.published_at - began


def settings(remote: Path, folder: Path, *, api: str = "http://127.0.0.1:1", traefik: str = "") -> Settings:
    """Data under ``folder/data``, the front's file under ``folder/front/dynamic``."""
    dynamic = folder / "front" / "dynamic"
    dynamic.mkdir(parents=True, exist_ok=True)
    return Settings(
        git=GitSettings(repo=str(remote)),
        data=folder / "data",
        port=0,
        plain_http=True,
        fronts=(FrontSettings(dynamic / "cloudlunacy.yml", api),),
        traefik_binary=traefik,
        read_back_seconds=120.0,
    )


@asynccontextmanager
async def plane(given: Settings, *, real_front: bool = False) -> AsyncIterator[Plane]:
    """Build everything that ``serve`` builds, without its tasks. Without a ``real_front`` none is asked."""
    logs.configure(format="json", stream=DEVNULL)
    async with control_plane(given) as parts:
        if not real_front:
            for front in parts._fronts.fronts:  # noqa: SLF001
                object.__setattr__(front, "api", LoadedAtOnce(front.api.url))
        running = Plane(parts)
        try:
            yield running
        finally:
            await parts._close(set())  # noqa: SLF001
