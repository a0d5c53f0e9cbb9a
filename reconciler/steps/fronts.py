"""Everything between a plan and a front that serves it: render, preflight, publish, read back, repair.

The order at the commit point: the publication goes to the store first, then each front's file is replaced. After a
crash in between, the store knows what the files should hold, and :meth:`Fronts.repair` makes it so. The text is written
beside the fronts' files, where nobody looks, while the throwaway Traefik is still at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler.desired.composition import Composition, Fragments, joined
from reconciler.desired.doors import Doors
from reconciler.desired.finding import Finding
from reconciler.desired.observed import AS_DECLARED, Placements, affected
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.desired.traefik_model import Certificate
from reconciler.desired.view import OpenSecret
from reconciler.errors import Rejected
from reconciler.steps.keeping import Keeper, Resumed
from reconciler.steps.passing import Pass, Published, StagedFiles
from reconciler.steps.rendering import Rendering
from reconciler.traefik.api import ObjectFailure, TraefikAPI
from reconciler.traefik.publish import FrontFile, Named, digest_of_text
from reconciler.traefik.read_back import ReadBack, read_back
from reconciler.traefik.static import entry_point_names
from schemas.objects import FLEET_KEY, ObjectKey

PRESENCE_SECONDS = 0.05
"""Deadline of a look whether a front has caught up; the next poll looks again."""


@dataclass(frozen=True, slots=True)
class Front:
    """One machine that runs Traefik."""

    name: str
    file: FrontFile
    api: TraefikAPI


class Preflight(Protocol):
    """A throwaway Traefik: :class:`reconciler.traefik.preflight.Preflight`."""

    unavailable_reason: str | None

    async def prepare(self, entry_points: Collection[str] | None = None) -> None: ...
    async def check(self, document: str) -> Sequence[ObjectFailure]: ...


class PreflightRefused(Exception):
    """The throwaway Traefik names objects of these routes as wrong."""

    def __init__(self, objects: Mapping[ObjectKey, Finding]) -> None:
        super().__init__(f"{len(objects)} object(s) refused")
        self.objects = objects


class NotLoaded(Exception):
    """A front answers and does not serve what was published. ``reason`` is a CamelCase word."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fronts:
    """All fronts get the same file.

    ``read_back_seconds``: how long each may take to load it. ``challenge_url``: where the control plane answers to ACME
    servers; None where it orders nothing. ``seen``: where backends of a state answer and how they are, as is known now.
    """

    def __init__(
        self,
        fronts: Sequence[Front],
        renderer: Renderer,
        preflight: Preflight,
        keeper: Keeper,
        open_sealed: OpenSecret,
        *,
        default_certificate: Certificate | None = None,
        read_back_seconds: float = 20.0,
        challenge_url: str | None = None,
        doors: Doors | None = None,
        seen: Callable[[State], Placements] = lambda _: AS_DECLARED,
    ) -> None:
        self.fronts = tuple(fronts)
        self._rendering = Rendering(
            renderer, open_sealed, default_certificate=default_certificate, challenge_url=challenge_url, doors=doors
        )
        self._preflight = preflight
        self._keeper = keeper
        self._deadline = read_back_seconds
        self._seen = seen
        self._took: dict[str, float] = {}
        """Front → seconds that its last reload took."""

    def __len__(self) -> int:
        return len(self.fronts)

    # --- before the commit point --------------------------------------------------------------------------------

    async def render(self, this: Pass) -> None:
        """Render the routes that changed, or whose backends stand otherwise; what did not change keeps its text."""
        assert this.settled is not None
        this.placements = self._seen(this.state)
        this.rendered = await asyncio.to_thread(self._render, this, this.settled.touched)

    def _render(self, this: Pass, touched: Collection[ObjectKey]) -> Composition:
        moved = affected(this.state, this.base.placements, this.placements, touched)
        return self._rendering.routes(this.state, this.base.rendered, moved.union(touched), this.placements)

    async def placed(self, published: Published, placements: Placements) -> Published:
        """Return what is published with other placements: only routes to what changed are rendered again."""
        rendered = await asyncio.to_thread(self._placed, published, placements)
        return replace(published, rendered=rendered, placements=placements)

    def _placed(self, published: Published, placements: Placements) -> Composition:
        moved = affected(published.state, published.placements, placements)
        return self._rendering.routes(published.state, published.rendered, moved, placements)

    async def preflight(self, this: Pass) -> None:
        """Let a throwaway Traefik load what changed, and stage the fronts' files meanwhile, in case it agrees.

        Raises:
            PreflightRefused: naming the routes at fault.
            Rejected: when something else is wrong with the render.
            Transient, Broken: when nothing can be checked, or a file cannot be staged.
        """
        if this.plan is not None and this.plan.empty:
            await self._check(this)
            return
        staging = asyncio.create_task(self._stage_next(this), name="staging")
        try:
            await self._check(this)
        except BaseException:
            await asyncio.wait([staging])  # its threads cannot be stopped, and the next text goes to the same file
            staging.exception()  # taken note of: what the check says matters more
            await self.discard()
            raise
        this.staged = await staging

    async def discard(self) -> None:
        """Give up what is staged and will not be published."""
        for front in self.fronts:
            await asyncio.to_thread(front.file.discard)

    async def _check(self, this: Pass) -> None:
        assert this.settled is not None
        fleet = this.state.fleet
        rendered = ((key, this.rendered.get(key)) for key in sorted(this.settled.touched))
        changed = {key: fragments for key, fragments in rendered if fragments is not None}
        if fleet is None or not (changed or FLEET_KEY in this.settled.touched):
            return
        await self._preflight.prepare(entry_point_names(fleet))
        if self._preflight.unavailable_reason:
            return
        document = await asyncio.to_thread(
            self._rendering.text,
            this.state,
            [joined(changed.values())],
            this.rendered.tls_entry_points,
            generation=1,
            revision=this.revision,
        )
        failures = await self._preflight.check(b"".join(document).decode())
        if not failures:
            return
        refused = _owners(changed, failures)
        if not refused:
            told = "; ".join(f"{one.section} {one.name}: {one.error}" for one in failures[:5])
            raise Rejected(f"a throwaway Traefik does not take the render: {told}.", reason="PreflightFailed")
        raise PreflightRefused(refused)

    # --- the commit point ---------------------------------------------------------------------------------------

    async def next_generation(self) -> int:
        return await self._keeper.next_generation()

    async def _stage_next(self, this: Pass) -> StagedFiles:
        this.generation = await self.next_generation()
        next_one = Published(
            this.generation,
            this.revision,
            this.state,
            this.rendered,
            overlay=this.overlay,
            placements=this.placements,
        )
        return await self._staged(next_one)

    async def _staged(self, published: Published) -> StagedFiles:
        """Write the text beside every front's file and flush it, and work out its digest at the same time."""
        text = await asyncio.to_thread(self._rendering.whole, published)
        digesting = asyncio.create_task(asyncio.to_thread(digest_of_text, text))
        writing = [asyncio.create_task(asyncio.to_thread(front.file.stage, text)) for front in self.fronts]
        await asyncio.wait([digesting, *writing])  # also where one fails: no thread may outlast this
        return StagedFiles(await digesting, tuple(await asyncio.gather(*writing)))

    async def publish(self, published: Published, now: float, staged: StagedFiles | None = None) -> None:
        """Store the publication, then replace each front's file. ``staged``: what :meth:`preflight` has left.

        Raises:
            Transient, Broken: when the store or a file cannot be written. Trying again is safe.
        """
        if staged is None:
            staged = await self._staged(published)
        await self._keeper.save(published, now, staged.digest)
        for front, file in zip(self.fronts, staged.files, strict=True):
            await asyncio.to_thread(front.file.put_in_place, file, staged.digest)

    async def remember(self, published: Published, now: float) -> None:
        """Store that the publication stands for a newer revision, whose files are the same."""
        await self._keeper.save(published, now, None)

    async def confirm(self, published: Published) -> None:
        await self._keeper.confirm(published.generation)

    # --- after it -----------------------------------------------------------------------------------------------

    async def take_up(self, now: float, overlay: Overlay = NO_OVERLAY) -> Resumed:
        """After a restart: find out what is in service, and mend files that do not hold it.

        Where nothing was published no file is touched. What the store had lost is published once more. ``overlay``:
        what files are to hold beside it; whether they do is found out later (:meth:`is_outdated`).

        Raises:
            Transient, Broken: when something cannot be read or written yet.
        """
        named = [await asyncio.to_thread(front.file.named) for front in self.fronts]
        resumed = await self._keeper.load(max(filter(None, named), default=None))
        resumed = replace(
            resumed,
            published=self._with_beside(resumed.published, overlay),
            confirmed=self._with_beside(resumed.confirmed, overlay),
        )
        for front in self.fronts:
            await asyncio.to_thread(front.file.adopt)
            has_other = front.file.digest != resumed.front_digest
            if resumed.published.state.fleet is not None and has_other and not resumed.is_recovered:
                await self._write_again(front, resumed.published)
        if not resumed.is_recovered:
            return resumed
        rendered = await self.rendered(resumed.published)
        published = replace(resumed.published, rendered=rendered, confirmed=not self.fronts)
        await self.publish(published, now)
        return replace(resumed, published=published, confirmed=resumed.confirmed if self.fronts else published)

    def _with_beside(self, published: Published, overlay: Overlay) -> Published:
        return replace(published, overlay=overlay, placements=self._seen(published.state))

    async def read_back(self, published: Published, overtaken: asyncio.Event) -> bool:
        """Wait until every front serves the generation. False: a front's API does not answer.

        ``overtaken`` ends the wait early: somebody says that there is something newer.

        Raises:
            NotLoaded: when a front answers and does not serve it, or has objects disabled.
        """
        waiting = [asyncio.ensure_future(self._load(front, published)) for front in self.fronts]
        if not waiting:
            return True
        results = asyncio.ensure_future(_all(waiting))
        woken = asyncio.ensure_future(overtaken.wait())
        try:
            await asyncio.wait({results, woken}, return_when=asyncio.FIRST_COMPLETED)
            return results.done() and _judge(results.result())
        finally:
            for future in (results, woken, *waiting):
                future.cancel()

    async def look(self, published: Published) -> bool:
        """Look once whether every front serves the generation by now. False: a front's API does not answer.

        Raises:
            NotLoaded: as :meth:`read_back`; ``Late`` means no more than that it is not there yet.
        """
        return _judge(
            [(front, await read_back(front.api, _wanted(front, published), PRESENCE_SECONDS)) for front in self.fronts]
        )

    async def _load(self, front: Front, published: Published) -> tuple[Front, ReadBack]:
        wanted, former = _wanted(front, published), self._took.get(front.name, 0.0)
        found = await read_back(front.api, wanted, self._deadline, former=former)
        if found.loaded:
            self._took[front.name] = found.seconds
        return front, found

    async def repair(self, published: Published) -> bool:
        """Write again what somebody changed or removed. True when there was something to mend."""
        mended = False
        for front in self.fronts if published.state.fleet is not None else ():
            if await asyncio.to_thread(front.file.drifted) is None:
                continue
            await self._write_again(front, published)
            mended = True
        return mended

    async def _write_again(self, front: Front, published: Published) -> None:
        text = await asyncio.to_thread(self._rendering.whole, published)
        await asyncio.to_thread(front.file.publish, text)

    async def is_outdated(self, published: Published) -> bool:
        """Say whether the fronts' files hold another text than they would now: an upgrade, or a renewed certificate."""
        text = await asyncio.to_thread(self._rendering.whole, published)
        return bool(self.fronts) and await asyncio.to_thread(digest_of_text, text) != self._keeper.digest

    async def rendered(self, published: Published) -> Composition:
        """Render everything that is in service."""
        return await asyncio.to_thread(self._rendering.routes, published.state, None, (), published.placements)


