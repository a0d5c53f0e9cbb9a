"""The loop with steps that do what a test says: what each error means, and that nothing is forgotten or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.convergence import to_status
from reconciler.desired.finding import Finding
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.errors import Broken, Rejected, Transient
from reconciler.loop import MAX_OVERTAKEN, Reconciler
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.fronts import NotLoaded
from reconciler.steps.keeping import Resumed
from reconciler.steps.passing import Pass, Published
from reconciler.store.protocols import Event
from reconciler.waking import Waking
from schemas.objects import ObjectKey
from schemas.plan import ObjectChange, Plan
from schemas.status import CommitSummary, RevisionStatus
from tests.support.waiting import eventually
from tests.unit.test_status import Records

A, B, C = (letter * 40 for letter in "abc")
CHANGE = ObjectChange(action="create", kind="Route", team="shop", name="web", path="routes/shop/web.yaml")


@dataclass
class World:
    """All the steps at once. ``faults`` are raised by the step of that name, each once."""

    head: str = A
    empty: set[str] = field(default_factory=set)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    during: dict[str, Callable[[], None]] = field(default_factory=dict)
    history: dict[str, str] = field(default_factory=lambda: {B: A, C: B})
    loaded: bool = True
    generation: int = 0
    calls: list[str] = field(default_factory=list)
    files: list[tuple[int, str]] = field(default_factory=list)
    pushed: list[tuple[int, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    fronts: tuple[str, ...] = ("front",)
    connected: frozenset[str] = frozenset()
    problems: tuple[Any, ...] = ()
    told: int = 0
    news: bool = False
    """Agents are to be told something that no object says."""
    spoilt: bool = False
    found: Published = field(default_factory=Published)

    def do(self, step: str) -> None:
        self.calls.append(step)
        if hook := self.during.pop(step, None):
            hook()
        if self.faults.get(step):
            raise self.faults[step].pop(0)

    async def ask_head(self) -> str:
        self.do("head")
        return self.head

    # source
    async def fetch(self, this: Pass) -> None:
        self.do("fetch")
        this.commit = CommitSummary(subject=this.revision[:3])

    async def describe(self, revision: str) -> CommitSummary:
        return CommitSummary(subject=revision[:3])

    async def accept(self, this: Pass, mode: str) -> None:
        self.do("accept")

    async def check_first(self, this: Pass) -> None:
        pass

    async def descends(self, revision: str, ancestor: str) -> bool:
        while revision != ancestor and revision in self.history:
            revision = self.history[revision]
        return revision == ancestor

    # desire
    async def read(self, this: Pass) -> None:
        self.do("read")

    async def settle(self, this: Pass) -> None:
        self.do("settle")
        this.settled = SimpleNamespace(state=SimpleNamespace(fleet=None, revision=this.revision))  # type: ignore[assignment]

    async def plan(self, this: Pass) -> None:
        changes = () if this.revision in self.empty else (CHANGE,)
        this.plan = Plan(base="", revision=this.revision, checksum="sha256:1", changes=changes)
        self.do("plan")

    async def locate(self, state: object) -> tuple[()]:
        return ()

    async def keep(self) -> None:
        self.do("keep")

    # fronts
    async def render(self, this: Pass) -> None:
        self.do("render")

    async def preflight(self, this: Pass) -> None:
        this.generation = await self.next_generation()
        self.do("preflight")

    async def next_generation(self) -> int:
        return self.generation + 1

    async def discard(self) -> None:
        self.do("discard")

    async def publish(self, published: Any, now: float = 0, staged: object = None) -> None:
        if isinstance(published, Published):
            self.do("publish")
            self.generation = published.generation
            self.files.append((published.generation, published.revision))

    async def remember(self, published: Published, now: float) -> None:
        self.do("remember")

    async def confirm(self, published: Published) -> None:
        self.do("confirm")

    async def read_back(self, published: Published, overtaken: asyncio.Event) -> bool:
        self.do("read back")
        return self.loaded

    async def look(self, published: Published) -> bool:
        self.do("look")
        return self.loaded

    async def repair(self, published: Published) -> bool:
        return self.spoilt

    async def take_up(self, now: float, overlay: Overlay) -> Resumed:
        self.do("take up")
        return Resumed(self.found, self.found)

    # delivery
    def assign(self, this: Pass) -> None:
        this.agents, this.items = {}, {"vps-1": ()} if self.news else {}
        self.news = False

    async def has_news(self, published: Published) -> bool:
        return self.news

    async def push(self, published: Published, items: Mapping[str, Any]) -> dict[str, str]:
        self.do("push")
        self.pushed.append((published.generation, published.revision))
        self.told = published.generation
        return {}

    async def resume(self, published: Published) -> dict[str, str]:
        self.do("resume")
        self.told = published.generation
        return {}

    def given_back(self, confirmed: Published, failed: object, generation: int) -> Published:
        return replace(confirmed, generation=generation, agents={}, confirmed=False)

    def gone_on(self, published: Published) -> dict[str, frozenset[str]]:
        return {}

    async def is_outdated(self, published: Published) -> bool:
        return False

    # events
    async def append(self, event: Event) -> Event:
        self.events.append(event)
        return event


@dataclass
class Pairs:
    """The step of certificates: ``overlay`` is what fronts should show, ``waiting`` what is held up by one."""

    overlay: Overlay = NO_OVERLAY
    waiting: dict[ObjectKey, Finding] = field(default_factory=dict)
    in_service: list[str] = field(default_factory=list)

    async def bring(self, this: Pass) -> dict[ObjectKey, Finding]:
        this.overlay = self.overlay
        return self.waiting

    async def put_into_service(self, this: Pass) -> None:
        self.in_service.append(this.revision)

    async def look(self, published: Published) -> bool:
        return published.overlay is not self.overlay


@dataclass
class Bench:
    world: World
    loop: Reconciler
    tracker: Tracker
    pairs: Pairs

    def status(self, revision: str) -> RevisionStatus:
        record = self.tracker.get(revision)
        assert record is not None
        return to_status(record)

    def said(self, revision: str) -> tuple[str, str]:
        status = self.status(revision)
        return status.state, status.reason

    async def look(self, head: str | None = None) -> None:
        self.world.head = head or self.world.head
        await self.loop.reconcile_once()


def bench(world: World | None = None, **options: Any) -> Bench:
    world = world or World()
    tracker = Tracker(Records(), lambda: 1000.0)
    parts: Any = world
    pairs: Any = Pairs()
    loop = Reconciler(
        repository=parts,
        head=world.ask_head,
        source=parts,
        desire=parts,
        certificates=pairs,
        fronts=parts,
        delivery=parts,
        tracker=tracker,
        events=parts,
        metrics=Metrics(),
        waking=Waking(3600),
        clock=lambda: 1000.0,
        **options,
    )
    return Bench(world, loop, tracker, pairs)


def scenario(*looks: str, world: World | None = None, **options: Any) -> Bench:
    """Look at each head in turn."""

    async def run() -> Bench:
        one = bench(world, **options)
        for head in looks:
            await one.look(head)
        return one

    return asyncio.run(run())


def test_steps_come_in_order() -> None:
    """A commit goes its way in the order of the module's docstring, and an unchanged head costs one question."""
    one = scenario(A, A)
    assert one.world.calls == [
        *("head", "fetch", "accept", "read", "settle", "plan", "render", "preflight", "publish", "read back"),
        *("confirm", "push", "keep", "head"),
    ]
    assert one.said(A) == ("Converged", "AllStagesReached")
    assert one.loop.published.confirmed


