"""Two machines for all tests of this folder that run in a process; each test begins with nothing on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.two_machines import Site, TwoMachines, site, two_machines, wipe

Served = Callable[[Callable[[Site], None]], None]


@pytest.fixture(scope="session")
def machines() -> Iterator[TwoMachines]:
    with two_machines() as found:
        for version in ("1", "2", "3"):
            found.engine.make_image(f"web:{version}", f"version {version}")
        yield found


@pytest.fixture
def served(machines: TwoMachines, tmp_path: Path) -> Served:
    """Runs a scenario on a fleet of its own."""
    wipe(machines)

    def run(scenario: Callable[[Site], None]) -> None:
        def at_centre() -> None:
            with site(machines, tmp_path / "site") as found:
                scenario(found)

        machines.at_centre(at_centre)

    return run
