"""What this machine and this process use, read now and then in a thread and handed to heartbeats at once.

A file system that hangs (a dead network disk) holds up the thread and nothing else: the numbers grow old, and their age
goes with them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from agent.readings import Reading, Size, counts, named

log = logging.getLogger(__name__)

SECONDS: Final = 5.0
"""Between readings."""


class Machine:
    """``data`` is the agent's directory, ``engine`` that of the container engine, where there is one."""

    def __init__(
        self,
        data: Path,
        engine: Path | None = None,
        *,
        seconds: float = SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data = data
        self._engine = engine
        self._seconds = seconds
        self._monotonic = monotonic
        self._process = psutil.Process()
        self._last: Reading | None = None
        self._named: dict[str, float] = {}

    async def run(self) -> None:
        """Read for ever."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except (OSError, psutil.Error, ValueError) as error:
                log.warning("what this machine uses cannot be read: %s", error)
            await asyncio.sleep(self._seconds)

    def metrics(self) -> dict[str, float]:
        """Return what was read last, with its age; nothing before the first reading."""
        if self._last is None:
            return {}
        return {**self._named, "machine_reading_age_seconds": round(self._monotonic() - self._last.at, 1)}

    def look(self) -> None:
        """Read once. Raises OSError or psutil.Error."""
        now = self._read()
        self._named = named(now, self._last)
        self._last = now

    def _read(self) -> Reading:
        cpu, memory, swap = psutil.cpu_times(), psutil.virtual_memory(), psutil.swap_memory()
        # guests are part of user and nice already
        total = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
        interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [one for name, one in interfaces.items() if counts(name)]
        with self._process.oneshot():
            used = self._process.cpu_times()
            agent_memory = self._process.memory_info().rss
        return Reading(
            at=self._monotonic(),
            cores=os.cpu_count() or 1,
            cpu_busy=total - cpu.idle - getattr(cpu, "iowait", 0.0),
            cpu_total=total,
            load=os.getloadavg(),
            memory=(memory.total, memory.available),
            swap=(swap.total, swap.used),
            disk=_size(self._data),
            engine_disk=None if self._engine is None else _size(self._engine),
            received=sum(one.bytes_recv for one in outside),
            sent=sum(one.bytes_sent for one in outside),
            uptime=time.time() - psutil.boot_time(),
            agent_memory=agent_memory,
            agent_cpu=used.user + used.system,
            open_files=_open_files(),
        )


def _size(directory: Path) -> Size | None:
    try:
        found = os.statvfs(directory)
    except OSError:  # not there, or not for us
        return None
    return Size(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _open_files() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return None
