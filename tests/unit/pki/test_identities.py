"""Where identities come from, and what is said when one is missing, damaged or locked."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.lookup import SecretUnavailable
from reconciler.errors import Broken
from reconciler.pki.identities import identities_of_file, identity_of_data, open_with, surely_sealed_to
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import Opener, count_recipients, new_identity, seal
from reconciler.pki.vault import KEY_FILE, Vault, read_secret
from schemas.secret import SecretSpec

ONE, OTHER, THIRD = Opener(new_identity()), Opener(new_identity()), Opener(new_identity())


def to(*openers: Opener) -> list[str]:
    return [opener.recipient() for opener in openers]


def test_a_file_may_hold_several_identities_and_comments(tmp_path: Path) -> None:
    """The form that age-keygen writes, once or more."""
    first, second = new_identity(), new_identity()
    path = tmp_path / "identity"
    path.write_text(f"# created: today\n# public key: x\n{first.get_secret_value()}\n\n{second.get_secret_value()}\n")
    assert to(*identities_of_file(path)) == to(Opener(first), Opener(second))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no age identity"),
        ("canary", "holds no age identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\ncanary", "holds no age identity"),
        ("AGE-SECRET-KEY-1CANARY", "is damaged"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\ncanary", "protected by a passphrase"),
        ("age-encryption.org/v1\ncanary", "protected by a passphrase"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_not_quoted(tmp_path: Path, content: str | None, sentence: str) -> None:
    """A sentence names the file, and says nothing of what it holds."""
    path = tmp_path / "identity"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Broken, match=sentence) as refusal:
        identities_of_file(path)
    assert "canary" not in str(refusal.value).lower()


@pytest.mark.parametrize("sealed", [False, True])
def test_the_identity_of_a_control_plane_is_read_where_it_lies(tmp_path: Path, sealed: bool) -> None:
    """Clear or sealed at rest; nothing in the directory changes."""
    key = tmp_path / "key"
    key.write_bytes(base64.b64encode(b"k" * 32))
    environment = {KEY_FILE: str(key)} if sealed else {}
    keys = tmp_path / "data" / "keys"
    vault = Vault.unlock(keys, read_secret(key, None)) if sealed else Vault()
    recipient = KeyStore(keys, vault).recipient()
    before = {path: path.read_bytes() for path in keys.iterdir()}
    assert identity_of_data(tmp_path / "data", environment).recipient() == recipient
    assert {path: path.read_bytes() for path in keys.iterdir()} == before
    if sealed:
        with pytest.raises(Broken, match="is sealed"):
            identity_of_data(tmp_path / "data", {})


def test_a_wrong_directory_is_left_alone(tmp_path: Path) -> None:
    """No keys are made where there are none."""
    with pytest.raises(Broken, match="holds no identity of a control plane"):
        identity_of_data(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_an_open_identity_is_refused(tmp_path: Path) -> None:
    """What others can read is not used."""
    KeyStore(tmp_path / "keys")
    (tmp_path / "keys" / "age-identity.txt").chmod(0o644)
    with pytest.raises(Broken, match="open to other users"):
        identity_of_data(tmp_path, {})


def test_any_identity_may_open() -> None:
    """The first that fits; where none does, all that were tried are named."""
    assert open_with([OTHER, ONE], seal("x", to(ONE))) == "x"
    with pytest.raises(SecretUnavailable, match=f"{OTHER.recipient()} or {THIRD.recipient()}"):
        open_with([OTHER, THIRD], seal("x", to(ONE)))


@given(st.text(max_size=2000))
def test_every_text_survives_sealing(value: str) -> None:
    """Empty, long, with line ends, control characters, or from any script; and the schema takes what is sealed."""
    armour = seal(value, to(ONE, OTHER))
    assert open_with([THIRD, OTHER], armour) == value
    assert SecretSpec(sealed={"value": armour})
    assert count_recipients(armour) == 2


@pytest.mark.parametrize(
    ("sealed_to", "wanted", "held", "known"),
    [
        ([ONE], [ONE], [ONE], True),
        ([ONE, OTHER], [OTHER, ONE], [ONE, OTHER, THIRD], True),
        ([ONE, OTHER], [ONE], [ONE, OTHER], False),
        ([ONE], [ONE, OTHER], [ONE, OTHER], False),
        ([ONE, THIRD], [ONE, OTHER], [ONE, OTHER], False),
        ([ONE, THIRD], [ONE, OTHER], [ONE], False),
        ([ONE, OTHER], [ONE, OTHER], [ONE], False),
        ([OTHER], [ONE], [ONE], False),
    ],
)
def test_recipients_are_known_only_where_every_identity_is_at_hand(
    sealed_to: list[Opener], wanted: list[Opener], held: list[Opener], known: bool
) -> None:
    """age hides its recipients: what cannot be known counts as different."""
    assert surely_sealed_to(seal("x", to(*sealed_to)), to(*wanted), held) is known


@pytest.mark.parametrize("armour", ["", "x", "-----BEGIN\n%%\n-----END", "-----BEGIN\nAAAA\n-----END\n"])
def test_nobody_is_counted_in_what_is_damaged(armour: str) -> None:
    """No recipients, and so never those that are wanted."""
    assert count_recipients(armour) == 0
    assert not surely_sealed_to(armour, to(ONE), [ONE])


def test_recipients_of_other_kinds_count() -> None:
    """A value that an SSH key opens as well is not sealed to the fleet's recipients alone; grease opens for nobody."""
    header = b"age-encryption.org/v1\n-> X25519 abc\nAAAA\n-> ssh-ed25519 x y\nBBBB\n-> a-grease z\n\n--- mac\nbody"
    armour = f"-----BEGIN\n{base64.b64encode(header).decode()}\n-----END\n"
    assert count_recipients(armour) == 2
