"""The loop: poll, wake, back off; and one pass, step by step.

A pass brings the newest commit of the branch into service:

    fetch ─▶ accept ─▶ read ─▶ settle ─▶ plan ─▶ render ─▶ preflight ─▶ publish ─▶ read back ─▶ push

Each step is a method of :mod:`reconciler.steps`; here is only their order, what their errors mean, and when the next
pass starts. Nothing is visible before ``publish``; a pass that ends before it leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from reconciler.errors import Broken, Rejected, Transient
from reconciler.observability.logs import bind_revision, get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.delivery import Delivery
from reconciler.steps.desire import Desire
from reconciler.steps.fronts import Fronts, NotLoaded, PreflightRefused
from reconciler.steps.passing import Pass, Published
from reconciler.steps.source import Repository, SignatureMode, Source
from reconciler.store.protocols import Event, EventStore
from schemas.problem import Problem
from schemas.status import RevisionState, Stage

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]

HELD: Final = frozenset({"HistoryRewritten", "DeletionGuard", "SignatureMissing", "PreflightFailed", "ReadBackFailed"})
"""Reasons for which a person is asked; every other rejection is a failure that only a new commit mends."""
FRONT_SECONDS: Final = 1.0
"""How often fronts are looked after between polls."""
MAX_ROUNDS: Final = 5
"""Times that a pass is settled again without the objects that the throwaway Traefik refused."""
JITTER: Final = 0.1
BACKOFF_FIRST: Final = 1.0
BACKOFF_MOST: Final = 300.0


@dataclass(frozen=True, slots=True)
class Wakes:
    """How often something outside may make the loop look: ``burst`` at once, one more every ``seconds``."""

    burst: int = 5
    seconds: float = 1.0


class Reconciler:
    """Owns what is published. All of it happens in one task, so one pass is under way at a time."""

    def __init__(
        self,
        *,
        repository: Repository,
        head: Callable[[], Awaitable[str]],
        source: Source,
        desire: Desire,
        fronts: Fronts,
        delivery: Delivery,
        tracker: Tracker,
        events: EventStore,
        metrics: Metrics,
        poll_seconds: float,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[float, float], float] = random.uniform,
        wakes: Wakes = Wakes(),
    ) -> None:
        self.published = Published()
        self._confirmed = self.published
        self._repository = repository
        self._head = head
        self._source = source
        self._desire = desire
        self._fronts = fronts
        self._delivery = delivery
        self._tracker = tracker
        self._events = events
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._clock = clock
        self.problems: tuple[Problem, ...] = ()
        """Of the newest revision that was settled."""
        self._random = randomness
        self._wake = asyncio.Event()
        self._wakes = wakes
        self._considered = ""
        """Revision that needs no further pass: published, or waiting for a person or a new commit."""
        self.ready = False
        """A first look at the remote has succeeded."""

    # --- waiting ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now instead of at the next poll. Many calls cost no more than one."""
        self._wake.set()

    def reconsider(self) -> None:
        """Look again at a revision that was held: somebody approved it, or something outside has changed."""
        self._considered = ""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever. Ends only by being cancelled."""
        failures = 0
        tokens, refilled = float(self._wakes.burst), time.monotonic()
        while True:
            delay = await self._attempt(failures)
            failures = 0 if delay is None else failures + 1
            pause = self._poll_seconds * self._random(1 - JITTER, 1 + JITTER) if delay is None else delay
            now = time.monotonic()
            tokens = min(self._wakes.burst, tokens + (now - refilled) / self._wakes.seconds)
            refilled = now
            if tokens < 1:
                await asyncio.sleep(min(pause, (1 - tokens) * self._wakes.seconds))
            if await self._woken_within(pause):
                tokens -= 1

    async def _woken_within(self, seconds: float) -> bool:
        """Wait for the next poll or a wake, whichever is first; meanwhile look after the fronts, which costs a stat."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._wake.wait(), min(left, FRONT_SECONDS))
            except TimeoutError:
                with contextlib.suppress(Transient, Broken):  # the next pass meets it again, and says so
                    await self._look_after_fronts()
            else:
                return True
        return False

    async def _attempt(self, failures: int) -> float | None:
        """Reconcile once. Returns None, or the pause after a failure, in seconds."""
        self._wake.clear()
        try:
            await self.reconcile_once()
        except (Transient, Broken) as error:
            wait = getattr(error, "retry_after", None) or 0.0
            pause = max(wait, self._random(0, min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures, 10))))
            log.warning("pass failed, trying again", reason=getattr(error, "reason", "Broken"), error=str(error))
            self._metrics.poll(getattr(error, "reason", "Broken"))
            return max(pause, 0.05)
        except Exception:  # a bug must not end the loop: what is published stays in service
            log.exception("pass ended by a bug, trying again")
            self._metrics.poll("InternalError")
            return max(1.0, self._random(0, min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures, 10))))
        self._metrics.poll()
        return None

    # --- one look -----------------------------------------------------------------------------------------------

    async def resume(self, published: Published, confirmed: Published) -> None:
        """Go on from what was published before a restart."""
        self.published, self._confirmed = published, confirmed
        self._considered = published.revision
        await self._delivery.resume(published)
        self._metrics.serving(published.generation, published.revision)

    async def reconcile_once(self) -> None:
        """Look at the remote once; bring a new commit into service, or look after what is there.

        Raises:
            Transient, Broken: when it should be tried again after a pause.
        """
        await self._look_after_fronts()
        revision = await self._head()
        self.ready = True
        if revision == self._considered:
            return
        with bind_revision(revision):
            await self._bring(revision)

    async def _look_after_fronts(self) -> None:
        """Undo what was changed by hand, and confirm a generation that could not be read back earlier."""
        if not self.published.revision:
            return
        if await self._fronts.repair(self.published):
            await self._tell("FrontRepaired", "warning", "a front's file had been changed or removed; it was restored")
        if not self.published.confirmed and await self._fronts.is_loaded(self.published):
            await self._confirm(self.published)

    async def _bring(self, revision: str) -> None:
        this = Pass(revision, self.published)
        with self._metrics.stage("fetched"):
            await self._source.fetch(this)
        self._tracker.begin(revision, await self._source.describe(revision))
        self._tracker.reach(revision, "fetched")
        try:
            await self._steps(this)
        except Rejected as error:
            await self._stop(this, "Held" if error.reason in HELD else "Failed", error.reason, str(error))
        except Overtaken as newer:
            log.info("a newer commit came first")
            self._tracker.supersede(str(newer), [revision])
        except Transient as error:
            self._tracker.wait(revision, error.reason, str(error))
            raise
        except Broken as error:
            self._tracker.wait(revision, "Broken", str(error))
            raise
        except Exception:
            self._tracker.stop(revision, "Failed", "InternalError", "a bug ended the pass; the log has the details")
            raise
        finally:
            await self._tracker.flush()

    async def _steps(self, this: Pass) -> None:
        """The way of a commit."""
        await self._source.accept(this, self._signature_mode())
        await self._stage(this, "validated", self._desire.read)
        await self._settle(this)
        if this.plan is not None and this.plan.empty:
            await self._adopt(this)
            return
        await self._raise_if_overtaken(this)
        await self._publish(this)

    async def _settle(self, this: Pass) -> None:
        """Settle, plan, render and preflight, again without the objects that the throwaway Traefik refuses."""
        for _ in range(MAX_ROUNDS):
            await self._desire.settle(this)
            self._tracker.reach(this.revision, "validated")
            self.problems = this.problems
            self._tracker.note(this.revision, quarantined=this.problems)
            with self._metrics.stage("planned"):
                try:
                    await self._desire.plan(this)
                finally:
                    self._tracker.note(this.revision, plan=this.plan)
                    if this.plan is not None:
                        self._tracker.reach(this.revision, "planned")
            await self._stage(this, "rendered", self._fronts.render)
            try:
                await self._stage(this, "preflighted", self._fronts.preflight)
            except PreflightRefused as refused:
                this.refused |= refused.objects
                self._metrics.preflight_failed("ObjectsRefused")
                continue
            return
        raise Rejected("Traefik refuses the render again and again.", reason="PreflightFailed")

    async def _publish(self, this: Pass) -> None:
        revision = this.revision
        this.generation = await self._fronts.next_generation()
        self._delivery.assign(this)
        published = Published(
            this.generation, revision, this.state, this.rendered, this.agents, confirmed=not self._fronts.fronts
        )
        await self._stage(this, "published", lambda _: self._fronts.publish(published, self._clock()))
        self.published, self._considered = published, revision
        self._tracker.supersede(revision)
        self._tracker.note(revision, generation=this.generation)
        self._metrics.published(this.generation, revision)
        try:
            loaded = await self._fronts.read_back(published, self._wake)
        except NotLoaded as failure:
            await self._go_back(this, failure)
            return
        if loaded:
            await self._confirm(published)
        else:
            self._tracker.wait(revision, "FrontNotReached", "a front's API does not answer; its file is written")
        await self._push(this)
        log.info("published", generation=this.generation, agents=len(this.items), problems=len(this.problems))
        await self._tell("RevisionPublished", "info", f"generation {this.generation} is published")

    async def _push(self, this: Pass) -> None:
        with self._metrics.stage("pushed"):
            wanted = await self._delivery.push(self.published, this.items)
        self._tracker.reach(this.revision, "pushed")
        self._tracker.concern(this.revision, wanted, self._delivery.connected)

    async def _adopt(self, this: Pass) -> None:
        """The commit changes nothing that is in service: what is published is its state already."""
        state = this.state
        self.published = replace(self.published, revision=this.revision, state=state)
        if self._confirmed.generation == self.published.generation:
            self._confirmed = self.published
        await self._fronts.remember(self.published, self._clock())
        self._considered = this.revision
        done: tuple[Stage, ...] = ("rendered", "preflighted", "published", "loaded", "pushed")
        self._tracker.supersede(this.revision)
        self._tracker.note(this.revision, generation=self.published.generation or None)
        self._tracker.reach(this.revision, *done)
        self._tracker.concern(this.revision, {}, ())

    async def _confirm(self, published: Published) -> None:
        """Every front has loaded the generation: from here on it is what a failure goes back to."""
        self.published = self._confirmed = replace(published, confirmed=True)
        await self._fronts.confirm(self.published)
        if self._tracker.get(published.revision) is not None:
            self._tracker.note(published.revision, waiting=("", ""))
            self._tracker.reach(published.revision, "loaded")

    async def _go_back(self, this: Pass, failure: NotLoaded) -> None:
        """A front refuses the generation: bring the last confirmed one back, under a new number, and hold."""
        self._metrics.read_back_failed(failure.reason)
        if not self._confirmed.revision:
            text = f"a front did not take the first generation: {failure}; there is none to go back to"
            await self._stop(this, "Held", "ReadBackFailed", text)
            return
        generation = await self._fronts.next_generation()
        self.published = self._confirmed = replace(self._confirmed, generation=generation)
        await self._fronts.publish(self.published, self._clock())
        self._metrics.restored()
        text = f"a front did not take generation {this.generation}: {failure}; the last good one is back"
        await self._stop(this, "Held", "ReadBackFailed", text)

    # --- small parts --------------------------------------------------------------------------------------------

    async def _stage(self, this: Pass, stage: Stage, step: Callable[[Pass], Awaitable[None]]) -> None:
        with self._metrics.stage(stage):
            await step(this)
        if stage != "validated":
            self._tracker.reach(this.revision, stage)

    async def _raise_if_overtaken(self, this: Pass) -> None:
        """The newest commit wins: when somebody woke us meanwhile, look whether there is a newer one."""
        if self._wake.is_set():
            self._wake.clear()
            newest = await self._head()
            if newest != this.revision:
                self._wake.set()
                raise Overtaken(newest)

    async def _stop(self, this: Pass, state: RevisionState, reason: str, message: str) -> None:
        self._considered = this.revision
        self._tracker.stop(this.revision, state, reason, message)
        log.warning("revision not taken", state=state, reason=reason, message=message)
        await self._tell(f"Revision{state}", "error" if state == "Failed" else "warning", message, reason=reason)

    def _signature_mode(self) -> SignatureMode:
        fleet = self.published.state.fleet
        return fleet.spec.signatures.mode if fleet is not None else "none"

    async def _tell(self, kind: str, severity: Severity, message: str, *, reason: str = "") -> None:
        text = f"{reason}: {message}" if reason else message
        revision = self.published.revision
        await self._events.append(Event(self._clock(), kind, severity, f"revision/{revision}", text, revision))


class Overtaken(Exception):
    """A newer commit, which the message names, came before this one was published."""
