"""The agents in service, as of the published state: who has which key, and who is kept out, by git or by a bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from reconciler.errors import Refused
from schemas.agent import Agent

STARTING: Final = 1.0
"""Seconds after which to ask again, while it is not known yet who is in service."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the state says of an agent. ``thumbprint`` is None until it has enrolled."""

    thumbprint: str | None
    quarantined: bool
    address: str = ""


class AgentDirectory:
    """Read by whoever checks credentials; updated by whoever publishes, in the event loop's thread."""

    def __init__(self) -> None:
        self._entries: Mapping[str, Entry] = {}
        self._by_address: Mapping[str, str] = {}
        self._barred: frozenset[tuple[str, str]] = frozenset()
        self._quarantining: frozenset[tuple[str, str]] = frozenset()
        self._is_known = False

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def thumbprint(self, name: str) -> str | None:
        """Return the thumbprint of the agent's key; None where there is no such agent, it has not enrolled, or its key
        is barred.

        Raises:
            Refused: 503 ``starting`` while it is not known yet who is in service, right after a start. Whoever was told
                then that it is not would stay away for a minute, or ask a person to enrol it again.
        """
        if not self._is_known:
            text = "It is not known yet which agents are in service: the control plane has just started."
            raise Refused(text, status=503, code="starting", retry_after=STARTING)
        found = self.published(name)
        return None if found is None or self.barred(name, found) else found

    def published(self, name: str) -> str | None:
        """Return the thumbprint that the published state names, whoever barred it."""
        entry = self._entries.get(name)
        return None if entry is None else entry.thumbprint

    def barred(self, name: str, thumbprint: str) -> bool:
        """Say whether an operator has locked this key of the agent out, whatever git says of it."""
        return (name, thumbprint) in self._barred

    def bar(self, keys: Iterable[tuple[str, str]], quarantining: Iterable[tuple[str, str]] = ()) -> None:
        """Make these the barred keys, each a name and a thumbprint. ``quarantining``: those that may come back."""
        self._barred, self._quarantining = frozenset(keys), frozenset(quarantining)

    @property
    def barred_keys(self) -> frozenset[tuple[str, str]]:
        """What :meth:`bar` was given last."""
        return self._barred

    def quarantined(self, name: str) -> bool:
        """Say whether the agent's file keeps it out."""
        entry = self._entries.get(name)
        return entry is not None and entry.quarantined

    def may_come_back(self, name: str) -> bool:
        """Say whether the agent is kept out without having to enrol again: by its file, or by an operator whose word is
        still on its way there.
        """
        return self.quarantined(name) or (name, self.published(name) or "") in self._quarantining

    def at(self, address: str) -> str | None:
        """Return the first agent in order of name that has this address."""
        return self._by_address.get(address)

    def update(self, agents: Mapping[str, Agent]) -> frozenset[str]:
        """Take over the agents of the state that is published now.

        Returns:
            The names whose former credentials are worth nothing any more: the file is gone, the identity is another,
            or the agent is quarantined. Their connections have to be closed.
        """
        former, self._entries = self._entries, {name: _entry(agent) for name, agent in agents.items()}
        self._is_known = True
        self._by_address = {self._entries[name].address: name for name in sorted(self._entries, reverse=True)}
        return frozenset(name for name, entry in former.items() if _revoked(entry, self._entries.get(name)))


def _entry(agent: Agent) -> Entry:
    identity = agent.spec.identity
    return Entry(
        None if identity is None else identity.thumbprint, agent.spec.state == "quarantined", agent.spec.address
    )


def _revoked(former: Entry, present: Entry | None) -> bool:
    if former.thumbprint is None or former.quarantined:
        return False
    return present is None or present.quarantined or present.thumbprint != former.thumbprint
