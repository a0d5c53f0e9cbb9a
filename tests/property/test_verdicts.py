"""For all that agents tell, and whenever: fronts change seldom, and end where the last word says."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.observed import Share
from reconciler.desired.verdicts import Deployment, Judge
from schemas.observation import DeploymentObservation, Health, ObservedPort

HEALTH: Final = st.sampled_from(["healthy", "unhealthy", "starting", "stopped", "unknown"])
STEP: Final = st.one_of(
    st.tuples(st.just("tell"), HEALTH),
    st.tuples(st.just("probe"), st.booleans()),
    st.tuples(st.just("connect"), st.booleans()),
    st.tuples(st.just("disconnect"), st.none()),
)
STEPS: Final = st.lists(st.tuples(st.floats(0, 40), STEP), max_size=60)


def declared(_: str, deployment: Deployment) -> frozenset[int]:
    return frozenset({8080}) if deployment == ("shop", "web") else frozenset()


def tell(judge: Judge, health: Health, now: float, actual: int = 8080) -> None:
    port = ObservedPort(declared=8080, actual=actual)
    judge.told("vps-1", [DeploymentObservation(team="shop", name="web", health=health, ports=(port,))], now)


def share(judge: Judge, now: float) -> Share:
    found = judge.placements(declared, (), now).get("vps-1")
    placement = found.of(8080) if found is not None else None
    return "full" if placement is None else placement.share


def play(judge: Judge, steps: list[tuple[float, tuple[str, object]]]) -> list[tuple[float, bool]]:
    """Let it happen; return when the endpoint came in or went out."""
    now, was_in, changes = 1000.0, True, []
    for wait, (what, how) in steps:
        now += wait
        if what == "tell":
            tell(judge, how, now)  # type: ignore[arg-type]
        elif what == "probe":
            judge.probed("vps-1", 8080, now, answers=bool(how))
        elif what == "connect":
            judge.connected("vps-1", now)
            if how:
                judge.tells("vps-1", now)
        else:
            judge.disconnected("vps-1")
        is_in = share(judge, now) == "full"
        if is_in != was_in:
            changes.append((now, is_in))
        was_in = is_in
    return changes


@given(STEPS)
def test_an_endpoint_changes_seldom(steps: list[tuple[float, tuple[str, object]]]) -> None:
    """Six times in any ten seconds at the very most, whatever a connected agent tells; the first three are free."""
    judge = Judge()
    judge.connected("vps-1", 1000.0)
    changes = play(judge, [one for one in steps if one[1][0] == "tell"])
    for at, _ in changes:
        assert len([time for time, _ in changes if at <= time < at + 10]) <= 6


@given(STEPS, st.sampled_from([8080, 20001]))
def test_the_last_word_counts(steps: list[tuple[float, tuple[str, object]]], actual: int) -> None:
    """Healthy for a minute is in service, at the port that the agent tells; unhealthy is out at once."""
    judge = Judge()
    play(judge, steps)
    now = 5000.0
    judge.connected("vps-1", now)
    tell(judge, "healthy", now, actual)
    share(judge, now)
    assert share(judge, now + 60) == "full"
    assert judge.actual("vps-1", 8080) == actual
    tell(judge, "unhealthy", now + 60, actual)
    assert share(judge, now + 60) == "none"
    assert share(judge, now + 70) == "gone"


@given(STEPS)
def test_an_agent_that_never_came_is_never_judged(steps: list[tuple[float, tuple[str, object]]]) -> None:
    """Whatever is said in its name."""
    judge = Judge()
    assert play(judge, [one for one in steps if one[1][0] != "connect"]) == []
    assert judge.agents == {}
