"""Both sides of the conversation over a network that loses, doubles, reorders and cuts."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import session as agent_side
from agent.applier import Applier
from agent.backoff import Backoff
from agent.documents import DocumentStore, keys_of
from agent.reporting import Outcome
from reconciler.agents import session as control_side
from reconciler.agents.delivery import Wanted
from reconciler.agents.documents import sign_document
from schemas.session import Report, digest_of
from tests.support.agent_hub import TestSigner, wanted
from tests.support.agent_machine import ScriptedService

LIMITS = control_side.SessionLimits(burst=10_000)
NOW = 0.0
SIGNER = TestSigner()


class World:
    """A control plane, a network and an agent. Documents are ``generation.content`` instead of signed."""

    def __init__(self) -> None:
        self.wanted: tuple[int, int] | None = None
        self.held: tuple[int, int] = (0, -1)
        self.applied_ever: set[tuple[int, str]] = set()
        self.believed: list[int] = []
        """Generations that the control plane took for applied, in this connection."""
        self.connect()

    def connect(self) -> None:
        self.asked: list[str] = []
        """Requests for certificates that the control plane took and has not answered yet."""
        self.certified: list[str] = []
        """Requests whose answer came, in this connection."""
        self.to_agent: list[str] = []
        self.to_control: list[str] = []
        self.believed = []
        self.control = control_side.AgentSession("vps-1", LIMITS, NOW)
        generation, content = self.held
        digest = digest_of(content) if generation else None
        self.agent = agent_side.AgentSession("vps-1", "test", (generation, digest))
        self.offer()
        self.tell_agent(agent_side.Opened(NOW))

    def publish(self, content: int) -> None:
        generation = self.wanted[0] + 1 if self.wanted is not None else 1
        self.wanted = (generation, content)
        self.offer()

    def offer(self) -> None:
        if self.wanted is not None:
            generation, content = self.wanted
            text = f"{generation}.{content}"
            self.tell_control(Wanted(generation, digest_of(content), lambda: text))

    def tell_control(self, event: control_side.Event) -> None:
        for command in self.control.handle(event):
            match command:
                case control_side.Send(text):
                    self.to_agent.append(text)
                case control_side.Observed(Report() as report) if report.outcome == "applied":
                    assert report.digest is not None
                    assert (report.generation, report.digest) in self.applied_ever
                    self.believed.append(report.generation)
                    assert self.believed == sorted(self.believed)
                case control_side.Asked(request):
                    assert request.id not in self.asked, "two are under way for one item"
                    assert self.wanted is not None, "somebody asked a control plane that offered nothing"
                    self.asked.append(request.id)
                    assert len(self.asked) <= LIMITS.max_asked

    def tell_agent(self, event: agent_side.Event) -> None:
        for command in self.agent.handle(event):
            match command:
                case agent_side.Send(text):
                    self.to_control.append(text)
                case agent_side.Take(jws):
                    self.take(jws)
                case agent_side.Certified(answer):
                    assert answer.certificate == f"for {answer.id}"
                    self.certified.append(answer.id)

    def ask(self, number: int) -> None:
        """The agent wants the certificate of one of its services."""
        self.tell_agent(agent_side.Ask(f"Certificate/shop/s{number}", digest_of(number), "csr"))

    def answer(self) -> bool:
        """The control plane answers what was asked longest ago; False when nothing was."""
        if not self.asked:
            return False
        item = self.asked.pop(0)
        self.tell_control(control_side.Answered(item, f"for {item}", "roots"))
        return True

    def take(self, jws: str) -> None:
        generation, content = (int(part) for part in jws.split("."))
        assert self.wanted is not None
        assert generation <= self.wanted[0]
        if generation < self.held[0]:
            self.tell_agent(Outcome(generation, digest_of(content), "refused", "OlderGeneration"))
            return
        assert (generation, content) == self.held or generation > self.held[0]
        self.held = (generation, content)
        self.applied_ever.add((generation, digest_of(content)))
        self.tell_agent(Outcome(generation, digest_of(content), "applied"))

    def deliver(self) -> bool:
        """Move everything that is under way; False when there was nothing."""
        moved = bool(self.to_agent or self.to_control)
        while self.to_control:
            self.tell_control(control_side.Received(self.to_control.pop(0), NOW))
        self.tell_control(control_side.WRITE_FINISHED)
        while self.to_agent:
            self.tell_agent(agent_side.Received(self.to_agent.pop(0), NOW))
        return moved

    def settle(self) -> None:
        """Faults are over: the agent connects again and everything is delivered."""
        self.connect()
        while self.deliver():
            pass

    def settle_certificates(self, services: int) -> None:
        """After :meth:`settle` the agent asks for every service, and everything is answered."""
        for number in range(services):
            self.ask(number)
        while self.answer() | self.deliver():
            pass


FAULTS = ["lose", "double", "swap", "cut", "one", "written", "reconnect", "deliver", "ask", "answer"]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.tuples(st.sampled_from(FAULTS), st.integers(0, 20)),
    ),
    max_size=60,
)


def play(world: World, step: str, number: int) -> None:
    match step:
        case "publish":
            world.publish(number)
        case "one" if world.to_agent and number % 2:
            world.tell_agent(agent_side.Received(world.to_agent.pop(0), NOW))
        case "one" if world.to_control:
            world.tell_control(control_side.Received(world.to_control.pop(0), NOW))
        case "written":
            world.tell_control(control_side.WRITE_FINISHED)
        case "reconnect":
            world.connect()
        case "ask":
            world.ask(number)
        case "answer":
            world.answer()
        case "deliver":
            world.deliver()
        case _:
            spoil(world.to_agent if number % 2 else world.to_control, step, number)


def spoil(queue: list[str], step: str, number: int) -> None:
    match step:
        case "lose" if queue:
            queue.pop(number % len(queue))
        case "double" if queue:
            queue.insert(number % len(queue), queue[number % len(queue)])
        case "swap" if len(queue) > 1:
            queue[0], queue[1] = queue[1], queue[0]
        case "cut" if queue:
            queue[0] = queue[0][: number * 3]


@given(steps)
@settings(max_examples=400)
def test_no_fault_of_the_network_makes_anybody_believe_what_is_not_so(script: list[tuple[str, int]]) -> None:
    """Nothing is taken for applied that was not, nothing goes back, and once faults stop the newest is there."""
    world = World()
    for step, number in script:
        before = world.held[0]
        play(world, step, number)
        assert world.held[0] >= before
    world.settle()
    if world.wanted is not None:
        assert digest_of(world.held[1]) == digest_of(world.wanted[1])
        world.settle_certificates(12)
        assert sorted(world.certified) == sorted(f"Certificate/shop/s{number}" for number in range(12))


@given(steps)
@settings(max_examples=200)
def test_an_older_control_plane_is_asked_for_nothing(script: list[tuple[str, int]]) -> None:
    """Where the agent's document is not what the other end wants, no request leaves, whatever else happens."""
    world = World()
    for step, number in script:
        if step != "publish":
            play(world, step, number)
    assert not world.asked
    assert not any("certificate-request" in text for text in world.to_control)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12))
