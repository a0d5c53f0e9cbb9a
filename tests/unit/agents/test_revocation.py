"""Locking agents out: what counts at once, what git is told, and what the deletion guard is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.agents.certificates import AgentCertificates
from reconciler.agents.enrolment import compose
from reconciler.agents.group_commit import GroupCommitter
from reconciler.agents.rates import Bucket
from reconciler.agents.revocation import Revocations, compose_revocation
from reconciler.errors import Refused, Transient
from reconciler.store.protocols import Approval, Barred, OutboxEntry
from schemas.access_api import AgentRevocation, RevocationRequest
from schemas.agent import Agent
from schemas.fleet import Fleet
from schemas.plan import DataLoss, ObjectChange, Plan
from tests.support.memory_remote import MemoryRemote
from tests.support.memory_store import Died, Disk, MemoryStore
from tests.support.waiting import eventually
from tests.unit.agents.enrolling import FAST, NoAuthority, World, fleet

KEY = "k" * 43
OTHER = "o" * 43
OPERATOR = "operator:local"
AUTHOR = ("Ada Lovelace", "ada@example.com")
FILE = "agents/vps-1.yaml"
GOOD = f"""# mine
apiVersion: cloudlunacy/v1
kind: Agent
metadata: {{name: vps-1}}
spec:
  address: 10.0.0.1  # the small one
  identity: {{thumbprint: {KEY}}}
