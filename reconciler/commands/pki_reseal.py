"""``cloudlunacy pki reseal``: let the private keys be sealed with another key or passphrase. ``serve`` must not run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from reconciler.commands.output import say, tell
from reconciler.errors import Broken
from reconciler.pki.resealing import seal_again
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE, Vault, change_key, read_secret
from reconciler.store.lock import DataDirectoryLock

_NAMED: Final = (KEY_FILE, PASSPHRASE_FILE)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``reseal`` to the actions of ``pki``."""
    parser = actions.add_parser(
        "reseal",
        help="seal the keys with another key or passphrase",
        description="Let the private keys be opened by another key or passphrase from now on. The present one is in "
        f"the file that {KEY_FILE} or {PASSPHRASE_FILE} names. serve must not run meanwhile. If this is cut off, one "
        "of the two opens everything, and serve seals the rest.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data directory of serve")
    new = parser.add_mutually_exclusive_group(required=True)
    new.add_argument("--new-key-file", type=Path, metavar="FILE", help="file with 32 random bytes in base64")
    new.add_argument("--new-passphrase-file", type=Path, metavar="FILE", help="file with a passphrase")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Say what serve needs from now on."""
    data, keys = options.data.absolute(), options.data.absolute() / "keys"
    if not keys.is_dir():
        raise Broken(f"There are no keys in {data}.", hint="Name the data directory of serve.")
    old = read_secret(*(Path(os.environ[name]) if os.environ.get(name) else None for name in _NAMED))
    if old is None:
        hint = f"Name the file with the present key in {KEY_FILE} or {PASSPHRASE_FILE}. Clear keys are sealed by serve."
        raise Broken("It is not known what the keys are sealed with.", hint=hint)
    new = read_secret(options.new_key_file, options.new_passphrase_file)
    assert new is not None
    with DataDirectoryLock(data):
        vault = change_key(keys, old, new)
        seal_again(keys, vault)
        left = vault.left(keys)
        Vault.unlock(keys, new)  # forgets the former key where nothing is left
    variable, path = (
        (KEY_FILE, options.new_key_file) if options.new_key_file else (PASSPHRASE_FILE, options.new_passphrase_file)
    )
    say(f"The keys are sealed with {path}. Start serve with {variable}={path}.")
    if left:
        tell(f"Sealed anew when it is next used: {', '.join(left)}")
    return 0
