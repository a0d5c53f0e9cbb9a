"""Who signed a commit: SSH and GPG signatures, checked offline by git against keys that the operator gave.

1. Keys: an ``allowed_signers`` file (ssh-keygen(1)) for SSH; exported public keys, a file or a folder of files, for
   GPG. The latter are imported into a home of their own, named by their digest, so that no key of the machine counts.
2. git checks and prints one letter (``%G?``), the signer and the fingerprint.
3. Only a good signature by a given key is good; everything else is not, with the reason. Fails closed.

A key that the operator gave is trusted as it is: the web of trust plays no part.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.errors import Broken
from reconciler.git.cleaning import cleaned, one_line
from reconciler.git.failures import shortened
from reconciler.git.runner import Command, GitRunner

SIGNATURE_FORMAT: Final = "--format=%G?%n%GS%n%GF"
GPG_SECONDS: Final = 30.0
MAX_KEY_BYTES: Final = 16 * 1024 * 1024
_CONFIGURATION: Final = "gpg.conf"
_PUBLIC_KEYS: Final = "pubring.kbx"
_GPG_CONF: Final = "batch\nno-tty\nno-autostart\nno-auto-key-retrieve\ntrust-model always\n"

_REASONS: Final[Mapping[str, str]] = {
    "B": "the signature does not match the commit",
    "U": "the key is not among the given ones",
    "X": "the signature has expired",
    "Y": "the key has expired",
    "R": "the key was revoked",
    "E": "the key is not among the given ones, or the signature cannot be read",
    "N": "the commit is not signed, or its kind of signature is not accepted",
}


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Whose signatures count."""

    allowed_signers: Path | None = None
    """File of ssh-keygen(1), ALLOWED SIGNERS."""
    gpg_keyring: Path | None = None
    """Exported public keys, armoured or not: a file, or a folder of files."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The verdict. ``signer`` is the principal (SSH) or the user id (GPG); ``reason`` says why it is not good."""

    good: bool
    signer: str
    reason: str


class Verifier:
    """Prepares git for a check."""

    def __init__(self, runner: GitRunner, home: Path) -> None:
        self._runner = runner
        self._home = home

    async def prepare(self, keys: SigningKeys) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the environment variables and the configuration for ``git log``.

        Raises:
            Broken: a file of keys cannot be read or imported.
        """
        config = {"gpg.x509.program": "false", "gpg.minTrustLevel": "undefined"}
        if keys.allowed_signers is not None:
            if not await asyncio.to_thread(keys.allowed_signers.is_file):
                raise Broken(f"The file of allowed signers {keys.allowed_signers} is not there.")
            config["gpg.ssh.allowedSignersFile"] = str(keys.allowed_signers.absolute())
        home = await self._gpg_home(keys.gpg_keyring)
        return {"GNUPGHOME": str(home)}, config

    async def _gpg_home(self, keyring: Path | None) -> Path:
        """Return a home of GnuPG with exactly the given keys."""
        files = await asyncio.to_thread(_key_files, keyring)
        home = self._home / f"gnupg-{_digest(files)}"
        if await asyncio.to_thread(home.is_dir):
            return home
        fresh = await asyncio.to_thread(_fresh_home)
        try:
            if files:
                await self._import(fresh, files)
            await asyncio.to_thread(_put_in_place, fresh, home)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        return home

    async def _import(self, home: Path, files: Mapping[Path, bytes]) -> None:
        options = ("--homedir", str(home), "--import", "--", *map(str, files))
        finished = await self._runner.run(Command(options, seconds=GPG_SECONDS, program="gpg"))
        if finished.status != 0:
            raise Broken(f"The GPG keys {', '.join(map(str, files))} cannot be imported: {shortened(finished.words)}")


def verdict(output: bytes, words: str, keys: SigningKeys) -> Signature:
    """Read what git printed for ``SIGNATURE_FORMAT``."""
    fields = output.decode("utf-8", "replace").rstrip("\n").split("\n")
    letter, signer, fingerprint = (*fields, "", "", "")[:3]
    signer = one_line(cleaned(signer, limit=200))
    if keys == SigningKeys():
        return Signature(good=False, signer="", reason="no keys are configured, so nobody's signature counts")
    if letter == "G" and signer and fingerprint:
        return Signature(good=True, signer=signer, reason="")
    reason = _REASONS.get(letter, "git gives no verdict")
    detail = shortened(words)
    return Signature(good=False, signer="", reason=f"{reason} ({detail})" if detail else reason)


def _key_files(keyring: Path | None) -> Mapping[Path, bytes]:
    if keyring is None:
        return {}
    try:
        paths = sorted(path for path in keyring.iterdir() if path.is_file()) if keyring.is_dir() else [keyring]
        if sum(path.stat().st_size for path in paths) > MAX_KEY_BYTES:
            raise Broken(f"The GPG keys in {keyring} are larger than {MAX_KEY_BYTES} bytes.")
        return {path.absolute(): path.read_bytes() for path in paths}
    except OSError as error:
        raise Broken(f"The GPG keys in {keyring} cannot be read: {error.strerror}.") from None


def _digest(files: Mapping[Path, bytes]) -> str:
    contents = sorted(hashlib.sha256(content).digest() for content in files.values())
    return hashlib.sha256(b"".join(contents)).hexdigest()[:32]


def _fresh_home() -> Path:
    """Make a home in the system's temporary directory: gpg fails where its socket's path would be too long."""
    try:
        home = Path(tempfile.mkdtemp(prefix="gpg-"))
        (home / _CONFIGURATION).write_text(_GPG_CONF, encoding="ascii")
    except OSError as error:
        raise Broken(f"A temporary home of GnuPG cannot be made: {error.strerror}.") from error
    return home


def _put_in_place(fresh: Path, home: Path) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix="gnupg-fresh-", dir=home.parent))
        for name in (_CONFIGURATION, _PUBLIC_KEYS):
            if (fresh / name).exists():  # without keys there is no ring
                shutil.copy2(fresh / name, staged / name)
        staged.rename(home)
    except OSError as error:
        # Another call made the same one meanwhile.
        if not home.is_dir():
            raise Broken(f"The home of GnuPG {home} cannot be made: {error.strerror}.") from error
