"""Values sealed with age."""

from __future__ import annotations

import pytest

from reconciler.desired.lookup import SecretUnavailable
from reconciler.pki.sealing import Opener, new_identity, seal
from schemas.secret import SecretSpec


def test_what_was_sealed_opens_again() -> None:
    """A value survives sealing and opening, and the sealed form is one that the schema takes."""
    opener = Opener(new_identity())
    sealed = seal("pässword\n", [opener.recipient()])

    assert SecretSpec(sealed={"password": sealed})
    assert opener.open(sealed) == "pässword\n"


def test_every_recipient_can_open() -> None:
    """A value sealed to two recipients opens with either identity."""
    one, other = Opener(new_identity()), Opener(new_identity())
    sealed = seal("x", [one.recipient(), other.recipient()])

    assert one.open(sealed) == other.open(sealed) == "x"


def test_a_stranger_cannot_open() -> None:
    """Sealed to somebody else: unavailable, said with the recipient that would have been needed."""
    opener = Opener(new_identity())
    sealed = seal("canary-value", [Opener(new_identity()).recipient()])

    with pytest.raises(SecretUnavailable, match="age1") as caught:
        opener.open(sealed)
    assert "canary-value" not in str(caught.value)


@pytest.mark.parametrize(
    "damaged", ["", "x", "ä", "-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n-----END AGE ENCRYPTED FILE-----"]
)
def test_damage_is_unavailability(damaged: str) -> None:
    """Anything that is no sealed value is unavailable, never another error."""
    with pytest.raises(SecretUnavailable):
        Opener(new_identity()).open(damaged)


@pytest.mark.parametrize("recipients", [[], ["age1nonsense"], ["ssh-ed25519 AAAA"]])
def test_sealing_needs_recipients(recipients: list[str]) -> None:
    """Nothing is sealed to nobody or to something that is no recipient."""
    with pytest.raises(ValueError, match="recipients"):
        seal("x", recipients)


def test_the_identity_is_not_shown() -> None:
    """Neither the new identity nor its opener shows the private part."""
    identity = new_identity()

    assert "AGE-SECRET" not in f"{identity!r} {identity} {Opener(identity)!r}"
