"""Who has what a rotation brings, as agents report it, fronts load it, and secrets are sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.app.verifiers import Verifiers
from reconciler.desired.overlay import Overlay
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from schemas.session import digest_of
from schemas.trust import TRUST_APPLIED
from tests.support.documents import agent, document, fleet, state_of, team

TRUST: Mapping[str, Any] = {"bundle": "PEM", "jwks": {"keys": []}}
ROOTS = Overlay(roots="PEM")


@dataclass
class World:
    keys: KeyStore
    published: Published = field(default_factory=Published)
    seen: dict[str, AgentObservation] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()
    overlay: Overlay = ROOTS
    fronts: tuple[str, ...] = ("front-1",)

    def __post_init__(self) -> None:
        self.verifiers = Verifiers(
            self.keys,
            published=lambda: self.published,
            seen=lambda: self.seen,
            connected=lambda: self.connected,
            fronts=lambda: self.fronts,
            overlay=lambda: self.overlay,
            names=lambda: ("127.0.0.1",),
        )

    def serve(self, files: Mapping[str, bytes | None], **more: Any) -> None:
        self.published = Published(1, "a" * 40, state_of(files), None, **{"overlay": self.overlay, **more})


def report(name: str, reason: str, message: str) -> AgentObservation:
    items = [{"id": f"Agent/{name}", "state": "Applied", "reason": reason, "message": message}]
    return AgentObservation(name, True, 0.0, 1, None, "1", "applied", "", items, {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(KeyStore(tmp_path / "keys"))


def test_agents_are_counted_by_what_they_say_that_they_believe(world: World) -> None:
    """Of those that may connect: who says it of another trust, or is of an older version, does not believe this one."""
    digest = digest_of(TRUST)
    names = ["good", "other", "older", "silent", "away", "locked-out", "new"]
    states = {"locked-out": "quarantined"}
    files = {
        f"agents/{name}.yaml": agent(
            name,
            **({} if name == "new" else {"identity": {"thumbprint": name.ljust(42, "A") + "A"}}),
            state=states.get(name, "active"),
        )
        for name in names
    }
    world.serve({"fleet.yaml": fleet(team("shop")), **files})
    world.connected = frozenset(names) - {"away"}
    world.seen = {
        "good": report("good", TRUST_APPLIED, f"1 root(s) and 2 key(s): {digest}"),
        "other": report("other", TRUST_APPLIED, f"1 root(s) and 2 key(s): {digest_of({})}"),
        "older": report("older", "Recorded", digest),
        "silent": report("good", TRUST_APPLIED, digest),
    }

    assert world.verifiers.lacking(TRUST) == (frozenset({"other", "older", "silent"}), frozenset({"away"}))


def test_fronts_are_behind_until_they_are_seen_with_the_newest(world: World) -> None:
    """The roots are there, nothing newer waits, and the front was seen to have loaded it."""
    assert world.verifiers.fronts_behind("PEM") == frozenset(), "there is nothing to load"
    files = {"fleet.yaml": fleet(team("shop"))}
    world.serve(files)
    assert world.verifiers.fronts_behind("PEM") == frozenset()
    assert world.verifiers.fronts_behind("more PEM") == {"front-1"}
    world.serve(files, confirmed=False)
    assert world.verifiers.fronts_behind("PEM") == {"front-1"}
    world.serve(files, overlay=Overlay(roots="PEM"))
    assert world.verifiers.fronts_behind("PEM") == {"front-1"}
    world.fronts = ()
    assert world.verifiers.fronts_behind("PEM") == frozenset()


def test_what_may_be_signed_is_known_once_a_fleet_is_in_service(world: World) -> None:
    """Its domain, the hosts of its teams and the control plane's own names."""
    assert world.verifiers.permitted() is None
    world.serve({"fleet.yaml": fleet(team("shop", hostnames=["*.shop.test"]))})
    permitted = world.verifiers.permitted()

    assert permitted is not None
    assert {"shop.test", "cloudlunacy.test"} <= permitted.dns


def secrets(recipients: list[str], *sealed_to: str) -> dict[str, bytes | None]:
    values = {
        f"secrets/shop/s{number}.yaml": document("Secret", f"s{number}", {"sealed": {"key": seal("value", [one])}})
        for number, one in enumerate(sealed_to)
    }
    return {"fleet.yaml": fleet(team("shop"), recipients=recipients), **values}


def test_people_are_told_step_by_step_what_to_seal_anew(world: World) -> None:
    """First the recipient, then the files that are left, by name and not too many; then nothing."""
    keys, wait = world.keys, world.verifiers.secrets_wait
    assert "no revision" in wait("distribute")
    former, following = keys.recipient(), keys.next_recipient()
    world.serve(secrets([former], former))
    told = wait("distribute")
    assert (following in told, former in told, "secret rotate" in told) == (True, True, True)
    world.serve(secrets([former, following], former))
    assert wait("distribute") == ""

    keys.promote_next_identity()
    assert f"take {former} out" in wait("wait")
    world.serve(secrets([following], *[former] * 7, following))
    told = wait("wait")
    assert "secrets/shop/s4.yaml and 2 more: sealed to the former" in told
    assert "s7" not in told
    world.serve(secrets([following], following, following))
    assert wait("wait") == ""
    keys.drop_former_identity()
    assert wait("wait") == ""


def test_a_fleet_without_secrets_needs_nobody(world: World) -> None:
    """There is nothing to seal anew."""
    world.keys.next_recipient()
    world.serve({"fleet.yaml": fleet(team("shop"))})

    assert [world.verifiers.secrets_wait(phase) for phase in ("distribute", "wait")] == ["", ""]
