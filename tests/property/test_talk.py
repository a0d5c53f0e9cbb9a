"""Both sides in a turmoil: an agent that keeps to the rules is never turned away for what it says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import session as agent_side
from agent.reporting import Outcome
from agent.talk import Say, Seen
from reconciler.agents import session as control_side
from reconciler.agents.delivery import Wanted
from reconciler.agents.extensions import SecretsAnswered, SecretsAsked, Tell
from schemas.observation import DeploymentObservation
from schemas.session import (
    FEATURES,
    CommandOutput,
    Observation,
    ObservationPublished,
    Report,
    SecretsAnswer,
    SecretsRequest,
    Usage,
    digest_of,
)

START = 1000.0
DIGEST = digest_of("document")
VERSION = digest_of("secrets")
DELAY = 0.01
"""Seconds that a message is under way."""


class World:
    """An agent and a control plane with the limits that they have at work, and time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = START
        self.to_agent: deque[str] = deque()
        self.to_control: deque[str] = deque()
        self.observed: list[Observation] = []
        self.reported: list[Report] = []
        self.output = ""
        self.dropped = 0
        self.secrets: list[str] = []
        self.published: list[object] = []
        self.numbers: dict[int, str] = {}
        self.control = control_side.AgentSession("vps-1", control_side.SessionLimits(), self.now)
        held = agent_side.Held(DIGEST, FEATURES)
        self.agent = agent_side.AgentSession("vps-1", "test", (1, DIGEST), held=held, knows=FEATURES)
        self.tell_control(Wanted(1, DIGEST, lambda: "never"))
        self.tell_agent(agent_side.Opened(self.now))
        self.pass_time(1.0)

    def tell_agent(self, event: agent_side.Event) -> None:
        events = deque([event])
        while events:
            events.extend(self.carry_out(self.agent.handle(events.popleft())))

    def carry_out(self, commands: Sequence[agent_side.Command]) -> list[agent_side.Event]:
        """Do what the agent's session decided; return what happens then."""
        following: list[agent_side.Event] = []
        for command in commands:
            match command:
                case agent_side.Send(text):
                    self.to_control.append(text)
                    following.append(agent_side.Written())
                case agent_side.Published(token):
                    self.published.append(token)
                case agent_side.Close(_, reason):
                    raise AssertionError(f"the agent left: {reason}")
        return following

    def tell_control(self, event: control_side.Event) -> None:
        for command in self.control.handle(event):
            match command:
                case control_side.Send(text):
                    self.to_agent.append(text)
                    self.tell_control(control_side.WRITE_FINISHED)
                case control_side.Observed(Observation() as observation):
                    self.observed.append(observation)
                    self.numbers[observation.number] = observation.deployments[0].name
                case control_side.Observed(Report() as report):
                    self.reported.append(report)
                case control_side.Observed(CommandOutput() as output):
                    self.output += output.text
                    self.dropped += output.dropped
                case SecretsAsked(request):
                    self.secrets.append(request.id)
                case control_side.Close(_, reason):
                    raise AssertionError(f"the control plane left: {reason}")

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            under_way = self.to_control or self.to_agent
            self.now = min(until, self.now + DELAY if under_way else max(self.agent.deadline, self.now + DELAY))
            while self.to_control:
                self.tell_control(control_side.Received(self.to_control.popleft(), self.now))
            while self.to_agent:
                self.tell_agent(agent_side.Received(self.to_agent.popleft(), self.now))
            if self.agent.deadline <= self.now:
                self.tell_agent(agent_side.Tick(self.now))
            self.tell_control(control_side.Tick(self.now))

    def play(self, step: str, number: int) -> None:
        match step:
            case "report":
                self.tell_agent(Outcome(1, DIGEST, "progressing", message=str(number)))
            case "see":
                one = DeploymentObservation(team="shop", name=f"s{number}", health="healthy")
                self.tell_agent(Seen((one,), f"s{number}"))
            case "publish" if self.observed:
                self.tell_control(Tell(ObservationPublished(number=self.observed[number % len(self.observed)].number)))
            case "use":
                self.tell_agent(Say(Usage()))
            case "write":
                self.tell_agent(Say(CommandOutput(id=f"{number % 3:032x}", text="line\n")))
            case "ask":
                self.tell_agent(Say(SecretsRequest(id=f"Deployment/shop/s{number}", version=VERSION)))
            case "answer" if self.secrets:
                self.tell_control(SecretsAnswered(SecretsAnswer(id=self.secrets.pop(0), reason="No")))
            case "pass":
                self.pass_time(number / 100)


STEPS = ["report", "see", "publish", "use", "write", "ask", "answer", "pass"]
steps = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 40), st.sampled_from([1, 1, 3, 150])),
    max_size=40,
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_a_turmoil_ends_no_session_and_the_newest_of_everything_arrives(script: list[tuple[str, int, int]]) -> None:
    """However much happens at once, nobody leaves, and when it is over the other side knows how things stand."""
    world = World()
    last: dict[str, int] = {}
    written = 0
    for step, number, times in script:
        for _ in range(1 if step == "pass" else times):
            world.play(step, number)
            written += step == "write"
        last[step] = number
    for _ in range(100):
        world.pass_time(1.0)
        while world.secrets:
            world.play("answer", 0)
    if "see" in last:
        assert world.observed[-1].deployments[0].name == f"s{last['see']}"
    if "report" in last:
        assert world.reported[-1].message == str(last["report"])
    assert world.output.count("line\n") + world.dropped == written
    assert [one.number for one in world.observed] == sorted({one.number for one in world.observed})


@given(steps)
@settings(max_examples=100, deadline=None)
def test_a_publication_is_only_ever_of_what_was_observed(script: list[tuple[str, int, int]]) -> None:
    """What the agent takes for published is what an observation said whose number the control plane named."""
    world = World()
    named: list[str] = []
    for step, number, _ in script:
        if step == "publish" and world.observed:
            named.append(world.numbers[world.observed[number % len(world.observed)].number])
        world.play(step, number)
    world.pass_time(1.0)
    assert all(token in named for token in world.published)
    positions = [one.deployments[0].name for one in world.observed]
    assert all(token in positions for token in world.published)
