"""Figures of the fronts, read while somebody looks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconciler.errors import Transient
from reconciler.steps.figures import STALE_SECONDS, Figures
from reconciler.steps.fronts import Front
from reconciler.traefik.api import TraefikAPI
from reconciler.traefik.publish import FrontFile
from tests.unit.traefik.test_figures import text


class Telling(TraefikAPI):
    """A Traefik that tells what a test wants."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.said = text(0)
        self.away = False

    async def metrics(self) -> str:
        if self.away:
            raise Transient("Traefik's API is away.", reason="TraefikUnavailable")
        return self.said


def test_figures_come_with_the_second_reading(tmp_path: Path) -> None:
    """Until then, and where a front is away, the reason is told; old ones are shown no more."""
    now = [1000.0]
    api = Telling()
    figures = Figures([Front("front-1", FrontFile(tmp_path / "f.yml"), api)], clock=lambda: now[0])

    async def scenario() -> None:
        await figures.look()
        assert "second reading" in figures.missing
        assert figures.of("shop", "web") is None
        now[0], api.said = 1010.0, text(20, 2.0)
        await figures.look()
        found = figures.of("shop", "web")
        assert found is not None
        assert (found.per_second, found.by_class, figures.missing) == (2.0, {"2xx": 2.0}, "")
        quiet = figures.of("shop", "other")
        assert quiet is not None
        assert quiet.per_second == 0.0
        now[0], api.away = 1010.0 + STALE_SECONDS, True
        await figures.look()
        assert figures.of("shop", "web") is None
        assert "away" in figures.missing

    asyncio.run(scenario())
    assert Figures([]).missing == "There is no front to ask."
