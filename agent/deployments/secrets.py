"""Values of secrets for deployments: asked of the control plane once for each version, and kept sealed on this machine.

What is kept lies in ``<data>/secrets/<team>/<deployment>/<version>``, mode 0600, sealed with a key that follows from
the agent's own (:mod:`agent.sealing`): an agent that starts without the control plane starts its deployments too.
What no version needs any more that is wanted, or was good last, is removed. Values are handed to drivers and shown
nowhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random as randomness
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from agent.backoff import Backoff
from agent.deployments.given import NOTHING, Given
from agent.deployments.standby import Standby
from agent.deployments.workload import KIND, Key, Workload
from agent.keys import write_private
from agent.sealing import BadSeal, Sealer
from agent.services import Line
from agent.talk import Say
from schemas.session import SECRETS, SecretsAnswer, SecretsRequest

log = logging.getLogger(__name__)

FOLDER: Final = "secrets"
_ASK_BASE: Final = 1.0
_ASK_CAP: Final = 300.0
_LONG: Final = 3600.0


class Version(NamedTuple):
    """What values belong to."""

    key: Key
    digest: str

    @staticmethod
    def of(workload: Workload) -> Version:
        return Version(workload.key, workload.secrets_version)


class _Asking:
    """A version that is wanted and not here."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.backoff = Backoff(_ASK_BASE, _ASK_CAP, 0.0)
        self.again_at = float("-inf")
        self.asked = False
        """In this connection, without an answer yet."""
        self.refused = ("", "")


