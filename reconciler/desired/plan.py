"""The plan: what publishing a state would change: objects, hosts, agents, and whether a person must agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.desired.data_loss import data_losses, in_words
from reconciler.desired.items import AgentItems
from reconciler.desired.revoked import revoked
from reconciler.desired.settle import Settled
from reconciler.desired.state import State
from reconciler.desired.traffic import Answers, traffic_changes
from schemas.fleet import DeletionGuard
from schemas.objects import ObjectKey
from schemas.plan import AgentChange, DataLoss, GuardFinding, ObjectChange, Plan
from schemas.problem import Problem
from schemas.session import digest_of

MAX_FIELDS = 20
_ON_AGENTS = frozenset({"Agent", "Certificate", "Deployment", "Fleet", "Route", "Secret"})
"""Kinds that are part of agents' documents, or decide which names services on agents have."""


def make_plan(base: State, settled: Settled, problems: Sequence[Problem] = ()) -> Plan:
    """Compare two states. Only touched objects are looked at."""
    state = settled.state
    touched = sorted(settled.touched)
    changes = tuple(change for key in touched if (change := _object_change(base, state, key)) is not None)
    before = Answers(base, base.view(), settled.compiled_before)
    traffic = traffic_changes(before, Answers(state, state.view(), state.compiled), touched)
    agents = _agent_changes(base, state, touched)
    losses = data_losses(base, state, agents)
    identity: tuple[Any, ...] = (
        base.revision,
        state.revision,
        [(one.action, one.path, one.blob, one.fields) for one in changes],
        [(one.host, one.entry_point, one.match, one.action, one.before, one.after, one.effects) for one in traffic],
        *([(one.agent, one.deployment, one.data) for one in losses]),
    )
    return Plan(
        base=base.revision,
        revision=state.revision,
        checksum=digest_of(identity),
        changes=changes,
        traffic=traffic,
        agents=agents,
        losses=losses,
        guard=guard(base, state, changes, losses),
        problems=tuple(problems),
        revoked=revoked(state),
    )


def guard(
    base: State, state: State, changes: Iterable[ObjectChange], losses: Sequence[DataLoss] = ()
) -> GuardFinding | None:
    """Say why a plan deletes too much to be published without a person, None where it does not."""
    found = _too_many(base, state, changes)
    if not losses:
        return found
    if found is None:
        return GuardFinding(reason="DataLoss", message=in_words(losses))
    return found.model_copy(update={"message": f"{found.message}; and {in_words(losses)}"})


def _too_many(base: State, state: State, changes: Iterable[ObjectChange]) -> GuardFinding | None:
    deleted = Counter(change.kind for change in changes if change.action == "delete")
    if not deleted:
        return None
    rule = base.fleet.spec.deletion_guard if base.fleet is not None else DeletionGuard()
    total, count = len(base.served), deleted.total()
    left = Counter[str](key.kind for key in state.served)
    emptied = sorted(kind for kind in deleted if not left[kind])
    if emptied:
        kinds = ", ".join(f"{kind} ({deleted[kind]})" for kind in emptied)
        return GuardFinding(reason="DeletionGuard", message=f"the plan deletes every object of a kind: {kinds}")
    if total >= rule.minimum and count * 100 > rule.percent * total:
        return GuardFinding(
            reason="DeletionGuard",
            message=f"the plan deletes {count} of {total} objects ({count * 100 // total} %), "
            f"more than {rule.percent} % need a person",
        )
    return None


def _object_change(base: State, state: State, key: ObjectKey) -> ObjectChange | None:
    old, new = base.served.get(key), state.served.get(key)
    if new is None:
        if old is None:
            return None
        return ObjectChange(action="delete", kind=key.kind, team=key.team, name=key.name or "fleet", path=key.path)
    if old is not None and not old.retained and old.object == new.object:
        return None  # what it refers to changed, and that is told there
    return ObjectChange(
        action="create" if old is None else "update",
        kind=key.kind,
        team=key.team,
        name=key.name or new.object.metadata.name,
        path=key.path,
        blob=new.blob,
        fields=() if old is None else tuple(_differing(_dump(old.object), _dump(new.object)))[:MAX_FIELDS],
    )


def _dump(found: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the models
    return dict(found.model_dump(mode="json", by_alias=True, exclude_none=True))


def _differing(old: object, new: object, where: str = "") -> list[str]:
    """Return the paths of the smallest parts that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        return [
            path
            for name in names
            for path in _differing(old.get(name), new.get(name), f"{where}.{name}" if where else str(name))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [path for index, (one, other) in pairs for path in _differing(one, other, f"{where}[{index}]")]
    return [] if old == new else [where]


def _agent_changes(base: State, state: State, touched: Sequence[ObjectKey]) -> tuple[AgentChange, ...]:
    if not any(key.kind in _ON_AGENTS for key in touched):
        return ()
    before, after = AgentItems(base), AgentItems(state)
    concerned: set[str] = set()
    for key in touched:
        if key.kind in _ON_AGENTS:
            concerned.update(before.concerned_by(key), after.concerned_by(key))
    changes = (_agent_change(name, before, after) for name in sorted(concerned))
    return tuple(change for change in changes if change is not None)


def _agent_change(name: str, before: AgentItems, after: AgentItems) -> AgentChange | None:
    old = {item.id: item.digest for item in before.of(name)}
    new = {item.id: item.digest for item in after.of(name)}
    if old == new:
        return None
    return AgentChange(
        name=name,
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(item for item in new.keys() & old.keys() if old[item] != new[item])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )
