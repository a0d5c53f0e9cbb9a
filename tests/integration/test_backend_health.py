"""What agents see of backends reaches the real Traefik within seconds, and git never hears of it."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support import documents
from tests.support.fleet import Installation, installation, web_host
from tests.support.ports import free_port
from tests.support.telling_agent import TellingAgent, seen
from tests.support.traefik import Backend
from tests.support.waiting import wait_for

ADDRESSES: Final = {"vps-1": "127.0.0.1", "vps-2": "127.0.0.2"}


@dataclass
class World:
    """An installation with enrolled agents, one deployment and the route to it, and backends for it."""

    one: Installation
    declared: int
    stack: ExitStack
    backends: dict[str, Backend] = field(default_factory=dict)

    def backend(self, name: str, port: int, host: str = "127.0.0.1") -> Backend:
        self.backends[name] = Backend(name, port=port, host=host)
        self.stack.callback(self.stop, name)
        return self.backends[name]

    def stop(self, name: str) -> None:
        if name in self.backends:
            self.backends.pop(name).stop()

    def agent(self, name: str = "vps-1", **more: Any) -> TellingAgent:
        return self.stack.enter_context(TellingAgent(self.one.agent_data(name), **more))

    def answer(self) -> tuple[int, str]:
        found = self.one.get("web")
        return found.status_code, found.json()["backend"] if found.status_code == 200 else ""

    def becomes(self, status: int, backend: str = "", deadline: float = 30) -> None:
        wait_for(lambda: self.answer() == (status, backend), deadline, what=f"{status} {backend}")

    def acknowledged(self, agent: TellingAgent, number: int) -> None:
        wait_for(lambda: number in agent.published, 30, what=f"the acknowledgement of {number}")

    def health(self, name: str = "vps-1") -> dict[str, Any]:
        found = self.one.agent(name)
        assert found is not None
        return found

    def presence(self, word: str, deadline: float = 40) -> None:
        wait_for(lambda: self.health()["presence"] == word, deadline, what=f"the agent being {word}")

    @property
    def generation(self) -> int:
        return int(self.one.ask("/status")["generation"])

    def events(self, *types: str) -> list[str]:
        found = [event["type"] for event in self.one.ask("/events", limit=1000)["events"]]
        return [one for one in found if one in types or (not types and one.startswith("Endpoint"))]


@contextmanager
def world(folder: Path, *agents: str, **options: Any) -> Iterator[World]:
    """Agents that have enrolled and are not connected, and what git says of them."""
    declared = free_port()
    agents = agents or ("vps-1",)
    with installation(folder, {"fleet.yaml": quick_fleet()}, **options) as one, ExitStack() as stack:
        for name in agents:
            done = one.enrol(name, "--capability", "container", "--address", ADDRESSES[name])
            assert done.returncode == 0, done.stderr
        wait_for(lambda: all(one.agent(name) for name in agents), 30, what="the agents")
        found = one.live(
            {
                "deployments/shop/web.yaml": documents.deployment("web", *agents, port=declared),
                "routes/shop/web.yaml": documents.route("web", web_host("web"), backends=[{"deployment": "web"}]),
            }
        )
        assert not found["quarantined"], found["quarantined"]
        yield World(one, declared, stack)


def quick_fleet() -> bytes:
    return documents.fleet(defaults={"heartbeatInterval": "1s"})


def actual_port() -> int:
    """Find a free port of those at which agents let deployments answer."""
    while True:
        port = random.randint(20_000, 29_999)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def asked_all_the_time(one: Installation) -> Iterator[list[tuple[int, str]]]:
    """Ask the route without a pause from a thread of its own, over connections that are kept."""
    stop, answers = threading.Event(), list[tuple[int, str]]()
    assert one.front is not None
    front = one.front

    def ask() -> None:
        while not stop.is_set():
            found = front.get(web_host("web"))
            answers.append((found.status_code, found.json()["backend"] if found.status_code == 200 else found.text))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def test_health_and_ports_reach_traefik_and_not_git(tmp_path: Path) -> None:
    """The actual port at once, out when unhealthy, back when healthy, each acknowledged once it is read back."""
    with world(tmp_path) as this:
        port, tip = actual_port(), this.one.repo.tip()
        this.backend("app", port)
        agent = this.agent()
        assert this.answer()[0] == 502
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        assert this.answer() == (200, "app")
        assert this.health()["endpoints"][0]["actual"] == port
        out = agent.tell(seen("web", "unhealthy", {this.declared: port}))
        this.becomes(503)
        this.acknowledged(agent, out)
        (endpoint,) = this.health()["endpoints"]
        assert (endpoint["verdict"], endpoint["inService"]) == ("unhealthy", False)
        assert endpoint["reason"] == "its health check fails"
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        assert this.answer() == (200, "app")
        before = this.generation
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        assert this.generation == before
        assert this.events() == ["EndpointOut", "EndpointBack"]
        assert this.one.metric("cloudlunacy_endpoint_changes_total") == 2
        assert this.one.repo.tip() == tip


def test_a_switch_of_ports_loses_no_request(tmp_path: Path) -> None:
    """Old and new answer side by side until fronts know; who asks all the time sees one after the other, no error."""
    with world(tmp_path) as this:
        agent = this.agent()
        ports = [actual_port() for _ in range(3)]
        this.backend("v0", ports[0])
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: ports[0]})))
        with asked_all_the_time(this.one) as answers:
            for number in (1, 2):
                this.backend(f"v{number}", ports[number])
                this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: ports[number]})))
                this.becomes(200, f"v{number}")
                wait_for(lambda: answers[-1][1] == f"v{number}", what="the client's change")  # noqa: B023
                this.stop(f"v{number - 1}")
        assert {status for status, _ in answers} == {200}
        assert list(dict.fromkeys(backend for _, backend in answers)) == ["v0", "v1", "v2"]


def test_one_of_two_goes_without_an_error_and_what_both_tell_is_one_generation(tmp_path: Path) -> None:
    """The other takes all requests; words within a second come to fronts together."""
    with world(tmp_path, "vps-1", "vps-2") as this:
        first, second = this.agent("vps-1"), this.agent("vps-2")
        ports = actual_port(), actual_port()
        this.backend("a", ports[0])
        this.backend("b", ports[1], ADDRESSES["vps-2"])
        before = this.generation
        told = [
            (agent, agent.tell(seen("web", ports={this.declared: port})))
            for agent, port in zip((first, second), ports, strict=True)
        ]
        for agent, number in told:
            this.acknowledged(agent, number)
        assert this.generation == before + 1
        assert {this.answer() for _ in range(4)} == {(200, "a"), (200, "b")}
        with asked_all_the_time(this.one) as answers:
            this.acknowledged(first, first.tell(seen("web", "unhealthy", {this.declared: ports[0]})))
            this.stop("a")
            wait_for(lambda: len(answers) > 100 and {one for _, one in answers[-50:]} == {"b"}, what="b alone")
        assert {status for status, _ in answers} == {200}


def test_a_backend_that_flaps_changes_fronts_seldom(tmp_path: Path) -> None:
    """Well and not well four times a second for ten seconds are a handful of generations; at rest it is in again."""
    with world(tmp_path) as this:
        agent, port = this.agent(), actual_port()
        this.backend("app", port)
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        before, end = this.generation, time.monotonic() + 10
        while time.monotonic() < end:
            for health in ("unhealthy", "healthy"):
                agent.tell(seen("web", health, {this.declared: port}))
                time.sleep(0.125)
        assert this.generation - before <= 6
        this.becomes(200, "app")
        assert len(this.events()) <= 6


def test_a_silent_agent_takes_along_only_what_does_not_answer(tmp_path: Path) -> None:
    """Silent and listening stays; silent and dead goes and comes back, once each, with the agent or without."""
    with world(tmp_path) as this:
        agent, port = this.agent(), actual_port()
        this.backend("app", port)
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        before = this.generation
        agent.leave()
        this.presence("Silent", 5)
        this.presence("Unknown")
        time.sleep(5)  # two rounds of probes: nothing must come of them
        assert (this.answer(), this.generation) == ((200, "app"), before)
        this.stop("app")
        this.becomes(503)
        assert this.health()["endpoints"][0]["verdict"] == "unreachable"
        this.backend("app", port)
        this.becomes(200, "app")
        assert this.events() == ["EndpointOut", "EndpointBack"]
        assert this.events("AgentUnknown") == ["AgentUnknown"]
        again = this.agent()
        this.acknowledged(again, again.tell(seen("web", ports={this.declared: port})))
        assert this.health()["presence"] == "Connected"
        assert this.events() == ["EndpointOut", "EndpointBack"]


def test_agents_that_tell_nothing_change_nothing(tmp_path: Path) -> None:
    """Never there, or connected without the feature: a route leads to the declared port, with no other generation."""
    with world(tmp_path) as this:
        this.backend("app", this.declared)
        this.becomes(200, "app")
        before = this.generation
        agent = this.agent(features=())
        this.presence("Connected")
        time.sleep(2)  # nothing must come of it
        agent.leave()
        this.presence("Unknown")
        time.sleep(5)
        assert (this.answer(), this.generation) == ((200, "app"), before)
        assert this.events() == []


def test_an_agent_speaks_for_itself_alone(tmp_path: Path) -> None:
    """What it tells of a deployment of another agent or of none, or of a port that is not allowed, changes nothing."""
    with world(tmp_path) as this:
        this.backend("app", this.declared)
        this.becomes(200, "app")
        done = this.one.enrol("vps-2", "--capability", "container", "--address", ADDRESSES["vps-2"])
        assert done.returncode == 0, done.stderr
        wait_for(lambda: this.one.agent("vps-2"), 30, what="the other agent")
        this.presence("Unknown")
        other, before = this.agent("vps-2"), this.generation
        for told in (
            seen("web", "unhealthy", {this.declared: this.declared}),
            seen("web", ports={this.declared: actual_port()}),
            seen("no-such-thing", "stopped"),
        ):
            this.acknowledged(other, other.tell(told))
        own = this.agent("vps-1")
        this.acknowledged(own, own.tell(seen("web", ports={this.declared: 22})))
        assert (this.answer(), this.generation, this.events()) == ((200, "app"), before, [])
        assert this.health("vps-2")["endpoints"] == []


def test_a_restart_keeps_ports_until_the_agent_is_back(tmp_path: Path) -> None:
    """SIGKILL and start again, with the agent away: clients notice nothing, and no generation has the port of git."""
    with world(tmp_path) as this:
        agent, port = this.agent(), actual_port()
        this.backend("app", port)
        this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        before = this.generation
        with asked_all_the_time(this.one) as answers:
            this.one.kill()
            agent.leave()
            this.one.start()
            revision = this.one.push({"agents/vps-9.yaml": documents.agent("vps-9", address="192.0.2.9")})
            this.one.status_wait(revision)
            assert this.health()["endpoints"][0]["actual"] == port, this.health()
            again = this.agent()
            this.acknowledged(again, again.tell(seen("web", ports={this.declared: port})))
        assert set(answers) == {(200, "app")}
        assert this.generation == before + 1


def test_a_drain_takes_an_agent_out_and_lets_it_in_again(tmp_path: Path) -> None:
    """By the command, with an event that names who, kept over a restart; nothing of it is in git."""
    with world(tmp_path, "vps-1", "vps-2") as this:
        first, second = this.agent("vps-1"), this.agent("vps-2")
        ports, tip = (actual_port(), actual_port()), this.one.repo.tip()
        for agent, name, port, host in zip((first, second), "ab", ports, ADDRESSES.values(), strict=True):
            this.backend(name, port, host)
            this.acknowledged(agent, agent.tell(seen("web", ports={this.declared: port})))
        done = this.one.cli("agent", "drain", "vps-1", "--for", "1h", "--reason", "a new disk")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("vps-1 is drained until ")
        wait_for(lambda: {this.answer() for _ in range(4)} == {(200, "b")}, 6, what="b alone")
        assert this.health()["presence"] == "Drained"
        assert this.health()["drain"]["reason"] == "a new disk"
        assert "active, drained" in this.one.cli("agent", "list").stdout
        assert "a new disk" in this.one.cli("agent", "show", "vps-1").stdout
        this.one.restart()
        wait_for(lambda: this.one.agent("vps-1"), 20, what="the state being taken up")
        assert this.health()["presence"] == "Drained"
        assert {this.answer() for _ in range(4)} == {(200, "b")}
        assert this.one.cli("agent", "undrain", "vps-1").stdout == "vps-1 gets requests again.\n"
        wait_for(lambda: {this.answer() for _ in range(4)} == {(200, "a"), (200, "b")}, 6, what="both")
        assert this.one.cli("agent", "undrain", "vps-1").stdout == "vps-1 was not drained.\n"
        assert this.one.cli("agent", "drain", "vps-9").returncode == 1
        assert this.events("AgentDrained", "AgentUndrained") == ["AgentDrained", "AgentUndrained"]
        assert this.one.repo.tip() == tip


def test_an_agent_that_is_locked_out_gets_no_requests(tmp_path: Path) -> None:
    """At once, and for as long as its deleted file is named by a route that keeps its last good version."""
    with world(tmp_path, "vps-1", "vps-2") as this:
        this.backend("raw", this.declared)
        raw = [{"agent": "vps-1", "port": this.declared}]
        this.one.live({"routes/shop/web.yaml": documents.route("web", web_host("web"), backends=raw)})
        this.becomes(200, "raw")
        done = this.one.cli("agent", "revoke", "vps-1", "--yes")
        assert done.returncode == 0, done.stderr
        this.becomes(503)
        this.one.status_wait(this.one.repo.tip() or "")
        assert this.answer()[0] == 503
        this.one.restart()
        with suppress(httpx.HTTPError):
            assert this.answer()[0] == 503
        time.sleep(2)  # the first look after the restart
        assert this.answer()[0] == 503
