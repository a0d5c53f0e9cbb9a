"""An agent's directory, and nothing of it left running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process_agent import end_all


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The directory of an agent; whatever runs of it is ended."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    yield path
    end_all(path)
