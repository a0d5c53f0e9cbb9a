"""The way of one deployment to what is wanted: one look at what there is gives the next few actions. PURE.

```
recreate    create beside the old → stop the old → start → healthy in time → keep it → remove the old
blue-green  create beside the old, on other ports → start → healthy in time → keep it
            → every front asks the new one → drain → stop and remove the old
```

No step is remembered that the instances themselves show. :class:`Memory` has the rest: what was good last, since when
the newest has been trying, and why it failed. It is saved before the actions are carried out. So whoever is cut off
goes on from where things stand, and a newer item takes the place of one under way at any point.

A good one that is gone comes back at the ports where it served last: fronts look for it there, also while nobody can
tell them of other ones.

A failure brings the last good one back, and the item is not tried again until it changes: each attempt would cost an
interruption. What failed before anything was touched (a pull), or has no good one to go back to, is tried again, later
and later. Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from agent.deployments.actions import Action, Create, Keep, Remove, RemoveNetwork, RemoveVolumes, Start, Stop
from agent.deployments.observed import Instance
from agent.deployments.workload import SLOTS, Key, Slot, Workload

ItemState = Literal["Applied", "Progressing", "Failed"]
RETRY_BASE: Final = 10.0
RETRY_CAP: Final = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not become good. ``retry``: it is tried again although it has not changed."""

    trial: str
    reason: str
    message: str
    at: float
    attempts: int = 1
    retry: bool = False

    @property
    def retry_at(self) -> float:
        return self.at + min(RETRY_CAP, RETRY_BASE * 2.0 ** min(self.attempts - 1, 32))


class Attempt(NamedTuple):
    trial: str
    began: float
    """When its instance was started for the first time."""
    starts: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept of a deployment across restarts of the agent."""

    good: Workload | None = None
    attempt: Attempt | None = None
    failure: Failure | None = None
    delete_data: bool = False
    """What the deletion policy was when the deployment was last wanted."""
    type: str = ""
    """Of the deployment when it was last wanted; its driver is the one that may forget it."""
    ports: tuple[tuple[int, int], ...] = ()
    """Port of the workload, port of the agent: where it served last, and where fronts look for it."""

    def failed(self, trial: str, reason: str, message: str, now: float, *, retry: bool) -> Memory:
        """Note that a trial failed; without a good one to go back to it is tried again in any case."""
        before = self.failure.attempts if self.failure is not None and self.failure.trial == trial else 0
        retry = retry or self.good is None
        return replace(self, attempt=None, failure=Failure(trial, reason, message, now, before + 1, retry))


class Acknowledged(NamedTuple):
    """All fronts send what they have for a deployment to this slot, since then."""

    slot: Slot
    since: float


@dataclass(frozen=True, slots=True)
class View:
    """All that is decided from."""

    key: Key
    desired: Workload | None
    memory: Memory
    instances: Sequence[Instance]
    now: float
    acknowledged: Acknowledged | None = None
    drain: float = 5.0
    """Seconds between the switch of routes and the end of the old instance."""
    other_port: Callable[[int, int], int] = lambda port, _attempt: port
    """A free port of the agent for a port of the workload, for an instance beside one that has the declared port."""
    may_return: Callable[[int], bool] = lambda _port: True
    """Whether it may have a port of the agent again that is not the declared one, where it served last."""
    has_network: bool = False
    has_volumes: bool = False
    elsewhere: bool = False
    """Another driver runs it now; only what is left here goes."""
    released: bool = False
    """The document says that its data may go."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in order, after ``memory`` was saved (None: forgotten, once the actions are done)."""

    actions: tuple[Action, ...]
    memory: Memory | None
    state: ItemState
    reason: str
    message: str = ""
    serving: Slot | None = None
    """The instance that routes belong to."""
    again_at: float | None = None
    """When to look again although nothing happens."""


def decide(view: View) -> Decision:
    """Return the next actions for a deployment, and how it stands."""
    if view.desired is None:
        return _away(view)
    return _towards(view, view.desired, _refreshed(view.memory, view.desired, view.instances))


