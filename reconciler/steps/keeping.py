"""What a restart goes on from: the publication in the store, and the state made again from it.

The store keeps little: the revision, and for each quarantined file what is in service in its place. Everything else is
read from git at that revision, through the parse cache.

Where the store was lost, its copy in the outbox's file or the front's file says what is in service. That is published
once more, under a generation that nobody has seen, before any commit is judged (docs/adr/0016).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from reconciler.desired.claims import claims_from_json, claims_to_json
from reconciler.desired.finding import Finding
from reconciler.desired.items import AgentItems
from reconciler.desired.parse import Parsed, parse_file
from reconciler.desired.restore import KeptOut, restore
from reconciler.desired.rollouts import rollouts_from_json, rollouts_to_json
from reconciler.desired.snapshot import changes_between
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObject, TraefikObjects
from reconciler.errors import Rejected
from reconciler.observability.logs import get_logger
from reconciler.steps.collecting import collector_paused
from reconciler.steps.passing import Published
from reconciler.steps.reading import DocumentReader
from reconciler.steps.rebuilding import Rebuilding
from reconciler.store.protocols import Publication, PublicationStore, Retained
from reconciler.traefik.publish import Named
from schemas.objects import key_of_path
from schemas.session import digest_of_items

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a start goes on from."""

    published: Published
    confirmed: Published
    """What every front had loaded last."""
    front_digest: str = ""
    """Of what the fronts' files should hold."""
    is_recovered: bool = False
    """The store had lost it: it has to be published once more."""


class Keeper:
    """Saves publications and makes :class:`Published` of them again."""

    def __init__(self, store: PublicationStore, reader: DocumentReader, rebuilding: Rebuilding) -> None:
        self._store = store
        self._reader = reader
        self._rebuilding = rebuilding
        self.digest = ""
        """SHA-256 (hex) of what the fronts' files should hold."""
        self._named = 0
        """Generation that a front's file names, where the store had lost what it knew."""

    async def next_generation(self) -> int:
        """Return a number that no publication had, even if the store was deleted in between."""
        return max(await self._store.last_generation(), self._named) + 1

    async def save(self, published: Published, now: float, front_digest: str | None) -> None:
        """Make the publication durable. ``front_digest``: of the fronts' files, None where these did not change."""
        if front_digest is not None:
            self.digest = front_digest
        await self._store.save_publication(
            Publication(
                generation=published.generation,
                revision=published.revision,
                published_at=now,
                retained=_retained(published.state),
                agents=dict(published.agents),
                front_digest=self.digest,
                confirmed=published.confirmed,
                rollouts=rollouts_to_json(published.rollouts),
                releases=published.releases,
            )
        )

    async def confirm(self, generation: int) -> None:
        await self._store.confirm_publication(generation)

    async def load(self, named: Named | None = None) -> Resumed:
        """Say what is in service. ``named``: what the fronts' files say, for when the store does not know.

        Raises:
            Transient: when the revision is not here and the remote cannot be reached.
        """
        newest = await self._store.publication()
        with collector_paused():
            if newest is not None and newest.agents is not None:
                return await self._load(newest)
            return await self._recover(newest, named)

    async def _load(self, newest: Publication) -> Resumed:
        self.digest = newest.front_digest
        published = await self._published(newest)
        confirmed = await self._store.confirmed_publication()
        if newest.confirmed or confirmed is None:
            return Resumed(published, published if newest.confirmed else Published(), newest.front_digest)
        return Resumed(published, await self._published(confirmed), newest.front_digest)

    async def _recover(self, copy: Publication | None, named: Named | None) -> Resumed:
        """Go on from the store's copy, or from what a front's file names where that is newer, or there is none."""
        published = Published() if copy is None else await self._published(copy)
        if named is not None and named.generation > published.generation:
            self._named = named.generation
            published = await self._as_named(named, published.state)
        if published.state.fleet is None:
            return Resumed(published, published)
        log.warning("the store was lost; what is in service is published again", revision=published.revision)
        generation = await self.next_generation()
        agents = _agents(published, generation)
        recovered = replace(published, generation=generation, agents=agents, confirmed=False)
        return Resumed(recovered, Published(), is_recovered=True)

    async def _as_named(self, named: Named, start: State) -> Published:
        try:
            state = await self._rebuilding.settled(named.revision, start)
        except Rejected as error:
            return _unavailable(named.generation, named.revision, error)
        return Published(named.generation, named.revision, state, None)

    async def _published(self, publication: Publication) -> Published:
        try:
            files = await self._rebuilding.files(publication.revision)
        except Rejected as error:
            return _unavailable(publication.generation, publication.revision, error)
        retained = {one.path: one for one in publication.retained}
        news = await self._reader.read(changes_between({}, files))
        kept = await self._kept_out(retained, {one.path: one for one in news if isinstance(one, Parsed)})
        out = {one.path for one in kept if one.is_quarantined}
        good = [one for one in news if isinstance(one, Parsed) and one.path not in out]
        state = await asyncio.to_thread(restore, publication.revision, good, kept)
        return Published(
            publication.generation,
            publication.revision,
            state,
            None,
            dict(publication.agents or {}),
            rollouts_from_json(publication.rollouts, {key.path: key for key in state.served}),
            {agent: tuple(names) for agent, names in publication.releases.items()},
            confirmed=publication.confirmed,
        )

    async def _kept_out(self, retained: Mapping[str, Retained], newest: Mapping[str, Parsed]) -> list[KeptOut]:
        contents = await self._reader.contents([one.last_good for one in retained.values() if one.last_good])
        kept = []
        for path, one in retained.items():
            content = contents.get(one.last_good)
            kept.append(
                KeptOut(
                    path,
                    one.blob,
                    newest.get(path),
                    tuple(_finding(finding) for finding in one.findings),
                    parse_file(path, one.last_good, content) if content is not None and key_of_path(path) else None,
                    _compiled(one.compiled),
                    None if one.claims is None else claims_from_json(one.claims),
                    None if one.selected is None else tuple(one.selected),
                )
            )
        return kept


