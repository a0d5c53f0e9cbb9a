"""Data goes only where the agent's document says that this was agreed to, never because an item is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from reconciler.steps.passing import Published
from reconciler.store.protocols import Publication
from schemas.session import MAX_RELEASED, RELEASED, Document, Item, digest_of_items, released_by
from tests.support.documents import agent, deployment, fleet, team
from tests.unit.agent.test_deployment_service import KEY, Machine
from tests.unit.steps.test_delivery import Plane
from tests.unit.store.test_pauses import with_store

WEB: Final = "deployments/shop/web.yaml"
VPS: Final = "agents/vps-1.yaml"


def web(policy: str, *agents: str) -> bytes:
    volumes = [{"name": "data", "path": "/data"}]
    return deployment("web", *(agents or ("vps-1",)), image="web:good", volumes=volumes, deletionPolicy=policy)


FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"])),
    VPS: agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2"),
    WEB: web("delete"),
}
GONE: Final[dict[str, bytes | None]] = {WEB: None}


def _document(*items: Item) -> Document:
    now = datetime.now(UTC)
    digest = digest_of_items(items)
    return Document(
        agent="vps-1", generation=1, revision="a" * 40, issued_at=now, expires_at=now, digest=digest, items=items
    )


def released(plane: Plane, name: str = "vps-1") -> object:
    return next(one.spec.get(RELEASED) for one in plane.hub.documents[name].items() if one.kind == "Agent")


async def given(machine: Machine, plane: Plane) -> None:
    """The agent takes its newest document, and acts on it."""
    items = plane.hub.documents["vps-1"].items()
    assert plane.hub.documents["vps-1"].digest == digest_of_items(items)
    machine.service.remembered.released = released_by(_document(*items))
    await machine.settle(*(one for one in items if one.kind == "Deployment"))


def run(scenario: Callable[[Machine, Plane], Any], data: Path) -> None:
    """Begin with a deployment that runs and has data, which goes with it."""
    plane = Plane()
    plane.bring(FILES)
    machine = Machine(data)
    asyncio.run(given(machine, plane))
    assert machine.engine.volumes == {KEY}
    machine.service = machine.new_service(data)  # it was restarted, or away
    scenario(machine, plane)


def test_what_was_agreed_to_goes_and_is_forgotten_when_it_comes_back(tmp_path: Path) -> None:
    """The document names it until the agent is to run a deployment of that name again."""

    def scenario(machine: Machine, plane: Plane) -> None:
        assert plane.bring(GONE) == {"vps-1"}
        assert (released(plane), released(plane, "vps-2")) == (["shop/web"], None)
        plane.bring({"agents/vps-2.yaml": agent("vps-2", labels={"a": "b"})})
        assert not plane.has_news()
        assert released(plane) == ["shop/web"]
        asyncio.run(given(machine, plane))
        assert machine.engine.volumes == set()
        plane.bring({WEB: web("retain")})
        assert released(plane) is None
        plane.bring(GONE)
        assert released(plane) is None

    run(scenario, tmp_path)


def test_what_moves_is_released_where_it_was(tmp_path: Path) -> None:
    """On the agent that it came to, nothing is."""

    def scenario(machine: Machine, plane: Plane) -> None:
        plane.bring({WEB: web("delete", "vps-2")})
        assert (released(plane), released(plane, "vps-2")) == (["shop/web"], None)
        asyncio.run(given(machine, plane))
        assert machine.engine.volumes == set()

    run(scenario, tmp_path)


def _away_for_both(plane: Plane) -> None:
    plane.bring({WEB: web("retain")})
    plane.bring(GONE)


def _agent_goes_too(plane: Plane) -> None:
    plane.bring({WEB: None, VPS: None})
    plane.bring({VPS: agent("vps-1")})


def _agent_goes_later(plane: Plane) -> None:
    plane.bring(GONE)
    plane.bring({VPS: None})
    plane.bring({VPS: agent("vps-1")})


def _store_lost(plane: Plane) -> None:
    plane.published = Published()
    plane.restart()
    plane.bring({**FILES, **GONE})


@pytest.mark.parametrize("happens", [_away_for_both, _agent_goes_too, _agent_goes_later, _store_lost])
def test_data_stays_where_nobody_agreed(
    tmp_path: Path, happens: Callable[[Plane], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The agent knows the policy to delete, misses the item, and keeps the data; its log says so."""

    def scenario(machine: Machine, plane: Plane) -> None:
        happens(plane)
        asyncio.run(given(machine, plane))
        assert (machine.images(), machine.engine.volumes) == ([], {KEY})
        assert "shop/web: Its volumes stay" in caplog.text

    run(scenario, tmp_path)


def test_what_is_given_back_releases_nothing_that_came_back_meanwhile(tmp_path: Path) -> None:
    """An agent may have run it again before a front refused that; its data is new, and nobody agreed to lose it."""

    def scenario(machine: Machine, plane: Plane) -> None:
        plane.bring(GONE)
        confirmed = plane.published
        plane.bring({WEB: web("delete")})
        asyncio.run(given(machine, plane))
        plane.published = plane.delivery.given_back(confirmed, plane.published, 9)
        asyncio.run(plane.delivery.resume(plane.published))
        assert (released(plane), plane.has_news()) == (None, False)
        asyncio.run(given(machine, plane))
        assert machine.engine.volumes == {KEY}

    run(scenario, tmp_path)


def test_only_so_many_are_kept() -> None:
    """The newest: data of the others stays on an agent that was away all the time."""
    plane = Plane()
    many = {f"deployments/shop/web-{n}.yaml": n for n in range(MAX_RELEASED + 1)}
    there: dict[str, bytes | None] = {
        path: deployment(f"web-{n}", "vps-1", port=9000 + n, deletionPolicy="delete") for path, n in many.items()
    }
    plane.bring({**FILES, **there})
    plane.bring(GONE)
    plane.bring(dict.fromkeys(many))
    found = released(plane)
    assert isinstance(found, list)
    assert (len(found), "shop/web" in found) == (MAX_RELEASED, False)


@pytest.mark.parametrize("said", [None, "shop/web", {"shop/web": 1}, [1]])
def test_a_document_that_says_it_otherwise_releases_nothing(said: object) -> None:
    """As that of a control plane of a former version."""
    plane = Plane()
    plane.bring(FILES)
    own = next(one for one in plane.hub.documents["vps-1"].items() if one.kind == "Agent")
    own = own.model_copy(update={"spec": {**own.spec, RELEASED: said}})
    assert released_by(_document(own)) == frozenset()
    assert released_by(_document()) == frozenset()


def test_the_store_keeps_it_with_the_publication_and_not_in_the_copy(tmp_path: Path) -> None:
    """So it survives a restart; where state.db is lost, nothing is released."""
    stored = Publication(3, "a" * 40, 1.0, agents={}, releases={"vps-1": ("shop/web",)})

    async def save(store: Any) -> None:
        await store.save_publication(stored)
        await store.confirm_publication(3)

    async def load(store: Any) -> None:
        for found in (await store.publication(), await store.confirmed_publication()):
            assert found.releases == stored.releases

    async def load_copy(store: Any) -> None:
        found = await store.publication()
        assert (found.agents, found.releases) == (None, {})

    with_store(tmp_path, save)
    with_store(tmp_path, load)
    for path in tmp_path.glob("**/state.db*"):
        path.unlink()
    with_store(tmp_path, load_copy)