def _refreshed(memory: Memory, desired: Workload, instances: Sequence[Instance]) -> Memory:
    """Drop what was about another digest, and take over what may change without a roll-out."""
    digest, trial, good = desired.digest, desired.trial, memory.good
    if good is not None and good.spec.type != desired.spec.type:
        good = None  # of another driver, which ends it
        memory = replace(memory, ports=())
    kept = any(instance.kept and instance.digest == digest for instance in instances)
    if (good is not None and good.digest == digest) or (good is None and kept):
        good = desired
    attempt = memory.attempt if memory.attempt is not None and memory.attempt.trial == trial else None
    failure = memory.failure if memory.failure is not None and memory.failure.trial == trial else None
    return Memory(good, attempt, failure, desired.delete_data, desired.spec.type, memory.ports)


def _towards(view: View, desired: Workload, memory: Memory) -> Decision:
    good, failure = memory.good, memory.failure
    if good is not None and good.digest == desired.digest:
        return _settle(view, good, replace(memory, attempt=None, failure=None))
    if failure is None or (failure.retry and view.now >= failure.retry_at):
        return _roll(view, desired, memory)
    if good is None:
        return _wait_for_retry(view, desired, memory, failure)
    decision = _settle(view, good, memory)
    back = decision.state == "Applied"
    message = f"{failure.message} The last good version {'runs on' if back else 'comes back'}."
    again_at = failure.retry_at if failure.retry else decision.again_at
    state: ItemState = "Failed" if back else "Progressing"
    return replace(decision, state=state, reason=failure.reason, message=message, again_at=again_at)


# --- to something that was good ----------------------------------------------------------------------------------


def _settle(view: View, good: Workload, memory: Memory) -> Decision:
    """Have exactly one instance, of what was good."""
    main = best(view.instances, good.digest)
    others = [instance for instance in view.instances if instance is not main]
    if main is None:
        made = _make(view, good, memory, others, dict(memory.ports))
        return replace(made, reason="Restoring", message="It was gone and is made again.")
    if main.state == "created" and _is_misplaced(good, memory, main, others):
        return Decision((Remove(main),), memory, "Progressing", "Restoring", "It is made again at another port.")
    if not main.up:
        blocking = [Stop(one) for one in others if one.up and (not good.blue_green or _share_ports(main, one))]
        actions: tuple[Action, ...] = (*blocking, *([] if main.kept else [Keep(main)]), Start(main))
        return Decision(actions, memory, "Progressing", "Starting", "It is started again.")
    keep = [] if main.kept else [Keep(main)]
    waiting = [other for other in others if _still_asked(view, good, main, other)]
    gone = [action for other in others if other not in waiting for action in _end(other)]
    switched = not waiting or (view.acknowledged is not None and view.acknowledged.slot == main.slot)
    ports = tuple(sorted(main.ports.items())) if switched else memory.ports
    decision = _applied(main, replace(memory, attempt=None, ports=ports))
    if keep or gone:
        decision = replace(decision, actions=(*keep, *gone))
    if not waiting:
        return decision
    if view.acknowledged is None or not switched:
        text = "The new version is healthy; routes are being switched to it, and the former one serves until then."
        return replace(decision, state="Progressing", reason="Switching", message=text)
    again_at = view.acknowledged.since + view.drain
    return replace(decision, state="Progressing", reason="Draining", message=_DRAINING, again_at=again_at)


_DRAINING: Final = "Routes are switched; the former version ends what it has begun."


def _applied(main: Instance, memory: Memory) -> Decision:
    state = main.health.state
    if main.state == "restarting":
        text = f"It ended by itself and is started again, {main.restarts} times so far."
        return Decision((), memory, "Applied", "Restarting", text, main.slot)
    if state == "unhealthy":
        return Decision((), memory, "Applied", "Unhealthy", f"{_detail(main)}.", main.slot)
    return Decision((), memory, "Applied", "Running", "", main.slot)


def _still_asked(view: View, good: Workload, main: Instance, other: Instance) -> bool:
    """Say whether requests may still come to an instance beside the good one. A candidate never got any."""
    if not (good.blue_green and other.kept and other.up and not _share_ports(main, other)):
        return False
    seen = view.acknowledged
    return seen is None or seen.slot != main.slot or view.now < seen.since + view.drain


# --- to something new --------------------------------------------------------------------------------------------


