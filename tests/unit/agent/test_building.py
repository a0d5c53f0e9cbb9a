"""Unit tests of agent.building."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from agent.building import keep_away
from agent.deployments.driver import DriverError
from agent.deployments.local_engine import LocalEngine
from agent.deployments.memory import FOLDER


class Rules:
    def __init__(self, error: DriverError | None = None) -> None:
        self.made = 0
        self.error = error

    async def ensure(self) -> None:
        self.made += 1
        if self.error is not None:
            raise self.error


def prepared(data: Path, rules: Rules) -> None:
    async def scenario() -> None:
        engine = LocalEngine(data / "engine.sock", "vps-1", firewall=rules)
        await keep_away(engine, data)
        await engine.close()

    asyncio.run(scenario())


def test_after_a_boot_containers_are_kept_away_before_anybody_hears_that_the_agent_is_there(tmp_path: Path) -> None:
    """The engine waits for that word (the unit's order), and starts by itself what ran before."""
    (tmp_path / FOLDER).mkdir()
    rules = Rules()
    prepared(tmp_path, rules)
    assert rules.made == 1


def test_a_machine_on_which_nothing_was_deployed_keeps_its_rules_as_they_are(tmp_path: Path) -> None:
    rules = Rules()
    prepared(tmp_path, rules)
    assert rules.made == 0


def test_an_agent_without_the_right_to_make_rules_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts no container then, and says so where one is wanted."""
    (tmp_path / FOLDER).mkdir()
    with caplog.at_level(logging.WARNING):
        prepared(tmp_path, Rules(DriverError("NotIsolated", "Containers cannot be kept away from this machine.")))
    assert "cannot be kept away" in caplog.text
