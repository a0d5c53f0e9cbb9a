"""The certificates that were issued for fronts, each with its key, under ``<data>/keys/certificates``.

``<name>``               a link to the directory that counts: ``chain.pem``, ``key.pem`` (sealed), ``about.json``
``.<name>.<number>``     such a directory
``<name>.waiting.pem``   the key of an order that is under way, so that it can be gone on with after a crash

A pair is written aside as a whole directory, and then the link is replaced: at no moment, whoever is killed, can
anybody read a chain with another's key. What a killed process left lying is removed at the next look.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken
from reconciler.pki.authority.pairs import key_pem, new_key, read_key
from reconciler.pki.certificate_pair import CertificatePair, NoPair
from reconciler.pki.private_files import exclusive, make_private_directory, read_private, sync_directory, write_new
from reconciler.pki.renewal import Issuing, Source
from reconciler.pki.vault import Vault, is_sealed, sealed

_CHAIN: Final = "chain.pem"
_KEY: Final = "key.pem"
_ABOUT: Final = "about.json"
_WAITING: Final = ".waiting.pem"
_LOCK: Final = ".lock"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found. ``damaged``: name → why it cannot be served; such a one is to be issued anew."""

    pairs: Mapping[str, CertificatePair]
    damaged: Mapping[str, str]


class CertificateStore:
    """Keeps pairs under ``keys`` (``<data>/keys``). Every method raises Broken when files cannot be used."""

    def __init__(self, keys: Path, vault: Vault) -> None:
        self._directory = keys / "certificates"
        self._vault = vault

    def load(self) -> Stored:
        """Read every pair and hold chain and key against each other; remove what is half written.

        Raises:
            Broken: when a file is open to others, or a key is sealed and the vault has no key.
        """
        with self._turn():
            self._sweep()
            pairs, damaged = {}, {}
            for path in sorted(self._directory.iterdir()):
                if path.name.startswith(".") or path.name.endswith(_WAITING):
                    continue
                try:
                    pairs[path.name] = self._read(path)
                except NoPair as problem:
                    damaged[path.name] = str(problem)
            return Stored(pairs, damaged)

    def save(self, name: str, pair: CertificatePair) -> None:
        """Put a pair in place of the former one, durably and in one step; the key that waited is used up."""
        with self._turn():
            self._refuse(name)
            aside = self._directory / f".{name}.{secrets.token_hex(8)}"
            aside.mkdir(mode=0o700)
            write_new(aside / _CHAIN, pair.chain.encode("ascii"))
            write_new(aside / _KEY, self._vault.seal(_purpose(name), pair.key.encode("ascii")))
            write_new(aside / _ABOUT, json.dumps(pair.held.source._asdict()).encode())
            sync_directory(aside)
            link = aside.with_name(f"{aside.name}.link")
            link.symlink_to(aside.name)
            place = self._directory / name
            if place.is_dir() and not place.is_symlink():  # restored by a tool that follows links
                place.replace(aside.with_name(f"{aside.name}.former"))
            link.replace(place)
            sync_directory(self._directory)
            (self._directory / f"{name}{_WAITING}").unlink(missing_ok=True)
            self._sweep()

    def drop(self, name: str) -> None:
        """Forget a pair and the key that waits; one that is not there is no error."""
        with self._turn():
            self._refuse(name)
            place = self._directory / name
            if place.is_dir() and not place.is_symlink():
                place.replace(self._directory / f".{name}.{secrets.token_hex(8)}.former")
            else:
                place.unlink(missing_ok=True)
            (self._directory / f"{name}{_WAITING}").unlink(missing_ok=True)
            sync_directory(self._directory)
            self._sweep()

    def waiting_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return the key for the next certificate, made at the first call; the same one until :meth:`save`."""
        with self._turn():
            self._refuse(name)
            path = self._directory / f"{name}{_WAITING}"
            key = read_key(self._vault.read_or_create(path, _purpose(name), lambda: key_pem(new_key())))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Broken(f"{path} does not hold a key.", hint="Remove it; another one is made.")
        return key

    def forget_waiting(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Remove the keys that wait for certificates which nobody wants; return the names. Mostly there are none."""
        gone = sorted(name for name in self.waiting() if name not in wanted)
        if gone:
            with self._turn():
                for name in gone:
                    (self._directory / f"{name}{_WAITING}").unlink(missing_ok=True)
                sync_directory(self._directory)
        return tuple(gone)

    def waiting(self) -> Iterator[str]:
        """Yield the names for which a key waits."""
        return (path.name.removesuffix(_WAITING) for path in self._directory.glob(f"[!.]*{_WAITING}"))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            make_private_directory(self._directory)
            with exclusive(self._directory / _LOCK):
                yield
        except OSError as error:
            text = f"The certificates in {self._directory} cannot be used: {error.strerror or error}."
            raise Broken(text) from None

    def _read(self, path: Path) -> CertificatePair:
        try:
            directory = path.resolve(strict=True)
            chain, stored, about = (read_private(directory / file) for file in (_CHAIN, _KEY, _ABOUT))
        except (FileNotFoundError, NotADirectoryError):
            raise NoPair("a file is missing") from None
        if is_sealed(stored) and not self._vault.sealing:
            raise sealed(_purpose(path.name))
        try:
            key = self._vault.read(directory / _KEY, _purpose(path.name))
        except Broken:
            raise NoPair("the key cannot be opened") from None
        try:
            return CertificatePair.read(chain.decode("ascii"), key.decode("ascii"), _source(about))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise NoPair("a file is damaged") from None

    def _sweep(self) -> None:
        """Remove what no link leads to: a process was killed before it could replace the link, or just after."""
        entries = list(self._directory.iterdir())
        kept = {_LOCK, *(one.readlink().name for one in entries if one.is_symlink() and not one.name.startswith("."))}
        for one in entries:
            if not one.name.startswith(".") or one.name in kept:
                continue
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink()

    def _refuse(self, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of a certificate")


def _source(about: bytes) -> Source:
    said = json.loads(about)
    issuer, directory = said["issuer"], said["directory"]
    if issuer not in get_args(Issuing) or not isinstance(directory, str):
        raise ValueError
    return Source(issuer, directory)


def _purpose(name: str) -> str:
    return f"certificate/{name}"