def _roll(view: View, desired: Workload, memory: Memory) -> Decision:
    """Bring up what is wanted, and make it the good one once it is healthy."""
    candidate = best(view.instances, desired.digest)
    current = None if memory.good is None else best(view.instances, memory.good.digest)
    serving = None if current is None or not current.up else current.slot
    others = [one for one in view.instances if one is not candidate and one is not current]
    stale = [one for one in others if not _may_be_asked(view, desired, current, one)]
    if stale:
        actions = tuple(action for instance in stale for action in _end(instance))
        return Decision(actions, memory, "Progressing", "Superseding", "What was under way makes room.", serving)
    if candidate is None:
        decision = _make(view, desired, memory, [one for one in view.instances if one.up])
    elif candidate.up:
        decision = _judge(view, desired, memory, candidate)
    elif candidate.state == "created" or (memory.good is None and memory.attempt is None):
        old = [] if desired.blue_green or current is None or not current.up else [Stop(current)]
        memory = replace(memory, attempt=Attempt(desired.trial, view.now))
        decision = Decision((*old, Start(candidate)), memory, "Progressing", "Starting", _WAITING)
    elif memory.attempt is None:
        # it ended before anybody tried it this time, for something else was wanted then; how it ended says nothing
        decision = Decision((Remove(candidate),), memory, "Progressing", "Superseding", "What was left is made anew.")
    elif candidate.killed and memory.attempt.starts < _STARTS:
        # by the end of the engine, or of somebody: that says nothing about the candidate
        again = memory.attempt._replace(starts=memory.attempt.starts + 1)
        memory = replace(memory, attempt=again)
        decision = Decision((Start(candidate),), memory, "Progressing", "Starting", "It was killed and starts again.")
    else:
        after = "" if candidate.ran_seconds is None else f" after {candidate.ran_seconds:.0f} s"
        code = "" if candidate.exit_code is None else f" with {candidate.exit_code}"
        lines = f"; last lines: {candidate.last_lines}" if candidate.last_lines else ""
        return _failed(view, desired, memory, "Exited", f"It exited{code}{after}{lines}.")
    if memory.failure is not None and decision.state == "Progressing":
        decision = replace(decision, state="Failed", reason=memory.failure.reason, message=memory.failure.message)
    return decision if decision.serving is not None else replace(decision, serving=serving)


_STARTS: Final = 3
_WAITING: Final = "It was started and is not healthy yet."


def _judge(view: View, desired: Workload, memory: Memory, candidate: Instance) -> Decision:
    """Decide about a candidate that runs."""
    began = memory.attempt.began if memory.attempt is not None else view.now
    memory = replace(memory, attempt=Attempt(desired.trial, began))
    if candidate.health.state == "healthy":
        return _settle(view, desired, replace(memory, good=desired, attempt=None, failure=None))
    if candidate.health.state == "unhealthy":
        return _unhealthy(view, desired, memory, "Unhealthy", f"It is not healthy: {_detail(candidate)}.")
    if view.now >= began + desired.deadline:
        text = f"It did not become healthy within {desired.spec.rollout.deadline}: {_detail(candidate)}."
        return _unhealthy(view, desired, memory, "DeadlineExceeded", text)
    detail = f" {_detail(candidate)}." if candidate.health.detail else ""
    return Decision((), memory, "Progressing", "Starting", _WAITING + detail, again_at=began + desired.deadline)


def _unhealthy(view: View, desired: Workload, memory: Memory, reason: str, message: str) -> Decision:
    """Go back; where there is nothing to go back to, let it run: it may come round."""
    if memory.good is not None:
        return _failed(view, desired, memory, reason, message)
    if memory.failure is None:
        memory = replace(memory.failed(desired.trial, reason, message, view.now, retry=True), attempt=memory.attempt)
    return Decision((), memory, "Failed", reason, message)


def _failed(view: View, desired: Workload, memory: Memory, reason: str, message: str) -> Decision:
    return _towards(view, desired, memory.failed(desired.trial, reason, message, view.now, retry=False))


def _wait_for_retry(view: View, desired: Workload, memory: Memory, failure: Failure) -> Decision:
    candidate = best(view.instances, desired.digest)
    if candidate is not None and candidate.up:
        return _roll(view, desired, memory)
    return Decision((), memory, "Failed", failure.reason, failure.message, again_at=failure.retry_at)


