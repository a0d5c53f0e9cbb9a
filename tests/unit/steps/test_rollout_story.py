"""What is shown of a roll-out: bounded, those first that need a look, and each step once."""

from __future__ import annotations

from reconciler.desired.rollouts import Rollout
from reconciler.desired.waves import Wave
from reconciler.steps.rollout_story import MAX_AGENTS, MAX_DEPLOYMENTS, MAX_STEPS, MAX_TEXT, Story, views
from reconciler.steps.standings import ItemState, Standing
from schemas.objects import ObjectKey
from schemas.status import RolloutState

NAMES = tuple(f"vps-{number:03}" for number in range(MAX_AGENTS + 50))
NOBODY: frozenset[str] = frozenset()


def story(name: str = "web", agents: tuple[str, ...] = NAMES, **wave: tuple[str, ...]) -> Story:
    one = Story(ObjectKey("Deployment", "shop", name), Rollout("a" * 40, "sha256:1", 0.0))
    state: RolloutState = "Failed" if wave.get("failed") else "Progressing" if wave else "Done"
    list(one.judged(Wave(state, "said", **wave), agents, NOBODY, 0.0))
    return one


def test_agents_that_need_a_look_come_first() -> None:
    """The rest is counted."""
    one = story(failed=NAMES[-1:], waiting=NAMES[5:7])
    view = one.view(5)
    assert list(view.agents) == [NAMES[-1], *NAMES[5:7], *NAMES[:2]]
    assert view.left_out == len(NAMES) - 5


def test_a_record_has_room_for_so_much() -> None:
    """An unfinished deployment is never pushed out by finished ones."""
    stories = [story(f"d-{number:03}", NAMES[:10]) for number in range(MAX_DEPLOYMENTS + 20)]
    stories.append(story("zzz", NAMES[:10], changing=NAMES[:1]))
    found = views(stories)
    assert next(iter(found)) == "shop/zzz"
    assert len(found) == MAX_DEPLOYMENTS
    assert sum(len(view.agents) for view in found.values()) == MAX_AGENTS
    assert sum(len(view.agents) + view.left_out for view in found.values()) == 10 * MAX_DEPLOYMENTS


def test_a_step_is_noted_once_and_the_newest_are_kept() -> None:
    """An agent reports the same again and again; a long text is cut."""
    one, states = story(agents=("vps-1",)), ("Progressing", "Failed")
    for number in range(3 * MAX_STEPS):
        state: ItemState = states[number % 2]  # type: ignore[assignment]
        for _ in range(3):
            one.said("vps-1", Standing(state, "Reason", "x" * 1000, float(number)))
    one.said("vps-1", None)
    list(one.judged(Wave("Failed", failed=("vps-1",)), ("vps-1",), NOBODY, 0.0))
    steps = one.view(1).agents["vps-1"].steps
    assert [step.at.timestamp() for step in steps] == list(range(2 * MAX_STEPS, 3 * MAX_STEPS))
    assert {len(step.message) for step in steps} == {MAX_TEXT}


def test_what_a_restart_finds_is_not_told_again() -> None:
    """The events of a failure that is known stay as they are."""
    first = Story(ObjectKey("Deployment", "shop", "web"), Rollout("a" * 40, "sha256:1", 0.0))
    wave = Wave("Failed", "why", waiting=("vps-2",), failed=("vps-1",))
    told = [event.type for event in first.judged(wave, ("vps-1", "vps-2"), NOBODY, 0.0)]
    assert told == ["RolloutStarted", "RolloutFailed"]
    again = Story(first.key, Rollout("a" * 40, "sha256:1", 0.0), first.view(10))
    assert list(again.judged(wave, ("vps-1", "vps-2"), NOBODY, 0.0)) == []
    (over,) = again.judged(Wave("Done"), ("vps-1", "vps-2"), NOBODY, 0.0)
    assert over.type == "RolloutCompleted"
