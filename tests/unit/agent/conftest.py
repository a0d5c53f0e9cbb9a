"""What several tests of an agent's services share."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.pki.service_issuer import ServiceIssuer
from tests.support.service_world import World, make_issuer


@pytest.fixture(scope="module")
def service_issuer(tmp_path_factory: pytest.TempPathFactory) -> ServiceIssuer:
    return make_issuer(tmp_path_factory.mktemp("authority") / "keys")


@pytest.fixture
def world(tmp_path: Path, service_issuer: ServiceIssuer) -> World:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    return World(data, service_issuer)
