"""One browser and one running demo for the tests of this folder: ``site`` is both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.demo import UP, RunningDemo
from tests.support.parts import require
from tests.support.visitors import Site


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """A whole fleet: remote, control plane, Traefik, two agents with apps and a database."""
    for part in ("git", "traefik", "chromium"):
        require(part)
    running = RunningDemo(tmp_path_factory.mktemp("fleet"))
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; for this folder alone, because nobody else can use asyncio while it is there."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def site(demo: RunningDemo, browser: Browser) -> Site:
    """The dashboard of the demo, and who visits it."""
    return Site(demo, browser)
