"""The control plane's own certificate, kept good over the days by a clock that is an argument."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.app.certificate import OwnCertificate
from reconciler.pki.authority import founding
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.server_certificate import names_of, permitted_hosts
from reconciler.pki.vault import Vault
from reconciler.settings import GitSettings, Settings
from reconciler.store.protocols import Event
from schemas.fleet import Fleet
from tests.support import documents

START = dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()
DAY = 86_400.0
FLEET = Fleet.model_validate(json.loads(documents.fleet()))


class Timeline:
    """The events, in memory."""

    def __init__(self) -> None:
        self.said: list[Event] = []

    async def append(self, event: Event) -> Event:
        self.said.append(event)
        return event

    async def events(self, **_: Any) -> list[Event]:
        raise NotImplementedError

    @property
    def kinds(self) -> list[str]:
        return [event.type for event in self.said]


class World:
    """An own certificate, its clock and its timeline."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.now = START
        self.timeline = Timeline()
        settings = Settings(git=GitSettings("x"), data=folder, **more)  # type: ignore[arg-type]
        self.own = OwnCertificate(settings, Vault(), clock=lambda: self.now)

    def look(self, fleet: Fleet | None = None) -> None:
        asyncio.run(self.own.look(fleet, self.timeline))


def test_it_is_renewed_with_a_third_left_and_told(tmp_path: Path) -> None:
    """Nothing happens for 19 days; then there is another, and an event says so."""
    world = World(tmp_path)
    first = world.own.served
    assert first is not None
    world.now = START + 19 * DAY
    world.look()
    assert (world.own.served, world.timeline.said) == (first, [])
    world.now = START + 21 * DAY
    world.look()
    assert world.own.served is not None
    assert world.own.served.leaf.not_valid_after_utc.timestamp() > START + 50 * DAY
    assert world.timeline.kinds == ["ServerCertificateRenewed"]


def test_the_authority_grows_with_the_fleet(tmp_path: Path) -> None:
    """Once the fleet is known its domain may be signed; the server's own certificate need not change for that."""
    world = World(tmp_path)
    first = world.own.served
    wanted = permitted_for(domain=FLEET.spec.domain)
    assert not world.own.authority.permitted().includes(wanted)
    world.look(FLEET)
    assert world.own.authority.permitted().includes(wanted)
    assert world.own.served == first
    assert world.timeline.said == []


def test_what_waits_for_a_person_is_an_event_once(tmp_path: Path) -> None:
    """With the root's key elsewhere the former intermediate serves on, and what to do is said one time."""
    now = dt.datetime.fromtimestamp(START, dt.UTC)
    permitted = permitted_hosts(["127.0.0.1"])
    founding.found_offline(
        tmp_path / "keys", Vault(), permitted, key_out=tmp_path / "root.key", passphrase=None, now=now
    )
    world = World(tmp_path)
    for _ in range(3):
        world.look(FLEET)
    assert world.timeline.kinds == ["RootOffline"]
    assert "pki request" in world.timeline.said[0].message
    assert world.own.served is not None


@pytest.mark.parametrize("plain_http", [False, True])
def test_plain_http_has_an_authority_and_no_certificate(tmp_path: Path, plain_http: bool) -> None:
    """Agents and fronts need the authority in any case."""
    world = World(tmp_path, plain_http=plain_http, public_url="https://plane.test")
    world.look(FLEET)
    assert world.own.authority.bundle().fingerprints
    assert (world.own.served is None, world.own.context is None) == (plain_http, plain_http)
    if world.own.served is not None:
        assert "DNS:plane.test" in names_of(world.own.served.leaf)