"""


class Store(MemoryStore):
    """With approvals."""

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(disk)
        self.approved: list[Approval] = []

    async def approve(self, approval: Approval) -> None:
        self.approved.append(approval)

    async def approval(self, checksum: str) -> Approval | None:
        return next((one for one in self.approved if one.checksum == checksum), None)

    async def approvals(self, **_: Any) -> Sequence[Approval]:
        return self.approved[::-1]


class Hub:
    def __init__(self) -> None:
        self.connected = frozenset({"vps-1"})
        self.closed: list[str] = []

    def revoke(self, names: Iterable[str]) -> None:
        self.closed.extend(names)
        self.connected -= set(names)


class Authority(NoAuthority):
    """Remembers whom it revoked."""

    def __init__(self) -> None:
        self.revoked: list[tuple[str, str]] = []

    def revoke(self, name: str, reason: Any, now: float) -> int:
        self.revoked.append((name, reason))
        return 1


@dataclass
class Out:
    """A control plane with one agent, which somebody wants out."""

    world: World
    store: Store
    committer: GroupCommitter
    revocations: Revocations
    hub: Hub = field(default_factory=Hub)
    reconsidered: int = 0

    async def revoke(self, name: str = "vps-1", **wanted: Any) -> AgentRevocation:
        return await self.revocations.revoke(name, RevocationRequest(**wanted), actor=OPERATOR, author=AUTHOR)

    def publish(self) -> frozenset[str]:
        """Bring into service what the branch holds."""
        yaml = YAML(typ="safe", pure=True)
        agents = [Agent.model_validate(yaml.load(one.decode())) for one in self.world.remote.main.values()]
        gone = self.world.directory.update({agent.metadata.name: agent for agent in agents})
        self.revocations.published()
        return gone


def a_world(text: str = GOOD, made: Fleet | None = None) -> World:
    world = World(remote=MemoryRemote({FILE: text.encode()}), fleet=made or fleet(), issuer=Authority())
    yaml = YAML(typ="safe", pure=True)
    world.directory.update({"vps-1": Agent.model_validate(yaml.load(GOOD))})
    return world


def composed(entry: OutboxEntry) -> Any:
    return (compose if entry.kind == "enrolment" else compose_revocation)(entry, branch="main")


def run(
    scenario: Callable[[Out], Awaitable[object]], world: World | None = None, *, answer_seconds: float = 5
) -> World:
    world = world or a_world()

    async def main() -> None:
        store, hub = Store(world.disk), Hub()
        committer = GroupCommitter(store, world.remote, composed, pace=Bucket(1000, 1000), timing=FAST)
        certificates = AgentCertificates(world.issuer, world.directory, lambda: world.fleet, store)

        def reconsider() -> None:
            out.reconsidered += 1

        revocations = Revocations(
            store=store, committer=committer, directory=world.directory, hub=hub, certificates=certificates,
            fleet=lambda: world.fleet, reconsider=reconsider, answer_seconds=answer_seconds, clock=lambda: world.now,
        )  # fmt: skip
        out = Out(world, store, committer, revocations, hub)
        await revocations.load()
        tasks = [asyncio.create_task(one) for one in (committer.run(), revocations.run())]
        await committer.resumed.wait()
        try:
            await scenario(out)
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(main())
    return world


def test_everything_counts_at_once_and_git_is_told() -> None:
    """The key counts no more, the connection is closed, the certificate revoked, the file gone in one commit."""

    async def scenario(out: Out) -> None:
        done = await out.revoke(reason="its disk was sold")
        assert out.world.directory.thumbprint("vps-1") is None
        assert out.hub.closed == ["vps-1"]
        assert out.world.issuer.revoked == [("vps-1", "cessationOfOperation")]  # type: ignore[attr-defined]
        assert (done.state, done.disconnected, done.certificates) == ("committed", True, 1)
        assert out.world.remote.main == {}
        (commit,) = out.world.remote.log
        assert (commit.author_name, commit.author_email) == AUTHOR
        assert (commit.subject, commit.body) == ("Revoke agent vps-1", "its disk was sold")
        assert commit.trailers == {"CloudLunacy-Actor": OPERATOR, "CloudLunacy-Thumbprint": KEY}

    run(scenario)


def test_quarantine_keeps_the_file_and_ends_the_bar_once_it_is_in_service() -> None:
    """One line changes, comments stay; then git decides alone, and editing the file lets the agent in again."""

    async def scenario(out: Out) -> None:
        done = await out.revoke(quarantine=True)
        assert done.state == "committed"
        assert out.world.remote.main[FILE].decode() == f"{GOOD}  state: quarantined\n"
        assert out.world.directory.thumbprint("vps-1") is None
        assert out.world.directory.may_come_back("vps-1"), "it is told so at once"
        out.publish()
        await eventually(lambda: out.world.directory.thumbprint("vps-1") == KEY)
        assert out.world.directory.quarantined("vps-1")
        assert out.world.directory.may_come_back("vps-1")
        assert out.world.disk.bars == {}
        out.world.remote.main[FILE] = GOOD.encode()
        out.publish()
        assert not out.world.directory.quarantined("vps-1")
        assert not out.world.directory.may_come_back("vps-1")
        await out.revoke()
        assert not out.world.directory.may_come_back("vps-1")

    run(scenario)


def test_reverting_the_commit_does_not_bring_a_revoked_key_back() -> None:
    """The bar outlives the file, a restart, and a file that names the key again."""

    async def revoke(out: Out) -> None:
        await out.revoke()
        out.publish()

    async def restarted(out: Out) -> None:
        out.world.remote.main[FILE] = GOOD.encode()
        out.publish()
        assert out.world.directory.thumbprint("vps-1") is None
        assert out.world.directory.barred("vps-1", KEY)
        out.world.remote.main[FILE] = GOOD.replace(KEY, OTHER).encode()
        out.publish()
        assert out.world.directory.thumbprint("vps-1") == OTHER

    run(restarted, run(revoke))


def test_a_second_time_does_what_is_left_and_no_more() -> None:
    """While the commit is on its way it is the same commit; when somebody took it back, it is made again."""
    world = a_world()
    world.remote.failures = [Transient("away")] * 3

    async def scenario(out: Out) -> None:
        first, second = await asyncio.gather(out.revoke(), out.revoke())
        assert {first.state, second.state} == {"committed"}
        assert len(world.remote.log) == 1
        assert (await out.revoke()).state == "committed"
        assert len(world.remote.log) == 1
        world.remote.main[FILE] = GOOD.encode()
        await out.revoke()
        assert (len(world.remote.log), world.remote.main) == (2, {})

    run(scenario, world)


def test_the_agent_is_out_while_the_remote_is_away() -> None:
    """The answer says that git does not know yet; a process that dies then tells it after the start."""
    world = a_world()
    world.remote.failures = [Transient("away")] * 100_000

    async def scenario(out: Out) -> None:
        done = await out.revoke()
        assert (done.state, done.certificates) == ("pending", 1)
        assert world.directory.thumbprint("vps-1") is None

    async def after(out: Out) -> None:
        assert world.directory.thumbprint("vps-1") is None
        await eventually(lambda: world.remote.main == {})

    run(scenario, world, answer_seconds=0.02)
    world.remote.failures = []
    run(after, world)


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_crash_at_the_bar_leaves_all_or_nothing(step: str) -> None:
    """Either nothing has happened, or the next process knows the bar and tells git."""
    world = a_world()

    async def scenario(out: Out) -> None:
        (out.store.die_before if step == "before" else out.store.die_after)("bar")
        with pytest.raises(Died):
            await out.revoke()

    async def after(out: Out) -> None:
        if step == "after":
            await eventually(lambda: world.remote.main == {})
        assert (world.directory.thumbprint("vps-1") is None) is (step == "after")

    run(scenario, world)
    run(after, world)


def test_in_pull_request_mode_it_is_proposed_and_out_nevertheless() -> None:
    """The branch of the fleet stays as it is; revoke/vps-1 waits to be merged."""
    world = a_world(made=fleet(registration={"mode": "pull-request"}))

    async def scenario(out: Out) -> None:
        done = await out.revoke()
        assert (done.state, done.proposal) == ("proposed", "revoke/vps-1")
        assert set(world.remote.branches["revoke/vps-1"]) == set()
        assert set(world.remote.main) == {FILE}
        out.publish()
        assert world.directory.thumbprint("vps-1") is None

    run(scenario, world)


def test_a_newer_key_is_left_alone() -> None:
    """When the machine has enrolled again by the time of the commit, the file is not the one that was meant."""
    world = a_world(GOOD.replace(KEY, OTHER))

    async def scenario(out: Out) -> None:
        assert (await out.revoke()).state == "committed"
        assert OTHER in world.remote.main[FILE].decode()
        out.publish()
        assert world.directory.thumbprint("vps-1") == OTHER

    run(scenario, world)


def test_a_file_that_cannot_be_edited_is_told_and_the_agent_stays_out() -> None:
    """Quarantining a file with aliases is for a person; deleting needs no reading."""
    text = "x: &a 1\ny: *a\n"

    async def quarantine(out: Out) -> None:
        done = await out.revoke(quarantine=True)
        assert (done.state, "by hand" in done.message) == ("conflicted", True)
        assert out.world.directory.thumbprint("vps-1") is None
        assert (await out.revoke()).state == "committed"
        assert out.world.remote.main == {}

    run(quarantine, a_world(text))


def test_an_unknown_name_is_refused() -> None:
    """Nobody is barred by a slip of the pen; one that was revoked before is known."""

    async def scenario(out: Out) -> None:
        with pytest.raises(Refused) as caught:
            await out.revoke("vps-l")
        assert (caught.value.status, caught.value.code) == (404, "unknown-agent")
        await out.revoke()
        out.publish()
        assert (await out.revoke()).state == "committed"

    run(scenario)


def plan(*deleted: str, checksum: str = "sha256:1") -> Plan:
    changes = []
    for path in deleted:
        kind, _, name = path.rpartition("/")
        changes.append(ObjectChange(action="delete", kind=kind, name=name, path=f"{path}.yaml"))
    return Plan(base="a", revision="b", checksum=checksum, changes=tuple(changes))


@pytest.mark.parametrize(
    ("deleted", "quarantine", "approved"),
    [
        (("Agent/vps-1",), False, True),
        (("Agent/vps-1", "Agent/vps-2"), False, False),
        (("Agent/vps-1", "Route/web"), False, False),
        (("Route/vps-1",), False, False),
        (("Agent/vps-1",), True, False),
        ((), False, False),
    ],
)
def test_a_plan_that_deletes_whom_an_operator_locked_out_is_approved(
    deleted: tuple[str, ...], quarantine: bool, approved: bool
) -> None:
    """Exactly that plan, in his name; whatever else it deletes is for a person."""

    async def scenario(out: Out) -> None:
        await out.revoke(quarantine=quarantine)
        out.revocations.held(plan(*deleted))
        out.revocations.held(plan("Agent/none", checksum="sha256:2"))
        if approved:
            await eventually(lambda: out.reconsidered == 1)
            assert [(one.checksum, one.approved_by) for one in out.store.approved] == [("sha256:1", OPERATOR)]
            assert [event.type for event in out.world.disk.events][-1] == "PlanApproved"
        else:
            await asyncio.sleep(0)
            assert out.store.approved == []

    run(scenario)


def test_a_plan_that_loses_data_elsewhere_waits_for_a_person() -> None:
    """Who locks one agent out has said nothing about the databases of another."""

    async def scenario(out: Out) -> None:
        await out.revoke()
        loss = DataLoss(agent="vps-2", deployment="shop/db", data=("the database",))
        out.revocations.held(plan("Agent/vps-1").model_copy(update={"losses": (loss,)}))
        assert not out.revocations._approving

    run(scenario)


def test_what_is_held_while_a_bar_is_lifted_is_approved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard may ask at any moment, and nothing wakes the task a second time."""
    world = a_world()
    second = GOOD.replace("vps-1", "vps-2").replace(KEY, OTHER).encode()
    world.remote.main["agents/vps-2.yaml"] = second

    async def scenario(out: Out) -> None:
        out.publish()
        await out.revoke("vps-2")
        world.remote.main["agents/vps-2.yaml"] = second
        await out.revoke(quarantine=True)
        unbar = out.store.unbar

        async def unbar_meanwhile(barred: Barred) -> None:
            out.revocations.held(plan("Agent/vps-2"))
            await unbar(barred)

        monkeypatch.setattr(out.store, "unbar", unbar_meanwhile)
        out.publish()
        await eventually(lambda: out.reconsidered == 1)

    run(scenario, world)


def test_a_bar_from_before_approves_no_later_deletion() -> None:
    """Whoever enrolled again with a new key is somebody else, and deleting that agent is held as any deletion is."""

    async def scenario(out: Out) -> None:
        await out.revoke()
        out.world.remote.main[FILE] = GOOD.replace(KEY, OTHER).encode()
        out.publish()
        out.revocations.held(plan("Agent/vps-1"))
        assert not out.revocations._approving

    run(scenario)
