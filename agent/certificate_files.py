"""The agent's certificate on its disk: key, chain and roots always belong together.

``<data>/certificate`` is a symbolic link to ``certificate.<n>``, a directory (0700) that is complete, and on the disk,
before the link is replaced in one step, and that is never written to again. Whoever resolves the link once and reads
from there has a pair, whenever the agent is killed. In it:

``key.pem``       the private key (PKCS #8, 0600), made for this certificate alone
``chain.pem``     the certificate, then its chain
``bundle.pem``    the roots to trust
``received.json`` when it came, by the control plane's clock
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.keys import sync_directory
from agent.renewal import Life

LINK: Final = "certificate"
KEY, CHAIN, BUNDLE, RECEIVED = "key.pem", "chain.pem", "bundle.pem", "received.json"
_LOCK: Final = ".certificate.lock"
_DIRECTORY: Final = re.compile(r"certificate\.([0-9]{1,18})")
_LEFT_OVER: Final = re.compile(r"\.certificate\.[0-9a-f]{16}")
_MOST: Final = 256 * 1024


class BadPair(Exception):
    """Key and certificate cannot be used together. The message says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """The certificate that this machine has. ``directory`` is the resolved one."""

    directory: Path
    life: Life
    serial: int


class CertificateFiles:
    """The files below ``data``. All methods block; writing raises OSError and then has changed nothing."""

    def __init__(self, data: Path, name: str) -> None:
        self._data = data
        self._name = name

    def load(self) -> Held | None:
        """Return what is in place; None where there is nothing that can be used."""
        try:
            directory = (self._data / LINK).resolve(strict=True)
            key, chain = _read(directory / KEY), _read(directory / CHAIN)
            received = json.loads(_read(directory / RECEIVED))["receivedAt"]
            leaf = check(key, chain, self._name)
            begins = max(float(received), leaf.not_valid_before_utc.timestamp())
        except (OSError, BadPair, ValueError, KeyError, TypeError):
            return None
        return Held(directory, Life(begins, leaf.not_valid_after_utc.timestamp()), leaf.serial_number)

    def install(self, key: bytes, chain: bytes, bundle: bytes, *, received_at: float) -> Held:
        """Put a pair into place.

        Raises:
            BadPair: when it is none, or not this agent's.
            OSError: when it cannot be written; what was in place stays.
        """
        leaf = check(key, chain, self._name)
        with self._turn():
            directory = self._new_directory()
            contents = {KEY: key, CHAIN: chain, BUNDLE: bundle}
            contents[RECEIVED] = json.dumps({"receivedAt": received_at}).encode()
            try:
                for name, content in contents.items():
                    _write(directory / name, content)
                sync_directory(directory)
                self._point_to(directory)
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)
                raise
            self._tidy(directory)
        begins = max(received_at, leaf.not_valid_before_utc.timestamp())
        return Held(directory, Life(begins, leaf.not_valid_after_utc.timestamp()), leaf.serial_number)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep another process of this agent out: enrolling again while it runs."""
        descriptor = os.open(self._data / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _new_directory(self) -> Path:
        directory = self._data / f"{LINK}.{max((number for number, _ in self._directories()), default=0) + 1}"
        directory.mkdir(mode=0o700)
        return directory

    def _point_to(self, directory: Path) -> None:
        aside = self._data / f".{LINK}.{secrets.token_hex(8)}"
        aside.symlink_to(directory.name)
        aside.replace(self._data / LINK)
        sync_directory(self._data)

    def _tidy(self, present: Path) -> None:
        """Remove what a crash left, and all but the former pair: somebody may be reading that one."""
        former = max((number for number, path in self._directories() if path != present), default=0)
        for number, path in self._directories():
            if path != present and number != former:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._data.iterdir():
            if _LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _directories(self) -> list[tuple[int, Path]]:
        matched = ((_DIRECTORY.fullmatch(path.name), path) for path in self._data.iterdir())
        return [(int(match[1]), path) for match, path in matched if match is not None]


def check(key: bytes, chain: bytes, name: str) -> x509.Certificate:
    """Return the leaf of a chain whose key this is, and which says that it is the agent ``name``.

    Raises:
        BadPair
    """
    try:
        private = serialization.load_pem_private_key(key, password=None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        public = leaf.public_key()
    except (ValueError, TypeError, x509.ExtensionNotFound):
        raise BadPair("There is no certificate with a key.") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != public:
        raise BadPair("The certificate is for another key.")
    ids = names.get_values_for_type(x509.UniformResourceIdentifier)
    if [uri.partition("://")[2].partition("/")[2] for uri in ids] != [f"agent/{name}"]:
        raise BadPair("The certificate is another agent's.")
    return leaf


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
