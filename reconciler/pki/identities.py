"""The age identities that open sealed values: from a file as age writes it, or from a control plane's data directory.

Nothing here is written or made: a data directory is only read, so that a command that was given the wrong one does not
leave keys there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from reconciler.desired.lookup import SecretUnavailable
from reconciler.errors import Broken
from reconciler.pki.keystore import identity_file
from reconciler.pki.private_files import read_private, told
from reconciler.pki.sealing import Opener, count_recipients
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE, Vault, is_sealed, read_secret

_PURPOSE: Final = "age-identity"
_MAX_FILE: Final = 64 * 1024
_PREFIX: Final = "AGE-SECRET-KEY-1"


def identities_of_file(path: Path) -> tuple[Opener, ...]:
    """Read an identity file: one ``AGE-SECRET-KEY-1…`` a line, with comments (``age-keygen`` writes it).

    Raises:
        Broken: when it cannot be read or holds none. No message holds any of it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE).decode("ascii", "replace")
    except OSError as error:
        hint = "It should hold an age identity."
        raise Broken(f"{told(path, error)} cannot be read: {error.strerror}.", hint=hint) from None
    if text.startswith(("age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE-----")):
        hint = f"Open it for this command alone: --identity <(age --decrypt {path})"
        raise Broken(f"{path} is protected by a passphrase.", hint=hint)
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line.startswith(_PREFIX)]
    if not keys:
        raise Broken(f"{path} holds no age identity.", hint=f"It should have a line that starts with {_PREFIX}.")
    return tuple(_opener(path, key) for key in keys)


def identity_of_data(data: Path, environment: Mapping[str, str]) -> Opener:
    """Read the current identity of the control plane whose data directory this is.

    Raises:
        Broken: when there is none, it is open to others, or sealed and the key is not given.
    """
    return identities_of_data(data, environment)[0]


def identities_of_data(data: Path, environment: Mapping[str, str]) -> tuple[Opener, ...]:
    """Read all that it has, the current one first: while one follows another there are two.

    Raises:
        Broken: as :func:`identity_of_data`.
    """
    keys = data / "keys"
    current, *others = (identity_file(keys, role) for role in ("current", "next", "previous"))
    try:
        if not current.is_file():
            hint = "Name the data directory of serve, or use --identity FILE."
            raise Broken(f"{data} holds no identity of a control plane.", hint=hint)
        stored = {path: read_private(path) for path in (current, *others) if path.is_file()}
        vault = _vault(keys, environment) if any(map(is_sealed, stored.values())) else Vault()
    except OSError as error:
        raise Broken(f"{error.filename or current} cannot be read: {error.strerror}.") from None
    return tuple(
        _opener(path, vault.open(_PURPOSE, content).decode("ascii", "replace").strip())
        for path, content in stored.items()
    )


def open_with(openers: Iterable[Opener], armored: str) -> str:
    """Return the clear value with whichever identity opens it.

    Raises:
        SecretUnavailable: when none does. The message holds no value.
    """
    tried = []
    for opener in openers:
        try:
            return opener.open(armored)
        except SecretUnavailable:
            tried.append(opener.recipient())
    raise SecretUnavailable(f"the value cannot be opened: it is damaged, or not sealed to {' or '.join(tried)}")


def surely_sealed_to(armored: str, recipients: Sequence[str], openers: Iterable[Opener]) -> bool:
    """Say whether a value is known to be sealed to exactly these recipients.

    age hides who a recipient is, so it can only be known where the identity of each one is at hand.
    """
    known = {opener.recipient(): opener for opener in openers}
    wanted = set(recipients)
    return (
        wanted <= known.keys()
        and count_recipients(armored) == len(wanted)
        and all(_opens(known[recipient], armored) for recipient in wanted)
    )


def _opens(opener: Opener, armored: str) -> bool:
    try:
        opener.open(armored)
    except SecretUnavailable:
        return False
    return True


def _opener(path: Path, identity: str) -> Opener:
    try:
        return Opener(SecretStr(identity))
    except Broken:
        raise Broken(f"An age identity in {path} is damaged.", hint="Restore it from a backup.") from None


def _vault(directory: Path, environment: Mapping[str, str]) -> Vault:
    key, passphrase = (_named(environment, name) for name in (KEY_FILE, PASSPHRASE_FILE))
    return Vault.unlock(directory, read_secret(key, passphrase))


def _named(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None