@pytest.mark.parametrize("step", ["accept", "read", "settle", "plan", "render", "preflight"])
@pytest.mark.parametrize(
    ("reason", "state"), [("DeletionGuard", "Held"), ("HistoryRewritten", "Held"), ("NoFleet", "Failed")]
)
def test_a_rejected_commit_is_not_published_and_not_tried_again(step: str, reason: str, state: str) -> None:
    """Whatever step rejects it, nothing is written, the record says why, and it is not looked at again."""
    world = World(faults={})
    one = scenario(A, world=world)
    world.faults[step] = [Rejected("no", reason=reason)]
    calls = len(world.calls)
    asyncio.run(one.look(B))
    asyncio.run(one.look(B))
    assert one.said(B) == (state, reason)
    assert world.files == [(1, A)]
    assert world.calls[calls:].count("fetch") == 1
    assert [(event.type, event.revision) for event in world.events][-1] == (f"Revision{state}", B)


def test_what_cannot_be_fetched_has_a_record() -> None:
    """A commit that the remote sends wrongly fails with a record; one that cannot be had now waits."""
    world = World(
        faults={"fetch": [Transient("away", reason="RemoteUnavailable"), Rejected("x", reason="FetchRefused")]}
    )

    async def run() -> None:
        one = bench(world)
        with pytest.raises(Transient):
            await one.look(A)
        assert one.said(A) == ("Progressing", "RemoteUnavailable")
        await one.look(A)
        assert one.said(A) == ("Failed", "FetchRefused")

    asyncio.run(run())


