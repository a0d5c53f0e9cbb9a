"""What a restart goes on from: the publication in the store, and the state made again from it.

The store keeps little: the revision, and for each quarantined file what is in service in its place. Everything else is
read from git at that revision, through the parse cache.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from reconciler.desired.claims import claims_from_json, claims_to_json
from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed, parse_file
from reconciler.desired.restore import KeptOut, restore
from reconciler.desired.snapshot import File, changes_between
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObject, TraefikObjects
from reconciler.errors import Rejected
from reconciler.observability.logs import get_logger
from reconciler.steps.collecting import collector_paused
from reconciler.steps.passing import Published
from reconciler.steps.reading import DocumentReader
from reconciler.steps.source import Repository
from reconciler.store.protocols import Publication, PublicationStore, Retained
from reconciler.traefik.publish import Text, digest_of_text
from schemas.objects import key_of_path

log = get_logger(__name__)


class Keeper:
    """Saves publications and makes :class:`Published` of them again."""

    def __init__(self, store: PublicationStore, repository: Repository, reader: DocumentReader) -> None:
        self._store = store
        self._repository = repository
        self._reader = reader
        self._digest = ""

    async def next_generation(self) -> int:
        """Return a number that no publication had, even if the store was deleted in between."""
        return await self._store.last_generation() + 1

    async def save(self, published: Published, now: float, text: Text | None) -> str:
        """Make the publication durable. ``text``: what the fronts' files hold, None where that did not change.

        Returns the digest of the fronts' files.
        """
        if text is not None:
            self._digest = await asyncio.to_thread(digest_of_text, text)
        await self._store.save_publication(
            Publication(
                generation=published.generation,
                revision=published.revision,
                published_at=now,
                retained=_retained(published.state),
                agents=dict(published.agents),
                front_digest=self._digest,
                confirmed=published.confirmed,
            )
        )
        return self._digest

    async def confirm(self, generation: int) -> None:
        await self._store.confirm_publication(generation)

    async def load(self) -> tuple[Published, Published, str]:
        """Return what was published last, what every front had confirmed last, and the digest of the fronts' files.

        Raises:
            Transient: when the revision is not here and the remote cannot be reached.
        """
        newest = await self._store.publication()
        if newest is None:
            return Published(), Published(), ""
        with collector_paused():
            return await self._load(newest)

    async def _load(self, newest: Publication) -> tuple[Published, Published, str]:
        self._digest = newest.front_digest
        published = await self._published(newest)
        confirmed = await self._store.confirmed_publication()
        if newest.confirmed or confirmed is None:
            return published, published if newest.confirmed else Published(), newest.front_digest
        return published, await self._published(confirmed), newest.front_digest

    async def _published(self, publication: Publication) -> Published:
        try:
            files = await self._files(publication.revision)
        except Rejected as error:
            # The mirror is gone and the remote has dropped the commit. Its number still bars the way to a rewritten
            # history; what the fronts serve stays until somebody approves that.
            log.warning(
                "the published revision cannot be had any more", revision=publication.revision, error=str(error)
            )
            return Published(publication.generation, publication.revision, State(publication.revision))
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
            confirmed=publication.confirmed,
        )

    async def _files(self, revision: str) -> Mapping[str, File]:
        """List the files of the revision, which is mostly here: fetching would first walk all that it reaches."""
        with contextlib.suppress(Rejected):
            return (await self._repository.snapshot(revision)).files
        await self._repository.fetch(revision)
        return (await self._repository.snapshot(revision)).files

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
