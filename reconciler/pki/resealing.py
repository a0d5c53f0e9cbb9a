"""Seal what the vault finds in clear, or sealed with a former key, in one go (docs/adr/0015).

Each store seals what it reads in passing. That alone leaves keys in clear until somebody asks for them; whoever gave
serve a key expects them sealed once it listens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reconciler.errors import Broken
from reconciler.pki import server_certificate
from reconciler.pki.authority.authority import Authority
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.keystore import KeyStore
from reconciler.pki.vault import Vault, in_clear

WORTHLESS: Final = frozenset({"default-certificate.pem"})
"""Nobody trusts its certificate, and it stands in Traefik's file too (reconciler/traefik/default_certificate.py)."""


def seal_the_rest(keys: Path, vault: Vault) -> bool:
    """Seal what is not yet sealed with the vault's key; say whether there was any.

    Raises:
        Broken: as :func:`seal_again`, and when something there cannot be read.
    """
    if not vault.sealing:
        return False
    try:
        rest = vault.left(keys) or unsealed(keys)
    except OSError as error:
        raise Broken(f"{error.filename or keys} cannot be read: {error.strerror}.") from None
    if rest:
        seal_again(keys, vault)
    return bool(rest)


def unsealed(keys: Path) -> tuple[str, ...]:
    """List the files that hold a key in clear which protects something, relative to ``keys``.

    Raises:
        OSError: when something there cannot be read.
    """
    return tuple(name for name in in_clear(keys) if name not in WORTHLESS)


def seal_again(keys: Path, vault: Vault) -> None:
    """Read every key whose purpose is known, which seals it anew; others follow when they are used.

    Raises:
        Broken: when one is damaged; nothing is lost by that, and the others follow when it is mended.
    """
    KeyStore(keys, vault)
    pairs = CertificateStore(keys, vault)
    pairs.load()
    for name in pairs.waiting():
        pairs.waiting_key(name)
    server_certificate.load(keys / server_certificate.FILE_NAME, vault)
    if (keys / "authority").is_dir():
        authority = Authority(keys, vault)
        authority.pairs("root")
        authority.pairs("intermediate")
