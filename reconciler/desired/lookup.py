"""What a compile step may ask about the rest of the state."""

from __future__ import annotations

from typing import Protocol

from schemas.agent import Agent
from schemas.deployment import Deployment
from schemas.fleet import Fleet


class SecretUnavailable(Exception):
    """A sealed value cannot be opened: sealed to somebody else, or damaged. The message never holds the value."""


class Lookup(Protocol):
    """Objects in service, by name."""

    @property
    def fleet(self) -> Fleet: ...

    def agent(self, name: str) -> Agent | None: ...

    def deployment(self, team: str, name: str) -> Deployment | None: ...

    def agents_of(self, team: str, deployment: Deployment) -> tuple[Agent, ...]:
        """The agents that ``deployment`` of ``team`` runs on, in order of name, selectors resolved."""
        ...

    def open_secret(self, team: str, name: str, key: str) -> str:
        """Return the clear value.

        Raises:
            SecretUnavailable: when this control plane cannot open it.
        """
        ...
