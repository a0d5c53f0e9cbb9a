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
from reconciler.pki.authority import founding, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Permitted, permitted_for
from reconciler.pki.keystore import KeyStore
from reconciler.pki.rotation import DEFAULTS, Phase, Subject
from reconciler.pki.vault import Vault
from reconciler.store.protocols import Event
from tests.support.certificates import KEY, NOW, new_root

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
AGENT = profiles.agent("fleet.test", "vps-1")
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

    def signing(self, subject: Subject) -> str:
        """Which key of it signs."""
        if subject in ("root", "intermediate"):
            return profiles.authority_id(self.authority.pairs(subject)["current"].certificate)
        return self.store.signing(subject).kid  # type: ignore[arg-type]

    def known(self, subject: Subject) -> set[str]:
        """All of its keys that count for something."""
        if subject in ("root", "intermediate"):
            return {profiles.authority_id(pair.certificate) for pair in self.authority.pairs(subject).values()}
        return set(self.store.verifying(subject))  # type: ignore[arg-type]

    def bring_to(self, subject: Subject, phase: Phase) -> None:
        """Rotate it until then. Somebody holds a certificate, so that a former authority is waited for."""
        self.authority.issue(AGENT, KEY.public_key(), holder="agent/vps-1", now=NOW)
        is_told = subject == "desired" or (subject, phase) == ("root", "distribute")
        self.behind = frozenset({"vps-1"} if is_told else ())
        self.begin(subject)
        if phase == "wait":
            self.look(73 * 3600 if is_told else 301)
        assert self.look()[subject] == phase


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


# --- emergencies ------------------------------------------------------------------------------------------------------

IN_SERVICE: list[Subject] = ["root", "intermediate", "access", "desired", "operator"]


@pytest.mark.parametrize("subject", IN_SERVICE)
def test_a_key_that_took_over_a_moment_ago_gives_way_to_another(plane: Plane, subject: Subject) -> None:
    """It is the one that others know; being in a hurry with the end of the former would leave it in service."""
    plane.bring_to(subject, "wait")
    stolen = plane.known(subject)
    plane.begin(subject, tainted=True)
    for _ in range(4):
        plane.look(601)

    assert plane.look() == {}
    assert plane.signing(subject) not in stolen
    assert not plane.known(subject) & stolen


@pytest.mark.parametrize("subject", ["root", "access", "desired", "operator"])
def test_what_lay_beside_a_key_that_others_know_is_made_anew(plane: Plane, subject: Subject) -> None:
    """It was stolen with it."""
    plane.bring_to(subject, "distribute")
    stolen = plane.known(subject)
    plane.begin(subject, tainted=True)
    for _ in range(3):
        plane.look(601)

    assert plane.look() == {}
    assert not plane.known(subject) & stolen


def test_an_emergency_of_the_root_does_not_wait_for_an_intermediate(plane: Plane) -> None:
    """It takes the rotation over, and says so."""
    plane.bring_to("intermediate", "wait")
    stolen = plane.known("root") | plane.known("intermediate")
    plane.begin("root", tainted=True)
    assert set(plane.look()) == {"root"}
    for _ in range(3):
        plane.look(601)

    assert plane.look() == {}
    assert not stolen & (plane.known("root") | plane.known("intermediate"))
    assert "rotation/intermediate RotationCancelled" in plane.told


@pytest.mark.parametrize(("phase", "goes_on"), [("distribute", False), ("wait", True)])
def test_an_emergency_of_the_intermediate_does_not_wait_for_a_root(plane: Plane, phase: Phase, goes_on: bool) -> None:
    """A next root that does not sign yet is given up; a former one stays until what it signed was replaced."""
    plane.bring_to("root", phase)
    stolen, roots = plane.known("intermediate"), plane.authority.bundle()
    root = plane.signing("root")
    plane.begin("intermediate", tainted=True)
    assert plane.signing("intermediate") not in stolen
    assert plane.signing("root") == root
    assert ("root" in plane.look()) is goes_on
    assert (plane.authority.bundle() == roots) is goes_on

    plane.look(8 * DAY)
    assert not plane.known("intermediate") & stolen
    assert plane.known("root") == {root}


# --- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_forward_and_back_delays_nothing_for_long(plane: Plane) -> None:
    """What was noted while it was ahead counts from the first look after."""
    plane.look()
    while_ahead = plane.look(3 * 365 * DAY)
    assert while_ahead
    plane.look(-3 * 365 * DAY)
    plane.look(301)
    plane.look(DAY)
    assert plane.look(7 * DAY) == {}
    now = dt.datetime.fromtimestamp(plane.now, dt.UTC)
    assert all(since <= now for since in plane.rotations.kept.signing_since.values())
    assert len(plane.look(31 * DAY)) == 1


# --- one does not hold up another -------------------------------------------------------------------------------------


def test_what_waits_for_a_person_holds_up_no_other(plane: Plane) -> None:
    """Neither those that begin by themselves nor, when it cannot go on at all, those that are under way."""
    plane.waits = "Seal it anew."
    plane.begin("age")
    plane.look(31 * DAY)
    for _ in range(20):
        plane.look(900)

    assert plane.look() == {"age": "distribute"}
    finished = [told for told in plane.told if told.endswith("RotationFinished")]
    assert sorted(finished) == [f"rotation/{one} RotationFinished" for one in ("access", "desired", "operator")]


def test_what_fails_holds_up_no_other(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of at the end of the look, and tried again at the next."""

    def broken(_: str) -> str:
        raise Broken("It cannot be read.")

    monkeypatch.setattr(plane, "secrets_wait", broken)
    with pytest.raises(Broken):
        plane.begin("age")
    with pytest.raises(Broken):
        plane.begin("operator")
    with pytest.raises(Broken):
        plane.look(301)

    assert plane.rotations.kept.under_way["operator"].phase == "wait"


# --- who did not take it ----------------------------------------------------------------------------------------------


def test_agents_that_a_key_left_behind_are_named_until_they_believe_the_next(plane: Plane) -> None:
    """Over restarts; an agent that enrolled again believes it."""
    plane.behind = frozenset({"vps-1", "vps-2"})
    plane.begin("desired", tainted=True)
    assert rotation_file.load(plane.keys).left_behind == frozenset()
    plane.look(601)
    assert rotation_file.load(plane.keys).left_behind == {"vps-1", "vps-2"}
    assert plane.told.count("rotation/desired AgentsLeftBehind") == 1

    plane.behind, plane.wanted = frozenset(), None
    plane.look(1)
    assert plane.rotations.kept.left_behind == {"vps-1", "vps-2"}, "nothing is in service yet after a start"
    plane.behind, plane.wanted = frozenset({"vps-2", "vps-3"}), FLEET
    plane.look(1)
    assert rotation_file.load(plane.keys).left_behind == {"vps-2"}
