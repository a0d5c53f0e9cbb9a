"""Where it is said which instance of each deployment serves, and asked which one every front has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from agent.deployments.health import UNKNOWN, Health
from agent.deployments.workload import Key, Slot


class Serving(NamedTuple):
    """The instance that routes of a deployment belong to. ``ports``: port of the workload → port of the agent."""

    slot: Slot
    ports: Mapping[int, int]
    health: Health
    instance: str = ""
    """Id of the instance; slots are used again, ids are not."""


class Standing(NamedTuple):
    """How a deployment is, for whoever sends requests to it."""

    serving: Serving | None = None
    """None: nothing answers."""
    ports: tuple[tuple[int, int], ...] = ()
    """Declared port of the agent → port of the agent that serves it."""
    digest: str = ""
    step: str = ""
    """Where its roll-out is; empty when it is at rest."""
    stopped: bool = False
    """What should serve does not run."""
    unknown: bool = False
    """What would run it does not answer, so nobody can tell how it is, or whether it serves at all."""

    @property
    def health(self) -> Health:
        return UNKNOWN if self.serving is None else self.serving.health


class Fronts(Protocol):
    """Whoever brings to all fronts what serves. Calls must not block."""

    on_change: Callable[[], None]
    """Is called when :meth:`acknowledged` has something new, or :attr:`switching` changed; whoever asks sets it."""

    @property
    def switching(self) -> bool:
        """Fronts can be told of ports that no file declares."""
        ...

    def tell(self, standings: Mapping[Key, Standing]) -> None:
        """Say how everything stands now. Is not called before everybody was asked who runs something."""
        ...

    def acknowledged(self, key: Key) -> str | None:
        """Return the id of the instance that all fronts have, as far as is known."""
        ...


class NoFronts:
    """Nobody asks for anything: what is said counts as known at once."""

    switching = True

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._said: Mapping[Key, Standing] = {}

    def tell(self, standings: Mapping[Key, Standing]) -> None:
        self._said = standings

    def acknowledged(self, key: Key) -> str | None:
        standing = self._said.get(key)
        return None if standing is None or standing.serving is None else standing.serving.instance
