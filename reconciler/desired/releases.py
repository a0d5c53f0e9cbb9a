"""What agents may delete the data of: the deployments whose loss there was part of a plan that went live. PURE.

It is in their documents, for an agent that misses an item does not know why: nobody may have agreed to a loss, or the
store that would have asked for it may be new. It stays until the agent is to run a deployment of that name again, or is
gone itself; agents that are away have it when they are back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from reconciler.desired.state import State
from schemas.deployment import Deployment
from schemas.objects import ObjectKey
from schemas.plan import DataLoss
from schemas.session import MAX_RELEASED

Releases = Mapping[str, tuple[str, ...]]
"""Agent → ``<team>/<name>``, the newest last."""
NO_RELEASES: Final[Releases] = {}


def next_releases(former: Releases, losses: Iterable[DataLoss], state: State) -> Releases:
    """Return what is released with a state. ``losses``: of the plan that leads there."""
    found = {agent: list(names) for agent, names in former.items()}
    for loss in losses:
        names = found.setdefault(loss.agent, [])
        names[:] = [*(name for name in names if name != loss.deployment), loss.deployment]
    kept = {
        agent: tuple(name for name in names if not _runs(state, agent, name))[-MAX_RELEASED:]
        for agent, names in found.items()
        if ObjectKey("Agent", "", agent) in state.served
    }
    return {agent: names for agent, names in kept.items() if names}


def still_released(former: Releases, newer: Releases) -> Releases:
    """Return those of ``former`` that ``newer``, which came after it, has as well."""
    both = {agent: tuple(name for name in names if name in newer.get(agent, ())) for agent, names in former.items()}
    return {agent: names for agent, names in both.items() if names}


def _runs(state: State, agent: str, deployment: str) -> bool:
    """Say whether an agent is to run a deployment, be it only later."""
    team, _, name = deployment.partition("/")
    key = ObjectKey("Deployment", team, name)
    served = state.served.get(key)
    if served is None or not isinstance(served.object, Deployment):
        return False
    return agent in state.selected.get(key, served.object.spec.agents)
