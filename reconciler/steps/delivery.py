"""Hand each agent its document: only those whose document changed, newest wins.

A document also changes without a commit: when it is an agent's turn in the roll-out of a deployment, when agents are to
trust somebody else, and when a new version of this program says an item differently. :meth:`Delivery.has_news` finds
that out, and the loop publishes the same revision again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from reconciler.agents.documents import WantedDocument
from reconciler.desired.items import AgentItems, MakeItems
from reconciler.desired.releases import next_releases, still_released
from reconciler.desired.state import State
from reconciler.steps.passing import Pass, Published
from reconciler.steps.waves import Waves
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


Assigned = Mapping[str, tuple[int, str]]
TrustSpec = Mapping[str, Any]


class Delivery:
    """``revoked`` is told, at once, who may not connect any more; it must not block. ``trust`` says what every agent
    is to be told of whom to believe (``schemas.trust``); it gives the same object until there is something new.
    """

    def __init__(
        self,
        hub: Documents,
        directory: Directory,
        revoked: Callable[[frozenset[str]], None] = lambda _: None,
        *,
        waves: Waves,
        trust: Callable[[], TrustSpec | None] = lambda: None,
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._revoked = revoked
        self._waves = waves
        self._trust = trust
        self._checked: tuple[Assigned, TrustSpec | None] | None = None
        """Digests that are known to be those of the documents, and the trust in these."""
        self.told = 0
        """Generation whose documents were handed over last."""

    @property
    def connected(self) -> frozenset[str]:
        """Agents that are there."""
        return self._hub.connected

    def assign(self, this: Pass) -> None:
        """Work out whose document changes with this generation. Called when the generation's number is known."""
        assert this.plan is not None
        trust = self._trust()
        planned = self._waves.plan(this)
        this.releases = next_releases(this.base.releases, this.plan.losses, this.state)
        items, agents = AgentItems(this.state, trust, planned.rollouts, this.releases), dict(this.base.agents)
        names = {*planned.agents, *(change.name for change in this.plan.agents)}
        changed = {name: items.of(name) for name in sorted(names)}
        if not self._is_checked(this.base.agents, trust):
            changed = {**_differing(items, this.state, agents), **changed}
        for name, found in changed.items():
            digest = digest_of_items(found)
            if ObjectKey("Agent", "", name) not in this.state.served:
                agents.pop(name, None)
            elif agents.get(name, (0, ""))[1] != digest:  # an agent that keeps an older version may keep its document
                agents[name] = (this.generation, digest)
        this.items = {name: found for name, found in changed.items() if agents.get(name, (0,))[0] == this.generation}
        this.agents, this.rollouts = agents, planned.rollouts
        self._checked = agents, trust

    async def has_news(self, published: Published) -> bool:
        """Say whether documents would be others by now than those that were published, though no object changed."""
        trust, assigned = self._trust(), published.agents
        if published.state.fleet is None:
            return False
        if self._waves.is_due(published):
            return True
        if self._is_checked(assigned, trust):
            return False
        items = AgentItems(published.state, trust, published.rollouts, published.releases)
        if await asyncio.to_thread(_differing, items, published.state, assigned):
            return True
        self._checked = assigned, trust
        return False

    def _is_checked(self, assigned: Assigned, trust: TrustSpec | None) -> bool:
        return self._checked is not None and self._checked[0] is assigned and self._checked[1] is trust

    def given_back(self, confirmed: Published, failed: Published, generation: int) -> Published:
        """Return ``confirmed`` as ``generation``, with its number for documents that another one replaced.

        An agent refuses an older generation, so what it had before comes back under a newer number. What it may have
        run again meanwhile keeps its data.
        """
        releases = still_released(confirmed.releases, failed.releases)
        items = AgentItems(confirmed.state, self._trust(), confirmed.rollouts, releases)
        fewer = {name for name, found in confirmed.releases.items() if releases.get(name) != found}
        before = {
            name: (at, digest_of_items(items.of(name)) if name in fewer else digest)
            for name, (at, digest) in confirmed.agents.items()
        }
        agents = {
            name: (at, digest) if failed.agents.get(name) == (at, digest) else (generation, digest)
            for name, (at, digest) in before.items()
        }
        anew = {name for name, (at, _) in agents.items() if at == generation}
        rollouts = {key: one.moved(anew, generation) for key, one in confirmed.rollouts.items()}
        given = replace(confirmed, generation=generation, agents=agents, rollouts=rollouts, confirmed=False)
        return replace(given, releases=releases)

    def gone_on(self, published: Published) -> dict[str, frozenset[str]]:
        """Say which revisions' roll-outs went on with the newest generation, and on which agents."""
        return self._waves.gone_on(published)

    async def push(self, published: Published, items: Mapping[str, tuple[Item, ...]]) -> dict[str, str]:
        """Close what was revoked, then offer the changed documents. Returns agent → digest that it must apply."""
        return await self._hand_over(published, {name: partial(_same, found) for name, found in items.items()})

    async def resume(self, published: Published) -> dict[str, str]:
        """Let every agent of the published state connect, and have its document ready, as :meth:`push`.

        For a restart, and for what is given back; an agent that has the content already is sent nothing.
        """
        items = AgentItems(published.state, self._trust(), published.rollouts, published.releases)
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
        self._waves.put(published)
        return {name: document.digest for name, document in documents.items()}


def _differing(items: AgentItems, state: State, assigned: Assigned) -> dict[str, tuple[Item, ...]]:
    """Return the items of the agents whose digest is another."""
    names = [key.name for key in state.served if key.kind == "Agent"]
    found = {name: items.of(name) for name in names}
    return {name: one for name, one in found.items() if assigned.get(name, (0, ""))[1] != digest_of_items(one)}


def _same(items: tuple[Item, ...]) -> tuple[Item, ...]:
    return items


def agents_in(state: State) -> dict[str, Agent]:
    """Return the agents that may connect: in service, and not merely kept because their file is broken or gone."""
    return {key.name: one.object for key, one in state.served.items() if isinstance(one.object, Agent)}
