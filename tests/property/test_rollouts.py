"""Whatever commits, agents, operators and crashes do: never more agents change at once than may, and it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.waves import version_of
from tests.support.documents import agent
from tests.unit.steps.test_waves import FILES, NAMES, Plane, web

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(["web:1", "web:2", "web:3"]), st.booleans()),
        st.tuples(st.just("label"), st.sampled_from(NAMES), st.sampled_from(["ssd", "hdd"])),
        st.tuples(st.just("says"), st.sampled_from(NAMES), st.sampled_from(["Applied", "Progressing", "Failed"])),
        st.tuples(st.just("leave"), st.sampled_from(NAMES), st.just(None)),
        st.tuples(st.just("come"), st.sampled_from(NAMES), st.booleans()),
        st.tuples(st.just("look"), st.just(None), st.just(None)),
        st.tuples(st.just("pause"), st.booleans(), st.just(None)),
        st.tuples(st.just("restart"), st.just(None), st.just(None)),
    ),
    max_size=25,
)


class World:
    """Three agents that run web:1, one of which may be without it; what each really runs is known here alone."""

    def __init__(self) -> None:
        self.plane = Plane()
        self.number = 0
        self.present = set(NAMES)
        self.plane.connect()
        self.push({**FILES, **web("web:1")})
        self.runs: dict[str, str] = {}
        self.well: set[str] = set()
        for name in NAMES:
            self.says(name, "Applied")

    def push(self, files: Mapping[str, bytes | None]) -> None:
        self.number += 1
        self.plane.bring(files, f"{self.number:040x}")

    def version(self, name: str) -> str:
        found = [item for item in self.plane.hub.documents[name].items() if item.kind == "Deployment"]
        return version_of(found[0].spec) if found else ""

    def says(self, name: str, state: str) -> None:
        """The agent takes its document, and says what became of it."""
        self.runs[name] = self.version(name)
        (self.well.add if state == "Applied" else self.well.discard)(name)
        self.plane.says(name, state, {"Applied": "Running"}.get(state, "Starting"))

    def step(self, what: str, one: Any, other: Any) -> None:
        match what:
            case "push":
                self.push(web(one, rollout={"paused": other} if other else {}))
            case "label":
                self.push({f"agents/{one}.yaml": agent(one, labels={"disk": other})})
            case "says" if one in self.present:
                self.says(one, other)
            case "leave" if one in self.present:
                self.present.discard(one)
                self.plane.leave(one)
            case "come" if one not in self.present:
                self.present.add(one)
                has_it = other and one in self.well and self.runs[one] == self.version(one)
                self.plane.connect(one, applied=has_it)
            case "look":
                self.plane.look()
            case "pause":
                self.plane.paused = "jane" if one else ""
            case "restart":
                self.plane.restart()
                for name in sorted(self.present):
                    has_it = name in self.well and self.runs[name] == self.version(name)
                    self.plane.connect(name, applied=has_it)

    def unavailable(self) -> set[str]:
        """Agents that are given something that they have not said to run well, and those that are not well anyway."""
        return {name for name in NAMES if name not in self.well or self.runs[name] != self.version(name)}


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_no_step_takes_more_agents_out_than_may_be_and_it_ends(steps: list[tuple[str, Any, Any]]) -> None:
    """Whoever served is given another version only while everybody else is well; in the end all have the newest."""
    world = World()
    for step in steps:
        before = {name: world.version(name) for name in NAMES}
        was_out = world.unavailable()
        world.step(*step)
        changed = {name for name in NAMES if world.version(name) != before[name]}
        assert len(changed) <= 1, step
        if changed - was_out:  # one that served: then nobody else may be without it
            assert world.unavailable() | changed == changed, step
        world.plane.images()
    world.plane.paused = ""
    for name in NAMES:
        world.step("come", name, other=False)
    world.push(web("web:9"))
    for _ in range(4 * len(NAMES)):
        for name in sorted(world.unavailable()):
            world.says(name, "Applied")
        world.plane.look()
    assert set(world.plane.images().values()) == {"web:9"}
    assert not world.unavailable()
    assert world.plane.stands(f"{world.number:040x}")[0] == "Converged"
    assert not world.plane.look()
