"""What is in clear, or sealed with a former key, is sealed before anybody asks for it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.keystore import KeyStore
from reconciler.pki.resealing import seal_the_rest, unsealed
from reconciler.pki.vault import Secret, Vault, change_key

KEY, OTHER = Secret("hkdf-sha256", b"k" * 32), Secret("hkdf-sha256", b"o" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of every kind, in clear."""
    KeyStore(tmp_path)
    Authority.open_or_found(tmp_path, permitted=permitted_for(domain="example.test"), now=dt.datetime.now(dt.UTC))
    CertificateStore(tmp_path, Vault()).waiting_key("blog")
    (tmp_path / "default-certificate.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    return tmp_path


def test_all_that_is_in_clear_is_sealed_at_once(keys: Path) -> None:
    """Keys that sign, the authority's and those of certificates; what protects nothing stays, and is not counted."""
    assert len(unsealed(keys)) > 3

    assert seal_the_rest(keys, Vault.unlock(keys, KEY))
    assert unsealed(keys) == ()


def test_without_a_key_nothing_is_touched(keys: Path) -> None:
    """Clear stays clear."""
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}

    assert not seal_the_rest(keys, Vault.unlock(keys, None))
    assert before == {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}


def test_after_another_key_took_over_the_former_is_forgotten(tmp_path: Path) -> None:
    """What a change of the key left is sealed anew in one go, and the next look finds nothing to do."""
    KeyStore(tmp_path, Vault.unlock(tmp_path, KEY))
    change_key(tmp_path, KEY, OTHER)

    assert seal_the_rest(tmp_path, Vault.unlock(tmp_path, OTHER))
    assert not seal_the_rest(tmp_path, Vault.unlock(tmp_path, OTHER))
    assert "former" not in json.loads((tmp_path / "sealing.json").read_text())


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence with the file, not a traceback."""
    KeyStore(tmp_path)
    vault = Vault.unlock(tmp_path, KEY)

    def refuse(_path: Path) -> tuple[str, ...]:
        raise PermissionError(13, "Permission denied", "age-identity.txt")

    monkeypatch.setattr("reconciler.pki.resealing.in_clear", refuse)
    with pytest.raises(Broken, match=r"age-identity\.txt cannot be read: Permission denied"):
        seal_the_rest(tmp_path, vault)
