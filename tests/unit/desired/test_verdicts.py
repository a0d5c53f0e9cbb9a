"""Which endpoints may get requests."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from reconciler.desired.observed import GONE, AgentPlacements, Placement, Share
from reconciler.desired.verdicts import Deployment, Drain, Judge, Limits, is_possible
from schemas.observation import DeploymentObservation, Health, ObservedPort

WEB: Deployment = ("shop", "web")
TIMEOUT = 35.0


class World:
    """A judge, a clock, and one agent that git gives one deployment with port 8080."""

    def __init__(self, *ports: int, connect: bool = True) -> None:
        self.judge = Judge()
        self.now = 1000.0
        self.ports = frozenset(ports or (8080,))
        self.gone: list[str] = []
        if connect:
            self.connect()

    def __call__(self, agent: str, deployment: Deployment) -> frozenset[int]:
        return self.ports if (agent, deployment) == ("vps-1", WEB) else frozenset()

    def connect(self, *, tells: bool = True) -> None:
        self.judge.connected("vps-1", self.now)
        if tells:
            self.judge.tells("vps-1", self.now)

    def tell(self, health: Health = "healthy", actual: int | None = 8080, name: str = "web") -> Share:
        ports = (ObservedPort(declared=8080, actual=actual),) if actual is not None else ()
        told = DeploymentObservation(team="shop", name=name, health=health, ports=ports)
        self.judge.told("vps-1", [told], self.now)
        return self.share()

    def probe(self, *answers: bool, port: int = 8080) -> Share:
        for one in answers:
            self.judge.probed("vps-1", port, self.now, answers=one)
        return self.share()

    def after(self, seconds: float) -> Share:
        self.now += seconds
        return self.share()

    def seen(self) -> AgentPlacements | None:
        return self.judge.placements(self, self.gone, self.now).get("vps-1")

    def share(self) -> Share:
        found = self.seen()
        placement = found.of(8080) if found is not None else None
        return "full" if placement is None else placement.share

    def told(self) -> Iterable[tuple[int, bool, str]]:
        found = [(one.port, one.is_out, one.verdict) for one in self.judge.changes]
        self.judge.changes.clear()
        return found


def test_an_agent_that_tells_nothing_has_its_endpoints_as_declared() -> None:
    """Whether it never came, is connected, or has just left."""
    world = World(connect=False)
    assert world.seen() is None
    world.judge.probed("vps-1", 8080, world.now, answers=False)
    assert world.seen() is None
    world.connect(tells=False)
    assert world.probe(False, False, False) == "full"
    world.judge.disconnected("vps-1")
    assert world.seen() is None
    assert world.told() == []


@pytest.mark.parametrize("health", ["unhealthy", "starting", "stopped"])
def test_what_is_not_healthy_goes_at_once_and_comes_back_at_once(health: Health) -> None:
    """First with weight 0, then it is gone; the first return needs no more than what the agent says."""
    world = World()
    assert world.tell() == "full"
    assert world.tell(health) == "none"
    assert world.after(9.9) == "none"
    assert world.after(0.1) == "gone"
    assert world.tell() == "full"
    assert world.told() == [(8080, True, health), (8080, False, "healthy")]


def test_nobody_can_tell_just_now_changes_nothing() -> None:
    """An engine that does not answer takes no app out, and brings none back."""
    world = World()
    world.tell("healthy", 20001)
    assert world.tell("unknown", 20001) == "full"
    world.tell("unhealthy", 20001)
    assert world.tell("unknown", 20001) == "none"
    assert world.seen() == AgentPlacements({8080: Placement(20001, "none")})


def test_what_keeps_changing_must_be_well_for_longer_and_longer() -> None:
    """Each time twice as long, so a backend that flaps changes fronts every few seconds at most."""
    world = World()
    world.tell()
    returns = []
    for _ in range(6):
        world.tell("unhealthy")
        began = world.now
        world.tell()
        while world.share() != "full":
            world.now += 0.5
        returns.append(world.now - began)
    assert returns == [0, 3, 6, 12, 24, 48]
    assert len(list(world.told())) == 12


def test_well_for_a_moment_is_not_well() -> None:
    """What changes faster than it would have to hold stays out."""
    world = World()
    world.tell("unhealthy")
    world.tell()
    world.tell("unhealthy")
    for _ in range(100):
        world.after(1)
        assert world.tell() != "full"
        world.after(1)
        assert world.tell("unhealthy") != "full"
    assert len(list(world.told())) == 3


def test_a_calm_minute_is_forgiven() -> None:
    """Then what was before counts no more."""
    world = World()
    for _ in range(3):
        world.tell("unhealthy")
        world.tell()
        world.after(30)
    world.after(60)
    world.tell("unhealthy")
    assert world.tell() == "full"


def test_a_healthy_instance_at_another_port_comes_at_once() -> None:
    """It is another instance, and the agent waits for it with the old one still there."""
    world = World()
    assert world.tell("healthy", 20001) == "full"
    assert world.seen() == AgentPlacements({8080: Placement(20001)})
    for _ in range(3):
        world.tell("unhealthy", 20001)
        world.tell("healthy", 20001)
    assert world.share() != "full"
    assert world.tell("healthy", 20002) == "full"


def test_where_nothing_serves_nothing_is_asked() -> None:
    """Also where the agent calls that healthy."""
    world = World()
    assert world.tell("stopped", None) == "none"
    assert world.tell("healthy") == "full"
    assert world.tell("healthy", None) == "none"
    assert [one[2] for one in world.told()] == ["stopped", "healthy", "starting"]


def test_only_ports_that_git_gives_the_deployment_count() -> None:
    """An agent cannot speak for a deployment that does not run there, nor lead requests to any port that it likes."""
    world = World()
    assert world.tell("unhealthy", name="other") == "full"
    assert world.tell("healthy", 22) == "full"
    assert world.seen() is None
    assert [is_possible(8080, actual) for actual in (8080, 20000, 29999, 19999, 30000)] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_port_that_the_serving_instance_does_not_have_is_out() -> None:
    """An older version serves there, and others may have the port already."""
    world = World(8080, 9090)
    world.tell()
    assert world.seen() == AgentPlacements({9090: Placement(9090, "none")})
    assert world.told() == [(9090, True, "starting")]


def test_what_the_agent_tells_nothing_of_any_more_is_as_declared() -> None:
    """The newest is the whole truth."""
    world = World()
    world.tell("unhealthy")
    world.judge.told("vps-1", [], world.now)
    assert world.seen() is None
    assert world.told() == [(8080, True, "unhealthy"), (8080, False, "unknown")]


def test_a_lost_connection_changes_nothing_until_the_time_out() -> None:
    """Nor does the time-out itself: from then on connecting decides."""
    world = World()
    world.tell("healthy", 20001)
    world.judge.disconnected("vps-1")
    assert world.after(TIMEOUT - 0.1) == "full"
    assert world.judge.silent(world.now) == ()
    assert world.probe(False, False) == "full"
    world.after(0.1)
    assert world.judge.silent(world.now) == ("vps-1",)
    assert world.seen() == AgentPlacements({8080: Placement(20001)})
    assert world.judge.actual("vps-1", 8080) == 20001


def test_a_silent_agent_with_a_backend_that_answers_stays() -> None:
    """An agent process that is down takes no app along; one failure is none."""
    world = World()
    world.tell("healthy", 20001)
    world.judge.disconnected("vps-1")
    world.after(TIMEOUT)
    for _ in range(20):
        assert world.probe(True, False) == "full"
    assert world.told() == []


def test_a_silent_agent_with_a_dead_backend_goes_and_comes_back_once() -> None:
    """Two failures in a row, two successes in a row; the agent's return is one change as well."""
    world = World()
    world.tell("healthy", 20001)
    world.judge.disconnected("vps-1")
    world.after(TIMEOUT)
    assert world.probe(False) == "full"
    assert world.probe(False) == "none"
    assert world.after(60) == "gone"
    assert world.probe(True, False, True) == "gone"
    assert world.probe(True) == "full"
    assert world.probe(False, False) == "none"
    world.connect()
    assert world.share() == "none"
    assert world.tell("healthy", 20001) == "none"
    assert world.after(3) == "full"
    assert [one[1:] for one in world.told()] == [
        (True, "unreachable"), (False, "healthy"), (True, "unreachable"), (False, "healthy"),
    ]  # fmt: skip