class Secrets:
    """An :class:`agent.services.Extension`, and the :class:`agent.deployments.service.Values` of deployments."""

    feature: str = SECRETS

    def __init__(
        self,
        data: Path,
        sealer: Sealer,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._folder = data.absolute() / FOLDER
        self._sealer = sealer
        self._monotonic = monotonic
        self._random = random
        self._values: dict[Version, Given] = {}
        self._asking: dict[Version, _Asking] = {}
        self._kept: frozenset[Version] | None = None
        self._answers: deque[SecretsAnswer] = deque()
        self._offered = False
        self._line: Line | None = None
        self._wake = asyncio.Event()

    # --- for deployments ----------------------------------------------------------------------------------------

    def want(self, wanted: Iterable[Workload], former: Iterable[Workload] | None) -> None:
        """These are to run, and those may have to run again; other values go once that is known (not None)."""
        named = {Version.of(one): one for one in wanted if any(one.spec.secret_uses())}
        for version, workload in named.items():
            if version.digest and not self._has(workload):
                self._asking.setdefault(version, _Asking(workload))
        self._asking = {version: one for version, one in self._asking.items() if version in named}
        kept = None if former is None else frozenset(named) | {Version.of(one) for one in former}
        if kept != self._kept or self._asking:
            self._kept = kept
            self._wake.set()

    def given(self, workload: Workload) -> Given:
        """Return the values for a workload, nothing where they are not here."""
        return self._values.get(Version.of(workload), NOTHING)

    def held_up(self, workload: Workload) -> Standby | None:
        """Say why a workload cannot be made yet, None where all its values are here."""
        if not any(workload.spec.secret_uses()) or self._has(workload):
            return None
        asking = self._asking.get(Version.of(workload))
        reason, message = ("", "") if asking is None else asking.refused
        if reason:
            return Standby("Failed", reason, message)
        if not self._offered:
            return Standby("Failed", "SecretsMissing", "The control plane hands out no secrets; upgrade it.")
        return Standby("Progressing", "SecretsMissing", "The values of its secrets have not come yet.")

    def _has(self, workload: Workload) -> bool:
        return not self.given(workload).missing(workload.spec)

    # --- in a connection ----------------------------------------------------------------------------------------

    def offered(self, offered: bool, /) -> None:
        if offered != self._offered:
            self._offered = offered
            self.on_change()

    def begun(self, line: Line, /) -> None:
        self._line = line
        for one in self._asking.values():
            one.asked, one.again_at = False, float("-inf")
        self._wake.set()

    def ended(self) -> None:
        self._line = None

    def heard(self, what: object, /) -> None:
        assert isinstance(what, SecretsAnswer), "nothing else is of this feature"
        self._answers.append(what)
        self._wake.set()

    # --- the task -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read what is kept. What cannot be read is asked for anew."""
        for path in sorted(self._folder.glob("*/*/*")):
            version = _version_of(path)
            try:
                text = self._sealer.open(path.read_bytes(), _context(version))
                self._values[version] = Given({str(name): str(value) for name, value in json.loads(text).items()})
            except (OSError, ValueError, AttributeError, BadSeal) as error:
                log.warning(
                    "secrets of %s cannot be read and are asked for anew: %s", version.key, type(error).__name__
                )

    async def run(self) -> None:
        """Ask, keep and forget, for ever."""
        while True:
            self._wake.clear()
            pause = await self.step()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self) -> float:
        """Do what is due; return the seconds until something else is."""
        while self._answers:
            await self._take(self._answers.popleft())
        if self._kept is not None and (gone := sorted(self._values.keys() - self._kept)):
            await asyncio.to_thread(self._remove, gone)
            self._values = {version: one for version, one in self._values.items() if version in self._kept}
        now, again = self._monotonic(), _LONG
        for version, one in self._asking.items():
            if self._line is None or one.asked:
                continue
            if one.again_at > now:
                again = min(again, one.again_at - now)
                continue
            one.asked = True
            self._line.say(Say(SecretsRequest(id=f"{KIND}/{version.key}", version=version.digest)))
        return again

    async def _take(self, answer: SecretsAnswer) -> None:
        """Take the answer to what was asked last for an item; a newer version may be wanted by now."""
        for version, one in list(self._asking.items()):
            if f"{KIND}/{version.key}" != answer.id or not one.asked:
                continue
            one.asked = False
            if answer.reason:
                self._refuse(version, one, answer)
            elif answer.version == version.digest:
                values = {name: value.get_secret_value() for name, value in answer.values.items()}
                if missing := Given(values).missing(one.workload.spec):
                    said = f"The control plane sent no {', '.join(missing)}."
                    self._refuse(version, one, SecretsAnswer(id=answer.id, reason="SecretsMissing", message=said))
                else:
                    self._values[version] = Given(values)
                    del self._asking[version]
                    await self._keep(version, values)
            self.on_change()

    def _refuse(self, version: Version, asking: _Asking, answer: SecretsAnswer) -> None:
        asking.again_at = self._monotonic() + asking.backoff.next(self._random(), at_least=answer.retry_seconds)
        asking.refused = answer.reason, answer.message
        log.warning("no secrets for %s: %s %s", version.key, answer.reason, answer.message)

    async def _keep(self, version: Version, values: dict[str, str]) -> None:
        sealed = self._sealer.seal(json.dumps(values).encode(), _context(version))
        try:
            await asyncio.to_thread(self._write, version, sealed)
        except OSError as error:  # it runs now; after a restart it is asked for anew
            log.error("secrets of %s cannot be kept: %s", version.key, error.strerror)  # noqa: TRY400

    def _write(self, version: Version, sealed: bytes) -> None:
        path = self._path(version)
        for folder in (self._folder, path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        write_private(path, sealed)

    def _remove(self, versions: Collection[Version]) -> None:
        for version in versions:
            try:
                self._path(version).unlink(missing_ok=True)
            except OSError as error:
                log.warning("secrets of %s cannot be removed: %s", version.key, error.strerror)

    def _path(self, version: Version) -> Path:
        return self._folder / version.key.team / version.key.name / version.digest.rpartition(":")[2]


def _version_of(path: Path) -> Version:
    return Version(Key(path.parent.parent.name, path.parent.name), f"sha256:{path.name}")


def _context(version: Version) -> str:
    return f"{version.key} {version.digest}"
