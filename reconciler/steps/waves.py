"""Deployments reach their agents in waves, which are further generations of the same revision.

:meth:`Waves.plan` decides for a pass whose documents keep an older version; :meth:`Waves.is_due`, asked each second,
whether it is somebody's turn. What decides is pure (:mod:`reconciler.desired.waves`); here it meets what is published
and what agents say, and its outcome goes into the convergence record of the revision that brought the version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reconciler.desired.items import AgentItems
from reconciler.desired.rollouts import NOTHING, Older, Rollout, Rollouts
from reconciler.desired.state import State
from reconciler.desired.waves import Member, Rule, Wave, next_wave, version_of
from reconciler.status import Tracker
from reconciler.steps.passing import Pass, Published
from reconciler.steps.rollout_story import MAX_DEPLOYMENTS, Story, name_of, place_of, views
from reconciler.steps.standings import Standings
from reconciler.store.protocols import Event
from schemas.deployment import Deployment
from schemas.names import seconds
from schemas.objects import ObjectKey
from schemas.status import RolloutPlace, RolloutState

BY_FILE: Final = "its file (rollout.paused)"
PREFIX: Final = "Deployment/"


@dataclass(frozen=True, slots=True)
class Planned:
    """``agents``: those whose document changes although nothing new is known of it."""

    rollouts: Rollouts
    agents: frozenset[str]


class Shown(NamedTuple):
    """How far a deployment is. ``agents``: place and version in the document of each."""

    wave: Wave
    rule: Rule
    agents: Mapping[str, tuple[RolloutPlace, str]]
    since: Mapping[str, int]
    version: str
    revision: str


@dataclass(slots=True)
class _Following:
    """What is followed since it was published last."""

    published: Published = field(default_factory=Published)
    by_agent: dict[str, set[ObjectKey]] = field(default_factory=dict)
    stories: dict[ObjectKey, Story] = field(default_factory=dict)
    by_revision: dict[str, list[Story]] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    """Revisions with so many deployments that their records are written once a second at most."""


class Waves:
    """``paused`` says who paused a deployment, empty where nobody did; ``tell`` takes events; times are POSIX."""

    def __init__(
        self,
        standings: Standings,
        tracker: Tracker,
        *,
        paused: Callable[[ObjectKey], str] = lambda _: "",
        tell: Callable[[Event], None] = lambda _: None,
        clock: Callable[[], float],
    ) -> None:
        self._standings = standings
        self._tracker = tracker
        self._paused = paused
        self._tell = tell
        self._clock = clock
        self._now = _Following()
        standings.on_news = self._heard

    # --- for a pass ---------------------------------------------------------------------------------------------

    def plan(self, this: Pass) -> Planned:
        """Say who keeps what for now, in the generation of this pass."""
        assert this.plan is not None
        base, before, after = this.base, AgentItems(this.base.state), AgentItems(this.state)
        changed = {
            _key_of(item)
            for agent in this.plan.agents
            for item in (*agent.added, *agent.changed)
            if item.startswith(PREFIX)
        }
        rollouts: dict[ObjectKey, Rollout] = {}
        given: set[str] = set()
        for key in sorted({*changed, *base.rollouts}):
            if key not in this.state.served:
                continue
            former, names = base.rollouts.get(key), agents_of(this.state, key)
            deadline = self._rule(this.state, key).deadline
            if former is not None and key not in changed and not former.held:
                if not self._is_over(key, names, former, deadline):
                    rollouts[key] = former
                continue
            version = version_of(after.newest(key).spec)
            has = _what_agents_have(base, key, before, names)
            wave = self._wave(this.state, key, version, has, former)
            found = _rolled(this, version, has, former, wave, now=self._clock())
            if found is not None and (wave.give or found.held or not self._is_over(key, names, found, deadline)):
                rollouts[key] = found
                given |= set(wave.give)
        return Planned(rollouts, frozenset(given))

    def _is_over(self, key: ObjectKey, agents: Iterable[str], rollout: Rollout, deadline: float) -> bool:
        """Say whether every agent has said that it has it, or has been away for too long to be waited for."""
        for name in agents:
            said = self._standings.of(name, str(key), rollout.since.get(name, 0))
            if (said is None or said.state != "Applied") and (self._standings.away(name) or 0.0) < deadline:
                return False
        return True

    def _wave(
        self, state: State, key: ObjectKey, version: str, has: Mapping[str, Older], former: Rollout | None
    ) -> Wave:
        since = former.since if former is not None else {}
        members = {name: self._member(key, name, one.version, since.get(name, 0)) for name, one in has.items()}
        in_waves = former is not None and former.version == version and former.in_waves
        rule = self._rule(state, key)._replace(in_waves=in_waves)
        if len(members) == 1 and not rule.paused:  # there is nobody to wait for
            members = {name: one if one.holds == version else Member("") for name, one in members.items()}
        return next_wave(version, members, rule)

    def _member(self, key: ObjectKey, agent: str, holds: str, since: int) -> Member:
        said = self._standings.of(agent, str(key), since)
        away = self._standings.away(agent)
        if not holds:
            return Member(holds, away=away)
        if said is None:
            story = self._now.stories.get(key)
            failed = story.failure(agent) if story is not None and story.version == holds else None
            if failed is None:
                return Member(holds, away=away)
            return Member(holds, "Failed", failed.reason, failed.message, away)
        return Member(holds, said.state, said.reason, said.message, away)

    def _rule(self, state: State, key: ObjectKey) -> Rule:
        found = state.served[key].object
        assert isinstance(found, Deployment)
        wanted = found.spec.rollout
        return Rule(wanted.max_unavailable, seconds(wanted.deadline), BY_FILE if wanted.paused else self._paused(key))

    # --- between passes -----------------------------------------------------------------------------------------

    def is_due(self, published: Published) -> bool:
        """Say whether it is the turn of an agent; and look after what is told of the roll-outs."""
        if published is not self._now.published:
            self.put(published)
        due, looked = False, []
        for key, rollout in published.rollouts.items():
            if rollout.in_waves and key in self._now.stories and not self._now.stories[key].is_over:
                due = bool(self._look(published, key, rollout).give) or due
                looked.append(key)
        late, self._now.late = self._now.late, set()
        self._write(late | self._revisions(looked))
        return due

    def put(self, published: Published) -> None:
        """Follow what is published now."""
        former = self._now.published.rollouts
        self._now.published, self._now.by_agent = published, {}
        for key in self._now.stories.keys() - published.rollouts.keys():
            del self._now.stories[key]
        for key, rollout in published.rollouts.items():
            if key not in published.state.served:
                continue
            story = self._now.stories.get(key)
            if story is None or story.version != rollout.version:
                self._now.stories[key] = self._story(key, rollout)
            for name in agents_of(published.state, key):
                self._now.by_agent.setdefault(name, set()).add(key)
            if rollout.held or rollout is not former.get(key):
                self._look(published, key, rollout)
        self._now.by_revision = {}
        for story in self._now.stories.values():
            self._now.by_revision.setdefault(story.revision, []).append(story)
        self._overtake(published)
        self._write(set(self._now.by_revision))

    def _story(self, key: ObjectKey, rollout: Rollout) -> Story:
        record = self._tracker.get(self._tracker.successor(rollout.revision))
        return Story(key, rollout, None if record is None else record.rollouts.get(name_of(key)))

    def _heard(self, agent: str) -> None:
        """An agent came, went or said something."""
        published, keys = self._now.published, self._now.by_agent.get(agent, ())
        for key in keys:
            self._look(published, key, published.rollouts[key])
        for revision in self._revisions(keys):
            if len(self._now.by_revision[revision]) > MAX_DEPLOYMENTS:
                self._now.late.add(revision)
            else:
                self._write({revision})

    def _look(self, published: Published, key: ObjectKey, rollout: Rollout) -> Wave:
        has = {name: rollout.held.get(name, Older(rollout.version)) for name in agents_of(published.state, key)}
        wave = self._wave(published.state, key, rollout.version, has, rollout)
        story = self._now.stories.get(key)
        if story is not None and not story.is_over:
            now = self._clock()
            for name in has:
                if name not in rollout.held:
                    story.said(name, self._standings.of(name, str(key), rollout.since.get(name, 0)))
            away = frozenset(name for name in has if self._standings.away(name) is not None)
            for event in story.judged(wave, has, away, now):
                self._tell(event)
        return wave

    def _revisions(self, keys: Iterable[ObjectKey]) -> set[str]:
        """Return the revisions that brought what is on its way in these deployments."""
        return {self._now.stories[key].revision for key in keys if key in self._now.stories}

    def _write(self, revisions: Collection[str]) -> None:
        """Write into the records how far the deployments of these revisions are."""
        successor, by_revision = self._tracker.successor, self._now.by_revision
        for record in {successor(revision) for revision in revisions}:
            theirs = [story for one, found in by_revision.items() if successor(one) == record for story in found]
            self._tracker.roll_out(record, views(theirs))

    def _overtake(self, published: Published) -> None:
        """A revision whose deployments go on to another version, or are gone, will never be done by itself."""
        for record in self._tracker.rolling_out():
            if record.revision == published.revision:
                continue
            mine = {
                name_of(key)
                for key, story in self._now.stories.items()
                if self._tracker.successor(story.revision) == record.revision
            }
            if any(one.state != "Done" and name not in mine for name, one in record.rollouts.items()):
                self._tracker.supersede(record.revision, published.revision)

    def gone_on(self, published: Published) -> dict[str, frozenset[str]]:
        """Say which revisions' roll-outs went on with the newest generation, and on which agents."""
        found: dict[str, frozenset[str]] = {}
        for rollout in published.rollouts.values():
            revision = self._tracker.successor(rollout.revision)
            now = {name for name, generation in rollout.since.items() if generation == published.generation}
            found[revision] = found.get(revision, frozenset()) | now
        return found

    # --- what others ask ----------------------------------------------------------------------------------------

    def shown(self, published: Published, key: ObjectKey) -> Shown:
        """Say how far a deployment in service is, also where that is long over."""
        version = version_of(AgentItems(published.state).newest(key).spec)
        rollout = published.rollouts.get(key, Rollout("", version, 0.0))
        has = {name: rollout.held.get(name, Older(rollout.version)) for name in agents_of(published.state, key)}
        wave = self._wave(published.state, key, rollout.version, has, rollout)
        away = frozenset(name for name in has if self._standings.away(name) is not None)
        agents = {name: (place_of(name, wave, away), one.version) for name, one in has.items()}
        return Shown(wave, self._rule(published.state, key), agents, rollout.since, rollout.version, rollout.revision)

    def counts(self) -> Mapping[RolloutState, int]:
        """Count the roll-outs by state."""
        return Counter(story.state for story in self._now.stories.values())


