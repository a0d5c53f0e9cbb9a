"""Private keys at rest: sealed with AES-256-GCM under one key-encryption key (docs/adr/0015).

The key-encryption key comes from outside the data directory: from a key file (32 random bytes in base64) by HKDF, or
from a passphrase by scrypt. Its salt lies in ``sealing.json`` beside the keys, with a sealed nothing by which a wrong
key is noticed before any file is touched. Without a key, files stay clear (PKCS#8, mode 0600).

A sealed file is text: base64 of nonce (12 bytes), ciphertext and tag (16 bytes) between two marks. The purpose of the
key is associated data, so that one key cannot be put in another's place. The role (previous, current, next) is not part
of the purpose: rotation renames files. The first 4 bytes of the nonce say by which key it was sealed, the others are
random: of the few thousand seals of a key's life no two meet.

One key-encryption key follows another in one write of ``sealing.json`` (:func:`change_key`), which then holds the
former key, sealed with the new one. What the former key sealed is sealed anew in passing, as what is found in clear;
once nothing is left, the former key is forgotten.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from reconciler.errors import Broken
from reconciler.pki.private_files import (
    MAX_SIZE,
    create_private,
    make_private_directory,
    read_private,
    told,
    write_private,
)

KEY_FILE: Final = "CLOUDLUNACY_KEY_FILE"
PASSPHRASE_FILE: Final = "CLOUDLUNACY_KEY_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
LEAST_PASSPHRASE: Final = 12
"""Characters. scrypt makes a guess cost 100 ms; it does not make a short word long."""
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SEALING: Final = "sealing.json"
_BEGIN: Final = b"-----BEGIN CLOUDLUNACY SEALED KEY-----\n"
_END: Final = b"-----END CLOUDLUNACY SEALED KEY-----\n"
_CLEAR_MARKS: Final = (b"PRIVATE KEY-----", b"AGE-SECRET-KEY-1")
_CHECK: Final = "check"
_FORMER: Final = "former"
_ID_BYTES: Final = 4
_NAMES: Final = {"hkdf-sha256": "a key file", "scrypt": "a passphrase"}
_HINT: Final = f"Name the file with the right key in {KEY_FILE} or {PASSPHRASE_FILE}."


@dataclass(frozen=True, slots=True)
class Secret:
    """What the key-encryption key is derived from."""

    kind: Literal["hkdf-sha256", "scrypt"]
    content: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind})"

    def derive(self, salt: bytes) -> bytes:
        """Return the key-encryption key. scrypt takes about 0.1 s and 32 MiB: once in a process."""
        if self.kind == "scrypt":
            return Scrypt(salt=salt, length=_KEY_BYTES, n=2**15, r=8, p=1).derive(self.content)
        return HKDF(hashes.SHA256(), length=_KEY_BYTES, salt=salt, info=b"cloudlunacy sealing 1").derive(self.content)


def read_secret(key_file: Path | None, passphrase_file: Path | None) -> Secret | None:
    """Read the file that was named; None when none was.

    Raises:
        Broken: when both are given, or the file does not hold what it should. No message holds any of its content.
    """
    if key_file is not None and passphrase_file is not None:
        raise Broken("Keys are sealed with a key file or with a passphrase, not with both.", hint=f"Unset {KEY_FILE}.")
    path = key_file or passphrase_file
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"{told(path, error)} cannot be read: {error.strerror}."
        raise Broken(text, hint="It should seal the keys.") from None
    return _passphrase(path, content) if key_file is None else _key(path, content)


def _key(path: Path, content: bytes) -> Secret:
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        hint = f"Make one: head -c {_KEY_BYTES} /dev/urandom | base64 > FILE"
        raise Broken(f"{path} does not hold {_KEY_BYTES} bytes in base64.", hint=hint)
    return Secret("hkdf-sha256", key)


def _passphrase(path: Path, content: bytes) -> Secret:
    passphrase = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(passphrase) < LEAST_PASSPHRASE:
        raise Broken(f"The passphrase in {path} is shorter than {LEAST_PASSPHRASE} characters.", hint="Take a longer.")
    return Secret("scrypt", passphrase)


class Vault:
    """Seals and opens. Without a key it keeps things clear, and refuses what is sealed with a sentence."""

    def __init__(self, key: bytes | None = None, *, former: bytes | None = None) -> None:
        self._key = key
        self._cipher = None if key is None else AESGCM(key)
        self._former = None if former is None else AESGCM(former)
        self._id = b"" if key is None else _id_of(key)

    def __repr__(self) -> str:
        return f"Vault({'sealing' if self.sealing else 'clear'})"

    @classmethod
    def unlock(cls, directory: Path, secret: Secret | None) -> Vault:
        """Derive the key for the files in ``directory``; at first use make ``sealing.json`` there.

        Raises:
            Broken: when this is not the key that the files were sealed with, or ``sealing.json`` is damaged.
        """
        if secret is None:
            return cls()
        path = directory / _SEALING
        try:
            make_private_directory(directory)
            if not path.exists():
                create_private(path, _new_sealing(secret))
            content = read_private(path)
        except OSError as error:
            raise Broken(f"{path} cannot be used: {error.strerror}.") from None
        kind, salt, check, former = _read_sealing(path, content)
        if kind != secret.kind:
            text = f"The keys in {directory} are sealed with {_NAMES[kind]}, and {_NAMES[secret.kind]} was given."
            raise Broken(text, hint=_HINT)
        vault = cls(secret.derive(salt))
        try:
            vault.open(_CHECK, check)
        except Broken:
            text = f"The keys in {directory} are sealed with another {_NAMES[kind].removeprefix('a ')}."
            raise Broken(text, hint=_HINT) from None
        if former is None:
            return vault
        both = cls(vault._key, former=vault.open(_FORMER, former))
        return both if both.left(directory) else vault._forget_former(path, content)

    @classmethod
    def of_environment(cls, directory: Path, environment: Mapping[str, str]) -> Vault:
        """Unlock with the file that :data:`KEY_FILE` or :data:`PASSPHRASE_FILE` names; clear where neither is set.

        Raises:
            Broken: as :func:`read_secret` and :meth:`unlock`.
        """
        named = [Path(environment[name]) if environment.get(name) else None for name in (KEY_FILE, PASSPHRASE_FILE)]
        return cls.unlock(directory, read_secret(*named))

    @property
    def sealing(self) -> bool:
        """Whether there is a key."""
        return self._cipher is not None

    def seal(self, purpose: str, clear: bytes) -> bytes:
        """Return what to store for ``clear``: a sealed block, or ``clear`` itself where there is no key."""
        if self._cipher is None:
            return clear
        nonce = self._id + secrets.token_bytes(_NONCE_BYTES - _ID_BYTES)
        block = nonce + self._cipher.encrypt(nonce, clear, _associated(purpose))
        return _BEGIN + base64.encodebytes(block) + _END

    def open(self, purpose: str, stored: bytes) -> bytes:
        """Return what :meth:`seal` was given; what was never sealed is returned as it is.

        Raises:
            Broken: when there is no key or another, or the block is damaged or was sealed for another purpose.
        """
        if not is_sealed(stored):
            return stored
        if self._cipher is None:
            raise sealed(purpose)
        cipher = self._former if self._former is not None and self.wants(stored) else self._cipher
        try:
            block = _block(stored)
            return cipher.decrypt(block[:_NONCE_BYTES], block[_NONCE_BYTES:], _associated(purpose))
        except (InvalidTag, ValueError):
            raise Broken(
                f'The key "{purpose}" cannot be opened: it is damaged, or was sealed with another key.',
                hint=f"Restore it from a backup, together with {_SEALING}.",
            ) from None

    def wants(self, stored: bytes) -> bool:
        """Say whether a file should be written anew: it is in clear and there is a key, or sealed with the former."""
        if not is_sealed(stored):
            return self.sealing
        return self._former is not None and not self._is_ours(stored)

    def _is_ours(self, stored: bytes) -> bool:
        try:
            return _block(stored).startswith(self._id)
        except ValueError:
            return True  # damaged, and not for the former key to mend

    def left(self, directory: Path) -> tuple[str, ...]:
        """List the files below ``directory`` that the former key has sealed, relative, sorted.

        Raises:
            Broken: when something there cannot be read.
        """
        files = (path for path in directory.rglob("*") if path.is_file() and path.name != _SEALING)
        try:
            return tuple(sorted(str(path.relative_to(directory)) for path in files if self._is_left(path)))
        except OSError as error:
            raise Broken(f"{error.filename or directory} cannot be read: {error.strerror}.") from None

    def _is_left(self, path: Path) -> bool:
        with path.open("rb") as file:
            _, mark, rest = file.read(MAX_SIZE).partition(_BEGIN)
        return bool(mark) and self.wants(mark + rest)

    def _forget_former(self, path: Path, content: bytes) -> Vault:
        document = json.loads(content)
        del document["former"]
        try:
            write_private(path, json.dumps(document, indent=2).encode())
        except OSError as error:
            raise Broken(f"{path} cannot be written: {error.strerror}.") from None
        return self

    def read(self, path: Path, purpose: str) -> bytes:
        """Return the content of a private file; one in clear, or sealed with a former key, is sealed when there is one.

        Raises:
            Broken: as :meth:`open`, and when others may read the file.
            OSError: when it cannot be read, or not be replaced.
        """
        stored = read_private(path)
        clear = self.open(purpose, stored)
        if self.wants(stored):
            write_private(path, self.seal(purpose, clear))
        return clear

    def read_or_create(self, path: Path, purpose: str, make: Callable[[], bytes]) -> bytes:
        """Return the content of a private file, made first where it is missing. Two processes end with one file."""
        if not path.exists():
            create_private(path, self.seal(purpose, make()))
        return self.read(path, purpose)


def in_clear(directory: Path) -> tuple[str, ...]:
    """List the files below ``directory`` that hold a private key in clear, relative, sorted.

    Raises:
        OSError: when something there cannot be read.
    """
    files = (path for path in directory.rglob("*") if path.is_file())
    return tuple(sorted(str(path.relative_to(directory)) for path in files if _holds_key(path)))


def _holds_key(path: Path) -> bool:
    with path.open("rb") as file:
        content = file.read(MAX_SIZE)
    return any(mark in content for mark in _CLEAR_MARKS)


def sealed(what: str) -> Broken:
    """Say that there is no key for what is sealed."""
    return Broken(f'The key "{what}" is sealed.', hint=_HINT)


def is_sealed(stored: bytes) -> bool:
    """Say whether ``stored`` is a sealed block."""
    return stored.startswith(_BEGIN)


def change_key(directory: Path, old: Secret, new: Secret) -> Vault:
    """Let the keys in ``directory`` be opened by another secret from now on; return the vault of that secret.

    One write decides: before it the old secret counts, after it the new one alone. What was sealed before is sealed
    anew when it is read. Nobody else may have the keys open.

    Raises:
        Broken: when ``old`` is not the right one, or a former change has not reached every file yet.
    """
    vault = Vault.unlock(directory, old)
    if left := vault.left(directory):
        hint = "Start serve once; if they are of no use any more, remove them."
        raise Broken(f"The change before is not done: {', '.join(left)}.", hint=hint)
    document = json.loads(_new_sealing(new))
    key = new.derive(bytes.fromhex(document["salt"]))
    former = Vault(key).seal(_FORMER, vault._key or b"")  # noqa: SLF001 - it never leaves this module in clear
    path = directory / _SEALING
    try:
        write_private(path, json.dumps(document | {"former": former.decode("ascii")}, indent=2).encode())
    except OSError as error:
        raise Broken(f"{path} cannot be written: {error.strerror}.") from None
    return Vault.unlock(directory, new)


def _id_of(key: bytes) -> bytes:
    """Return by what a key is known: nothing follows from it, but which of two it is."""
    return hmac.digest(key, b"cloudlunacy key id 1", "sha256")[:_ID_BYTES]


def _block(stored: bytes) -> bytes:
    """Raise ValueError when it is no base64."""
    return base64.b64decode(stored.removeprefix(_BEGIN).removesuffix(_END).replace(b"\n", b""), validate=True)


def _associated(purpose: str) -> bytes:
    return f"cloudlunacy 1 {purpose}".encode()


def _new_sealing(secret: Secret) -> bytes:
    salt = secrets.token_bytes(_SALT_BYTES)
    check = Vault(secret.derive(salt)).seal(_CHECK, b"")
    document = {"version": 1, "kdf": secret.kind, "salt": salt.hex(), "check": check.decode("ascii")}
    return json.dumps(document, indent=2).encode()


def _read_sealing(path: Path, content: bytes) -> tuple[Literal["hkdf-sha256", "scrypt"], bytes, bytes, bytes | None]:
    try:
        document = json.loads(content)
        kind, salt, check = document["kdf"], bytes.fromhex(document["salt"]), document["check"].encode("ascii")
        former = document["former"].encode("ascii") if "former" in document else None
        good = document["version"] == 1 and kind in _NAMES and len(salt) == _SALT_BYTES and is_sealed(check)
    except (ValueError, TypeError, KeyError, AttributeError):
        good = False
    if not good:
        raise Broken(f"{path} is damaged; the keys cannot be opened without it.", hint="Restore it from a backup.")
    return kind, salt, check, former
