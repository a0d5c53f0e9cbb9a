"""Load a candidate into a throwaway Traefik before anybody's traffic depends on it.

1. A standby runs ahead of time (:mod:`reconciler.traefik.standby`), so a check costs one reload of a small file.
2. It loads the candidate: what changed, and the catch-alls. Refused as a whole, the log says why; loaded, the API
   names each object that Traefik disabled.
3. The standby forgets the candidate. After a refusal, a crash or new entry points, another one takes its place.

See docs/adr/0005.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

from reconciler.errors import Broken, Transient
from reconciler.traefik.api import ObjectFailure
from reconciler.traefik.binary import binary_version
from reconciler.traefik.standby import Standby, StandbyLost

_DEADLINE: Final = 10.0
_SECONDS_PER_MEGABYTE: Final = 5.0
"""Ten thousand routes, eight megabytes, take a free machine two seconds, and one that is busy starting much longer."""
_ATTEMPTS: Final = 2


class Preflight:
    """Checks candidates one at a time. ``binary`` is None where no Traefik is installed.

    ``entry_points`` are the names of the fleet; :meth:`prepare` changes them. Make it inside a running event loop's
    task and call :meth:`close` at the end: it owns a child process.
    """

    def __init__(self, binary: Path | None, entry_points: Collection[str] = (), *, deadline: float = _DEADLINE) -> None:
        self._binary = binary
        self._entry_points = frozenset(entry_points)
        self._deadline = deadline
        self._standby: Standby | None = None
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._version_checked = False
        self.unavailable_reason: str | None = None if binary else "no traefik program was found"
        """Why nothing can be checked; None while it can."""

    @property
    def pid(self) -> int | None:
        """The standby's process id, None when none runs."""
        return self._standby.pid if self._standby is not None and self._standby.alive else None

    async def prepare(self, entry_points: Collection[str] | None = None) -> None:
        """Start the standby ahead of the first check; with other ``entry_points`` than before, start another.

        Raises nothing: what keeps it from starting is in ``unavailable_reason`` afterwards.
        """
        async with self._lock:
            if entry_points is not None and frozenset(entry_points) != self._entry_points:
                self._entry_points = frozenset(entry_points)
                await self._drop()
            try:
                await self._ready()
            except Transient as error:
                self.unavailable_reason = error.message

    async def check(self, document: str) -> tuple[ObjectFailure, ...]:
        """Load ``document`` and return what Traefik refuses: objects by name, or the file as a whole (no name).

        Raises:
            Transient: ``PreflightUnavailable``, when no Traefik can be started; nothing was checked then.
        """
        async with self._lock:
            lost = ""
            for _ in range(_ATTEMPTS):
                standby = await self._ready()
                try:
                    return await self._judge(standby, document)
                except OSError as error:
                    raise _unavailable(f"cannot write the candidate: {error.strerror}") from None
                except (StandbyLost, Transient) as error:  # killed from outside, or hangs
                    await self._drop()
                    lost = str(error)
            # a fresh one was lost in the same way: it is the candidate that Traefik cannot bear
            self._renew()
            return (ObjectFailure("", "", lost),)

    async def close(self) -> None:
        """End the standby. Safe to call twice."""
        async with self._lock:
            if self._renewal is not None:
                self._renewal.cancel()
                await asyncio.gather(self._renewal, return_exceptions=True)
            await self._drop()

    async def _judge(self, standby: Standby, document: str) -> tuple[ObjectFailure, ...]:
        refusal = await standby.load(document, self._deadline + len(document) / 1e6 * _SECONDS_PER_MEGABYTE)
        if refusal is None:
            failures = await standby.api.failures()
            standby.forget()
            return failures
        await self._drop()
        self._renew()
        return (ObjectFailure("", "", refusal),)

    async def _ready(self) -> Standby:
        if self._standby is not None and self._standby.alive:
            return self._standby
        await self._drop()
        if self._binary is None:
            raise _unavailable(self.unavailable_reason or "")
        try:
            if not self._version_checked:
                await binary_version(self._binary)
                self._version_checked = True
            self._standby = await Standby.start(self._binary, self._entry_points)
        except Broken as error:
            self.unavailable_reason = str(error)
            raise _unavailable(str(error)) from None
        except Transient as error:
            self.unavailable_reason = error.message
            raise
        self.unavailable_reason = None
        return self._standby

    def _renew(self) -> None:
        """Have the next standby ready before somebody asks. Its task waits for the lock that our caller holds."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self.prepare(), name="preflight-renewal")

    async def _drop(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            await standby.stop()


def _unavailable(why: str) -> Transient:
    return Transient(f"nothing can be preflighted: {why}", reason="PreflightUnavailable")