def test_what_was_told_before_the_silence_counts_no_more() -> None:
    """An app that was unhealthy when its agent fell silent may have recovered; nobody else could say so."""
    world = World()
    world.tell("unhealthy")
    world.judge.disconnected("vps-1")
    world.after(TIMEOUT)
    assert world.share() == "gone"
    assert world.probe(True, True) == "full"


def test_ports_that_no_deployment_has_are_probed_too_and_are_as_declared_again_when_the_agent_is_back() -> None:
    """A cut-off machine takes everything along that routes lead to."""
    world = World(connect=False)
    world.connect(tells=False)
    world.judge.disconnected("vps-1")
    world.after(TIMEOUT)
    assert world.probe(False, False) == "none"
    world.connect(tells=False)
    assert world.seen() is None
    assert world.told() == [(8080, True, "unreachable"), (8080, False, "unknown")]


def test_a_returning_agent_has_what_it_told_last_until_it_tells_something() -> None:
    """It may first have to find out itself; one that came back without the feature is as declared after a while."""
    world = World()
    world.tell("healthy", 20001)
    world.judge.disconnected("vps-1")
    world.connect(tells=False)
    world.after(9)
    assert world.seen() == AgentPlacements({8080: Placement(20001)})
    world.judge.tells("vps-1", world.now)
    world.after(100)
    assert world.seen() == AgentPlacements({8080: Placement(20001)})
    world.connect(tells=False)
    world.after(10)
    assert world.seen() is None