def agents_of(state: State, key: ObjectKey) -> tuple[str, ...]:
    """Return the agents that a deployment in service runs on."""
    found = state.served[key].object
    assert isinstance(found, Deployment)
    names = state.selected.get(key, found.spec.agents)
    return tuple(name for name in names if ObjectKey("Agent", "", name) in state.served)


def _key_of(item: str) -> ObjectKey:
    team, _, name = item.removeprefix(PREFIX).partition("/")
    return ObjectKey("Deployment", team, name)


def _what_agents_have(base: Published, key: ObjectKey, items: AgentItems, agents: Iterable[str]) -> dict[str, Older]:
    """Return what each agent's document has of a deployment before this pass."""
    if key not in base.state.served:
        return dict.fromkeys(agents, NOTHING)
    rollout, newest = base.rollouts.get(key), Older.of(items.newest(key))
    held = rollout.held if rollout is not None else {}
    had = set(agents_of(base.state, key))
    return {name: held.get(name, newest) if name in had else NOTHING for name in agents}


def _rolled(
    this: Pass, version: str, has: Mapping[str, Older], former: Rollout | None, wave: Wave, *, now: float
) -> Rollout | None:
    """Return the roll-out as it stands after a wave, None where there is none."""
    held = {name: has[name] for name in wave.waiting}
    if former is None and not wave.give and not held:
        return None  # nothing changes that would interrupt anything
    known = {name: at for name, at in former.since.items() if name in has} if former is not None else {}
    since = {**known, **dict.fromkeys(wave.give, this.generation)}
    if former is not None and former.version == version:
        return Rollout(former.revision, version, former.begun, since, held, former.in_waves or bool(held))
    return Rollout(this.revision, version, now, since, held, bool(held))
