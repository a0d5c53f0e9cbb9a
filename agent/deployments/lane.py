"""One driver's deployments on their way to what is wanted: observe, plan, remember, act, until nothing is left to do.

The actions of a deployment are carried out in a task of its own, so that one that fetches an image for minutes holds up
nobody else; a newer item ends that task wherever it is. Ending it is like being killed: the next look finds the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from agent.backoff import Backoff
from agent.deployments.actions import Action, Create, Start
from agent.deployments.driver import Driver, DriverAbsent, DriverError
from agent.deployments.given import NOTHING, Given
from agent.deployments.memory import Remembered
from agent.deployments.observed import Instance, Observed
from agent.deployments.planning import NO_MEMORY, PortRange, Situation, plan
from agent.deployments.probing import Prober
from agent.deployments.rollout import Acknowledged, Decision, Memory
from agent.deployments.workload import Key, Workload
from schemas.deployment import DeploymentHealthCheck

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Actions under way on one engine."""


_SECRETS_MISSING: Final = "SecretsMissing"
_PORT_TAKEN: Final = "PortTaken"
_NOT_SHOWN: Final = "(not shown, because its secrets are not at hand to be taken out)"


class LaneSettings(NamedTuple):
    """Times are in seconds."""

    settle: float = 3.0
    """How long an instance without a health check has to run to count as healthy."""
    drain: float = 5.0
    look: float = 30.0
    """The longest that nobody looks at what there is."""
    retry_base: float = 1.0
    retry_cap: float = 60.0
    ports: PortRange = PortRange()


class Trouble(NamedTuple):
    """Something that could not be done and is tried again."""

    reason: str
    message: str
    until: float


class _Work(NamedTuple):
    digest: str | None
    """Of what was wanted when it began."""
    task: asyncio.Task[None]


