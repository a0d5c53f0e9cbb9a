"""Keys at rest: what a vault seals, opens, refuses, and what happens to keys that lie there in clear."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.keystore import KeyStore
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE, Secret, Vault, change_key, in_clear, is_sealed, read_secret

KEY = Secret("hkdf-sha256", b"k" * 32)
OTHER = Secret("hkdf-sha256", b"o" * 32)
PASSPHRASE = Secret("scrypt", b"correct horse battery")


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def unlocked(directory: str) -> list[str]:
    return [KeyStore(Path(directory), Vault.unlock(Path(directory), PASSPHRASE)).signing("access").kid]


@pytest.mark.parametrize("secret", [KEY, PASSPHRASE], ids=["key file", "passphrase"])
def test_what_was_sealed_is_opened_again(tmp_path: Path, secret: Secret) -> None:
    """A vault that is unlocked later with the same secret opens what an earlier one sealed."""
    sealed = Vault.unlock(tmp_path, secret).seal("access", b"canary")

    assert Vault.unlock(tmp_path, secret).open("access", sealed) == b"canary"
    assert is_sealed(sealed)
    assert b"canary" not in sealed + base64.b64decode(b"".join(sealed.splitlines()[1:-1]))


def test_the_same_key_is_never_sealed_to_the_same_text(tmp_path: Path) -> None:
    """Each sealing has a nonce of its own."""
    vault = Vault.unlock(tmp_path, KEY)

    assert vault.seal("access", b"canary") != vault.seal("access", b"canary")


def test_a_key_cannot_be_put_in_the_place_of_another(tmp_path: Path) -> None:
    """The purpose is bound to the sealed text."""
    vault = Vault.unlock(tmp_path, KEY)

    with pytest.raises(Broken, match="cannot be opened"):
        vault.open("desired", vault.seal("access", b"canary"))


def test_every_byte_of_a_sealed_key_counts(tmp_path: Path) -> None:
    """Whatever byte is changed, the sentence is the same and holds nothing of the content."""
    vault = Vault.unlock(tmp_path, KEY)
    sealed = vault.seal("access", b"canary")
    body = bytearray(base64.b64decode(b"".join(sealed.splitlines()[1:-1])))
    for position in range(len(body)):
        changed = bytearray(body)
        changed[position] ^= 1
        text = sealed.splitlines()[0] + b"\n" + base64.encodebytes(changed) + sealed.splitlines()[-1] + b"\n"
        with pytest.raises(Broken, match="damaged, or was sealed with another key"):
            vault.open("access", text)


@pytest.mark.parametrize("cut", [39, 40, 50, 60, 80, 100])
def test_a_torn_file_is_a_sentence(tmp_path: Path, cut: int) -> None:
    """Half a sealed file is refused like a damaged one."""
    vault = Vault.unlock(tmp_path, KEY)

    with pytest.raises(Broken, match="damaged"):
        vault.open("access", vault.seal("access", b"canary")[:cut])


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (OTHER, "sealed with another key file"),
        (PASSPHRASE, "sealed with a key file, and a passphrase was given"),
    ],
    ids=["another key", "a passphrase"],
)
def test_a_wrong_key_is_noticed_before_any_file_is_touched(tmp_path: Path, secret: Secret, text: str) -> None:
    """Unlocking says so, names what to set, and changes nothing."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    before = everything(tmp_path)

    with pytest.raises(Broken, match=text) as caught:
        Vault.unlock(tmp_path, secret)
    assert KEY_FILE in caught.value.hint
    assert everything(tmp_path) == before


def test_a_wrong_passphrase_is_a_sentence(tmp_path: Path) -> None:
    """It neither shows the passphrase nor what it was tried on."""
    Vault.unlock(tmp_path, PASSPHRASE)

    with pytest.raises(Broken, match="sealed with another passphrase") as caught:
        Vault.unlock(tmp_path, Secret("scrypt", b"canary passphrase"))
    assert PASSPHRASE_FILE in str(caught.value)
    assert "canary" not in str(caught.value)