def test_an_agent_whose_engine_is_away_takes_nothing_out_and_moves_nothing() -> None:
    """It tells of no port then: what answered is asked where it was, and what was out stays out."""
    world = World()
    world.tell("healthy", 20001)
    world.connect()
    assert world.tell("unknown", None) == "full"
    assert world.seen() == AgentPlacements({8080: Placement(20001)})
    assert world.after(100) == "full"
    world.tell("stopped", 20001)
    world.after(100)
    world.connect()
    assert world.tell("unknown", None) == "gone"


def test_a_restart_goes_on_from_what_was_known() -> None:
    """Ports stay, what was out stays out, and the time-out begins anew."""
    judge = Judge()
    told = DeploymentObservation(
        team="shop", name="web", health="healthy", ports=(ObservedPort(declared=8080, actual=20001),)
    )
    world = World(connect=False)
    world.judge = judge
    judge.restore("vps-1", [told], {(None, 9000): world.now - 5}, world.now)
    assert world.seen() == AgentPlacements({8080: Placement(20001), 9000: Placement(9000, "none")})
    world.after(TIMEOUT - 1)
    assert judge.silent(world.now) == ()
    assert world.seen() == AgentPlacements({8080: Placement(20001), 9000: Placement(9000, "gone")})
    world.connect()
    assert world.tell("healthy", 20001) == "full"


def test_a_drain_takes_everything_out_until_it_ends() -> None:
    """With weight 0, then gone; back when its time is over or somebody ends it."""
    world = World()
    world.tell("healthy", 20001)
    world.judge.drain("vps-1", Drain(world.now, world.now + 3600), world.now)
    assert world.share() == "none"
    assert world.judge.agents["vps-1"].presence(world.now, TIMEOUT) == "Drained"
    assert world.after(10) == "gone"
    assert world.tell("healthy", 20002) == "gone"
    world.after(3590)
    assert world.seen() == AgentPlacements({8080: Placement(20002)})
    world.judge.drain("vps-1", Drain(world.now), world.now)
    assert world.share() == "none"
    world.judge.drain("vps-1", None, world.now)
    assert world.share() == "full"
    assert world.judge.agents["vps-1"].presence(world.now, TIMEOUT) == "Connected"


def test_an_agent_that_is_deleted_or_locked_out_is_gone() -> None:
    """Whatever else is known of it, and at once."""
    world = World()
    world.tell()
    world.gone = ["vps-1", "vps-2"]
    assert world.judge.placements(world, world.gone, world.now) == {"vps-1": GONE, "vps-2": GONE}
    world.judge.forget("vps-1")
    assert world.judge.placements(world, [], world.now) == {}


def test_presence_names_how_the_agent_is_heard() -> None:
    """Silent until the time-out, then unknown."""
    world = World()
    seen = world.judge.agents["vps-1"]
    assert seen.presence(world.now, TIMEOUT) == "Connected"
    world.judge.disconnected("vps-1")
    assert seen.presence(world.now + TIMEOUT - 1, TIMEOUT) == "Silent"
    assert seen.presence(world.now + TIMEOUT, TIMEOUT) == "Unknown"


def test_it_says_when_it_has_to_be_asked_again() -> None:
    """At every moment at which something changes by itself; never where nothing will."""
    world = World()
    assert world.judge.next(world.now) == world.now
    world.tell()
    assert world.judge.next(world.now) is None
    world.tell("unhealthy")
    assert world.judge.next(world.now) == world.now + 10
    world.tell()
    world.tell("unhealthy")
    world.tell()
    assert world.judge.next(world.now) == world.now + 3
    world.after(3)
    world.judge.disconnected("vps-1")
    world.share()
    assert world.judge.next(world.now) == 1000.0 + TIMEOUT
    assert Limits().hold(40) == 60


def test_draining_an_agent_that_never_came_judges_nothing_else_of_it() -> None:
    """Once the drain has ended it is as declared, however long it stays away."""
    world = World(connect=False)
    world.judge.drain("vps-1", Drain(world.now), world.now)
    assert world.share() == "none"
    world.judge.drain("vps-1", None, world.now)
    world.after(10 * TIMEOUT)
    assert world.judge.silent(world.now) == ()
    assert world.probe(False, False) == "full"
    assert world.judge.agents["vps-1"].presence(world.now, TIMEOUT) == "Unknown"
