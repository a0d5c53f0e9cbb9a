"""What the store keeps of roll-outs: who paused which, and who has an older version for now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from reconciler.desired.rollouts import NOTHING, Older, Rollout, rollouts_from_json, rollouts_to_json
from reconciler.steps.pauses import Pauses
from reconciler.store.pauses import Paused
from reconciler.store.protocols import Publication, RevisionRecord
from reconciler.store.sqlite import SQLiteStore
from schemas.objects import ObjectKey

WEB = ObjectKey("Deployment", "shop", "web")
HELD = {"vps-2": Older("sha256:1", {"image": "web:1", "env": {"GREETING": "grüße"}}), "vps-3": NOTHING}
ROLLOUTS = {WEB: Rollout("a" * 40, "sha256:2", 12.5, {"vps-1": 7}, HELD, in_waves=True)}


def with_store(path: Path, scenario: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await SQLiteStore.open(path)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_pause_outlives_the_process_and_is_told_with_its_actor(tmp_path: Path) -> None:
    """Who paused first stays on record; asking twice changes nothing and tells nothing."""

    async def pause(store: SQLiteStore) -> None:
        pauses = Pauses(store, lambda: 5.0)
        await pauses.load()
        await pauses.pause(WEB, "jane")
        await pauses.pause(WEB, "joe")

    async def resume(store: SQLiteStore) -> None:
        assert list(await store.paused()) == [Paused(str(WEB), "jane", 5.0)]
        pauses = Pauses(store, lambda: 6.0)
        await pauses.load()
        assert pauses.by(WEB) == "jane"
        await pauses.resume(WEB, "joe")
        await pauses.resume(WEB, "joe")
        assert (pauses.by(WEB), await store.paused()) == ("", ())
        told = [(event.type, event.actor, event.subject) for event in await store.events()]
        assert told == [("RolloutPaused", "jane", str(WEB)), ("RolloutResumed", "joe", str(WEB))]

    with_store(tmp_path, pause)
    with_store(tmp_path, resume)


def test_what_agents_keep_is_part_of_the_publication_and_of_its_copy(tmp_path: Path) -> None:
    """So it comes back with what is published, also after state.db was lost."""
    stored = Publication(3, "a" * 40, 1.0, agents={}, rollouts=rollouts_to_json(ROLLOUTS))

    async def save(store: SQLiteStore) -> None:
        await store.save_publication(stored)
        await store.confirm_publication(3)

    async def load(store: SQLiteStore) -> None:
        for found in (await store.publication(), await store.confirmed_publication()):
            assert found is not None
            assert rollouts_from_json(found.rollouts, {WEB.path: WEB}) == ROLLOUTS

    async def load_copy(store: SQLiteStore) -> None:
        found = await store.publication()
        assert found is not None
        assert found.agents is None
        assert rollouts_from_json(found.rollouts, {WEB.path: WEB}) == ROLLOUTS

    with_store(tmp_path, save)
    with_store(tmp_path, load)
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    with_store(tmp_path, load_copy)


def test_a_record_keeps_its_roll_outs(tmp_path: Path) -> None:
    """One of before, that has none, is read as well."""
    shown = {"shop/web": {"state": "Done", "begun": "2026-06-01T12:00:00Z", "agents": {}}}

    async def scenario(store: SQLiteStore) -> None:
        one = RevisionRecord("a" * 40, 1, "Converged", "", "", {}, {}, (), None, {}, 1.0, rollouts=shown)
        other = RevisionRecord("b" * 40, 1, "Converged", "", "", {}, {}, (), None, {}, 2.0)
        for record in (one, other):
            await store.save_record(record)
            found = await store.record(record.revision)
            assert found is not None
            assert found.rollouts == record.rollouts

    with_store(tmp_path, scenario)