@pytest.mark.parametrize("error", [Transient("full", reason="DiskFull"), Broken("wrong")])
@pytest.mark.parametrize("step", ["read", "preflight", "publish"])
def test_a_fault_before_the_commit_point_is_tried_again(step: str, error: Exception) -> None:
    """After a fault the same commit is tried again, under a generation that was never used."""
    world = World(faults={step: [error]})

    async def run() -> Bench:
        one = bench(world)
        with pytest.raises(type(error)):
            await one.look(A)
        assert one.loop.published.generation == 0
        await one.look(A)
        return one

    one = asyncio.run(run())
    assert one.said(A) == ("Converged", "AllStagesReached")
    assert one.loop.published.generation == world.generation


def test_agents_are_told_although_the_store_fails_after_the_commit_point() -> None:
    """A store that cannot note the confirmation keeps no document from an agent; it is noted at the next look."""
    world = World(faults={"confirm": [Transient("full", reason="DiskFull")]})
    one = scenario(A, world=world)
    assert world.pushed == [(1, A)]
    assert one.status(A).state == "Progressing"
    asyncio.run(one.look())
    assert one.said(A) == ("Converged", "AllStagesReached")


def test_an_approval_during_the_pass_that_holds_is_not_lost() -> None:
    """Approved between the check and the end of the pass, the commit is looked at again."""
    world = World()
    one = scenario(A, world=world)
    world.faults["plan"] = [Rejected("guard", reason="DeletionGuard")]
    world.during["plan"] = one.loop.reconsider
    asyncio.run(one.look(B))
    assert one.said(B) == ("Held", "DeletionGuard")
    asyncio.run(one.look(B))
    assert one.said(B) == ("Converged", "AllStagesReached")


def test_what_is_asked_during_a_pass_is_looked_at_right_after_it() -> None:
    """The pass takes the wake-up for a newer commit; with an hour between polls somebody would wait that long."""

    async def run() -> None:
        one = bench()
        one.world.during["render"] = one.loop.reconsider
        task = asyncio.create_task(one.loop.run())
        await eventually(lambda: one.world.calls.count("head") >= 3, what="another look")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_an_approval_is_not_lost_to_a_pass_that_fails() -> None:
    """Approved, and the pass that follows cannot read: the next one still knows."""
    world = World()
    one = scenario(A, world=world)
    world.faults["plan"] = [Rejected("guard", reason="DeletionGuard")]
    asyncio.run(one.look(B))
    one.loop.reconsider()
    world.faults["read"] = [Transient("busy")]
    with pytest.raises(Transient):
        asyncio.run(one.look(B))
    asyncio.run(one.look(B))
    assert one.said(B) == ("Converged", "AllStagesReached")


