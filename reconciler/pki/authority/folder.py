"""The files of an authority, under ``<data>/keys/authority``, and turns in using them.

``root-<role>.pem``           certificate, and the key unless it lies offline
``intermediate-<role>.pem``   certificate and key
``intermediate-waiting.pem``  a key that waits for its first certificate from an offline root
``root-wanted``               the key of the root is elsewhere, and the next root may be handed in
``waiting.json``              what a person has to do, and what the next intermediate must permit
``crl-<key id>.der``          the last list of revocations of the authority with this key

A turn is a lock that keeps other threads and processes out, and then a look whether they changed something. So a
command may install a new intermediate while ``serve`` runs.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from reconciler.errors import Broken
from reconciler.pki.authority import pairs
from reconciler.pki.authority.inventory import Inventory
from reconciler.pki.authority.names import Permitted
from reconciler.pki.authority.pairs import Pair
from reconciler.pki.authority.profiles import PrivateKey
from reconciler.pki.keystore import Role
from reconciler.pki.private_files import (
    exclusive,
    make_private_directory,
    read_private,
    refuse_if_open_to_others,
    sync_directory,
    write_private,
)
from reconciler.pki.vault import Vault

ROLES: Final[tuple[Role, ...]] = get_args(Role)
AuthorityKind = Literal["root", "intermediate"]
_WAITING_KEY: Final = "intermediate-waiting.pem"
_WAITING: Final = "waiting.json"
_ROOT_WANTED: Final = "root-wanted"
_INVENTORY: Final = "inventory.jsonl"


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What waits for a person: why, what to do, and what the next intermediate must permit."""

    reason: Literal["RootOffline", "TooManyNames", "NextRootMissing"]
    message: str
    hint: str
    permitted: Permitted


@dataclass
class _Loaded:
    seen: tuple[tuple[str, int, int, int], ...] = ()
    pairs: dict[tuple[AuthorityKind, Role], Pair] = field(default_factory=dict)


