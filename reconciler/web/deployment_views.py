"""What the API and the dashboard show of a deployment, put together from what git and its agents say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from reconciler.desired.state import State
from reconciler.store.protocols import AgentObservation
from schemas.deployment import Deployment
from schemas.deployments_api import DeploymentOnAgent, DeploymentView
from schemas.objects import ObjectKey
from schemas.observation import DeploymentObservation
from schemas.session import ItemResult

Seen = Callable[[str, ObjectKey], DeploymentObservation | None]
"""Agent, deployment → what the agent sees of it."""


class Look(NamedTuple):
    """What is known at one moment."""

    state: State
    connected: frozenset[str]
    observations: Mapping[str, AgentObservation]
    seen: Seen


def deployment_of(state: State, key: ObjectKey) -> Deployment:
    """Return a deployment that is in service."""
    found = state.served[key].object
    assert isinstance(found, Deployment)
    return found


def agents_of(state: State, key: ObjectKey) -> tuple[str, ...]:
    """Return the agents that a deployment in service is to run on, in order of name."""
    return tuple(sorted(state.selected.get(key, deployment_of(state, key).spec.agents)))


def deployment_view(key: ObjectKey, look: Look) -> DeploymentView:
    """Return how a deployment stands on each of its agents."""
    deployment = deployment_of(look.state, key)
    return DeploymentView(
        team=key.team,
        name=key.name,
        type=deployment.spec.type,
        path=key.path,
        image=deployment.spec.image or "",
        agents=tuple(on_agent(key, one, look) for one in agents_of(look.state, key)),
    )


def on_agent(key: ObjectKey, agent: str, look: Look) -> DeploymentOnAgent:
    """Return how it stands on one agent."""
    observation = look.observations.get(agent)
    items = () if observation is None else observation.items
    result = next((ItemResult.model_validate(item) for item in items if item["id"] == str(key)), None)
    return DeploymentOnAgent(
        agent=agent,
        connected=agent in look.connected,
        last_seen=None if observation is None else datetime.fromtimestamp(observation.last_seen, UTC),
        result=result,
        observed=look.seen(agent, key),
    )


def states_of(key: ObjectKey, look: Look) -> frozenset[str]:
    """Return what its agents said of it last: their words for it, and ``Unknown`` where one said nothing."""
    found = set()
    for agent in agents_of(look.state, key):
        observation = look.observations.get(agent)
        items = () if observation is None else observation.items
        found.add(next((str(item["state"]) for item in items if item["id"] == str(key)), "Unknown"))
    return frozenset(found)