def test_the_newest_commit_wins_but_not_for_ever() -> None:
    """A commit that came meanwhile goes first; after a few times in a row one is published nevertheless."""
    world = World()

    async def run() -> Bench:
        one = bench(world)
        for number in range(MAX_OVERTAKEN + 1):
            newer = f"{number}" * 40

            def overtake(newer: str = newer) -> None:
                world.head = newer
                one.loop.wake()

            world.during["preflight"] = overtake
            await one.look()
        return one

    one = asyncio.run(run())
    assert one.said(A) == ("Superseded", "NewerRevision")
    assert world.files == [(1, f"{MAX_OVERTAKEN - 1}" * 40)]


def test_a_commit_that_changes_nothing_is_adopted() -> None:
    """Nothing is written; until the front has loaded what is published, the commit does not claim so."""
    world = World(empty={B}, loaded=False)
    one = scenario(A, B, world=world)
    assert world.files == [(1, A)]
    assert one.status(B).stages["loaded"] is None
    world.loaded = True
    asyncio.run(one.look())
    assert one.said(B) == ("Converged", "AllStagesReached")


def test_a_held_commit_is_closed_by_its_successor_and_its_reason_is_kept() -> None:
    """What was held is superseded by what has it in its history, and says why it was held."""
    world = World()
    one = scenario(A, world=world)
    world.faults["plan"] = [Rejected("too much", reason="DeletionGuard")]
    asyncio.run(one.look(B))
    asyncio.run(one.look(C))
    status = one.status(B)
    assert (status.state, status.superseded_by) == ("Superseded", C)
    assert status.message.endswith("It was Held, DeletionGuard: too much")


def test_a_head_that_comes_back_closes_what_was_held() -> None:
    """The branch back at what is published: nothing is done, and the abandoned commit is no part of it."""
    world = World()
    one = scenario(A, world=world)
    world.faults["accept"] = [Rejected("rewritten", reason="HistoryRewritten")]
    asyncio.run(one.look(C))
    calls = len(world.calls)
    asyncio.run(one.look(A))
    assert world.calls[calls:] == ["head"]
    assert (one.status(C).reason, one.status(C).superseded_by) == ("NotOnBranch", "")
    assert one.tracker.newest == A


def late() -> NotLoaded:
    return NotLoaded("late", "Late")


def test_a_front_that_does_not_load_gets_the_last_good_back() -> None:
    """The confirmed state comes back under a new number; shown to be well, the front is given the commit once more."""
    world = World()
    one = scenario(A, world=world)
    world.faults["read back"] = [late(), late()]
    asyncio.run(one.look(B))
    assert world.files == [(1, A), (2, B), (3, A)]
    assert one.said(B) == ("Held", "ReadBackFailed")
    asyncio.run(one.look(B))
    assert world.files[3:] == [(4, B), (5, A)]
    for _ in range(3):
        asyncio.run(one.look(B))
    assert world.files[5:] == []
    assert one.said(B) == ("Held", "ReadBackFailed")


def test_agents_are_told_when_going_back_failed_and_the_front_loads_after_all() -> None:
    """A full disk ends the pass before agents are told; once the front has loaded the commit they get it."""
    world = World()
    one = scenario(A, world=world)
    world.faults["read back"] = [late()]
    world.during["read back"] = lambda: world.faults.update({"publish": [Transient("full", reason="DiskFull")]})
    with pytest.raises(Transient):
        asyncio.run(one.look(B))
    assert world.told == 1
    asyncio.run(one.look(B))
    assert (world.told, world.files) == (2, [(1, A), (2, B)])
    assert one.said(B) == ("Converged", "AllStagesReached")


def test_objects_that_a_front_disables_are_not_tried_again() -> None:
    """A front that loads and disables objects is well: the commit is at fault."""
    world = World()
    one = scenario(A, world=world)
    world.faults["read back"] = [NotLoaded("bad", "ObjectsDisabled")]
    asyncio.run(one.look(B))
    asyncio.run(one.look(B))
    assert world.files == [(1, A), (2, B), (3, A)]


