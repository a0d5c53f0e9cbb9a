"""Real agents in one process that run deployments by a script: ``python -m tests.support.scripted_agents FOLDER``.

What becomes of an image stands in ``FOLDER.json``, which is read anew each time: image → ``[seconds, state, reason]``,
how long it is on its way and what becomes of it then; one that is not there is applied after a moment. Each agent notes
in ``<name>/seen`` what happened to it: time, ``begin`` or the state, and the image.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.client import ClientSettings, run
from agent.credentials import Credentials
from agent.services import RecordingService, Service
from agent.trust import TrustService
from schemas.session import Item, ItemResult

USUAL = (0.3, "Applied", "Running")


class ScriptedService:
    """Forgets everything when it ends, and begins then with whatever is wanted, as if that had run before."""

    kinds = frozenset({"Deployment"})

    def __init__(self, data: Path) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._seen = data / "seen"
        self._script = data.parent.with_suffix(".json")
        self._begun: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        return [self._result(item) for item in items]

    def _result(self, item: Item) -> ItemResult:
        image, now = str(item.spec["image"]), time.time()
        if self._begun.get(item.id, ("",))[0] != image:
            self._begun[item.id] = image, now
            self._note(item.id, "begin", image)
        script: dict[str, Any] = json.loads(self._script.read_text()) if self._script.exists() else {}
        seconds, state, reason = script.get(image, USUAL)
        left = self._begun[item.id][1] + seconds - now
        if left > 0:
            asyncio.get_running_loop().call_later(left + 0.01, self.on_change)
            return ItemResult(id=item.id, state="Progressing", reason="Starting")
        self._note(item.id, state, image)
        return ItemResult(id=item.id, state=state, reason=reason)

    def _note(self, item: str, what: str, image: str) -> None:
        if self._told.get(item) != f"{what} {image}":
            self._told[item] = f"{what} {image}"
            with self._seen.open("a") as file:
                file.write(f"{time.time()} {what} {image}\n")


async def main(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = ClientSettings(backoff_base=0.05, backoff_cap=0.3)
    async with asyncio.TaskGroup() as group:
        for data in sorted(folder.iterdir()):
            credentials = Credentials.load(data)
            services: list[Service] = [
                TrustService(credentials),
                RecordingService(frozenset({"Certificate"})),
                ScriptedService(data),
            ]
            group.create_task(run(data, services, credentials, stop, settings=settings), name=data.name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(Path(sys.argv[1])))
