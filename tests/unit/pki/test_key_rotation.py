"""Keys of tokens and documents, and age identities, follow each other without a signature or a value being lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.desired.lookup import SecretUnavailable
from reconciler.pki import keystore
from reconciler.pki.identities import identities_of_data
from reconciler.pki.keystore import KeyStore, Purpose
from reconciler.pki.sealing import seal
from reconciler.pki.vault import Secret, Vault

SECRET = Secret("hkdf-sha256", b"k" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def kids(store: KeyStore, purpose: Purpose = "access") -> set[str]:
    return set(store.verifying(purpose))


def test_the_next_key_is_known_before_it_signs_and_the_former_after(keys: Path) -> None:
    """Whoever verifies with the published set of any moment takes what is signed in the phases beside it."""
    store = KeyStore(keys)
    former, before = store.signing("access").kid, kids(store)
    (following,) = before - {former}

    store.prepare_next("access")
    assert (store.signing("access").kid, kids(store)) == (former, before)
    store.promote_next("access")
    assert (store.signing("access").kid, kids(store)) == (following, before)
    store.drop_former("access")

    assert store.signing("access").kid == following
    assert former not in kids(store)
    assert len(kids(store)) == 2, "there is a next one again"
    assert [key.kid for key in store.jwks("access").keys] == list(store.verifying("access"))


def test_no_other_purpose_changes(keys: Path) -> None:
    """Each is rotated by itself."""
    store = KeyStore(keys)
    before = kids(store, "desired")
    store.promote_next("access")

    assert kids(store, "desired") == before


def test_what_keeps_a_signer_signs_with_the_current_key(keys: Path) -> None:
    """The hub is given one at the start."""
    store = KeyStore(keys)
    signer, former = store.signer("desired"), store.signing("desired")
    assert signer.sign(b"{}", typ="x").partition(".")[0] == former.sign(b"{}", typ="x").partition(".")[0]
    store.promote_next("desired")

    following = store.signing("desired")
    assert signer.sign(b"{}", typ="x").partition(".")[0] == following.sign(b"{}", typ="x").partition(".")[0]


def test_a_fresh_next_key_is_none_that_lay_there(keys: Path) -> None:
    """Where the current key was stolen, the next one beside it was too."""
    store = KeyStore(keys)
    before = kids(store)
    store.prepare_next("access", fresh=True)

    assert len(kids(store) - before) == 1
    assert store.signing("access").kid in before


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> Iterator[None]:
    left = [writes]

    def counted(real: object) -> object:
        def change(*arguments: object) -> object:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*arguments)  # type: ignore[operator]

        return change

    with monkeypatch.context() as patch:
        for name in ("write_private", "remove_private"):
            patch.setattr(keystore, name, counted(getattr(keystore, name)))
        yield


@pytest.mark.parametrize("vault", [None, SECRET], ids=["clear", "sealed"])
@pytest.mark.parametrize("writes", range(5))
def test_a_kill_between_any_two_writes_is_gone_on_from(
    keys: Path, monkeypatch: pytest.MonkeyPatch, vault: Secret | None, writes: int
) -> None:
    """The key that signs is known all the time, and doing it again promotes nobody else."""
    store = KeyStore(keys, Vault.unlock(keys, vault))
    known = kids(store)
    (following,) = known - {store.signing("access").kid}
    with killed_after(monkeypatch, writes), suppress(Killed):
        store.promote_next("access")
        store.drop_former("access")

    found = KeyStore(keys, Vault.unlock(keys, vault))
    assert found.signing("access").kid in known
    if writes < 4:  # else the former was dropped already, which comes after the last promotion
        found.promote_next("access")
    assert found.signing("access").kid == following
    found.drop_former("access")
    assert found.signing("access").kid == following


# --- age ----------------------------------------------------------------------------------------------------------


def test_values_sealed_to_either_identity_are_opened_while_one_follows_the_other(keys: Path) -> None:
    """In every phase, by whoever was given the opener at the start."""
    store = KeyStore(keys)
    reveal, former = store.opener.open, seal("old", [store.recipient()])
    following = store.next_recipient()
    fresh = seal("new", [following])
    assert following == store.next_recipient() != store.recipient()

    for promotions in range(3):
        if promotions:
            store.promote_next_identity()
        assert (reveal(former), reveal(fresh)) == ("old", "new")
    assert store.recipient() == following
    for _ in range(2):
        store.drop_former_identity()
    assert reveal(fresh) == "new"
    with pytest.raises(SecretUnavailable, match=following):
        reveal(former)


@pytest.mark.parametrize("writes", range(4))
def test_a_kill_while_identities_change_places_loses_none(
    keys: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Both open what they opened, and doing it again ends the same."""
    store = KeyStore(keys)
    sealed = [seal("old", [store.recipient()]), seal("new", [store.next_recipient()])]
    following = store.next_recipient()
    with killed_after(monkeypatch, writes), suppress(Killed):
        store.promote_next_identity()

    found = KeyStore(keys)
    assert [found.opener.open(one) for one in sealed] == ["old", "new"]
    found.promote_next_identity()
    assert found.recipient() == following
    assert [found.opener.open(one) for one in sealed] == ["old", "new"]


def test_commands_open_with_every_identity_of_a_data_directory(tmp_path: Path) -> None:
    """``secret rotate`` has to open what is sealed to the former."""
    store = KeyStore(tmp_path / "keys")
    former, following = store.recipient(), store.next_recipient()
    assert [one.recipient() for one in identities_of_data(tmp_path, {})] == [former, following]
    store.promote_next_identity()

    assert [one.recipient() for one in identities_of_data(tmp_path, {})] == [following, former]


def test_nothing_private_of_a_keyring_is_shown(keys: Path) -> None:
    """Neither in its representation nor in what it says when it cannot open."""
    store = KeyStore(keys)
    store.next_recipient()
    with pytest.raises(SecretUnavailable) as caught:
        store.opener.open("nonsense")

    assert "AGE-SECRET" not in f"{store.opener!r} {caught.value} {store.__dict__!r}"
