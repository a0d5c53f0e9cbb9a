"""Killed between any two changes of files, however often, a rotation ends, and nobody meets what they cannot verify."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.app.rotation import Rotations
from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Permitted, permitted_for
from reconciler.pki.keystore import KeyStore
from reconciler.pki.rotation import DEFAULTS, SUBJECTS, Subject
from reconciler.pki.vault import Secret, Vault
from reconciler.store.protocols import Event
from tests.support.certificates import KEY, NOW

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
AGENT = profiles.agent("fleet.test", "vps-1")
HOUR = 3600.0


class Killed(BaseException):
    """The process is gone."""


@dataclass
class World:
    """A control plane on its disk, and one agent, which believes what it was told last."""

    keys: Path
    vault: Vault
    now: float = NOW.timestamp()
    believed: Mapping[str, Any] = field(default_factory=dict)
    fault: int | None = None
    """Changes of files that still come through; None: all."""

    def start(self) -> None:
        self.store = KeyStore(self.keys, self.vault)
        self.authority = Authority.open_or_found(self.keys, self.vault, permitted=FLEET, now=self.at)
        self.rotations = Rotations(
            self.keys,
            self.store,
            self.authority,
            fleet=self,
            events=self,  # type: ignore[arg-type]
            on_change=lambda: None,
            times=DEFAULTS,
            clock=lambda: self.now,
        )

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def permitted(self) -> Permitted:
        return FLEET

    def lacking(self, trust: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset() if trust == self.believed else frozenset({"vps-1"}), frozenset()

    def fronts_behind(self, roots: str) -> frozenset[str]:
        return frozenset() if roots == self.believed["bundle"] else frozenset({"front-1"})

    def secrets_wait(self, phase: str) -> str:
        return ""

    async def append(self, event: Event) -> Event:
        return event

    def agent_applies(self) -> None:
        """It takes what the control plane tells, and asks for a certificate if its own is under a retired key."""
        self.believed = self.rotations.trust
        if self.believed["retired"]:
            self.certified()

    def certified(self) -> tuple[str, ...]:
        leaf = self.authority.issue(AGENT, KEY.public_key(), holder="agent/vps-1", now=self.at)
        return tuple(profiles.fingerprint(one) for one in leaf.chain)

    def check(self) -> None:
        """Whatever is signed now, the agent can verify."""
        roots = self.believed["bundle"]
        assert self.certified()[-1] in {profiles.fingerprint(one) for one in _certificates(roots)}
        assert self.store.signing("desired").kid in {key["kid"] for key in self.believed["jwks"]["keys"]}

    def known(self, subject: Subject) -> set[str]:
        """All keys that count for something."""
        if subject in ("root", "intermediate"):
            pairs = self.authority.pairs(subject).values()
            return {profiles.fingerprint(pair.certificate) for pair in pairs}
        if subject == "age":
            return {opener.recipient() for opener in self.store.opener.openers.values()}
        return set(self.store.verifying(subject))  # type: ignore[arg-type]


def _certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


@contextmanager
def mortal(world: World) -> Iterator[None]:
    """Let so many changes of files through, and end the process at the next."""

    def counted(real: Any) -> Any:
        def change(*arguments: Any, **more: Any) -> Any:
            if world.fault is not None:
                if world.fault == 0:
                    raise Killed
                world.fault -= 1
            return real(*arguments, **more)

        return change

    names = (
        "reconciler.pki.keystore.write_private",
        "reconciler.pki.keystore.remove_private",
        "reconciler.pki.rotation_file.write_private",
        *(f"reconciler.pki.authority.folder.Folder.{name}" for name in ("put", "copy", "drop")),
    )
    with ExitStack() as patches:
        for name in names:
            patches.enter_context(patch(name, counted(resolve_name(name))))
        yield


def rotated(world: World, subject: Subject, kills: list[int], *, tainted: bool) -> None:
    """Rotate to the end, killed as often as is said, after as many changes of files each time."""
    world.start()
    world.agent_applies()
    asyncio.run(world.rotations.look())
    begun, former = False, version(world, subject)
    with mortal(world):
        for _ in range(400):
            if world.fault is None and kills:
                world.fault = kills.pop(0)
            try:
                if not begun and subject not in world.rotations.kept.under_way:
                    asyncio.run(world.rotations.begin(subject, tainted=tainted))
                begun = True
                asyncio.run(world.rotations.look())
                if subject not in world.rotations.kept.under_way:
                    break
            except Killed:
                world.fault = None
                world.start()
                begun = begun or subject in world.rotations.kept.under_way
            world.check()
            rotation = world.rotations.kept.under_way.get(subject)
            if rotation is not None and rotation.phase != "remove":
                assert former in world.known(subject), "what it signed is still good"
            world.agent_applies()
            world.now += HOUR / 12
        else:
            pytest.fail(f"it did not end: {world.rotations.kept}")
    world.fault = None
    world.agent_applies()
    world.check()


def version(world: World, subject: Subject) -> str:
    if subject in ("root", "intermediate"):
        return profiles.fingerprint(world.authority.pairs(subject)["current"].certificate)
    return world.store.recipient() if subject == "age" else world.store.signing(subject).kid  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SUBJECTS), st.booleans(), st.booleans(), st.lists(st.integers(0, 12), max_size=8))
def test_a_rotation_ends_however_often_it_is_killed(
    subject: Subject, tainted: bool, sealed: bool, kills: list[int]
) -> None:
    """Exactly one key has given way to exactly one other, and nothing of a former or a next one lies about."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        world = World(keys, Vault.unlock(keys, Secret("hkdf-sha256", b"k" * 32) if sealed else None))
        world.start()
        before = {one: version(world, one) for one in SUBJECTS}
        rotated(world, subject, list(kills), tainted=tainted)
        world.start()
        changed = {one for one in SUBJECTS if version(world, one) != before[one]}

        assert changed == ({"root", "intermediate"} if subject == "root" else {subject})
        assert not list(keys.rglob("*-previous.*"))
        assert world.rotations.kept.under_way == {}


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("tainted", [False, True])
def test_it_is_killed_at_each_change_in_turn(subject: Subject, tainted: bool, tmp_path: Path) -> None:
    """One kill, at every point that there is."""
    for writes in range(14):
        keys = tmp_path / str(writes) / "keys"
        world = World(keys, Vault())
        rotated(world, subject, [writes], tainted=tainted)
        assert not list(keys.rglob("*-previous.*"))