class Lane:
    """``memories`` are shared by all lanes; each touches those of the keys that it is responsible for."""

    def __init__(
        self,
        driver: Driver,
        memories: dict[Key, Memory],
        remembered: Remembered,
        *,
        settings: LaneSettings,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        secrets: Callable[[Workload], Given],
        wake: Callable[[], None],
    ) -> None:
        self.driver = driver
        self.desired: dict[Key, Workload] = {}
        self.elsewhere: frozenset[Key] = frozenset()
        """Wanted, of another type: what is here goes."""
        self.left_alone: frozenset[Key] = frozenset()
        """Wanted, but nobody here knows how: what is here stays as it is."""
        self.switching = True
        """Fronts follow ports that no file declares."""
        self.acknowledged: dict[Key, Acknowledged] = {}
        self.decisions: dict[Key, Decision] = {}
        self.troubles: dict[Key, Trouble] = {}
        self.observed: Observed | None = None
        self.unavailable: DriverError | None = None
        """Why the driver could not say what there is, the last time that it was asked."""
        self._memories = memories
        self._remembered = remembered
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._secrets = secrets
        self._wake = wake
        self._prober = Prober(monotonic, wake, settle=settings.settle)
        self._work: dict[Key, _Work] = {}
        self._backoffs: dict[Key, Backoff] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def step(self) -> float:
        """Look once and begin what is to be done; return when to look again, monotonic."""
        await self._end_superseded()
        try:
            observed = await self.driver.observe()
        except DriverError as error:
            self.unavailable = error
            # what is not there tells by its watch when it comes
            absent = isinstance(error, DriverAbsent)
            return self._monotonic() + (self._settings.look if absent else self._settings.retry_base)
        except Exception as error:
            log.exception("what runs cannot be read")
            text = f"The driver failed with {type(error).__name__}; the log of the agent says more."
            self.unavailable = DriverError("DriverFailed", text)
            return self._monotonic() + self._settings.retry_cap
        self.unavailable = None
        self._prober.show(self.driver, self._running(observed))
        self.observed = self._with_health(observed)
        now = self._monotonic()
        decisions = plan(self._situation(self.observed, now))
        self.decisions = {**decisions, **{key: self.decisions[key] for key in self._work if key in self.decisions}}
        again = [now + self._settings.look]
        for key, decision in decisions.items():
            if key in self._work or key in self.left_alone:
                continue
            trouble = self.troubles.get(key)
            if trouble is not None and now < trouble.until:
                again.append(trouble.until)
                continue
            await self._take(key, decision)
            if decision.again_at is not None:
                again.append(decision.again_at)
        settles_at = self._prober.settles_at()
        return min([*again, *([] if settles_at is None else [settles_at])])

    async def close(self) -> None:
        """End what is under way; everything stays as it is."""
        works = list(self._work.values())
        for work in works:
            work.task.cancel()
        await asyncio.gather(*(work.task for work in works), return_exceptions=True)
        await self._prober.close()
        await self.driver.close()

    def masked(self, key: Key) -> Callable[[str], str]:
        """Return what takes the values of a deployment's secrets out of a text."""
        return lambda text: self._without_secrets(key, text)

    def forget_trouble(self, key: Key) -> None:
        """Something else is wanted now: what was in its way may be no more."""
        self.troubles.pop(key, None)
        self._backoffs.pop(key, None)

    # --- what there is ------------------------------------------------------------------------------------------

    def _situation(self, observed: Observed, now: float) -> Situation:
        mine = {
            key: memory
            for key, memory in self._memories.items()
            if key in self.desired or (key not in self.elsewhere and memory.type == self.driver.type)
        }
        settings = self._settings
        return Situation(
            self.desired,
            observed,
            mine,
            now,
            self.acknowledged,
            self.elsewhere,
            settings.ports,
            settings.drain,
            self.switching,
            frozenset(key for key in mine.keys() - self.desired.keys() if str(key) in self._remembered.released),
        )

    def _with_health(self, observed: Observed) -> Observed:
        instances = (
            replace(
                one,
                health=self._prober.health(one),
                last_lines=self._without_secrets(one.key, one.last_lines, cut=True),
            )
            for one in observed.instances
        )
        return replace(observed, instances=tuple(instances))

    def _without_secrets(self, key: Key, text: str, *, cut: bool = False) -> str:
        """Take out the values that a deployment was given: a program may have written its own to its log."""
        desired, good = self.desired.get(key), self._memories.get(key, NO_MEMORY).good
        for workload in (desired, good):
            if not text or workload is None or not any(workload.spec.secret_uses()):
                continue
            try:
                given = self._secrets(workload)
            except DriverError:
                return _NOT_SHOWN
            if given.missing(workload.spec):
                return _NOT_SHOWN
            text = given.masked(text, cut=cut)
        return text

    def _running(self, observed: Observed) -> dict[str, tuple[Instance, DeploymentHealthCheck | None]]:
        return {one.id: (one, self._check_of(one)) for one in observed.instances if one.state == "running"}

    def _check_of(self, instance: Instance) -> DeploymentHealthCheck | None:
        """Return the check of the version that an instance is of; the newest one's for one that is on its way out."""
        desired, good = self.desired.get(instance.key), self._memories.get(instance.key, NO_MEMORY).good
        for workload in (desired, good):
            if workload is not None and workload.digest == instance.digest:
                return workload.spec.health_check
        return None

    # --- what is done -------------------------------------------------------------------------------------------

    async def _end_superseded(self) -> None:
        for key, work in list(self._work.items()):
            if not work.task.done() and work.digest == self._digest(key):
                continue
            work.task.cancel()
            await asyncio.gather(work.task, return_exceptions=True)
            self._work.pop(key, None)

    def _digest(self, key: Key) -> str | None:
        desired = self.desired.get(key)
        return None if desired is None else desired.digest

    async def _take(self, key: Key, decision: Decision) -> None:
        """Remember, then act."""
        if decision.memory is None and decision.message and key in self._memories:
            log.warning("deployment %s: %s", key, decision.message)
        try:
            await self._remember(key, decision.memory, forget=not decision.actions)
        except OSError as error:
            self._trouble(key, "NotPersisted", f"The disk of the agent refused it: {error.strerror}.")
            return
        if decision.actions:
            action = self._carry_out(key, decision.actions)
            self._work[key] = _Work(self._digest(key), asyncio.create_task(action, name=f"deployment-{key}"))
        elif key in self.troubles:
            self.forget_trouble(key)

    async def _remember(self, key: Key, memory: Memory | None, *, forget: bool = False) -> None:
        if key in self.elsewhere:
            return
        if memory is not None and memory != self._memories.get(key, NO_MEMORY):
            await self._remembered.save(key, memory)
        elif memory is None and forget:
            await self._remembered.forget(key)

    async def _carry_out(self, key: Key, actions: tuple[Action, ...]) -> None:
        desired = self.desired.get(key)
        try:
            for action in actions:
                async with self._gate:
                    given = self._given(action.workload) if isinstance(action, Create) else NOTHING
                    log.info("deployment %s: %s", key, type(action).__name__.lower())
                    await self.driver.carry_out(action, given)
        except DriverError as error:
            await self._note(key, desired, action, error)
        except OSError as error:
            self._trouble(key, "NotPersisted", f"The disk of the agent refused it: {error.strerror}.")
        except Exception as error:
            log.exception("deployment %s", key)
            self._trouble(key, "DriverFailed", f"The driver failed with {type(error).__name__}; the log says more.")
        else:
            self.forget_trouble(key)
        self._wake()

    def _given(self, workload: Workload) -> Given:
        """Return the values of a workload: it is not started without one. Raises DriverError."""
        given = self._secrets(workload)
        if missing := given.missing(workload.spec):
            text = f"The control plane has not sent the values of {', '.join(missing)} yet."
            raise DriverError(_SECRETS_MISSING, text, retryable=True)
        return given

    async def _note(self, key: Key, desired: Workload | None, action: Action, error: DriverError) -> None:
        """Hold it against the new version when it is about that one; else it is trouble that passes."""
        ours = error.reason == _SECRETS_MISSING  # names what is missing, and nothing that a program wrote
        message = _sentence(error.message if ours else self._without_secrets(key, error.message))
        log.warning("deployment %s: %s: %s", key, error.reason, message)
        memory = self._memories.get(key, NO_MEMORY)
        good = None if memory.good is None else memory.good.digest
        if error.engine or desired is None or desired.digest == good or _digest_of(action) != desired.digest:
            self._trouble(key, error.reason, message)
            if error.reason == _PORT_TAKEN and isinstance(action, Start) and action.instance.state == "created":
                # it was to return to where it served last, and somebody else is there now
                await self._remember(key, replace(memory, ports=()))
            return
        now = self._monotonic()
        failed = memory.failed(desired.trial, error.reason, message, now, retry=error.retryable)
        await self._remember(key, failed)

    def _trouble(self, key: Key, reason: str, message: str) -> None:
        backoff = self._backoffs.setdefault(key, Backoff(self._settings.retry_base, self._settings.retry_cap, 0.0))
        pause = backoff.next(self._random(), at_least=self._settings.retry_base / 2)
        self.troubles[key] = Trouble(reason, _sentence(message), self._monotonic() + pause)


def _digest_of(action: Action) -> str | None:
    if isinstance(action, Create):
        return action.workload.digest
    return action.instance.digest if isinstance(action, Start) else None


def _sentence(message: str) -> str:
    """Let a message end as a sentence does."""
    return message if message.endswith((".", "!", "?")) else f"{message}."