async def _all(waiting: Sequence[asyncio.Future[tuple[Front, ReadBack]]]) -> list[tuple[Front, ReadBack]]:
    return list(await asyncio.gather(*waiting))


def _wanted(front: Front, published: Published) -> Named:
    """Return what the front's Traefik must have loaded: a publication may stand for a newer revision than its text."""
    held = front.file.holds
    if held is not None and held.generation == published.generation:
        return held
    return Named(published.generation, published.revision)


def _judge(results: Sequence[tuple[Front, ReadBack]]) -> bool:
    reached = True
    for front, one in results:
        if one.failures:
            told = "; ".join(f"{failure.section} {failure.name}: {failure.error}" for failure in one.failures[:5])
            raise NotLoaded(f'front "{front.name}" disabled objects: {told}', "ObjectsDisabled")
        if not one.loaded and not one.reachable:
            reached = False
        elif not one.loaded:
            raise NotLoaded(f'front "{front.name}": {one.reason}', "Late")
    return reached


def _owners(rendered: Mapping[ObjectKey, Fragments], failures: Iterable[ObjectFailure]) -> dict[ObjectKey, Finding]:
    """Find the routes whose objects Traefik named."""
    owner = {
        (str(section), name): key
        for key, fragments in rendered.items()
        for section, names in fragments.sections.items()
        for name in names
    }
    found: dict[ObjectKey, Finding] = {}
    for failure in failures:
        key = owner.get((failure.section, failure.name))
        if key is not None:
            text = f"Traefik refuses what this route becomes ({failure.section} {failure.name}): {failure.error}"
            found[key] = Finding(key.path, "refused-by-traefik", text, "Report it: the checks should have said so.")
    return found
