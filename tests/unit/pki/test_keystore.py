"""The keys of the control plane on disk."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.keystore import KeyStore
from reconciler.pki.private_files import write_private
from schemas.jwk import encode


def kids(directory: str) -> list[str]:
    return [KeyStore(Path(directory)).signing("access").kid]


def test_first_use_makes_private_files(tmp_path: Path) -> None:
    """Every file is for its owner only, and so is the directory."""
    KeyStore(tmp_path / "keys")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert "access-current.pem" in modes
    assert not [name for name in modes if name.startswith(".")]


def test_keys_stay_over_a_restart(tmp_path: Path) -> None:
    """The second opening finds the keys of the first."""
    first, second = KeyStore(tmp_path / "keys"), KeyStore(tmp_path / "keys")

    assert first.signing("desired").kid == second.signing("desired").kid
    assert first.recipient() == second.recipient()


def test_purposes_have_separate_keys(tmp_path: Path) -> None:
    """No key serves two purposes."""
    store = KeyStore(tmp_path / "keys")
    sets = [set(store.verifying(purpose)) for purpose in ("access", "desired", "operator")]

    assert len(set.union(*sets)) == sum(len(one) for one in sets) == 6


def test_two_processes_agree_on_the_keys(tmp_path: Path) -> None:
    """Processes that start at the same moment end with the same keys."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(kids, [str(tmp_path / "keys")] * 8, chunksize=1)

    assert len({kid for one in found for kid in one}) == 1


@pytest.mark.parametrize("name", ["access-current.pem", "age-identity.txt", "."])
def test_what_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    """A key that others can read stops the start, and the message says what to run."""
    KeyStore(tmp_path / "keys")
    (tmp_path / "keys" / name).chmod(0o755)

    with pytest.raises(Broken, match="open to other users") as caught:
        KeyStore(tmp_path / "keys")
    assert "chmod" in caught.value.hint


@pytest.mark.parametrize("name", ["access-current.pem", "age-identity.txt"])
def test_a_damaged_file_is_named_without_its_content(tmp_path: Path, name: str) -> None:
    """Damage is a sentence, and the sentence holds nothing of the file."""
    KeyStore(tmp_path / "keys")
    write_private(tmp_path / "keys" / name, b"canary-content")

    with pytest.raises(Broken) as caught:
        KeyStore(tmp_path / "keys")
    assert "canary" not in str(caught.value)


def test_a_previous_key_still_verifies(tmp_path: Path) -> None:
    """After a rotation by file names, signatures of the former key are still known."""
    store = KeyStore(tmp_path / "keys")
    former = store.signing("access").kid
    (tmp_path / "keys" / "access-current.pem").rename(tmp_path / "keys" / "access-previous.pem")
    rotated = KeyStore(tmp_path / "keys")

    assert rotated.signing("access").kid != former
    assert former in rotated.verifying("access")


def test_the_jwks_holds_public_parts_only(tmp_path: Path) -> None:
    """The published set has no private member and names each key by its thumbprint."""
    store = KeyStore(tmp_path / "keys")
    document = store.jwks("desired").model_dump()

    assert [set(key) for key in document["keys"]] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}] * 2
    assert {key["kid"] for key in document["keys"]} == set(store.verifying("desired"))


def test_nothing_private_is_shown(tmp_path: Path) -> None:
    """The representations of store, keys and opener hold no private part."""
    store = KeyStore(tmp_path / "keys")
    key = store.signing("access")
    private = encode(key.private.private_numbers().private_value.to_bytes(32, "big"))
    shown = f"{store!r} {key!r} {store.opener!r} {store.__dict__!r}"

    assert private not in shown
    assert "AGE-SECRET" not in shown
    assert "PRIVATE" not in shown.replace("ECPrivateKey", "")
