"""The first root and the first intermediate. There are three ways:

1. :func:`found`: both are made here, and the root's key stays beside its certificate; what ``serve`` does by itself;
2. :func:`found_offline`: the root's key is written to one file, for another place, and used once;
3. :func:`bring`: the root is somebody's own, with its key (used once, or kept) or without (a person signs elsewhere).

A root is never replaced: whoever trusts it would be lost. A crash at any point leaves what the next start goes on from;
a root that the inventory knows and whose file is gone is not silently followed by another.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509

from reconciler.errors import Broken
from reconciler.pki.authority import intermediates, profiles
from reconciler.pki.authority.folder import Folder, Outstanding
from reconciler.pki.authority.inventory import Issued
from reconciler.pki.authority.names import Permitted
from reconciler.pki.authority.pairs import Pair, key_pem, new_key, same_key
from reconciler.pki.authority.profiles import Issuer, PrivateKey
from reconciler.pki.private_files import write_new
from reconciler.pki.vault import Vault

HOLDER: Final = "root"
ASK: Final = (
    "Run cloudlunacy pki request --data DIR, cloudlunacy pki sign where the root's key is, and cloudlunacy pki install "
    "--data DIR."
)


def found(keys: Path, vault: Vault, permitted: Permitted, *, now: dt.datetime, first: bool = False) -> None:
    """Make whatever is missing of an authority, or go on with what a crash left. What is there stays as it is.

    Raises:
        Broken: when the clock was never set, or a root was lost; when ``first``, also when there is a root.
    """
    folder = Folder.make(keys, vault)
    with folder.turn():
        root = folder.pair("root")
        if root is None or first:
            _may_found(folder, now)
            key = new_key()
            root = Pair(profiles.root(key, serial=x509.random_serial_number(), now=now), key)
            folder.put("root", "current", root)
        list_root(folder, root.certificate, now)
        if folder.pair("intermediate") is None and (issuer := root.issuer()) is not None:
            intermediates.make(folder, issuer, permitted, now=now)


def found_offline(
    keys: Path, vault: Vault, permitted: Permitted, *, key_out: Path, passphrase: bytes | None, now: dt.datetime
) -> None:
    """Make an authority whose root key goes to ``key_out`` alone: PKCS #8, encrypted when there is a passphrase.

    Raises:
        Broken: when there is an authority, ``key_out`` exists or cannot be written, or the clock was never set.
    """
    folder = Folder.make(keys, vault)
    with folder.turn():
        _may_found(folder, now)
        key = new_key()
        try:
            write_new(key_out, key_pem(key, passphrase))
        except FileExistsError:
            raise Broken(f"{key_out} exists already; a key is never overwritten.", hint="Name another file.") from None
        root = profiles.root(key, serial=x509.random_serial_number(), now=now)
        folder.put("root", "current", Pair(root))
        list_root(folder, root, now)
        intermediates.make(folder, Issuer(root, key), permitted, now=now)


def bring(
    keys: Path,
    vault: Vault,
    permitted: Permitted,
    *,
    certificate: x509.Certificate,
    key: PrivateKey | None,
    keep_key: bool,
    now: dt.datetime,
) -> None:
    """Make an authority below somebody's own root. The root's key is kept only where that is asked for.

    Raises:
        Broken: when there is an authority, or the certificate is no root that can be used, or the key is not its key.
    """
    check_root(certificate, now)
    if key is not None and not same_key(key.public_key(), certificate.public_key()):
        raise Broken("The key is not the key of the root's certificate.", hint="Give the two that belong together.")
    folder = Folder.make(keys, vault)
    with folder.turn():
        _may_found(folder, now)
        folder.put("root", "current", Pair(certificate, key if keep_key else None))
        list_root(folder, certificate, now)
        if key is not None:
            intermediates.make(folder, Issuer(certificate, key), permitted, now=now)
            return
        folder.make_waiting_key()
        folder.set_outstanding(
            Outstanding("RootOffline", "The intermediate waits for the signature of the root.", ASK, permitted)
        )


def _may_found(folder: Folder, now: dt.datetime) -> None:
    if folder.pair("root") is not None:
        raise Broken("There is an authority already, and whoever trusts it would be lost.", hint="See pki status.")
    if any(one.kind == "root" for one in folder.inventory):
        raise Broken(
            "The inventory lists a root, and its file is gone. Another root would be trusted by nobody.",
            hint="Restore the directory authority from a backup; to start afresh, remove inventory.jsonl too.",
        )
    if now < profiles.EARLIEST:
        raise Broken(f"The clock says {now:%Y-%m-%d %H:%M}; it was never set.", hint="Set it, then start again.")


def list_root(folder: Folder, certificate: x509.Certificate, now: dt.datetime) -> None:
    """List a root, after its file, unlike all others: one that is listed and gone means a loss, not a crash."""
    if folder.inventory.find(certificate.serial_number) is None:
        own = profiles.key_id(certificate)
        folder.inventory.record(Issued.of(certificate, kind="root", holder=HOLDER, names=(), issuer=own, at=now))


def check_root(certificate: x509.Certificate, now: dt.datetime) -> None:
    """Check that a certificate is a root that ours may be signed by.

    Raises:
        Broken: when it is none.
    """
    intermediates.check_authority(certificate, "The certificate of the root")
    intermediates.check_time(certificate, now)
    if not intermediates.signed_by(certificate, certificate):
        raise Broken("The certificate is no root: it is not signed with its own key.", hint="Bring the root itself.")
    length = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if length == 0:
        raise Broken("The root has pathlen 0, so no intermediate may follow it.", hint="It needs 1 or more, or none.")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    subtrees = (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ()))
    if any(isinstance(subtree, x509.DirectoryName) for subtree in subtrees):
        raise Broken("The root constrains directory names, which ours are not made for.", hint="Bring another root.")
