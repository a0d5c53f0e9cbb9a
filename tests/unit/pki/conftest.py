"""A control plane for each test; its keys are made once."""

from __future__ import annotations

import pytest

from reconciler.pki.keystore import KeyStore
from tests.unit.pki.doors import (
    Plane,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("plane") / "keys")


@pytest.fixture
def plane(keys: KeyStore) -> Plane:
    return Plane(keys)
