"""The certificate for unknown names is made once and kept."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from reconciler.errors import Broken
from reconciler.traefik.default_certificate import load_or_create_default_certificate, new_default_certificate


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    """OpenSSL loads them as a pair; the certificate names no host."""
    made = new_default_certificate()
    file = tmp_path / "pair.pem"
    file.write_text(made["certFile"] + made["keyFile"])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
    assert list(x509.load_pem_x509_certificate(made["certFile"].encode()).extensions) == []


def test_it_is_kept(tmp_path: Path) -> None:
    """The second call returns the first one's, from a file that only the owner reads."""
    first = load_or_create_default_certificate(tmp_path)
    assert load_or_create_default_certificate(tmp_path) == first
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "garbage", "-----END CERTIFICATE-----\n", "\xff"])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: str) -> None:
    """Nothing depends on the old one."""
    (tmp_path / "default-certificate.pem").write_text(content)
    assert load_or_create_default_certificate(tmp_path)["keyFile"].startswith("-----BEGIN PRIVATE KEY-----")


def test_a_directory_that_is_missing_is_the_operators_matter(tmp_path: Path) -> None:
    """It says which directory."""
    with pytest.raises(Broken, match="gone"):
        load_or_create_default_certificate(tmp_path / "gone")