def test_sealed_keys_need_their_key(tmp_path: Path) -> None:
    """A key store that is opened without the vault says which variables name the key."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))

    with pytest.raises(Broken, match="is sealed") as caught:
        KeyStore(tmp_path)
    assert KEY_FILE in caught.value.hint


def test_clear_keys_are_sealed_once_there_is_a_key(tmp_path: Path) -> None:
    """The next start with a key leaves no private key in clear, and all keys are still the same."""
    clear = KeyStore(tmp_path)
    sealed = KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))

    assert [sealed.signing(one).kid for one in ("access", "desired", "operator")] == [
        clear.signing(one).kid for one in ("access", "desired", "operator")
    ]
    assert sealed.recipient() == clear.recipient()
    assert b"PRIVATE KEY" not in everything(tmp_path)
    assert b"AGE-SECRET" not in everything(tmp_path)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_migration_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """Some keys sealed and some still clear are no trouble: the next start seals the rest."""
    first = KeyStore(tmp_path)
    vault = Vault.unlock(tmp_path, KEY)
    vault.read(tmp_path / "access-current.pem", "access")
    assert b"PRIVATE KEY" in everything(tmp_path)

    assert KeyStore(tmp_path, vault).signing("access").kid == first.signing("access").kid
    assert b"PRIVATE KEY" not in everything(tmp_path)


def test_rotation_by_file_name_works_on_sealed_keys(tmp_path: Path) -> None:
    """The role is not bound to the sealed text, so a key may be renamed from current to previous."""
    vault = Vault.unlock(tmp_path, KEY)
    former = KeyStore(tmp_path, vault).signing("access").kid
    (tmp_path / "access-current.pem").rename(tmp_path / "access-previous.pem")

    assert former in KeyStore(tmp_path, vault).verifying("access")


def test_two_processes_agree_on_a_sealed_store(tmp_path: Path) -> None:
    """Processes that unlock and fill an empty directory at the same moment end with the same keys."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(unlocked, [str(tmp_path / "keys")] * 8, chunksize=1)

    assert len({kid for one in found for kid in one}) == 1


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 2, "kdf": "scrypt", "salt": "00", "check": ""}',
        '{"version": 1, "kdf": "none", "salt": "00000000000000000000000000000000", "check": "x"}',
        '{"version": 1, "kdf": ["scrypt"], "salt": 7, "check": null}',
    ],
)
def test_a_damaged_sealing_file_is_a_sentence(tmp_path: Path, document: str) -> None:
    """It is never made anew over the damage, because the salt in it is needed."""
    Vault.unlock(tmp_path, KEY)
    (tmp_path / "sealing.json").write_text(document)

    with pytest.raises(Broken, match="damaged"):
        Vault.unlock(tmp_path, KEY)
    assert (tmp_path / "sealing.json").read_text() == document


def test_another_salt_does_not_open_the_keys(tmp_path: Path) -> None:
    """A lost sealing.json is not made up for by a new one: the keys stay shut, and the hint names the file."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    (tmp_path / "sealing.json").unlink()

    with pytest.raises(Broken) as caught:
        KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    assert "sealing.json" in caught.value.hint


def test_the_files_that_hold_the_secret_are_read_strictly(tmp_path: Path) -> None:
    """32 bytes in base64, or a passphrase of some length whose last line break does not count."""
    (tmp_path / "key").write_bytes(base64.b64encode(b"k" * 32) + b"\n")
    (tmp_path / "passphrase").write_bytes(PASSPHRASE.content + b"\n")

    assert read_secret(tmp_path / "key", None) == KEY
    assert read_secret(None, tmp_path / "passphrase") == PASSPHRASE
    assert read_secret(None, None) is None
    assert "kkk" not in repr(KEY)


@pytest.mark.parametrize("content", [b"", b"canary", base64.b64encode(b"k" * 31), b"\xff" * 44, b"A" * 44])
def test_a_key_file_that_is_none_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    """The sentence says how to make one and holds nothing of the file."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(Broken, match="32 bytes in base64") as caught:
        read_secret(tmp_path / "key", None)
    assert "canary" not in str(caught.value)


def test_what_cannot_seal_is_refused(tmp_path: Path) -> None:
    """A short passphrase, a missing file, and two ways at once."""
    (tmp_path / "short").write_text("canary\n")
    with pytest.raises(Broken, match="shorter than 12") as caught:
        read_secret(None, tmp_path / "short")
    assert "canary" not in str(caught.value)
    with pytest.raises(Broken, match="No such file"):
        read_secret(tmp_path / "missing", None)
    with pytest.raises(Broken, match="not with both"):
        read_secret(tmp_path / "short", tmp_path / "short")


