"""What is kept of each deployment across restarts of the agent: ``<data>/deployments/<team>/<name>.json``, mode 0600.

Written before the actions that it belongs to. A file that cannot be read is as good as none: what runs is taken over
when it is what is wanted (:mod:`agent.deployments.rollout`). Times of another boot of the machine begin anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agent.deployments.rollout import Attempt, Failure, Memory
from agent.deployments.workload import Key, Workload, workload_from_json, workload_to_json
from agent.keys import write_private

log = logging.getLogger(__name__)

FOLDER: Final = "deployments"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what is another text after each boot of the machine; empty where there is no such thing."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class MemoryFiles:
    """The files below ``data``. All methods block."""

    def __init__(self, data: Path, boot: str) -> None:
        self._folder = data / FOLDER
        self._boot = boot

    def load(self, now: float) -> dict[Key, Memory]:
        """Return everything that can be read; ``now`` is monotonic."""
        found = {}
        for path in sorted(self._folder.glob("*/*.json")):
            key = Key(path.parent.name, path.stem)
            try:
                found[key] = self._read(json.loads(path.read_bytes()), now)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("what was kept of %s cannot be read: %s", key, type(error).__name__)
        return found

    def save(self, key: Key, memory: Memory) -> None:
        """Raises OSError; what was kept before stays."""
        path = self._path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in path.parent.glob(f".{path.name}.*"):
            left_over.unlink(missing_ok=True)
        write_private(path, json.dumps(self._write(memory)).encode())

    def forget(self, key: Key) -> None:
        """Raises OSError."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._folder / key.team / f"{key.name}.json"

    def _write(self, memory: Memory) -> dict[str, Any]:
        attempt, failure = memory.attempt, memory.failure
        return {
            "boot": self._boot,
            "good": None if memory.good is None else workload_to_json(memory.good),
            "attempt": None if attempt is None else [attempt.trial, attempt.began, attempt.starts],
            "failure": None
            if failure is None
            else {
                "trial": failure.trial,
                "reason": failure.reason,
                "message": failure.message,
                "at": failure.at,
                "attempts": failure.attempts,
                "retry": failure.retry,
            },
            "deleteData": memory.delete_data,
            "type": memory.type,
            "ports": memory.ports,
        }

    def _read(self, found: Mapping[str, Any], now: float) -> Memory:
        good, attempt, failure = found["good"], found["attempt"], found["failure"]
        same_boot = bool(self._boot) and found["boot"] == self._boot
        return Memory(
            good=None if good is None else workload_from_json(good),
            attempt=None
            if attempt is None
            else Attempt(str(attempt[0]), float(attempt[1]) if same_boot else now, int(attempt[2])),
            failure=None
            if failure is None
            else Failure(
                str(failure["trial"]),
                str(failure["reason"]),
                str(failure["message"]),
                float(failure["at"]) if same_boot else now,
                int(failure["attempts"]),
                bool(failure["retry"]),
            ),
            delete_data=bool(found["deleteData"]),
            type=str(found["type"]),
            # a former version kept none
            ports=tuple((int(port), int(host)) for port, host in found.get("ports", ())),
        )


class Remembered:
    """What is kept, in memory as on the disk. The deletion policy is always that of the newest item."""

    def __init__(self, memories: dict[Key, Memory], files: MemoryFiles) -> None:
        self._memories = memories
        self._files = files
        self._deletes: dict[Key, bool] = {}
        self._lock = asyncio.Lock()
        self.released: frozenset[str] = frozenset()
        """``<team>/<name>`` of what may lose its data when it is not wanted any more, as the document says."""
        self.refused: frozenset[Key] = frozenset()
        """Whose newest policy the disk did not take."""

    async def take_policies(self, wanted: Iterable[Workload]) -> None:
        """Keep the policies of what is wanted, before anybody is told that the agent has them."""
        refused = set()
        new = {one.key: one.delete_data for one in wanted}
        self._deletes |= new
        for key in new:
            try:
                async with self._lock:
                    if key in self._memories:
                        await self._save(key, self._memories[key])
            except OSError:
                refused.add(key)
        self.refused = frozenset(refused)

    async def save(self, key: Key, memory: Memory) -> None:
        """Raises OSError; what was kept before stays."""
        async with self._lock:
            await self._save(key, memory)

    async def _save(self, key: Key, memory: Memory) -> None:
        memory = replace(memory, delete_data=self._deletes.get(key, memory.delete_data))
        if memory != self._memories.get(key):
            await asyncio.to_thread(self._files.save, key, memory)
            self._memories[key] = memory

    async def forget(self, key: Key) -> None:
        """Raises OSError."""
        async with self._lock:
            if key in self._memories:
                await asyncio.to_thread(self._files.forget, key)
                del self._memories[key]
