"""How one deployment comes to one version, agent by agent: what is shown of it, and which events it is worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, Literal

from reconciler.desired.rollouts import Rollout
from reconciler.desired.waves import Wave
from reconciler.steps.standings import Standing
from reconciler.store.protocols import Event
from schemas.objects import ObjectKey
from schemas.status import AgentRollout, DeploymentRollout, RolloutPlace, RolloutState, RolloutStep

MAX_STEPS: Final = 12
"""Steps of one agent that are kept, the newest."""
MAX_TEXT: Final = 300
MAX_AGENTS: Final = 200
"""Agents of all deployments of a record that are shown."""
MAX_DEPLOYMENTS: Final = 50
_ORDER: Final[tuple[RolloutPlace, ...]] = ("failed", "changing", "waiting", "offline", "done")


class Story:
    """``known``: what an earlier process had written down of it."""

    def __init__(self, key: ObjectKey, rollout: Rollout, known: DeploymentRollout | None = None) -> None:
        self.key = key
        self.revision = rollout.revision
        self.version = rollout.version
        self.state: RolloutState = "Progressing"
        self.message = ""
        self.is_over = False
        """Every agent has it, and said so; what becomes of it from then on is another story."""
        self._begun = rollout.begun
        self._steps: dict[str, list[RolloutStep]] = {}
        self._agents: dict[str, AgentRollout] = {}
        self._told: set[str] = set()
        """What there was an event for: its type, or the agent that failed."""
        if known is not None:
            self._take_up(known)
            self.is_over = self.is_over and not (rollout.held or known.left_out)

    def _take_up(self, known: DeploymentRollout) -> None:
        self.state, self.message, self._agents = known.state, known.message, dict(known.agents)
        self._steps = {name: list(one.steps) for name, one in known.agents.items()}
        self.is_over = known.state == "Done" and {one.state for one in known.agents.values()} <= {"done"}
        self._told = {"RolloutStarted", *(name for name, one in known.agents.items() if one.state == "failed")}
        if known.state == "Done":
            self._told.add("RolloutCompleted")

    def said(self, agent: str, standing: Standing | None) -> None:
        """Add what an agent says of the version, unless it is what it said last."""
        if standing is None:
            return
        steps = self._steps.setdefault(agent, [])
        text = standing.message[:MAX_TEXT]
        if steps and (steps[-1].state, steps[-1].reason) == (standing.state, standing.reason):
            if steps[-1].message != text:  # the same step, in other words
                steps[-1] = steps[-1].model_copy(update={"message": text})
            return
        at = datetime.fromtimestamp(standing.since, UTC)
        steps.append(RolloutStep(at=at, state=standing.state, reason=standing.reason, message=text))
        del steps[:-MAX_STEPS]

    def failure(self, agent: str) -> RolloutStep | None:
        """Return how the version failed on an agent, where that is the last that was heard of it, by whatever process.

        A machine that a version brought down says nothing more, also after a restart here.
        """
        steps = self._steps.get(agent)
        return steps[-1] if steps and steps[-1].state == "Failed" else None

    def judged(self, wave: Wave, agents: Iterable[str], away: frozenset[str], now: float) -> Iterator[Event]:
        """Take over where the roll-out stands; yields what is worth an event."""
        self.state, self.message = wave.state, wave.message[:MAX_TEXT]
        self.is_over = wave.state == "Done" and not (wave.waiting or wave.changing or wave.lost)
        self._agents = {
            name: AgentRollout(state=place_of(name, wave, away), steps=tuple(self._steps.get(name, ())))
            for name in agents
        }
        version = f"the version of revision {self.revision[:12]}"
        if wave.waiting and self._is_new("RolloutStarted"):
            yield self._event(now, "RolloutStarted", "info", f"{version} goes out in waves: {wave.message}")
        if wave.state == "Failed":
            failed = {*wave.failed, *wave.lost} - self._told
            self._told |= failed
            if failed:
                yield self._event(now, "RolloutFailed", "error", f"{version}: {wave.message}")
        if self.is_over and self._told and self._is_new("RolloutCompleted"):
            yield self._event(now, "RolloutCompleted", "info", f"{version} runs on every agent")

    def _is_new(self, kind: str) -> bool:
        is_new = kind not in self._told
        self._told.add(kind)
        return is_new

    def _event(self, now: float, kind: str, severity: Literal["info", "error"], message: str) -> Event:
        return Event(now, kind, severity, str(self.key), message, self.revision)

    def view(self, room: int) -> DeploymentRollout:
        """Return what is shown, with no more agents than there is room for: those that need a look come first."""
        ordered = sorted(self._agents, key=lambda name: (_ORDER.index(self._agents[name].state), name))
        shown = ordered[: max(0, room)]
        return DeploymentRollout(
            state=self.state,
            message=self.message,
            begun=datetime.fromtimestamp(self._begun, UTC),
            agents={name: self._agents[name] for name in shown},
            left_out=len(ordered) - len(shown),
        )


def views(stories: Iterable[Story]) -> dict[str, DeploymentRollout]:
    """Return what a record has room for: what is unfinished first, then by name."""
    room, found = MAX_AGENTS, {}
    ordered = sorted(stories, key=lambda story: (story.state == "Done", story.key))
    for story in ordered[:MAX_DEPLOYMENTS]:
        found[name_of(story.key)] = view = story.view(room)
        room -= len(view.agents)
    return found


def name_of(key: ObjectKey) -> str:
    """Return the name of a deployment, as records have it."""
    return f"{key.team}/{key.name}"


def place_of(name: str, wave: Wave, away: frozenset[str]) -> RolloutPlace:
    """Say how far one agent is."""
    if name in wave.failed:
        return "failed"
    if name in wave.waiting or name in wave.give:
        return "offline" if name in away else "waiting"
    if name in wave.changing or name in wave.lost:
        return "offline" if name in away else "changing"
    return "done"