def test_what_lies_in_clear_is_found(tmp_path: Path) -> None:
    """Keys and the age identity, at any depth, and neither what is sealed nor what is public."""
    KeyStore(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/public.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "below/own.key").write_text("-----BEGIN EC PRIVATE KEY-----")
    found = in_clear(tmp_path)
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))

    assert {"age-identity.txt", "access-current.pem", "below/own.key"} <= set(found)
    assert "below/public.pem" not in found
    assert in_clear(tmp_path) == ("below/own.key",)


def test_the_sealing_file_tells_no_secret(tmp_path: Path) -> None:
    """It holds the way of derivation, a salt and a sealed nothing."""
    Vault.unlock(tmp_path, PASSPHRASE)
    document = json.loads((tmp_path / "sealing.json").read_text())

    assert set(document) == {"version", "kdf", "salt", "check"}
    assert stat.S_IMODE((tmp_path / "sealing.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(("old", "new"), [(KEY, OTHER), (KEY, PASSPHRASE), (PASSPHRASE, KEY), (KEY, KEY)])
def test_another_key_takes_over_in_one_step(tmp_path: Path, old: Secret, new: Secret) -> None:
    """From then on the new key opens everything; what is read is sealed anew, and then the former key is forgotten."""
    kid = KeyStore(tmp_path, Vault.unlock(tmp_path, old)).signing("access").kid
    before = everything(tmp_path)
    vault = change_key(tmp_path, old, new)

    assert len(vault.left(tmp_path)) == 7  # three purposes, two keys each, and the identity
    if old != new:
        with pytest.raises(Broken, match="sealed with"):
            Vault.unlock(tmp_path, old)
    assert KeyStore(tmp_path, Vault.unlock(tmp_path, new)).signing("access").kid == kid
    assert Vault.unlock(tmp_path, new).left(tmp_path) == ()
    assert "former" not in json.loads((tmp_path / "sealing.json").read_text())
    assert KeyStore(tmp_path, Vault.unlock(tmp_path, new)).signing("access").kid == kid
    assert not [line for line in before.splitlines() if len(line) > 60 and line in everything(tmp_path)]


def test_a_change_that_is_cut_off_anywhere_loses_nothing(tmp_path: Path) -> None:
    """However many files were sealed anew when the process died, the new key opens all of them."""
    kid = KeyStore(tmp_path, Vault.unlock(tmp_path, KEY)).signing("access").kid
    vault = change_key(tmp_path, KEY, OTHER)
    for path in sorted(tmp_path.glob("*.pem")):
        vault.read(path, path.name.partition("-")[0])
        left = Vault.unlock(tmp_path, OTHER)
        assert left.open("access", (tmp_path / "access-current.pem").read_bytes()).startswith(b"-----BEGIN PRIVATE KEY")
        assert left.left(tmp_path)
    assert KeyStore(tmp_path, Vault.unlock(tmp_path, OTHER)).signing("access").kid == kid


def test_a_second_change_waits_for_the_first(tmp_path: Path) -> None:
    """Two former keys at once there are not: the sentence says which files the first has not reached."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    change_key(tmp_path, KEY, OTHER)

    with pytest.raises(Broken, match=r"not done: access-current\.pem"):
        change_key(tmp_path, OTHER, PASSPHRASE)
    with pytest.raises(Broken, match="sealed with another key file"):
        change_key(tmp_path, KEY, PASSPHRASE)
    KeyStore(tmp_path, Vault.unlock(tmp_path, OTHER))
    change_key(tmp_path, OTHER, PASSPHRASE)
    KeyStore(tmp_path, Vault.unlock(tmp_path, PASSPHRASE))


def test_a_former_key_opens_nothing_that_is_sealed_now(tmp_path: Path) -> None:
    """Whoever knows the old secret and an old sealing.json reads no key that was made or sealed since."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    old = (tmp_path / "sealing.json").read_bytes()
    KeyStore(tmp_path, change_key(tmp_path, KEY, OTHER))
    Vault.unlock(tmp_path, OTHER)
    (tmp_path / "sealing.json").write_bytes(old)

    with pytest.raises(Broken, match="cannot be opened"):
        KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
