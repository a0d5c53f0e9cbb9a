"""One server with an engine for all tests of this folder that run in a process; each begins with nothing on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.networked_engine import NetworkedEngine, networked_engine


@pytest.fixture(scope="session")
def machine() -> Iterator[NetworkedEngine]:
    """A server with an engine, with two versions of an image on it."""
    with networked_engine() as engine:
        for version in ("1", "2"):
            engine.make_image(f"web:{version}", f"version {version}")
        yield engine


@pytest.fixture(autouse=True)
def empty(machine: NetworkedEngine) -> None:
    """Begin with nothing there."""
    machine.remove_containers()
    machine.command("network", "prune", "--force")
    if volumes := machine.command("volume", "ls", "--quiet").stdout.split():
        machine.command("volume", "rm", *volumes)
