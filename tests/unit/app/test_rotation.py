"""What drives rotations: what begins by itself, what is told of it, what is given up."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.app.rotation import Rotations
from reconciler.errors import Broken, Refused
from reconciler.pki import rotation_file
from reconciler.pki.authority import founding
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Permitted, permitted_for
from reconciler.pki.keystore import KeyStore
from reconciler.pki.rotation import DEFAULTS, Subject
from reconciler.pki.vault import Vault
from reconciler.store.protocols import Event
from tests.support.certificates import NOW, new_root

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
DAY = 86_400.0


@dataclass
class Plane:
    """The driver on real keys, with verifiers that are as the test says."""

    keys: Path
    now: float = NOW.timestamp()
    wanted: Permitted | None = FLEET
    behind: frozenset[str] = frozenset()
    waits: str = ""
    events: list[Event] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.store = KeyStore(self.keys)
        self.authority = Authority.open_or_found(self.keys, permitted=FLEET, now=NOW)
        self.rotations = Rotations(
            self.keys,
            self.store,
            self.authority,
            fleet=self,
            events=self,  # type: ignore[arg-type]
            on_change=self.changed,
            times=DEFAULTS,
            clock=lambda: self.now,
        )

    def changed(self) -> None:
        self.changes += 1

    def permitted(self) -> Permitted | None:
        return self.wanted

    def lacking(self, trust: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        return self.behind, frozenset()

    def fronts_behind(self, roots: str) -> frozenset[str]:
        return frozenset()

    def secrets_wait(self, phase: str) -> str:
        return self.waits

    async def append(self, event: Event) -> Event:
        self.events.append(event)
        return event

    def look(self, after: float = 0.0) -> dict[Subject, str]:
        """Look once, so many seconds later; return the phases."""
        self.now += after
        asyncio.run(self.rotations.look())
        return {subject: one.phase for subject, one in self.rotations.kept.under_way.items()}

    def begin(self, subject: Subject, **more: Any) -> None:
        asyncio.run(self.rotations.begin(subject, **more))

    def cancel(self, subject: Subject) -> None:
        asyncio.run(self.rotations.cancel(subject, actor="operator:local"))

    @property
    def told(self) -> list[str]:
        return [f"{event.subject} {event.type}" for event in self.events]


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path / "keys")


def test_old_keys_are_rotated_by_themselves_one_after_the_other(plane: Plane) -> None:
    """A month after the first start; nothing before."""
    assert plane.look() == plane.look(29 * DAY) == {}
    before = {purpose: plane.store.signing(purpose).kid for purpose in ("access", "desired", "operator")}
    assert len(plane.look(DAY)) == 1
    for _ in range(100):
        plane.look(900)
    assert plane.look() == {}

    assert all(plane.store.signing(purpose).kid != kid for purpose, kid in before.items())  # type: ignore[arg-type]
    begun = [event.message for event in plane.events if event.type == "RotationBegun"]
    assert begun == ["The rotation begins, because the key is old."] * 3


def test_what_needs_a_person_does_not_begin_by_itself(tmp_path: Path) -> None:
    """The key of the root is elsewhere: an intermediate that is old is not asked for until somebody does."""
    root = new_root()
    keys = tmp_path / "keys"
    founding.bring(keys, Vault(), FLEET, certificate=root.certificate, key=root.key, keep_key=False, now=NOW)
    one = Plane(keys)
    one.look()
    one.now += 200 * DAY
    for _ in range(50):
        one.look(3600)

    assert "rotation/intermediate RotationBegun" not in one.told
    assert "rotation/access RotationFinished" in one.told


def test_files_and_agents_follow_once_for_each_change(plane: Plane) -> None:
    """The same trust stays the same object, so that nobody is told twice."""
    trust = plane.rotations.trust
    plane.look()
    assert (plane.changes, plane.rotations.trust is trust) == (0, True)
    plane.behind = frozenset({"vps-1"})
    plane.begin("root")
    after = plane.rotations.trust
    plane.look(1)

    assert plane.changes == 1
    assert plane.rotations.trust is after
    assert after["bundle"].count("BEGIN CERTIFICATE") == 2


def test_after_a_start_nobody_prepares_before_it_is_known_what_may_be_signed(plane: Plane) -> None:
    """Else the next intermediate would permit nothing but what the control plane itself is called."""
    plane.wanted = None
    plane.begin("intermediate")
    assert plane.look(1) == {"intermediate": "prepare"}
    plane.wanted = FLEET
    assert plane.look(1) == {}
    assert plane.authority.permitted() == FLEET


def test_what_it_waits_for_is_told_once_and_kept_for_those_who_look(plane: Plane) -> None:
    """From the disk, with names."""
    plane.behind = frozenset({"vps-1", "vps-2"})
    plane.begin("desired", actor="operator:local")
    for _ in range(3):
        plane.look(1)

    kept = rotation_file.load(plane.keys).waiting["desired"]
    assert (kept.who, kept.count) == (("vps-1", "vps-2"), 2)
    assert plane.told.count("rotation/desired RotationWaits") == 1
    assert plane.events[0].actor == "operator:local"


def test_a_rotation_may_be_given_up_until_the_next_key_takes_over(plane: Plane) -> None:
    """The next root is forgotten again, by agents too; another rotation may begin."""
    plane.behind = frozenset({"vps-1"})
    before = plane.rotations.trust
    plane.begin("root")
    plane.cancel("root")
    assert plane.look() == {}
    assert plane.rotations.trust == before
    assert set(plane.authority.pairs("root")) == set(plane.authority.pairs("intermediate")) == {"current"}

    plane.begin("access")
    plane.look(301)
    refused: dict[Subject, str] = {"root": "no-such-rotation", "access": "too-late"}
    for subject, code in refused.items():
        with pytest.raises(Refused) as caught:
            plane.cancel(subject)
        assert caught.value.code == code


def test_a_damaged_file_stops_the_start_with_a_sentence(plane: Plane) -> None:
    """A rotation that is forgotten half-way would be begun anew."""
    plane.begin("operator")
    path = plane.keys / rotation_file.FILE_NAME
    content = path.read_bytes()
    for damaged in (content[:-9], b"[]", content.replace(b'"prepare"', b'"x"').replace(b'"distribute"', b'"x"')):
        path.write_bytes(damaged)
        with pytest.raises(Broken, match=r"rotation\.json is damaged"):
            Plane(plane.keys)


def test_a_full_disk_changes_nothing(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is not begun."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plane.look()
    monkeypatch.setattr(rotation_file, "write_private", full)
    with pytest.raises(Broken, match="No space"):
        plane.begin("operator")

    assert plane.rotations.kept.under_way == {}


def test_the_age_of_keys_is_told_from_when_they_took_over(plane: Plane) -> None:
    """A new root brings its own intermediate, so both are young."""
    plane.look()
    plane.now += 10 * DAY
    plane.begin("root")
    for _ in range(4):
        plane.look(900)

    took_over = dt.datetime.fromtimestamp(NOW.timestamp() + 10 * DAY, dt.UTC)
    since = plane.rotations.kept.signing_since
    assert since["root"] == since["intermediate"] >= took_over > since["access"]
