"""Today's side of the conversation with the other one of a version ago: nothing that it does not know is said."""

from __future__ import annotations

import json
from collections import deque
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent import session as agent_side
from agent.reporting import Outcome
from agent.talk import Say, Seen
from reconciler.agents import session as control_side
from reconciler.agents.delivery import Wanted
from reconciler.agents.extensions import Tell
from schemas.observation import DeploymentObservation
from schemas.session import (
    FEATURES,
    Command,
    CommandOutput,
    ObservationPublished,
    SecretsRequest,
    Usage,
    digest_of,
)
from tests.support.former import agent_session as former_agent
from tests.support.former import control_session as former_control
from tests.support.former import messages as former

NOW: Final = 1000.0
VERSION: Final = digest_of("secrets")
COMMAND: Final = "0" * 32


def fail_if_closed(command: object) -> None:
    assert type(command).__name__ != "Close", f"a session ended: {command}"


def say_everything(number: int) -> list[agent_side.Event]:
    """Whatever features let an agent say."""
    seen = DeploymentObservation(team="shop", name=f"s{number}", health="healthy")
    return [
        Seen((seen,), number),
        Say(Usage()),
        Say(SecretsRequest(id=f"Deployment/shop/s{number}", version=VERSION)),
        Say(CommandOutput(id=COMMAND, text="line\n")),
    ]


class NewAgent:
    """Today's agent, which was with a control plane of today before, at one of before."""

    def __init__(self, held: agent_side.Held) -> None:
        self.to_agent: deque[str] = deque()
        self.to_control: deque[str] = deque()
        self.reported: list[int] = []
        self.now = NOW
        limits = former_control.SessionLimits()
        self.control = former_control.AgentSession("vps-1", limits, self.now)
        self.agent = agent_side.AgentSession("vps-1", "test", (3, held.digest), held=held, knows=FEATURES)
        self.tell_agent(agent_side.Opened(self.now))

    def publish(self, generation: int) -> None:
        digest = digest_of(generation)
        self.tell_control(former_control.Wanted(generation, digest, lambda: str(generation)))

    def tell_agent(self, event: agent_side.Event) -> None:
        events = deque([event])
        while events:
            for command in self.agent.handle(events.popleft()):
                fail_if_closed(command)
                match command:
                    case agent_side.Send(text):
                        former.FROM_AGENT.validate_json(text)
                        self.to_control.append(text)
                        events.append(agent_side.Written())
                    case agent_side.Take(jws):
                        # documents of before offer nothing
                        events.append(agent_side.Offered(()))
                        events.append(Outcome(int(jws), digest_of(int(jws)), "applied"))
                    case agent_side.Agreed():
                        raise AssertionError("nothing was offered")

    def tell_control(self, event: former_control.Event) -> None:
        for command in self.control.handle(event):
            fail_if_closed(command)
            match command:
                case former_control.Send(text):
                    self.to_agent.append(text)
                    self.tell_control(former_control.WRITE_FINISHED)
                case former_control.Observed(former.Report() as report) if report.outcome == "applied":
                    self.reported.append(report.generation)

    def move(self, seconds: float) -> None:
        self.now += seconds
        while self.to_control:
            self.tell_control(former_control.Received(self.to_control.popleft(), self.now))
        while self.to_agent:
            self.tell_agent(agent_side.Received(self.to_agent.popleft(), self.now))
        if self.agent.deadline <= self.now:
            self.tell_agent(agent_side.Tick(self.now))
        self.tell_control(former_control.Tick(self.now))


steps = st.lists(st.tuples(st.sampled_from(["publish", "say", "outcome", "move"]), st.integers(0, 30)), max_size=40)


@given(steps, st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_agent_says_nothing_new_to_a_control_plane_of_before(script: list[tuple[str, int]], same: bool) -> None:
    """It takes documents, reports and lives on, whatever the document that it came with offered."""
    generation = 4
    world = NewAgent(
        agent_side.Held(digest_of(generation) if same else digest_of("of today"), () if same else FEATURES)
    )
    world.publish(generation)
    for step, number in script:
        match step:
            case "publish":
                generation += 1
                world.publish(generation)
            case "say":
                for event in say_everything(number):
                    world.tell_agent(event)
            case "outcome":
                world.tell_agent(Outcome(3, digest_of("of today"), "progressing", message=str(number)))
            case _:
                world.move(number / 4)
    for _ in range(80):
        world.move(0.5)
    assert world.reported[-1:] == [generation] or (same and generation == 4)


class OldAgent:
    """An agent of one version ago at today's control plane."""

    def __init__(self) -> None:
        self.to_agent: deque[str] = deque()
        self.to_control: deque[str] = deque()
        self.reported: list[int] = []
        self.control = control_side.AgentSession("vps-1", control_side.SessionLimits(burst=10_000), NOW)
        self.agent = former_agent.AgentSession("vps-1", "test", (0, None))
        self.tell_agent(former_agent.Opened(NOW))

    def tell_agent(self, event: former_agent.Event) -> None:
        for command in self.agent.handle(event):
            fail_if_closed(command)
            match command:
                case former_agent.Send(text):
                    self.to_control.append(text)
                case former_agent.Take(jws):
                    self.tell_agent(former_agent.Outcome(int(jws), digest_of(int(jws)), "applied"))

    def tell_control(self, event: control_side.Event) -> None:
        for command in self.control.handle(event):
            fail_if_closed(command)
            match command:
                case control_side.Send(text):
                    former.FROM_CONTROL_PLANE.validate_json(text)
                    self.to_agent.append(text)
                    self.tell_control(control_side.WRITE_FINISHED)
                case control_side.Observed(message) if message.type == "report":
                    self.reported.append(json.loads(message.model_dump_json())["generation"])

    def move(self) -> None:
        while self.to_control or self.to_agent:
            while self.to_control:
                self.tell_control(control_side.Received(self.to_control.popleft(), NOW))
            while self.to_agent:
                self.tell_agent(former_agent.Received(self.to_agent.popleft(), NOW))


@given(st.lists(st.sampled_from(["publish", "tell", "move", "beat"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_control_plane_says_nothing_new_to_an_agent_of_before(script: list[str]) -> None:
    """It is sent documents and nothing that a feature brings, and every document that it has is applied."""
    world, generation = OldAgent(), 1

    def publish() -> None:
        said = generation
        world.tell_control(Wanted(said, digest_of(said), lambda: str(said)))

    publish()
    world.move()
    for step in script:
        match step:
            case "publish":
                generation += 1
                publish()
            case "tell":
                command = Command(id=COMMAND, action="logs", item="Deployment/shop/web", seconds=5)
                world.tell_control(Tell(ObservationPublished(number=1)))
                world.tell_control(Tell(command))
            case "beat":
                world.tell_agent(former_agent.Tick(NOW + 1e6))
                world.agent.deadline = NOW
            case _:
                world.move()
    world.move()
    assert world.reported[-1:] == [generation]
    assert not any(world.control.knows(kind) for kind in ("command", "secrets", "observation-published"))


def test_what_features_bring_was_not_known_before() -> None:
    """Were it said to a peer of before, the session would end: that is what these tests are there for."""
    for text in ('{"type": "features", "sequence": 1, "features": []}', '{"type": "usage", "sequence": 1}'):
        with pytest.raises(ValidationError):
            former.FROM_AGENT.validate_json(text)
    with pytest.raises(ValidationError):
        former.FROM_CONTROL_PLANE.validate_json('{"type": "observation-published", "sequence": 1, "number": 1}')