def _unavailable(generation: int, revision: str, error: Rejected) -> Published:
    """Return what stands for a published revision that cannot be had any more.

    Its id still bars the way to a rewritten history; what the fronts serve stays until somebody approves that.
    """
    log.warning("the published revision cannot be had any more", revision=revision, error=str(error))
    return Published(generation, revision, State(revision), is_lost=True)


def _agents(published: Published, generation: int) -> dict[str, tuple[int, str]]:
    items = AgentItems(published.state, rollouts=published.rollouts)
    names = [key.name for key in published.state.served if key.kind == "Agent"]
    return {name: (generation, digest_of_items(items.of(name))) for name in names}


def _retained(state: State) -> list[Retained]:
    quarantined = set(state.quarantined)
    kept = []
    for path, findings in state.findings.items():
        key = key_of_path(path)
        served = state.served.get(key) if key is not None and path in quarantined else None
        compiled = state.compiled.get(served.key) if served is not None else None
        kept.append(
            Retained(
                path=path,
                blob=state.blobs.get(path, ""),
                last_good=served.blob if served is not None else "",
                findings=[asdict(finding) for finding in findings],
                compiled=None if compiled is None else [list(one) for one in compiled],
                claims=None if served is None else claims_to_json(served.claims),
                selected=None if served is None else state.selected.get(served.key),
            )
        )
    return kept


def _finding(stored: Mapping[str, Any]) -> Finding:
    position = stored.get("position")
    return Finding(
        path=stored["path"],
        code=stored["code"],
        message=stored["message"],
        hint=stored["hint"],
        field=tuple(stored["field"]),
        severity=stored["severity"],
        at_key=stored["at_key"],
        position=None if position is None else (position[0], position[1]),
    )


def _compiled(stored: Sequence[Any] | None) -> TraefikObjects | None:
    return None if stored is None else tuple(TraefikObject(*one) for one in stored)
