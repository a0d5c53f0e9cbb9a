"""The loop: poll, wake, back off; and one pass, step by step.

A pass brings the newest commit of the branch into service:

    fetch ─▶ accept ─▶ read ─▶ prepare (settle ─▶ certificates ─▶ plan ─▶ render ─▶ preflight)
                                                                      ─▶ publish ─▶ read back ─▶ push

Each step is a method of :mod:`reconciler.steps`; here is only their order, what their errors mean, and when the next
pass starts. Nothing is visible before ``publish``; a pass that ends before it leaves everything as it was. What changes
beside the repository, such as a renewed certificate, becomes another generation of the same revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Literal

from reconciler.desired.render import RenderError
from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.observability.logs import bind_revision, get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.certificates import Certificates
from reconciler.steps.collecting import collector_paused
from reconciler.steps.delivery import Delivery
from reconciler.steps.desire import Desire
from reconciler.steps.fronts import Fronts
from reconciler.steps.in_service import InService
from reconciler.steps.passing import Pass, Published
from reconciler.steps.preparing import Preparing
from reconciler.steps.renewing import Renewing
from reconciler.steps.source import Repository, SignatureMode, Source
from reconciler.store.protocols import Event, EventStore
from reconciler.waking import LEAST, MEANWHILE_SECONDS, Waking
from schemas.problem import Problem
from schemas.status import STAGES, RevisionState, Stage

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]

HELD: Final = frozenset(
    {"HistoryRewritten", "DeletionGuard", "DataLoss", "SignatureMissing", "PreflightFailed", "ReadBackFailed"}
)
"""Reasons for which a person is asked; every other rejection is a failure that only a new commit mends."""
MAX_OVERTAKEN: Final = 3
"""Passes in a row that a newer commit may end before one is published nevertheless: who pushes without a pause must not
keep everybody waiting."""
READ_BACK_SECONDS: Final = 20.0


class Reconciler:
    """Owns what is published. All of it happens in one task, so one pass is under way at a time."""

    def __init__(
        self,
        *,
        repository: Repository,
        head: Callable[[], Awaitable[str]],
        source: Source,
        desire: Desire,
        certificates: Certificates,
        fronts: Fronts,
        delivery: Delivery,
        tracker: Tracker,
        events: EventStore,
        metrics: Metrics,
        waking: Waking,
        read_back_seconds: float = READ_BACK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._head = head
        self._source = source
        self._desire = desire
        self._certificates = certificates
        self._preparing = Preparing(desire, certificates, fronts, tracker, metrics)
        self._fronts = fronts
        self._delivery = delivery
        self._tracker = tracker
        self._events = events
        self._metrics = metrics
        self._waking = waking
        self._wake = waking.woken
        self._clock = clock
        self.service = InService(
            fronts, delivery, tracker, metrics, self, read_back_seconds=read_back_seconds, clock=clock
        )
        self._renewing = Renewing(
            certificates, self._preparing, delivery, self.service, tracker, metrics, self._put_in_place, self._wake
        )
        self.beside: Callable[[], Awaitable[None]] = _nothing
        """Done between polls as well, after certificates; raises nothing."""
        self._considered = ""
        """Revision that needs no further pass: published, or waiting for a person or a new commit."""
        self._overtaken = 0
        """Passes in a row that a newer commit ended."""
        self._asked = False
        """Somebody wants it to be considered again; stays set while a pass is under way that may have missed why."""
        self.ready = False
        """A first look at the remote has succeeded."""

    @property
    def published(self) -> Published:
        """What fronts and agents have, or are being given."""
        return self.service.published

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of the newest revision that was settled."""
        return self._preparing.problems

    # --- waiting ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now instead of at the next poll. Many calls cost no more than one."""
        self._wake.set()

    def reconsider(self) -> None:
        """Look again at a revision that was held: somebody approved it, or something outside has changed."""
        self._asked = True
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever. Ends only by being cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.reconcile_once()
            except (Transient, Rejected, Broken) as error:
                log.warning("pass failed, trying again", reason=_reason(error), error=str(error))
                self._metrics.poll(_reason(error))
                wait = getattr(error, "retry_after", None) or LEAST
                await self._waking.after_failure(self._meanwhile, at_least=wait)
            except Exception:  # a bug must not end the loop: what is published stays in service
                log.exception("pass ended by a bug, trying again")
                self._metrics.poll("InternalError")
                await self._waking.after_failure(self._meanwhile, at_least=1.0)
            else:
                self._metrics.poll()
                if self._asked:  # while the pass was under way, which may have taken the wake-up for a newer commit
                    self._wake.set()
                await self._waking.after_success(self._meanwhile)

    async def _meanwhile(self) -> None:
        """Look after the fronts between polls, which costs a stat."""
        try:
            await self.service.look_after()
            await self.service.catch_up()
        except (Transient, Broken) as error:  # the next pass meets it again, and says so
            log.debug("fronts cannot be looked after", error=str(error))
        except Exception:
            log.exception("looking after the fronts ended by a bug")
        else:
            await self._renewing.look()
            await self.beside()

    # --- one look -----------------------------------------------------------------------------------------------

    async def resume(self, published: Published, confirmed: Published) -> None:
        """Go on from what was published before a restart."""
        self.service.resume(published, confirmed)
        self._considered = published.revision
        digests = {name: digest for name, (_, digest) in published.agents.items()}
        await self._tracker.load(digests, published.revision)
        await self._delivery.resume(published)
        self._metrics.serving(published.generation, published.revision)
        self._preparing.problems = await self._desire.locate(published.state)
        if published.revision:
            await self._take_up(published)

    async def _take_up(self, published: Published) -> None:
        """Go on with the record of what is published, which may have been written less far than it came."""
        revision, tracker = published.revision, self._tracker
        if await tracker.is_done(revision):
            tracker.newest = revision
            return
        tracker.begin(revision)
        with contextlib.suppress(Rejected, Transient):
            tracker.note(revision, commit=await self._source.describe(revision))
        tracker.note(revision, generation=published.generation)
        tracker.reach(revision, *STAGES[: STAGES.index("published") + 1])
        if published.confirmed:
            tracker.reach(revision, "loaded")
        tracker.reach(revision, "pushed")
        concerned = {name: digest for name, (at, digest) in published.agents.items() if at == published.generation}
        record = tracker.get(revision)
        waited_for = {} if record is None else dict(record.wanted)  # in earlier waves of its roll-outs
        tracker.concern(revision, waited_for | concerned, self._delivery.connected)
        await tracker.flush()

    async def reconcile_once(self) -> None:
        """Look at the remote once; bring a new commit into service, or look after what is there.

        Raises:
            Transient, Broken: when it should be tried again after a pause.
            Rejected: when the remote has no such branch.
        """
        await self.service.look_after()
        revision = await self._ask_head()
        self.ready = True
        if self._asked:
            self._asked, self._considered = False, ""
        if revision == self._considered:
            return
        if self.published.is_lost:
            await self._find_again()
        with bind_revision(revision):
            if revision == self.published.revision:
                await self._return_to(revision)
            else:
                await self._bring(revision)

    async def _ask_head(self) -> str:
        """Ask the remote, and do what is done between polls while it takes its time."""
        asking = asyncio.ensure_future(self._head())
        try:
            while not (await asyncio.wait({asking}, timeout=MEANWHILE_SECONDS))[0]:
                await self._meanwhile()
            return asking.result()
        finally:
            asking.cancel()

    async def _find_again(self) -> None:
        """Look once more for what is published: the branch has moved, so it may have come back."""
        found = await self._fronts.take_up(self._clock(), self._certificates.overlay)
        if not found.published.is_lost:
            await self.resume(found.published, found.confirmed)

    async def _return_to(self, revision: str) -> None:
        """The branch is back where it was before something that was held: there is nothing to do."""
        self._considered = self._tracker.newest = revision
        await self._supersede(revision)
        await self._tracker.flush()

    async def _bring(self, revision: str) -> None:
        this = Pass(revision, self.published)
        self._tracker.begin(revision)
        try:
            with self._metrics.stage("fetched"):
                await self._source.fetch(this)
            self._tracker.note(revision, commit=this.commit)
            self._tracker.reach(revision, "fetched")
            await self._steps(this)
        except Rejected as error:
            state: RevisionState = "Held" if error.reason in HELD else "Failed"
            await self._stop(revision, state, error.reason, str(error), error.approve)
        except Overtaken as newer:
            log.info("a newer commit came first")
            await self._fronts.discard()
            self._tracker.supersede(revision, str(newer))
        except RenderError as error:  # no later try would end otherwise
            await self._stop(revision, "Failed", "RenderFailed", str(error))
        except (Transient, Broken) as error:
            self._tracker.wait(revision, _reason(error), str(error))
            raise
        except Exception as bug:
            text = f"a bug ended the pass ({type(bug).__name__}); the log has the details, and what is published stays"
            self._tracker.stop(revision, "Failed", "InternalError", text)
            raise
        finally:
            await self._tracker.flush()
            await self._desire.keep()

    async def _steps(self, this: Pass) -> None:
        """The way of a commit."""
        await self._source.accept(this, self._signature_mode())
        with collector_paused():
            await self._stage(this, "validated", self._desire.read)
            if self.published.state.fleet is None:
                await self._source.check_first(this)
            await self._preparing.prepare(this)
        if this.plan is not None and this.plan.empty and this.overlay is self.published.overlay:
            await self._adopt(this)
            return
        await self._raise_if_overtaken(this)
        await self._publish(this)

    async def _publish(self, this: Pass) -> None:
        revision = this.revision
        await self._stage(this, "published", self._put_in_place)
        self._overtaken = 0
        self._considered = revision
        await self._supersede(revision)
        self._tracker.note(revision, generation=this.generation)
        self._metrics.published(this.generation, revision)
        if not await self.service.read_back(self._wake):
            return
        await self._push(this)
        log.info("published", generation=this.generation, agents=len(this.items), problems=len(this.problems))
        await self._tell("RevisionPublished", "info", f"generation {this.generation} is published", revision)

    async def _put_in_place(self, this: Pass) -> None:
        """The commit point: certificates first, because no front may name one whose key could be lost."""
        this.generation = this.generation or await self._fronts.next_generation()
        self._delivery.assign(this)
        await self._certificates.put_into_service(this)
        published = Published(
            this.generation, this.revision, this.state, this.rendered, this.agents, this.rollouts, this.releases
        )
        published = replace(
            published, overlay=this.overlay, placements=this.placements, confirmed=not self._fronts.fronts
        )
        await self._fronts.publish(published, self._clock(), this.staged)
        self.service.put(published)

    async def _push(self, this: Pass) -> None:
        with self._metrics.stage("pushed"):
            wanted = await self._delivery.push(self.published, this.items)
        self._tracker.reach(this.revision, "pushed")
        self._tracker.concern(this.revision, wanted, self._delivery.connected)

    async def _adopt(self, this: Pass) -> None:
        """The commit changes nothing that is in service: what is published is its state already."""
        state = this.state
        adopted = replace(self.published, revision=this.revision, state=state)
        await self._certificates.put_into_service(this)
        await self._fronts.remember(adopted, self._clock())
        self.service.stands_for(adopted)
        self._considered = this.revision
        done: tuple[Stage, ...] = ("rendered", "preflighted", "published", "pushed")
        await self._supersede(this.revision)
        self._tracker.note(this.revision, generation=adopted.generation or None)
        self._tracker.reach(this.revision, *done, *(("loaded",) if adopted.confirmed else ()))
        self._tracker.concern(this.revision, {}, ())

    async def _supersede(self, newer: str) -> None:
        """Close the records that ``newer`` overtakes. Mostly there are none, so that git need not be asked."""
        for record in self._tracker.open():
            if record.revision == newer:
                continue
            part = False
            with contextlib.suppress(Rejected, Transient):
                part = await self._repository.descends(newer, record.revision)
            self._tracker.supersede(record.revision, newer, part=part)

    # --- small parts --------------------------------------------------------------------------------------------

    async def _stage(self, this: Pass, stage: Stage, step: Callable[[Pass], Awaitable[None]]) -> None:
        with self._metrics.stage(stage):
            await step(this)
        if stage != "validated":
            self._tracker.reach(this.revision, stage)

    async def _raise_if_overtaken(self, this: Pass) -> None:
        """The newest commit wins: when somebody woke us meanwhile, look whether there is a newer one."""
        if self._wake.is_set() and self._overtaken < MAX_OVERTAKEN:
            self._wake.clear()
            newest = await self._head()
            if newest != this.revision:
                self._overtaken += 1
                self._wake.set()
                raise Overtaken(newest)

    async def _stop(self, revision: str, state: RevisionState, reason: str, message: str, approve: str = "") -> None:
        self._considered = revision
        self._tracker.stop(revision, state, reason, message, approve=approve)
        log.warning("revision not taken", state=state, reason=reason, message=message)
        severity: Severity = "error" if state == "Failed" else "warning"
        await self._tell(f"Revision{state}", severity, f"{reason}: {message}", revision)

    async def hold(self, revision: str, reason: str, message: str) -> None:
        """Let a revision that was published wait for a person."""
        await self._stop(revision, "Held", reason, message)

    async def repaired(self, revision: str) -> None:
        """Tell that a front's file had to be written again."""
        await self._tell(
            "FrontRepaired", "warning", "a front's file had been changed or removed; it was restored", revision
        )

    def _signature_mode(self) -> SignatureMode:
        fleet = self.published.state.fleet
        return fleet.spec.signatures.mode if fleet is not None else "none"

    async def _tell(self, kind: str, severity: Severity, message: str, revision: str) -> None:
        self._metrics.event(severity)
        await self._events.append(Event(self._clock(), kind, severity, f"revision/{revision}", message, revision))


async def _nothing() -> None:
    return None


def _reason(error: CloudLunacyError) -> str:
    return str(getattr(error, "reason", "Broken"))


class Overtaken(Exception):
    """A newer commit, which the message names, came before this one was published."""
