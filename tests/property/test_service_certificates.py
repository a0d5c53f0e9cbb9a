"""An agent's certificates of services under faults in any order: lost answers, refusals, restarts, other documents."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.session import Ask
from schemas.session import Item
from tests.support.service_world import DAY, NAMES, World, item, leaf, make_issuer, pair_in

IDS = ("Certificate/shop/api", "Certificate/shop/orders")
NAME_SETS = (NAMES, NAMES[:1], (*NAMES, "a.app.cloudlunacy.test"))
FOLDER = tempfile.TemporaryDirectory()
ISSUER = make_issuer(Path(FOLDER.name) / "keys")

documents = st.sampled_from(
    [[], *([(IDS[0], one), (IDS[1], other)] for one in NAME_SETS for other in NAME_SETS), [(IDS[1], NAMES)]]
)
FAULTS = ["refuse", "foreign", "lose", "connect", "disconnect", "restart"]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("document"), documents),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 1.0, 30.0, 700.0, DAY / 3, DAY])),
        st.tuples(st.sampled_from(["answer", "answer", *FAULTS]), st.none()),
    ),
    min_size=6,
    max_size=30,
)


class Plane:
    """A world with a connection that can break; ``wanted`` is the document."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wanted: dict[str, Item] = {}

    def play(self, step: str, value: object) -> None:
        world = self.world
        match step, value:
            case "document", list(found):
                self.wanted = {item_id: item(item_id, dnsNames=names) for item_id, names in found}
                world.apply(*self.wanted.values())
            case "pass", float(seconds):
                world.step(seconds)
            case "connect", _:
                world.asked.clear()
                world.connect()
            case "disconnect", _:
                world.service.disconnected()
                world.asked.clear()
            case "restart", _:
                world.asked.clear()
                world.restart()
                world.apply(*self.wanted.values())
            case "lose", _ if world.asked:
                world.asked.pop(0)
            case (("answer" | "refuse" | "foreign"), _) if world.asked:
                self.answer(world.asked[0], step)

    def answer(self, ask: Ask, how: str) -> None:
        wanted = self.wanted.get(ask.id)
        if how == "answer" and wanted is not None and wanted.digest == ask.digest:
            self.world.answer(wanted)
        elif how == "foreign":
            self.world.answer(item(ask.id, dnsNames=["bank.cloudlunacy.test"]))
        else:
            self.world.answer(item(ask.id), reason="Unavailable", retry_seconds=30.0)

    def check(self) -> None:
        """What is in place is whole, and belongs to what is wanted or was."""
        folder = self.world.data / "services" / "shop"
        for link in folder.iterdir() if folder.is_dir() else ():
            if link.is_symlink():
                assert pair_in(link)
                assert leaf(link).subject.rfc4514_string() != "CN=bank.cloudlunacy.test"
                assert f"Certificate/shop/{link.name}" in self.wanted

    def settle(self) -> None:
        """Faults are over: a connection, a patient control plane, time."""
        self.play("connect", None)
        for _ in range(8):
            self.world.step(60)
            while self.world.asked:
                self.answer(self.world.asked[0], "answer")


@contextmanager
def plane() -> Iterator[Plane]:
    with tempfile.TemporaryDirectory() as folder:
        yield Plane(World(Path(folder), ISSUER))


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_every_service_ends_with_its_certificate(script: list[tuple[str, object]]) -> None:
    """A pair is whole at all times, nothing lies there for what is not wanted, and once faults stop all is applied."""
    with plane() as one:
        beginning: list[tuple[str, object]] = [("document", [(IDS[1], NAMES)]), ("connect", None), ("pass", 0.0)]
        for step, value in (*beginning, *script):
            one.play(step, value)
            one.check()
        one.settle()
        results = one.world.apply(*one.wanted.values())
        assert {key: result.state for key, result in results.items()} == dict.fromkeys(one.wanted, "Applied")
        one.world.step(30)
        assert not one.world.asked