def test_a_first_generation_that_is_late_stays_and_converges() -> None:
    """There is nothing to go back to: it is held, agents are told, and it converges when the front loads it."""
    world = World(faults={"read back": [late()]})
    one = scenario(A, world=world)
    assert one.said(A) == ("Held", "ReadBackFailed")
    assert "resume" in world.calls
    asyncio.run(one.look(A))
    assert one.said(A) == ("Converged", "AllStagesReached")
    assert world.files == [(1, A)]


def test_a_read_back_cut_short_is_judged_later() -> None:
    """Cut short by a wake, a generation that never loads is still found out."""
    world = World(loaded=False)
    one = scenario(A, world=world, read_back_seconds=0.0)
    world.loaded = True
    asyncio.run(one.look(A))
    world.loaded = False
    asyncio.run(one.look(B))
    assert one.status(B).state == "Progressing"
    world.faults["look"] = [late()]
    asyncio.run(one.look(B))
    assert one.said(B) == ("Held", "ReadBackFailed")


def test_without_a_branch_the_loop_goes_on() -> None:
    """A missing branch, a fault and a bug each end a pass and not the loop."""
    faults: Iterable[Exception] = (Rejected("none", reason="BranchMissing"), Transient("x"), Broken("y"), KeyError("z"))
    world = World(faults={"head": list(faults)})

    async def run() -> Bench:
        one = bench(world)
        task = asyncio.create_task(one.loop.run())
        while one.loop.published.revision != A:
            one.loop.wake()
            await asyncio.sleep(0.001)
            assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return one

    one = asyncio.run(asyncio.wait_for(run(), 30))
    assert one.said(A) == ("Converged", "AllStagesReached")


def test_a_restart_takes_up_the_record_of_what_is_published() -> None:
    """A record that was written less far than the commit came goes on from what is published."""
    world = World()

    async def run() -> Bench:
        one = bench(world)
        state: Any = SimpleNamespace(fleet=None)
        await one.loop.resume(Published(7, A, state, confirmed=False), Published())
        assert one.said(A) == ("Progressing", "WaitingLoaded")
        await one.look(A)
        return one

    one = asyncio.run(run())
    assert one.said(A) == ("Converged", "AllStagesReached")
    assert one.status(A).generation == 7
    assert one.status(A).commit.subject == "aaa"
    assert world.files == []


@pytest.mark.parametrize("head", [A, B])
def test_what_is_published_is_found_again_when_it_comes_back(head: str) -> None:
    """Gone at the start, back with the branch: a commit is compared with it again, not with nothing."""
    world = World()
    state: Any = SimpleNamespace(fleet=None)
    lost = Published(7, A, state, is_lost=True)
    bases: list[Published] = []
    accept = world.accept

    async def noting(this: Pass, mode: str) -> None:
        bases.append(this.base)
        await accept(this, mode)

    world.accept = noting  # type: ignore[method-assign]

    async def run() -> Bench:
        one = bench(world)
        await one.loop.resume(lost, lost)
        world.found = lost
        world.faults["accept"] = [Rejected("rewritten", reason="HistoryRewritten")]
        await one.look(C)
        await one.look(C)
        assert one.loop.published.is_lost
        world.found = Published(7, A, state)
        world.generation = 7
        await one.look(head)
        return one

    one = asyncio.run(run())
    assert not one.loop.published.is_lost
    assert one.said(head) == ("Converged", "AllStagesReached")
    assert [base.is_lost for base in bases] == ([True, False] if head == B else [True])
    assert world.calls.count("take up") == 2
    assert world.files == ([(8, B)] if head == B else [])


def test_who_does_not_let_go_of_a_front_is_told_of_once() -> None:
    """Looks in a row that each mend a file are one event; after a look that finds it whole, the next is another."""
    world = World()
    one = scenario(A, world=world)
    for spoilt in (True, True, True, False, True):
        world.spoilt = spoilt
        asyncio.run(one.look())
    assert [event.type for event in world.events].count("FrontRepaired") == 2


async def meanwhile(one: Bench) -> None:
    await one.loop._meanwhile()


