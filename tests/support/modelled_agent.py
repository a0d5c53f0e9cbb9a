"""A real agent whose deployments run on an engine in thought: ``python -m tests.support.modelled_agent DATA``.

What is deployed there writes a line a second to its log, and knows the programs of
:class:`tests.support.model_engine.ModelDriver`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

from agent.client import ClientSettings, Parts, run_until_signalled
from agent.commands.allowance import Allowance
from agent.commands.deployments import DeploymentCommands
from agent.commands.runner import Commands
from agent.credentials import Credentials
from agent.deployments.lane import LaneSettings
from agent.deployments.service import DeploymentService
from agent.services import RecordingService
from agent.trust import TrustService
from tests.support.model_engine import ModelDriver, ModelEngine

SETTINGS = ClientSettings(backoff_base=0.05, backoff_cap=0.2)


class _Engine(ModelEngine):
    """Its time is the machine's."""

    def observe(self):  # type: ignore[no-untyped-def]
        self.now = time.monotonic()
        return super().observe()


def main(data: Path) -> None:
    logging.basicConfig(level="DEBUG")
    credentials = Credentials.load(data)
    driver = ModelDriver(_Engine())
    driver.lines = "one\ntwo\n\x1b[31mthree"
    deployments = DeploymentService(data, [driver], settings=LaneSettings(settle=0.2, drain=0.1, look=0.2))
    own = Allowance(TrustService(credentials))
    commands = Commands(DeploymentCommands(deployments.commanding, own).handlers())

    async def write() -> None:
        number = 0
        while True:
            await asyncio.sleep(0.2)
            number += 1
            driver.written.put_nowait(f"tick {number}")

    run_until_signalled(
        data,
        [own, RecordingService(frozenset({"Certificate"})), deployments],
        credentials,
        settings=SETTINGS,
        parts=Parts(extensions=[commands], others={"deployments": deployments.run, "writer": write}),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