# --- to nothing --------------------------------------------------------------------------------------------------


def _away(view: View) -> Decision:
    """Remove what there is, and data only where the policy was to and the document says that this was agreed to."""
    if view.instances:
        actions: tuple[Action, ...] = tuple(action for instance in view.instances for action in _end(instance))
        return Decision(actions, view.memory, "Progressing", "Removing")
    left: list[Action] = [RemoveNetwork(view.key)] if view.has_network else []
    if view.elsewhere:
        return Decision(tuple(left), view.memory, "Applied", "Moved")
    deletes = view.has_volumes and view.memory.delete_data
    if deletes and view.released:
        left.append(RemoveVolumes(view.key))
    if left:
        return Decision(tuple(left), view.memory, "Progressing", "Removing")
    return Decision((), None, "Applied", "Removed", _NOT_RELEASED if deletes else "")


_NOT_RELEASED: Final = "Its volumes stay: the control plane does not say that somebody agreed to their deletion."


# --- the parts of it ---------------------------------------------------------------------------------------------


def best(instances: Sequence[Instance], digest: str) -> Instance | None:
    """Return the instance of a digest to go on with: of several, one that is good and runs."""
    found = [instance for instance in instances if instance.digest == digest]
    return min(found, key=lambda one: (not one.up, not one.kept, one.slot, one.id), default=None)


def _make(
    view: View,
    workload: Workload,
    memory: Memory,
    others: Sequence[Instance],
    former: Mapping[int, int] | None = None,
) -> Decision:
    """Set an instance up beside ``others``. ``former``: the ports to return to, of one that was good."""
    free = [slot for slot in SLOTS if slot not in {instance.slot for instance in view.instances}]
    if not free:
        down = tuple(Remove(instance) for instance in others if not instance.up)
        return Decision(down, memory, "Progressing", "WaitingForRoom", "An older one has to end first.")
    attempt = 0 if memory.failure is None else memory.failure.attempts
    held = _held(workload, others, returns=former is not None)
    create = Create(workload, free[0], _ports(view, workload, held, attempt, former or {}))
    text = f"Fetching and setting up {workload.spec.image or 'it'}."
    return Decision((create,), memory, "Progressing", "Creating", text)


def _ports(
    view: View, workload: Workload, held: AbstractSet[int], attempt: int, former: Mapping[int, int]
) -> dict[int, int]:
    """Return the former ports, else the declared ones, else free ones in place of those that another has."""
    declared = {mapping.host for mapping in workload.spec.ports}
    found = {}
    for mapping in workload.spec.ports:
        before = former.get(mapping.container, mapping.host)
        if before not in held | declared and view.may_return(before):
            found[mapping.container] = before
        else:
            is_held = mapping.host in held
            found[mapping.container] = view.other_port(mapping.container, attempt) if is_held else mapping.host
    return found


def _held(workload: Workload, others: Sequence[Instance], *, returns: bool) -> set[int]:
    """Return what one that comes up beside others leaves to them. One that returns makes way only for what serves."""
    if not workload.blue_green:
        return set()
    return {port for one in others if not returns or (one.kept and one.up) for port in one.ports.values()}


def _is_misplaced(good: Workload, memory: Memory, main: Instance, others: Sequence[Instance]) -> bool:
    """Say whether what never ran was set up at a port that turned out to be taken; the declared one is free by now."""
    held, former = _held(good, others, returns=True), dict(memory.ports)
    return any(
        main.ports.get(mapping.container) not in (mapping.host, former.get(mapping.container))
        for mapping in good.spec.ports
        if mapping.host not in held
    )


def _may_be_asked(view: View, desired: Workload, current: Instance | None, instance: Instance) -> bool:
    """Say whether fronts may have an instance that was good before the present good one."""
    if current is not None and current.up:
        return _still_asked(view, desired, current, instance)
    return desired.blue_green and instance.kept and instance.up


def _share_ports(one: Instance, other: Instance) -> bool:
    return bool(set(one.ports.values()) & set(other.ports.values()))


def _end(instance: Instance) -> tuple[Action, ...]:
    return (Stop(instance), Remove(instance)) if instance.up else (Remove(instance),)


def _detail(instance: Instance) -> str:
    return instance.health.detail or "nobody could ask it yet"