def test_a_new_certificate_is_another_generation_of_the_same_revision() -> None:
    """The record stays converged and names the generation; the next look finds nothing to do."""

    async def run() -> None:
        one = bench()
        await one.look(A)
        one.pairs.overlay = Overlay(roots="new")
        await meanwhile(one)
        await meanwhile(one)
        assert one.world.files == [(1, A), (2, A)]
        assert one.loop.published.overlay is one.pairs.overlay
        assert one.loop.published.confirmed
        assert one.status(A).generation == 2
        assert one.pairs.in_service == [A, A]
        assert one.world.pushed == [(1, A)]
        await one.look()
        assert one.world.files == [(1, A), (2, A)]

    asyncio.run(run())


def test_what_agents_are_told_beside_the_repository_is_another_generation_too() -> None:
    """They get their documents anew, and the record stays as it was."""

    async def run() -> None:
        one = bench()
        await one.look(A)
        one.world.news = True
        await meanwhile(one)
        await meanwhile(one)
        assert one.world.files == one.world.pushed == [(1, A), (2, A)]
        assert one.status(A).generation == 2

    asyncio.run(run())


def test_a_revision_that_waits_for_a_person_goes_on_waiting_when_a_certificate_is_renewed() -> None:
    """What is published gets the certificate; what is held is neither looked at again nor closed."""

    async def run() -> None:
        one = bench(World(faults={"plan": []}))
        await one.look(A)
        one.world.faults["plan"].append(Rejected("too much", reason="DeletionGuard", approve="sha256:1"))
        await one.look(B)
        one.pairs.overlay = Overlay(roots="new")
        await meanwhile(one)
        assert one.world.files == [(1, A), (2, A)]
        assert one.said(B) == ("Held", "DeletionGuard")
        calls = len(one.world.calls)
        await one.look(B)
        assert one.world.calls[calls:] == ["head"]

    asyncio.run(run())


def test_a_commit_that_changes_nothing_brings_a_new_certificate_along() -> None:
    """It is published although its plan is empty."""

    async def run() -> None:
        one = bench(World(empty={B}))
        await one.look(A)
        one.pairs.overlay = Overlay(roots="new")
        await one.look(B)
        assert one.world.files == [(1, A), (2, B)]

    asyncio.run(run())


def test_a_certificate_that_cannot_be_published_is_tried_again_at_the_next_look() -> None:
    """A fault between polls ends nothing, and is no failure of the revision."""

    async def run() -> None:
        one = bench(World(faults={"publish": []}))
        await one.look(A)
        one.world.faults["publish"] += [Transient("disk full", reason="DiskFull"), Broken("no"), RuntimeError("bug")]
        one.pairs.overlay = Overlay(roots="new")
        for _ in range(4):
            await meanwhile(one)
        assert one.world.files == [(1, A), (2, A)]
        assert one.said(A)[0] == "Converged"

    asyncio.run(run())


def test_routes_that_wait_for_a_certificate_are_settled_without_it() -> None:
    """The pass is settled once more, and goes on to publish the rest."""

    async def run() -> None:
        one = bench()
        waits = ObjectKey("Route", "shop", "web")
        one.pairs.waiting = {waits: Finding(waits.path, "certificate-pending", "not there yet", "", ())}
        await one.look(A)
        assert one.world.calls.count("settle") == 2
        assert one.world.files == [(1, A)]

    asyncio.run(run())


def test_what_is_done_between_polls_is_done_while_the_remote_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote that does not answer keeps nothing from fronts; what it says in the end counts."""

    async def run() -> None:
        monkeypatch.setattr("reconciler.loop.MEANWHILE_SECONDS", 0.01)
        world, done = World(), asyncio.Event()
        one = bench(world)
        await one.look(A)

        async def slowly() -> str:
            await done.wait()
            return B

        async def beside() -> None:
            done.set()

        one.loop._head, one.loop.beside = slowly, beside
        await asyncio.wait_for(one.loop.reconcile_once(), 5)
        assert world.files == [(1, A), (2, B)]

    asyncio.run(run())
