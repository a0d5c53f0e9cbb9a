"""Changes on a real remote, without the rest of the control plane: git, the outbox and the committer are real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.agents.group_commit import GroupCommitter, Settled, Timing
from reconciler.agents.rates import Bucket
from reconciler.changes.branch import Branch
from reconciler.changes.committing import compose_change
from reconciler.changes.evaluating import state_ahead
from reconciler.changes.service import Changes
from reconciler.desired.snapshot import Change as FileChange
from reconciler.desired.state import State
from reconciler.git.mirror import Mirror
from reconciler.git.remote import Remote
from reconciler.git.write_back import WriteBack
from reconciler.pki.authenticator import Identity
from reconciler.store.protocols import OutboxEntry
from reconciler.store.sqlite import SQLiteStore
from schemas.objects import key_of_path
from tests.support.git_repos import BareRepo

FLEET = """\
apiVersion: cloudlunacy/v1
kind: Fleet
metadata:
  name: test
spec:
  domain: example.com
  teams:
    - name: shop
      hostnames: ["*.example.com"]
      agents: [vps-1, vps-2]
    - name: rival
      hostnames: [rival.example.com]
      agents: [vps-1]
"""
AGENT = """\
apiVersion: cloudlunacy/v1
kind: Agent
metadata:
  name: {name}
# Rented in May.
spec:
  address: 192.0.2.{number}
"""
ROUTE = """\
# The shop window.
apiVersion: cloudlunacy/v1
kind: Route
metadata:
  name: web
spec:
  type: http
  hostnames: [web.example.com]
  backends:
    # The old machine.
    - {agent: vps-1, port: 8081, weight: 3}
    - {agent: vps-2, port: 8081}
  tls: {mode: none}
"""
ROUTE_PATH = "routes/shop/web.yaml"
FILES = {
    "README.md": "Hello.\n",
    "fleet.yaml": FLEET,
    "agents/vps-1.yaml": AGENT.format(name="vps-1", number=1),
    "agents/vps-2.yaml": AGENT.format(name="vps-2", number=2),
    ROUTE_PATH: ROUTE,
}


def somebody(*scopes: str, team: str = "", teams: Mapping[str, frozenset[str]] | None = None) -> Identity:
    """A person with scopes, for all or for teams."""
    return Identity("person", "anna", frozenset(scopes), "t1", team=team, of_teams=teams or {})


ADMIN = somebody("admin")
OPERATOR = somebody("read", "plan", "operate", "approve", "enrol", "write")
MEMBER = somebody("read", teams={"shop": frozenset({"write"})})
VIEWER = somebody("read")


@dataclass
class Plane:
    """What tests hold in their hands."""

    remote: BareRepo
    mirror: Mirror
    store: SQLiteStore
    committer: GroupCommitter
    changes: Changes
    state: State = field(default_factory=State)
    newest: str = ""
    woken: int = 0

    async def look(self) -> None:
        """Take in what the remote has, as a pass of the loop does."""
        self.newest = await self.mirror.head()
        await self.mirror.fetch(self.newest)
        files = (await self.mirror.snapshot(self.newest)).files
        read = await self.mirror.read([file.blob for file in files.values()])
        contents = {blob: content for blob, content in read.items() if isinstance(content, bytes)}
        news = [FileChange(path, file) for path, file in files.items()]
        self.state = state_ahead(State(), self.newest, news, contents, lambda _: "")

    async def events(self) -> list[tuple[str, str, str]]:
        return [(one.type, one.subject, one.actor) for one in await self.store.events()]


def on_a_remote(
    folder: Path,
    scenario: Callable[[Plane], Awaitable[None]],
    *,
    files: Mapping[str, str] = FILES,
    remote: BareRepo | None = None,
    is_pushing: bool = True,
    **options: Any,
) -> None:
    """Run a scenario; ``is_pushing`` False: what is accepted stays in the outbox."""

    async def run() -> None:
        repo = remote or BareRepo.create(folder / "remote.git")
        if remote is None:
            repo.commit(files, message="Start")
        mirror = Mirror(folder / "mirror", Remote.parse(str(repo.path)), "main")
        store = await SQLiteStore.open(folder / "data")
        writer = WriteBack(
            mirror,
            allowed=re.compile("agents/.*"),
            persons=lambda path: key_of_path(path) is not None,
            record=store.put_own_commits,
        )

        async def settled(entry: OutboxEntry, one: Settled) -> None:
            await plane.changes.settled(entry, one)

        committer = GroupCommitter(
            store,
            writer,
            lambda entry: compose_change(entry, branch="main"),
            pace=Bucket(1000, 1000),
            timing=Timing(tell=0.0, first_pause=0.01, longest_pause=0.05),
            on_settled=settled,
        )
        plane = Plane(repo, mirror, store, committer, None)  # type: ignore[arg-type]
        plane.changes = Changes(
            store=store,
            committer=committer,
            branch=Branch(mirror, lambda: plane.newest),
            state=lambda: plane.state,
            open_sealed=lambda _: "",
            wake=lambda: setattr(plane, "woken", plane.woken + 1),
            **options,
        )
        task = asyncio.create_task(committer.run(), name="committer") if is_pushing else None
        if task is None:
            committer.resumed.set()
        try:
            await plane.look()
            await asyncio.wait_for(committer.resumed.wait(), 30)
            await scenario(plane)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            await store.close()
            await mirror.close()

    (folder / "data").mkdir(exist_ok=True)
    asyncio.run(run())
