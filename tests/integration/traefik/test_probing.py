"""What fronts really show, asked at a real Traefik that is given something else than what is published."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.desired.overlay import NO_OVERLAY, served_certificates
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.steps.fronts import Front as PublishedFront
from reconciler.steps.passing import Published
from reconciler.steps.probing import Probing
from reconciler.traefik.api import TraefikAPI
from schemas.certificate_status import ServedLeaf
from tests.support import documents
from tests.support.memory_store import MemoryStore
from tests.support.pairs import FakeAuthority
from tests.support.traefik import Front, front

HOST = "shop.cloudlunacy.test"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
STATE = documents.state_of({"fleet.yaml": documents.fleet()})


@dataclass
class Held:
    """As much of the step of certificates as is looked at."""

    pairs: dict[str, CertificatePair]
    probes: dict[str, tuple[ServedLeaf, ...]] = field(default_factory=dict)


def published(pairs: dict[str, CertificatePair]) -> Published:
    leaves = {name: pair.held.fingerprint for name, pair in pairs.items()}
    return Published(1, "0" * 40, STATE, overlay=replace(NO_OVERLAY, leaves=leaves))


def loaded(running: Front, pair: CertificatePair) -> None:
    running.load(served_certificates({"shop": pair.certificate}))


def test_a_front_that_shows_another_certificate_is_told_once(tmp_path: Path) -> None:
    """The published one is shown; then another is, with one event however often one looks; then none, as a sentence."""
    authority = FakeAuthority()
    pair, other = authority.pair(HOST), authority.pair(HOST)

    async def scenario(running: Front) -> None:
        held, events = Held({"shop": pair}), MemoryStore()
        target = PublishedFront("front-1", running.file, TraefikAPI(running.api_url))
        certificates: Any = held
        probing = Probing(certificates, [target], lambda: published(held.pairs), events)
        await asyncio.to_thread(loaded, running, pair)
        await probing.look()
        (seen,) = held.probes["shop"]
        assert (seen.matches, seen.fingerprint, seen.name) == (True, pair.held.fingerprint, HOST)
        await asyncio.to_thread(loaded, running, other)
        for _ in range(2):
            held.probes["shop"] = tuple(one.model_copy(update={"checked_at": LONG_AGO}) for one in held.probes["shop"])
            await probing.look()
        (seen,) = held.probes["shop"]
        assert (seen.matches, seen.fingerprint) == (False, other.held.fingerprint)
        assert [(one.type, one.subject) for one in events.disk.events] == [("CertificateNotServed", "certificate/shop")]
        running.stop()
        held.probes.clear()
        await probing.look()
        (seen,) = held.probes["shop"]
        assert (seen.matches, seen.fingerprint) == (False, "")
        assert "The front could not be asked: Traefik's API" in seen.message
        await target.api.close()

    with front(tmp_path) as running:
        asyncio.run(scenario(running))
