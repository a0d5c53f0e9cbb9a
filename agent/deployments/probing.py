"""Asks instances how they are: one task for each that has a health check, which lives as long as the instance runs.

Before an instance was healthy once it is asked at least every second, so that a roll-out takes no longer than it must;
after that at the interval of its check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.deployments.driver import Driver, DriverError
from agent.deployments.health import UNKNOWN, Health, Probe, Rules, Track, by_running
from agent.deployments.observed import Instance
from schemas.deployment import DeploymentHealthCheck, HttpProbe
from schemas.names import seconds

_STARTING_INTERVAL: Final = 1.0
_STATUS_LINE_BYTES: Final = 1024


async def ask(check: DeploymentHealthCheck, instance: Instance, driver: Driver) -> Probe:
    """Probe an instance once."""
    timeout = seconds(check.timeout)
    if check.command is not None:
        try:
            return await driver.run_inside(instance, check.command.command, timeout)
        except DriverError as error:
            return Probe(False, error.message)
    port = check.http.port if check.http is not None else check.tcp.port if check.tcp is not None else 0
    at = instance.reached_at(port)
    where = f"{check.http.path} at port {port}" if check.http is not None else f"port {port}"
    try:
        async with asyncio.timeout(timeout):
            if check.http is not None:
                return await _http(check.http, instance.address, at)
            _, writer = await asyncio.open_connection(instance.address, at)
            writer.close()
            return Probe(True)
    except TimeoutError:
        return Probe(False, f"no answer within {check.timeout} from {where}")
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no HTTP"
        return Probe(False, f"{why} from {where}")


async def _http(probe: HttpProbe, address: str, port: int) -> Probe:
    """Ask as HTTP/1.1 (RFC 9112) and read the status line alone. Raises OSError, ValueError."""
    reader, writer = await asyncio.open_connection(address, port, limit=_STATUS_LINE_BYTES)
    try:
        host = f"{address}:{port}"
        request = f"GET {probe.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloudlunacy\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        version, _, rest = (await reader.readline()).partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ValueError("not HTTP")
        status = int(rest[:3])
    finally:
        writer.close()
    good = status == probe.status if probe.status is not None else status < 400
    return Probe(good, "" if good else f"HTTP {status} from {probe.path}")


@dataclass(slots=True)
class _Watched:
    """One start of an instance."""

    started: str
    check: DeploymentHealthCheck | None
    track: Track
    task: asyncio.Task[None] | None = None


class Prober:
    """Knows the health of every instance that it was shown. ``changed`` is called when one is another than before."""

    def __init__(self, monotonic: Callable[[], float], changed: Callable[[], None], *, settle: float) -> None:
        self._monotonic = monotonic
        self._changed = changed
        self._settle = settle
        self._watched: dict[str, _Watched] = {}

    def show(self, driver: Driver, running: Mapping[str, tuple[Instance, DeploymentHealthCheck | None]]) -> None:
        """Watch these instances of a driver, by id, and no others."""
        for name in [name for name in self._watched if name not in running]:
            self._end(name)
        for name, (instance, check) in running.items():
            known = self._watched.get(name)
            if known is not None and (known.started, known.check) == (instance.started, check):
                continue
            self._end(name)
            now = self._monotonic()
            watched = self._watched[name] = _Watched(instance.started, check, Track(now, now))
            if check is not None:
                task = self._watch(driver, instance, check, watched)
                watched.task = asyncio.create_task(task, name=f"probe-{instance.key}")

    def health(self, instance: Instance) -> Health:
        watched = self._watched.get(instance.id)
        if watched is None or watched.started != instance.started or instance.state != "running":
            return UNKNOWN
        if watched.check is None:
            return by_running(watched.track.since, self._settle, self._monotonic())
        return watched.track.at(Rules.of(watched.check), self._monotonic())

    def settles_at(self) -> float | None:
        """Return when an instance without a check becomes healthy next."""
        now = self._monotonic()
        times = [one.track.since + self._settle for one in self._watched.values() if one.check is None]
        return min((at for at in times if at > now), default=None)

    async def close(self) -> None:
        tasks = [one.task for one in self._watched.values() if one.task is not None]
        for name in list(self._watched):
            self._end(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, name: str) -> None:
        watched = self._watched.pop(name, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    async def _watch(self, driver: Driver, instance: Instance, check: DeploymentHealthCheck, watched: _Watched) -> None:
        rules = Rules.of(check)
        while True:
            probe = await ask(check, instance, driver)
            before = watched.track.health
            watched.track = watched.track.probed(probe, rules, self._monotonic())
            if watched.track.health != before:
                self._changed()
            starting = watched.track.health.state == "starting"
            await asyncio.sleep(min(rules.interval, _STARTING_INTERVAL) if starting else rules.interval)
