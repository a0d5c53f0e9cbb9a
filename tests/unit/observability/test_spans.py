from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.observability.spans import MOST_AGENTS, root_of, spans_of, trace_of
from schemas.status import STAGES, AgentProgress, RevisionState, RevisionStatus

REVISION = "8f3c" + "0" * 35 + "1"
BEGIN = 1_000_000.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(BEGIN, UTC) + timedelta(seconds=seconds)


def status(state: RevisionState = "Converged", *, reached: int = len(STAGES), agents: int = 0) -> RevisionStatus:
    """A revision that reached its stages a second after each other, and its agents then."""
    return RevisionStatus(
        revision=REVISION,
        generation=7,
        state=state,
        reason="Why",
        message="because",
        stages={stage: at(number) if number < reached else None for number, stage in enumerate(STAGES)},
        agents={f"vps-{n}": AgentProgress(state="applied", applied=at(7.5 + n / 1000)) for n in range(agents)},
    )


def test_each_stage_is_a_span_from_the_one_before() -> None:
    """They follow each other without a gap, below a root that lasts from the first to the last."""
    root, *stages = spans_of(status(), BEGIN + 60)
    assert [one.name for one in stages] == list(STAGES)
    assert {one.parent for one in stages} == {root.span}
    assert [one.begin for one in stages[1:]] == [one.end for one in stages[:-1]]
    assert (root.begin, root.end) == (BEGIN, BEGIN + 8)
    assert root.attributes["cloudlunacy.generation"] == 7
    assert root.error is None


def test_what_ended_short_is_an_error_until_then() -> None:
    """The root of a held revision ends when that was decided, and says why."""
    root, *stages = spans_of(status("Held", reached=3), BEGIN + 60)
    assert len(stages) == 3
    assert (root.end, root.error) == (BEGIN + 60, "Why: because")


def test_agents_are_below_what_they_did_and_bounded() -> None:
    """The slowest have a span; of the rest the root says how many there are."""
    root, *rest = spans_of(status(agents=MOST_AGENTS + 20), BEGIN + 60)
    agents = [one for one in rest if one.name == "agent"]
    applied = next(one for one in rest if one.name == "applied")
    assert len(agents) == MOST_AGENTS
    assert {one.parent for one in agents} == {applied.span}
    assert agents[0].attributes["cloudlunacy.agent"] == f"vps-{MOST_AGENTS + 19}"
    assert root.attributes["cloudlunacy.agents_left_out"] == 20


def test_a_trace_is_found_by_its_revision() -> None:
    """Its identifier is the first half of the revision; what is no such number gets one all the same."""
    assert f"{trace_of(REVISION):032x}" == REVISION[:32]
    assert trace_of("0" * 40) != 0
    assert trace_of("") != trace_of("x")
    assert root_of(REVISION, 0) != root_of(REVISION, 1)


@given(st.dictionaries(st.sampled_from(STAGES), st.floats(0, 100)), st.floats(0, 100))
def test_no_span_ends_before_it_begins(moments: dict[str, float], now: float) -> None:
    """Also where the clock was set back between stages."""
    one = status().model_copy(update={"stages": {stage: at(number) for stage, number in moments.items()}})
    spans = spans_of(one, BEGIN + now)
    assert all(0 < span.span < 2**64 and span.begin <= span.end for span in spans)
    assert len({span.span for span in spans}) == len(spans)
