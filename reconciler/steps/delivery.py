"""Hand each agent its document: only those whose document changed, newest wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from reconciler.agents.documents import WantedDocument
from reconciler.desired.items import AgentItems, MakeItems
from reconciler.desired.state import State
from reconciler.steps.passing import Pass, Published
from schemas.agent import Agent
from schemas.objects import ObjectKey
from schemas.session import Item, digest_of_items


class Documents(Protocol):
    """What delivery needs of :class:`reconciler.agents.hub.Hub`."""

    @property
    def connected(self) -> frozenset[str]: ...
    async def publish(self, documents: Mapping[str, WantedDocument]) -> frozenset[str]: ...
    def revoke(self, names: Iterable[str]) -> None: ...


class Directory(Protocol):
    """Who may connect: :class:`reconciler.agents.directory.AgentDirectory`."""

    def update(self, agents: Mapping[str, Agent]) -> frozenset[str]:
        """Take over the agents of the published state; return those that may not connect any more."""
        ...


class Delivery:
    """``revoked`` is told, at once, who may not connect any more; it must not block."""

    def __init__(
        self, hub: Documents, directory: Directory, revoked: Callable[[frozenset[str]], None] = lambda _: None
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._revoked = revoked
        self.told = 0
        """Generation whose documents were handed over last."""

    @property
    def connected(self) -> frozenset[str]:
        """Agents that are there."""
        return self._hub.connected

    def assign(self, this: Pass) -> None:
        """Work out whose document changes with this generation. Called when the generation's number is known."""
        assert this.plan is not None
        items = AgentItems(this.state)
        agents = dict(this.base.agents)
        for name in (change.name for change in this.plan.agents):
            if ObjectKey("Agent", "", name) not in this.state.served:
                agents.pop(name, None)
                continue
            this.items = {**this.items, name: items.of(name)}
            agents[name] = (this.generation, digest_of_items(this.items[name]))
        this.agents = agents

    def given_back(
        self, confirmed: Published, failed: Mapping[str, tuple[int, str]], generation: int
    ) -> dict[str, tuple[int, str]]:
        """Return the agents of ``confirmed``, with a new ``generation`` for documents that another one replaced.

        An agent refuses an older generation, so what it had before comes back under a newer number.
        """
        return {
            name: (at, digest) if failed.get(name) == (at, digest) else (generation, digest)
            for name, (at, digest) in confirmed.agents.items()
        }

    async def push(self, published: Published, items: Mapping[str, tuple[Item, ...]]) -> dict[str, str]:
        """Close what was revoked, then offer the changed documents. Returns agent → digest that it must apply."""
        return await self._hand_over(published, {name: partial(_same, found) for name, found in items.items()})

    async def resume(self, published: Published) -> dict[str, str]:
        """Let every agent of the published state connect, and have its document ready, as :meth:`push`.

        For a restart, and for what is given back; an agent that has the content already is sent nothing.
        """
        items = AgentItems(published.state)
        return await self._hand_over(published, {name: items.maker(name) for name in published.agents})

    async def _hand_over(self, published: Published, makers: Mapping[str, MakeItems]) -> dict[str, str]:
        gone = self._directory.update(agents_in(published.state))
        self._hub.revoke(gone)
        self._revoked(gone)
        documents = {
            name: WantedDocument(generation, published.revision, digest, makers[name])
            for name, (generation, digest) in published.agents.items()
            if name in makers
        }
        await self._hub.publish(documents)
        self.told = published.generation
        return {name: document.digest for name, document in documents.items()}


def _same(items: tuple[Item, ...]) -> tuple[Item, ...]:
    return items


def agents_in(state: State) -> dict[str, Agent]:
    """Return the agents that may connect: in service, and not merely kept because their file is broken or gone."""
    return {key.name: one.object for key, one in state.served.items() if isinstance(one.object, Agent)}
