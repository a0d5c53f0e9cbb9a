"""The fake of ``tests/support`` behaves like the embedded engine, where it stands in for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tests.support.memory_store import MemoryStore
from tests.unit.store.contract import EventContract, Opener, PromisesContract, Store


@asynccontextmanager
async def opened() -> AsyncIterator[Store]:
    yield cast("Store", MemoryStore())


class TestContract(PromisesContract, EventContract):
    @pytest.fixture
    def open_store(self) -> Opener:
        return opened
