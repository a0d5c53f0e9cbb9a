"""Two machines for all tests of this folder that run in a process; each test begins with nothing on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.two_machines import Site, TwoMachines, site, two_machines, wipe


class Served(Protocol):
    """Runs a scenario on a fleet of its own. ``more`` goes to the installation."""

    def __call__(self, scenario: Callable[[Site], None], **more: Any) -> None: ...


@pytest.fixture(scope="session")
def machines() -> Iterator[TwoMachines]:
    with two_machines() as found:
        for version in ("1", "2", "3"):
            found.engine.make_image(f"web:{version}", f"version {version}")
        yield found


@pytest.fixture
def served(machines: TwoMachines, tmp_path: Path) -> Served:
    wipe(machines)

    def run(scenario: Callable[[Site], None], **more: Any) -> None:
        def at_centre() -> None:
            with site(machines, tmp_path / "site", **more) as found:
                scenario(found)

        machines.at_centre(at_centre)

    return run