class Folder:
    """Reads and writes the files. Everything but ``turn`` is called within one.

    Raises:
        Broken: when the directory is missing or open to others, or a file in it is damaged.
    """

    def __init__(self, keys: Path, vault: Vault) -> None:
        self._directory = keys / "authority"
        self._vault = vault
        self._loaded = _Loaded()
        if not self._directory.is_dir():
            raise Broken(f"There is no authority in {keys}.", hint="Make one: cloudlunacy pki init --data DIR")
        refuse_if_open_to_others(self._directory)
        self.inventory = Inventory(keys / _INVENTORY)

    @classmethod
    def make(cls, keys: Path, vault: Vault) -> Folder:
        """Return the folder, made first where it is missing.

        Raises:
            Broken: when it cannot be made.
        """
        try:
            make_private_directory(keys)
            make_private_directory(keys / "authority")
        except OSError as error:
            raise Broken(f"The authority in {keys} cannot be made: {error.strerror}.") from None
        return cls(keys, vault)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep everybody else out and take note of what they did.

        Raises:
            Broken: when a file cannot be read or written, here or in the block.
        """
        try:
            with exclusive(self._directory / ".lock"):
                self._refresh()
                self.inventory.refresh()
                yield
        except OSError as error:
            text = f"The authority in {self._directory} cannot be used: {error.strerror or error}."
            raise Broken(text) from None

    def pair(self, kind: AuthorityKind, role: Role = "current") -> Pair | None:
        """Return a root or an intermediate."""
        return self._loaded.pairs.get((kind, role))

    def pairs(self) -> Iterator[tuple[AuthorityKind, Role, Pair]]:
        """Go through all roots and intermediates, in an order that stays the same."""
        for kind, role in sorted(self._loaded.pairs):
            yield kind, role, self._loaded.pairs[kind, role]

    def put(self, kind: AuthorityKind, role: Role, pair: Pair) -> None:
        """Write a root or an intermediate in one step."""
        pairs.save(self._path(kind, role), pair, _purpose(kind), self._vault)
        self._refresh()

    def copy(self, kind: AuthorityKind, role: Role, to: Role) -> None:
        """Give one a further role, in one step; this needs no key, because a key is sealed for its kind."""
        write_private(self._path(kind, to), read_private(self._path(kind, role)))
        self._refresh()

    def drop(self, kind: AuthorityKind, role: Role) -> None:
        """Forget a root or an intermediate."""
        self._drop(self._path(kind, role).name)
        self._refresh()

    def waiting_key(self) -> PrivateKey | None:
        """Return the key that waits for its first certificate."""
        path = self._directory / _WAITING_KEY
        if not path.exists():
            return None
        key = pairs.read_key(self._vault.read(path, _purpose("intermediate")))
        if key is None:
            raise Broken(f"{path} does not hold a key.", hint="Remove it, and make a new request.")
        return key

    def make_waiting_key(self) -> PrivateKey:
        """Return the key that waits for its first certificate, made first where it is missing."""
        path = self._directory / _WAITING_KEY
        if not path.exists():
            content = self._vault.seal(_purpose("intermediate"), pairs.key_pem(pairs.new_key()))
            write_private(path, content)
        key = self.waiting_key()
        assert key is not None
        return key

    def drop_waiting_key(self) -> None:
        """Forget it, once it has its certificate."""
        self._drop(_WAITING_KEY)

    def want_root(self, *, wanted: bool) -> None:
        """Let the next root be handed in, or no more."""
        if wanted != self.wants_root():
            if wanted:
                write_private(self._directory / _ROOT_WANTED, b"")
            else:
                self._drop(_ROOT_WANTED)

    def wants_root(self) -> bool:
        """Say whether the next root may be handed in."""
        return (self._directory / _ROOT_WANTED).exists()

    def outstanding(self) -> Outstanding | None:
        """Return what waits for a person."""
        path = self._directory / _WAITING
        if not path.exists():
            return None
        try:
            said = json.loads(path.read_bytes())
            permitted = Permitted(
                frozenset(map(str, said["dns"])),
                frozenset(map(str, said["hosts"])),
                frozenset(ipaddress.ip_network(one) for one in said["networks"]),
            )
            return Outstanding(said["reason"], str(said["message"]), str(said["hint"]), permitted)
        except (ValueError, TypeError, KeyError):
            return None  # written anew at the next look; nothing depends on it

    def set_outstanding(self, outstanding: Outstanding | None) -> None:
        """Remember what waits for a person, or that nothing does any more."""
        if outstanding == self.outstanding():
            return
        if outstanding is None:
            self._drop(_WAITING)
        else:
            write_private(self._directory / _WAITING, json.dumps(_said(outstanding), indent=2).encode())

    def crl(self, key_id: str) -> bytes:
        """Return the last list of revocations of the authority with this key; empty where there is none."""
        path = self._directory / f"crl-{key_id}.der"
        return path.read_bytes() if path.exists() else b""

    def put_crl(self, key_id: str, der: bytes) -> None:
        """Keep a list of revocations."""
        write_private(self._directory / f"crl-{key_id}.der", der)

    def _path(self, kind: AuthorityKind, role: Role) -> Path:
        return self._directory / f"{kind}-{role}.pem"

    def _drop(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        sync_directory(self._directory)

    def _refresh(self) -> None:
        kinds: tuple[AuthorityKind, ...] = get_args(AuthorityKind)
        paths = {(kind, role): self._path(kind, role) for kind in kinds for role in ROLES}
        there = {which: path for which, path in paths.items() if path.exists()}
        if _seen(there.values()) == self._loaded.seen and self._loaded.seen:
            return
        found = {which: pairs.load(path, _purpose(which[0]), self._vault) for which, path in there.items()}
        self._loaded = _Loaded(_seen(there.values()), found)  # seen anew: loading may have sealed one


def _seen(paths: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    statuses = ((path.name, path.stat()) for path in paths)
    return tuple((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in statuses)


def _purpose(kind: AuthorityKind) -> str:
    return f"authority/{kind}"


def _said(outstanding: Outstanding) -> dict[str, Any]:
    permitted = outstanding.permitted
    return {
        "reason": outstanding.reason,
        "message": outstanding.message,
        "hint": outstanding.hint,
        "dns": sorted(permitted.dns),
        "hosts": sorted(permitted.hosts),
        "networks": sorted(map(str, permitted.networks)),
    }
