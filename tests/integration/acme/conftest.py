from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.acme import new_account
from tests.support.pebble import Pebble, pebble


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture(autouse=True)
def account() -> None:
    """Each test has its own account: Pebble lets one valid authorization in a hundred count again, at 0 % reuse too."""
    new_account()
