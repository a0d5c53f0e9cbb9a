"""Tells the control plane how deployments are and at which ports they answer, and knows what every front has of that.

What is said is always everything, and the newest counts. It is said when something is otherwise than was said, and once
more in each connection, for nobody knows what became of it in the one before. Nothing is said before all that runs
deployments was asked: what nothing is said of goes back to the declared ports. What an engine runs that is away is
``unknown``, and has no ports where it was not seen yet: the control plane leaves it as it was. Where the control plane
does not listen, ports cannot change (:attr:`Observing.switching`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.deployments.fronts import Standing
from agent.deployments.workload import Key
from agent.services import Line
from agent.talk import Say, Seen
from schemas.observation import MAX_OBSERVED, DeploymentObservation, DeploymentUsage, ObservedPort
from schemas.observation import Health as SaidHealth
from schemas.session import MAX_AGENT_MESSAGE, OBSERVATIONS, Observation, Usage

USAGE_SECONDS: Final = 15.0
_FRAME: Final = 256
"""Bytes of a message around the deployments, generously."""
_LONGEST_STEP: Final = 64


class Observing:
    """A :class:`agent.deployments.fronts.Fronts` and an :class:`agent.services.Extension`. ``usage``: what deployments
    use, as far as it is known.
    """

    feature: str = OBSERVATIONS

    def __init__(self, usage: Callable[[], Sequence[DeploymentUsage]] = tuple) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._usage = usage
        self._offered = False
        self._standings: Mapping[Key, Standing] | None = None
        self._line: Line | None = None
        self._said: tuple[DeploymentObservation, ...] | None = None
        """In this connection."""
        self._published: Mapping[Key, str] = {}
        """Id of the instance that every front has."""

    # --- for the deployments ------------------------------------------------------------------------------------

    @property
    def switching(self) -> bool:
        return self._offered

    def tell(self, standings: Mapping[Key, Standing]) -> None:
        self._standings = standings
        self._say()

    def acknowledged(self, key: Key) -> str | None:
        return self._published.get(key)

    # --- in a connection ----------------------------------------------------------------------------------------

    def offered(self, offered: bool, /) -> None:
        """A document is in force whose control plane listens, or does not."""
        if offered != self._offered:
            self._offered = offered
            self.on_change()

    def begun(self, line: Line, /) -> None:
        """The control plane listens in this connection."""
        self._line, self._said = line, None
        self._say()

    def ended(self) -> None:
        self._line = None

    def heard(self, what: object, /) -> None:
        """Every front serves what was said with this token."""
        assert isinstance(what, dict), "tokens come back as they were given"
        self._published = what
        self.on_change()

    async def run(self) -> None:
        """Say what deployments use, now and then, for ever."""
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            if self._line is not None and (found := tuple(self._usage())):
                self._line.say(Say(Usage(deployments=fitting_usage(found))))

    def _say(self) -> None:
        if self._line is None or self._standings is None:
            return
        found = fitting([observation_of(key, one) for key, one in sorted(self._standings.items())])
        if found == self._said:
            return
        self._said = found
        named = {Key(one.team, one.name) for one in found}
        token = {
            key: one.serving.instance
            for key, one in self._standings.items()
            if one.serving is not None and key in named
        }
        self._line.say(Seen(found, token))


def observation_of(key: Key, standing: Standing) -> DeploymentObservation:
    """Return what is said of one deployment."""
    health: SaidHealth
    if standing.unknown:
        health = "unknown"
    elif standing.serving is not None:
        health = "stopped" if standing.stopped else standing.health.state
    else:
        health = "starting" if standing.step else "stopped"
    ports = standing.ports if standing.serving is not None else ()
    return DeploymentObservation(
        team=key.team,
        name=key.name,
        health=health,
        ports=tuple(ObservedPort(declared=declared, actual=actual) for declared, actual in ports),
        digest=standing.digest,
        step=standing.step[:_LONGEST_STEP],
    )


def fitting(found: Sequence[DeploymentObservation]) -> tuple[DeploymentObservation, ...]:
    """Return what fits into one message: digests and steps are left out first, then what comes last."""
    for shown in (found, [one.model_copy(update={"digest": "", "step": ""}) for one in found]):
        if _size(Observation(number=1, deployments=tuple(shown[:MAX_OBSERVED]))) <= MAX_AGENT_MESSAGE:
            return tuple(shown[:MAX_OBSERVED])
    few = tuple(shown[:MAX_OBSERVED])
    while _size(Observation(number=1, deployments=few)) > MAX_AGENT_MESSAGE:
        few = few[: len(few) * 3 // 4]
    return few


def fitting_usage(found: Sequence[DeploymentUsage]) -> tuple[DeploymentUsage, ...]:
    """Return what fits into one message."""
    few = tuple(found[:MAX_OBSERVED])
    while _size(Usage(deployments=few)) > MAX_AGENT_MESSAGE:
        few = few[: len(few) * 3 // 4]
    return few


def _size(message: Observation | Usage) -> int:
    return len(message.model_dump_json(by_alias=True).encode()) + _FRAME
