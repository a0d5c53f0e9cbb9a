"""What the API shows of an agent, put together from what git says and from what the agent said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from reconciler.agents.conditions import Condition
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from schemas.agent import Agent
from schemas.api import AgentCondition, AgentStatus
from schemas.health_api import AgentHealth
from schemas.session import ItemResult

NO_HEALTH: Final = AgentHealth()


def agent_status(
    agent: Agent, published: Published, seen: AgentObservation | None, *, connected: bool,
    conditions: tuple[AgentCondition, ...] = (), health: AgentHealth = NO_HEALTH,
) -> AgentStatus:  # fmt: skip
    """Return how an agent stands; ``seen`` is the last that was seen of it."""
    name = agent.metadata.name
    wanted = published.agents.get(name, (0, ""))[0]
    status = AgentStatus(
        name=name,
        state=agent.spec.state,
        enrolled=agent.spec.identity is not None,
        connected=connected,
        wanted_generation=wanted,
        conditions=conditions,
        presence=health.presence,
        drain=health.drain,
        endpoints=health.endpoints,
    )
    if seen is None:
        return status
    return status.model_copy(
        update={
            "last_seen": moment(seen.last_seen),
            "version": seen.version,
            "applied_generation": seen.applied_generation,
            "outcome": seen.outcome,
            "message": seen.message,
            "items": tuple(ItemResult.model_validate(item) for item in seen.items),
            "metrics": dict(seen.metrics),
        }
    )


def condition_view(one: Condition) -> AgentCondition:
    """Return a condition as the API shows it."""
    return AgentCondition(
        type=one.type,
        status=one.status,
        reason=one.reason,
        message=one.message,
        since=moment(one.since),
        heard=None if one.heard is None else moment(one.heard),
    )


def moment(when: float) -> datetime:
    """Return POSIX seconds as a time."""
    return datetime.fromtimestamp(when, UTC)
