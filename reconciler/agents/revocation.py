"""Locking an agent out: at once by a bar of its key, and for the record by a commit (docs/adr/0025).

The order, and why:

1. ``bar``: the bar and the entry of the outbox are on disk, or neither is. From here on a crash forgets nothing.
2. the directory knows the bar, so every credential of that key is refused; the hub closes the connection.
3. the certificates are revoked. Nothing waits for that but the list of revocations, so a full disk only delays it.
4. the answer, once the commit is on the remote, or after ten seconds without.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from reconciler.agents.certificates import AgentCertificates, Reason
from reconciler.agents.directory import AgentDirectory
from reconciler.agents.group_commit import CONFLICTED, PROPOSED, GroupCommitter, Job, Settled
from reconciler.desired.agent_file import revocation_edit
from reconciler.desired.edits import CommitRequest
from reconciler.errors import CloudLunacyError, Refused
from reconciler.store.protocols import Approval, ApprovalStore, Barred, BarStore, Event, EventStore, OutboxEntry
from schemas.access_api import AgentRevocation, RevocationRequest
from schemas.fleet import Fleet
from schemas.objects import ObjectKey
from schemas.plan import Plan

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 5.0
BRANCH: Final = "revoke/"


class Store(BarStore, ApprovalStore, EventStore, Protocol):
    """What has to be remembered."""


class Connections(Protocol):
    """:class:`reconciler.agents.hub.Hub`."""

    @property
    def connected(self) -> frozenset[str]: ...

    def revoke(self, names: Iterable[str]) -> None:
        """Close their connections at once."""
        ...


class Revocations:
    """``reconsider`` has a revision that is held looked at again. ``run()`` is a task of the application."""

    def __init__(
        self,
        *,
        store: Store,
        committer: GroupCommitter,
        directory: AgentDirectory,
        hub: Connections,
        certificates: AgentCertificates,
        fleet: Callable[[], Fleet | None],
        reconsider: Callable[[], None],
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._committer = committer
        self._directory = directory
        self._hub = hub
        self._certificates = certificates
        self._fleet = fleet
        self._reconsider = reconsider
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._bars: dict[tuple[str, str], Barred] = {}
        self._approving: dict[str, Barred] = {}
        """Checksum of a plan that is held → the bar by which it is approved."""
        self._lifting: dict[tuple[str, str], Barred] = {}
        self._more = asyncio.Event()

    async def load(self) -> None:
        """Take up the bars of an earlier process. Call it before anybody is let in."""
        self._bars = {(one.name, one.thumbprint): one for one in await self._store.barred()}
        self._tell_directory()

    # --- locking out ----------------------------------------------------------------------------------------------

    async def revoke(
        self, name: str, wanted: RevocationRequest, *, actor: str, author: tuple[str, str]
    ) -> AgentRevocation:
        """Lock the agent out; ``actor`` is who wants it, ``author`` its name and mail. A second time does what is left.

        Raises:
            Refused: 404 ``unknown-agent``; 503 ``not-ready`` before the first revision is in service.
        """
        fleet = self._fleet()
        if fleet is None or not self._committer.resumed.is_set():
            raise Refused("No revision is in service yet.", status=503, code="not-ready", retry_after=2.0)
        barred = await self._bar(name, wanted, actor, author, fleet)
        is_there = name in self._hub.connected
        self._hub.revoke([name])
        reason: Reason = "privilegeWithdrawn" if barred.quarantine else "cessationOfOperation"
        count = await self._certificates.revoke_now(name, reason)
        settled = await self._committer.wait(barred.entry_id, self._answer_seconds)
        return _answer(barred, settled, fleet, disconnected=is_there, certificates=count)

    async def _bar(
        self, name: str, wanted: RevocationRequest, actor: str, author: tuple[str, str], fleet: Fleet
    ) -> Barred:
        thumbprint = self._thumbprint(name)
        known = self._bars.get((name, thumbprint))
        if known and known.quarantine == wanted.quarantine and self._committer.is_pending(known.entry_id):
            return known
        now = self._clock()
        barred = Barred(
            name, thumbprint, wanted.quarantine, wanted.reason, actor, now, f"revoke-{name}-{secrets.token_hex(8)}"
        )
        entry = _entry(barred, author, fleet)
        await self._store.bar(barred, entry)
        self._bars[name, thumbprint] = barred
        self._lifting.pop((name, thumbprint), None)
        self._tell_directory()
        self._committer.add(entry)
        log.info("an agent was locked out", agent=name, thumbprint=thumbprint, actor=actor)
        await self._tell("AgentRevoked", barred, f"{actor} locked {name} out{_because(barred)}.")
        return barred

    def _thumbprint(self, name: str) -> str:
        """Find the key to bar: in service, on its way there, or barred already; an agent without one has none.

        Raises:
            Refused: 404.
        """
        found = self._directory.published(name) or self._certificates.enrolled_key(name)
        if found is None and name not in self._directory:
            found = next((key for bar, key in reversed(self._bars) if bar == name), None)
            if found is None:
                hint = "cloudlunacy status shows who is in service."
                raise Refused(f'There is no agent "{name}".', status=404, code="unknown-agent", hint=hint)
        return found or ""

    # --- what follows ---------------------------------------------------------------------------------------------

    async def settled(self, entry: OutboxEntry, settled: Settled) -> None:
        """Write down what became of a commit of ours. Whoever looks for new commits has to be woken by the caller."""
        name, actor = str(entry.payload["name"]), str(entry.payload["actor"])
        conflicted = settled.outcome.startswith(CONFLICTED)
        message = settled.outcome.removeprefix(CONFLICTED) if conflicted else f"git says that {name} is out."
        if settled.outcome == PROPOSED:
            message = f"Branch {BRANCH}{name} takes {name} out, and waits to be merged."
        await self._store.append(
            Event(
                time=self._clock(),
                type="RevocationConflicted" if conflicted else "RevocationCommitted",
                severity="warning" if conflicted else "info",
                subject=f"agent/{name}",
                message=message,
                revision=settled.revision or "",
                actor=actor,
            )
        )

    def published(self) -> None:
        """Call it when the directory knows a new state: a quarantine that is in service needs no bar any more."""
        for key, bar in self._bars.items():
            if bar.quarantine and self._directory.quarantined(bar.name):
                self._lifting[key] = bar
                self._more.set()

    def held(self, plan: Plan) -> None:
        """Call it when the deletion guard holds a plan: one that only deletes whom an operator locked out may go on."""
        bar = self._cause(plan)
        if bar is not None:
            self._approving[plan.checksum] = bar
            self._more.set()

    def _cause(self, plan: Plan) -> Barred | None:
        if plan.losses:  # nobody who locks an agent out has agreed to that
            return None
        deleted = [change for change in plan.changes if change.action == "delete"]
        bars = [self._deleting(change.name) if change.kind == "Agent" else None for change in deleted]
        return bars[0] if bars and all(bars) else None

    def _deleting(self, name: str) -> Barred | None:
        """Return the bar of the key that is in service, where it is for good."""
        bar = self._bars.get((name, self._directory.published(name) or ""))
        return bar if bar is not None and not bar.quarantine else None

    async def run(self) -> None:
        """Approve and lift for ever. A disk that is full today may not be tomorrow."""
        while True:
            await self._more.wait()
            self._more.clear()  # first: what comes while something is written wakes us once more
            try:
                await self._approve()
                await self._lift()
            except CloudLunacyError as error:
                log.warning("what follows from a revocation has to wait", error=str(error))
                self._more.set()
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # a bug must not end the task
                log.exception("what follows from a revocation ended by a bug, trying again")
                self._more.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _approve(self) -> None:
        while self._approving:
            checksum, bar = next(iter(self._approving.items()))
            now = self._clock()
            await self._store.approve(Approval(checksum, bar.by, now))
            text = f"{bar.by} approved {checksum} by locking {bar.name} out"
            await self._store.append(Event(now, "PlanApproved", "info", f"plan/{checksum}", text, actor=bar.by))
            self._approving.pop(checksum, None)
            self._reconsider()

    async def _lift(self) -> None:
        while self._lifting:
            key, bar = next(iter(self._lifting.items()))
            await self._store.unbar(bar)
            self._lifting.pop(key, None)
            if self._bars.get(key) == bar:
                del self._bars[key]
                self._tell_directory()

    def _tell_directory(self) -> None:
        self._directory.bar(self._bars, (key for key, bar in self._bars.items() if bar.quarantine))

    async def _tell(self, kind: str, barred: Barred, message: str) -> None:
        await self._store.append(Event(barred.at, kind, "warning", f"agent/{barred.name}", message, actor=barred.by))


def _because(barred: Barred) -> str:
    return f": {barred.reason}" if barred.reason else ""


def _entry(barred: Barred, author: tuple[str, str], fleet: Fleet) -> OutboxEntry:
    payload = {
        "name": barred.name,
        "thumbprint": barred.thumbprint,
        "quarantine": barred.quarantine,
        "reason": barred.reason,
        "actor": barred.by,
        "author": list(author),
        "mode": fleet.spec.registration.mode,
    }
    return OutboxEntry(barred.entry_id, "revocation", payload, barred.at)


def _answer(
    barred: Barred, settled: Settled | None, fleet: Fleet, *, disconnected: bool, certificates: int | None
) -> AgentRevocation:
    outcome = "" if settled is None else settled.outcome
    conflicted, proposed = outcome.startswith(CONFLICTED), outcome == PROPOSED
    pulls = fleet.spec.registration.mode == "pull-request"
    return AgentRevocation(
        name=barred.name,
        state="conflicted" if conflicted else "proposed" if proposed else "committed" if outcome else "pending",
        quarantine=barred.quarantine,
        file=ObjectKey("Agent", "", barred.name).path,
        revision=(settled.revision if settled is not None else None) or "",
        proposal=f"{BRANCH}{barred.name}" if pulls else "",
        message=outcome.removeprefix(CONFLICTED) if conflicted else "",
        disconnected=disconnected,
        certificates=certificates,
    )


def compose_revocation(entry: OutboxEntry, *, branch: str) -> Job:
    """Turn a revocation into its commit on ``branch``, or on ``revoke/<name>`` in mode pull-request.

    Raises:
        KeyError, TypeError, ValueError: when the payload is not one of ours.
    """
    said = entry.payload
    name, thumbprint, actor = str(said["name"]), str(said["thumbprint"]), str(said["actor"])
    quarantine, reason = bool(said["quarantine"]), str(said["reason"])
    author, mail = said["author"]
    request = CommitRequest(
        id=entry.id,
        path=ObjectKey("Agent", "", name).path,
        edit=revocation_edit(name, thumbprint, quarantine=quarantine),
        subject=f"{'Quarantine' if quarantine else 'Revoke'} agent {name}",
        body=reason or f"{actor} locked {name} out.",
        author_name=str(author),
        author_email=str(mail),
        time=datetime.fromtimestamp(entry.accepted_at, UTC),
        trailers={"CloudLunacy-Actor": actor} | ({"CloudLunacy-Thumbprint": thumbprint} if thumbprint else {}),
    )
    if said["mode"] == "pull-request":
        return Job(request, f"{BRANCH}{name}", base=branch, proposal=True)
    return Job(request, branch)
