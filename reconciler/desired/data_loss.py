"""Which data a plan would have deleted: of deployments that leave an agent, and whose policy there is to delete it.

The policy that counts is the one in service, for it is in the last item that the agent had of the deployment; what the
revision says of it comes too late for an agent that loses the deployment with the same revision. So the approval of
the plan is all that stands before the loss, and agents need not be told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.desired.state import State
from schemas.deployment import Deployment
from schemas.objects import ObjectKey
from schemas.plan import AgentChange, DataLoss

_PREFIX = "Deployment/"
_NAMED = 5


def data_losses(base: State, state: State, agents: Iterable[AgentChange]) -> tuple[DataLoss, ...]:
    """Return what is lost on which agent. An agent that goes itself is told nothing any more, and deletes nothing."""
    return tuple(
        DataLoss(agent=change.name, deployment=item.removeprefix(_PREFIX), data=_data(found))
        for change in agents
        if ObjectKey("Agent", "", change.name) in state.served
        for item in change.removed
        if (found := _deleting(base, item)) is not None
    )


def _deleting(base: State, item: str) -> Deployment | None:
    if not item.startswith(_PREFIX):
        return None
    team, _, name = item.removeprefix(_PREFIX).partition("/")
    found = base.objects.get(ObjectKey("Deployment", team, name))
    return found if isinstance(found, Deployment) and found.spec.deletion_policy == "delete" else None


def _data(deployment: Deployment) -> tuple[str, ...]:
    """Name the data in words. Volumes of earlier versions, of which nothing is known here, go as well."""
    spec = deployment.spec
    named = [f"volume {volume.name}" for volume in spec.volumes]
    return (*(["the database"] if spec.type == "mongodb" else []), *named) or ("volumes of earlier versions",)


def in_words(losses: Sequence[DataLoss]) -> str:
    """Say what is lost, in one sentence."""
    said = [f"{' and '.join(one.data)} of {one.deployment} on {one.agent}" for one in losses[:_NAMED]]
    more = f", and more of {len(losses) - _NAMED} other(s)" if len(losses) > _NAMED else ""
    return f"the plan deletes data: {', '.join(said)}{more}"