@settings(max_examples=200)
def test_the_newest_of_many_is_sent_last(generations: list[int]) -> None:
    """However documents are offered while one is being written, the next one sent is the newest."""
    world = World()
    world.wanted = (1, 1)
    world.settle()
    for generation in generations:
        world.tell_control(Wanted(generation + 1, digest_of(f"c{generation}"), lambda: "2.2"))
    assert len(world.to_agent) == 1, "one is under way"
    world.to_agent.clear()
    world.tell_control(control_side.WRITE_FINISHED)
    assert len(world.to_agent) == (1 if max(generations) > generations[0] else 0)


documents = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["good", "other content", "foreign", "unsigned"])), max_size=8
)


def text_of(generation: int, kind: str) -> str:
    now = datetime.now(UTC)
    match kind:
        case "good":
            return sign_document("vps-1", wanted(generation), SIGNER, now)
        case "other content":
            return sign_document("vps-1", wanted(generation, "other"), SIGNER, now)
        case "foreign":
            return sign_document("vps-2", wanted(generation), SIGNER, now)
        case _:
            return "a.b.c"


@given(documents, st.integers(0, 8))
@settings(max_examples=40)
def test_an_agent_never_goes_back(script: list[tuple[int, str]], restart: int) -> None:
    """Whatever documents come in whatever order, with a restart in between, each that is applied is newer."""

    async def scenario(directory: Path) -> None:
        service, reports = ScriptedService(), list[Outcome]()
        newest = 0
        applier = await started(directory, service, reports)
        for number, (generation, kind) in enumerate(script):
            if number == restart:
                applier = await started(directory, service, reports)
            applier.take(text_of(generation, kind))
            await asyncio.wait_for(run_until_idle(applier), 10)
            if kind in ("good", "other content"):
                newest = max(newest, generation)
            assert applier.applied.generation == newest
        revisions = [report.generation for report in reports if report.outcome == "applied"]
        assert revisions == sorted(revisions)
        assert len(service.calls) <= newest + len(script) + 1

    async def started(directory: Path, service: ScriptedService, reports: list[Outcome]) -> Applier:
        applier = Applier(
            DocumentStore(directory),
            [service],
            agent="vps-1",
            keys=keys_of(SIGNER.jwks),
            report=reports.append,
            clock=lambda: datetime.now(UTC),
            random=lambda: 0.0,
            backoff=Backoff(base=0.0),
        )
        applier.load()
        await run_until_idle(applier)
        return applier

    async def run_until_idle(applier: Applier) -> None:
        task = asyncio.create_task(applier.run())
        while not applier.idle:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scenario(Path(directory)))
