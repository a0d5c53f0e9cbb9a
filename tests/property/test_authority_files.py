"""For any damage to any file of an authority: it goes on, or says so in a sentence. No other error gets out."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.errors import Broken, CloudLunacyError
from reconciler.pki.authority import founding, intermediates, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.inventory import Inventory
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.vault import Secret, Vault
from tests.support.certificates import KEY, NOW, names, new_root

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
SERVER = profiles.server(names("127.0.0.1"))
SECRET = Secret("hkdf-sha256", b"k" * 32)
ROOT = new_root()
FILES = (
    "authority/root-current.pem",
    "authority/intermediate-current.pem",
    "authority/waiting.json",
    "authority/crl-*.der",
    "inventory.jsonl",
    "sealing.json",
)
POSITION = st.integers(0, 2**32)
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), POSITION, st.integers(1, 255)),
    st.tuples(st.just("cut"), POSITION, st.just(0)),
    st.tuples(st.just("insert"), POSITION, st.integers(0, 255)),
)


@cache
def sound() -> Path:
    """An authority with all its files, made once; nobody writes to it."""
    keys = Path(tempfile.mkdtemp(prefix="authority-")) / "keys"
    vault = Vault.unlock(keys, SECRET)
    founding.bring(keys, vault, FLEET, certificate=ROOT.certificate, key=ROOT.key, keep_key=False, now=NOW)
    authority = Authority(keys, vault)
    for _ in range(3):
        leaf = authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    authority.revoke(leaf.serial, "superseded", NOW)
    authority.crl(NOW)
    assert authority.ensure_permitted(permitted_for(domain="other.test"), NOW) is not None
    return keys


@contextmanager
def copied() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(sound(), Path(folder) / "keys"))


def damaged(content: bytes, damage: tuple[str, int, int]) -> bytes:
    kind, position, value = damage
    at = position % max(1, len(content))
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + bytes([value]) + content[at:]
    return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]


def use_everything(keys: Path) -> None:
    authority = Authority.open_or_found(keys, Vault.unlock(keys, SECRET), permitted=FLEET, now=NOW)
    authority.bundle()
    authority.permitted()
    authority.counts(NOW)
    leaf = authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    authority.revoke(leaf.serial, "superseded", NOW)
    authority.crl(NOW)
    authority.ensure_permitted(permitted_for(domain="other.test"), NOW)
    authority.request()
    authority.outstanding()


def test_the_sound_one_raises_nothing() -> None:
    """What the next test damages works as it is."""
    with copied() as keys:
        assert all(len(list(keys.glob(name))) == 1 for name in FILES)
        use_everything(keys)


@settings(max_examples=300)
@given(st.sampled_from(FILES), DAMAGE)
@example("authority/crl-*.der", ("flip", 9, 73)).via("a version that there is not")
def test_damage_is_healed_or_a_sentence(name: str, damage: tuple[str, int, int]) -> None:
    """One byte changed, one more, or the rest cut off, in any file."""
    with copied() as keys:
        (path,) = keys.glob(name)
        path.write_bytes(damaged(path.read_bytes(), damage))
        with suppress(CloudLunacyError):
            use_everything(keys)


@settings(max_examples=200)
@given(POSITION)
def test_a_cut_inventory_keeps_every_whole_line(position: int) -> None:
    """Wherever the power went, what was complete is there, and what follows is appended after it."""
    content = (sound() / "inventory.jsonl").read_bytes()
    cut = content[: position % (len(content) + 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.jsonl"
        path.touch(mode=0o600)
        path.write_bytes(cut)
        inventory = Inventory(path)
        issued = cut.count(b'"event":"issued"') - (b'"event":"issued"' in cut.rpartition(b"\n")[2])

        assert len(inventory) == issued


@settings(max_examples=300)
@given(DAMAGE)
def test_a_damaged_certificate_is_not_installed(damage: tuple[str, int, int]) -> None:
    """Of an intermediate with anything changed nothing is taken; the sentence is the only thing that gets out."""
    with copied() as keys:
        authority = Authority(keys, Vault.unlock(keys, SECRET))
        signed, _ = intermediates.sign_request(ROOT, authority.request(), now=NOW)
        der = damaged(signed.public_bytes(serialization.Encoding.DER), damage)
        with pytest.raises(Broken):
            authority.install(ssl.DER_cert_to_PEM_cert(der).encode(), NOW)
        assert authority.permitted() == FLEET
