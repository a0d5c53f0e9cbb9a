"""One Traefik for the tests of a module: each test publishes its own routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.traefik import Backend, Front, backends, fleet, front


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    example = fleet(entryPoints={"tcp": {"mail": "smtps", "plain": "telnet"}})
    with front(tmp_path_factory.mktemp("front"), fleet=example) as started:
        yield started


@pytest.fixture
def two() -> Iterator[tuple[Backend, Backend]]:
    with backends("one", "two") as (one, other):
        yield one, other
