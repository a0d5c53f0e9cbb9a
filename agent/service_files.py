"""Certificates of services on this machine's disk, as docs/services.md describes them.

Of each service ``<data>/services/<team>/<deployment>.json`` remembers where its files are and which certificate the
service was told of. It is written before files are put into a place, so that no place is forgotten, and after the
service was told, so that a crash in between tells again.

Files say whose they are, in ``received.json`` beside them. What belongs to one service is never read, replaced, given
to a group or removed on behalf of another, whatever documents and records say.
"""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agent.certificate_files import BUNDLE, LINK, UNREADABLE, BadPair, authority_id
from agent.grants import Denied, ServiceGrants
from agent.keys import write_private
from agent.renewal import Life
from agent.swapped_directory import SwappedDirectory, read
from schemas.service_tls import Installation, KeyType, ServiceCertificate

FOLDER: Final = "services"
KEY, CHAIN, ROOTS, WHOLE = "tls.key", "tls.crt", "ca.crt", "tls.pem"
_RECEIVED: Final = "received.json"
_OURS: Final = frozenset({KEY, CHAIN, ROOTS, WHOLE, _RECEIVED})


class ServiceName(NamedTuple):
    team: str
    deployment: str

    def __str__(self) -> str:
        return f"{self.team}/{self.deployment}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of a service belong, and which group may read them."""

    link: Path
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class HeldService:
    """A certificate that a service has. ``directory`` is the resolved one."""

    directory: Path
    place: Place
    life: Life
    names: frozenset[str]
    key_type: KeyType | None
    fingerprint: str
    """SHA-256 of the certificate, hex."""
    authorities: frozenset[str]
    """Those above it (``schemas.trust.AuthorityId``)."""


@dataclass(frozen=True, slots=True)
class Files:
    """What belongs into the files, PEM. ``received_at``: when it came, POSIX seconds."""

    key: bytes = field(repr=False)
    chain: bytes
    roots: bytes
    received_at: float


@dataclass(frozen=True, slots=True)
class _Record:
    links: tuple[str, ...] = ()
    told: str = ""
    """Fingerprint of the certificate that the service was told of last."""


class ServiceFiles:
    """The files below ``data`` and in granted directories. All methods block."""

    def __init__(self, data: Path) -> None:
        self._data = data.absolute()  # a record outlives the directory that the agent was started in
        self._folder = self._data / FOLDER
        self._roots = data / LINK / BUNDLE
        """Of the agent itself, who is told when the fleet has other roots."""

    def place(self, name: ServiceName, wanted: Installation, grants: ServiceGrants) -> Place:
        """Return where the files belong.

        Raises:
            Denied: when this machine does not allow it.
        """
        gid = None
        if wanted.group is not None:
            grants.group(wanted.group)
            try:
                gid = grp.getgrnam(wanted.group).gr_gid
            except KeyError:
                raise Denied(f'There is no group "{wanted.group}" here.') from None
        if wanted.directory is None:
            return Place(self._folder / name.team / name.deployment, gid)
        link = self._granted(wanted.directory, grants)
        if not self._may_use(name, link):
            raise Denied(f"{link} is where {_owner(link) or 'somebody else'} has its files.")
        return Place(link, gid)

    def _granted(self, directory: str, grants: ServiceGrants) -> Path:
        """Return where the link belongs, if this machine allows a service of some kind to have it there."""
        link, granted = Path(directory), Path(grants.directory(directory))
        try:
            straight = link.parent.resolve(strict=True) == granted.resolve(strict=True) / link.parent.relative_to(
                granted
            )
        except OSError as error:
            raise Denied(f"{link.parent} cannot be used: {error.strerror}.") from None
        if not straight:
            raise Denied(f"{link.parent} lies behind a symbolic link.")
        real, data = link.parent.resolve() / link.name, self._data.resolve()
        if real.is_relative_to(data) or data.is_relative_to(real):
            raise Denied(f"{link} is where the agent has its own files.")
        for above in (link.parent, *link.parent.parents):
            if os.path.lexists(above / _RECEIVED):
                raise Denied(f"{above} holds the files of a service.")
            if above == granted:
                break
        return link

    def _may_use(self, name: ServiceName, link: Path) -> bool:
        """Say whether nothing lies behind a link, or what does belongs to this service."""
        if not _is_link(link):
            return True  # a file or directory there is neither read nor replaced
        owner = _owner(link)
        if owner is not None:
            return owner == str(name)
        if link == self._folder / name.team / name.deployment:
            return True
        # as an agent put it there that wrote down no owners, or damaged
        return [one for one in self.names() if str(link) in self._record(one).links] == [name]

    def _swapped(self, name: ServiceName, link: Path, gid: int | None = None) -> SwappedDirectory:
        return SwappedDirectory(link, gid=gid, foreign=lambda path: _foreign(path, name))

    def load(self, name: ServiceName, place: Place) -> HeldService | None:
        """Return what is in place, or in a former place of the service; None where nothing can be used."""
        links = dict.fromkeys([str(place.link), *self._record(name).links])
        found = (_load(Path(link)) for link in links if self._may_use(name, Path(link)))
        return next((held for held in found if held is not None), None)

    def install(self, name: ServiceName, place: Place, files: Files) -> HeldService:
        """Put a pair into place; what the service had in another place goes.

        Raises:
            BadPair: when it is none.
            OSError: when it cannot be written, or files of another service lie there; what was in place stays.
        """
        _leaf_of(files.key, files.chain)
        if not self._may_use(name, place.link):
            raise FileExistsError(17, "Files of another service lie there", str(place.link))
        place.link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = self._record(name)
        links = dict.fromkeys([*record.links, str(place.link)])
        self._write(name, _Record(tuple(links), record.told))
        received = {"receivedAt": files.received_at, "gid": place.gid, "owner": str(name)}
        contents = {KEY: files.key, CHAIN: files.chain, WHOLE: files.key + files.chain, ROOTS: files.roots}
        directory = self._swapped(name, place.link, place.gid).put(
            {_RECEIVED: json.dumps(received).encode(), **contents}  # the owner first
        )
        for link in map(Path, links):
            if not _leads_to(link, directory) and self._may_use(name, link):
                self._swapped(name, link).remove()
        self._write(name, _Record((str(place.link),), record.told))
        return _held(directory.resolve(), place, files.chain, files.received_at)

    def move(self, name: ServiceName, held: HeldService, place: Place) -> HeldService:
        """Put what a service has into another place, or give it to another group.

        Raises:
            BadPair, OSError: as :meth:`install`.
        """
        key, chain, roots = (read(held.directory / file) for file in (KEY, CHAIN, ROOTS))
        moved = self.install(name, place, Files(key, chain, roots, held.life.begins))
        if held.place.gid != place.gid:
            self._swapped(name, place.link).drop_former()  # the former group could read the key there
        return moved

    def follow_roots(self, name: ServiceName, held: HeldService) -> HeldService:
        """Give a service the roots of the agent, where these came later than its own.

        Raises:
            BadPair, OSError: as :meth:`install`.
        """
        own = held.directory / ROOTS
        try:
            later = self._roots.stat().st_mtime_ns > own.stat().st_mtime_ns
            roots = read(self._roots) if later else b""
        except OSError:
            return held
        if not roots or roots == read(own):
            return held
        key, chain = read(held.directory / KEY), read(held.directory / CHAIN)
        return self.install(name, held.place, Files(key, chain, roots, held.life.begins))

    def told(self, name: ServiceName) -> str:
        """Return the fingerprint of the certificate that the service was told of last."""
        return self._record(name).told

    def set_told(self, name: ServiceName, fingerprint: str) -> None:
        """Remember that the service was told. Raises OSError."""
        self._write(name, _Record(self._record(name).links, fingerprint))

    def names(self) -> Iterator[ServiceName]:
        """Yield the services that have files here, in no order."""
        for path in self._folder.glob("*/*.json"):
            yield ServiceName(path.parent.name, path.stem)

    def all(self) -> list[tuple[ServiceName, HeldService]]:
        """Return what services have, wherever it lies, in order of name."""
        found = []
        for name in sorted(self.names()):
            loaded = (_load(Path(link)) for link in self._record(name).links if self._may_use(name, Path(link)))
            found += [(name, held) for held in loaded if held is not None][:1]
        return found

    def remove(self, name: ServiceName) -> None:
        """Remove all that is kept of a service, and nothing of another. Raises OSError."""
        for link in {self._folder / name.team / name.deployment, *map(Path, self._record(name).links)}:
            if self._may_use(name, link):
                self._swapped(name, link).remove()
            else:
                self._swapped(name, link).drop_former()
        self._path(name).unlink(missing_ok=True)

    def hand_over(self, name: ServiceName, heir: ServiceName, wanted: Installation, grants: ServiceGrants) -> bool:
        """Let a service of the same team that has nothing yet have the directory of one that is going, files and all.

        The group stays until the heir's own place is looked up; :meth:`remove` has to follow. False: no such case.

        Raises:
            Denied: as :meth:`place`.
            OSError: as :meth:`install`.
        """
        if wanted.directory is None or name.team != heir.team or wanted.directory not in self._record(name).links:
            return False
        link = self._granted(wanted.directory, grants)
        if not self._may_use(name, link):
            return False
        held = _load(link)
        if held is None or self.load(heir, held.place) is not None:
            return False
        directory = SwappedDirectory(link).present()
        self._write(heir, _Record((str(link),)))
        replaced = json.dumps({"receivedAt": held.life.begins, "gid": held.place.gid, "owner": str(heir)})
        contents = {file: read(directory / file) for file in (KEY, CHAIN, WHOLE, ROOTS)}
        self._swapped(name, link, held.place.gid).put({_RECEIVED: replaced.encode(), **contents})
        return True

    def _path(self, name: ServiceName) -> Path:
        return self._folder / name.team / f"{name.deployment}.json"

    def _record(self, name: ServiceName) -> _Record:
        try:
            found = json.loads(read(self._path(name)))
            return _Record(tuple(str(link) for link in found["links"]), str(found["told"]))
        except (OSError, ValueError, KeyError, TypeError):
            return _Record()

    def _write(self, name: ServiceName, record: _Record) -> None:
        path = self._path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in path.parent.glob(f".{path.name}.*"):
            left_over.unlink(missing_ok=True)
        write_private(path, json.dumps({"links": record.links, "told": record.told}).encode())


def check(files: Files, wanted: ServiceCertificate) -> None:
    """Refuse what is not what was asked for.

    Raises:
        BadPair
    """
    leaf = _leaf_of(files.key, files.chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if frozenset(names.get_values_for_type(x509.DNSName)) != frozenset(wanted.dns_names):
        raise BadPair("The certificate that came is for other names.")
    if files.received_at >= leaf.not_valid_after_utc.timestamp():
        raise BadPair("What came has ended already. Is the clock of this machine right?")
    try:
        x509.load_pem_x509_certificates(files.roots)
    except UNREADABLE:
        raise BadPair("There are no roots in the answer.") from None


def _owner(directory: Path) -> str | None:
    """Return whose files these say that they are; None where they do not."""
    try:
        return str(json.loads(read(directory / _RECEIVED))["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _foreign(directory: Path, name: ServiceName) -> bool:
    """Say whether a directory that is called like one of a service's is somebody else's."""
    owner = _owner(directory)
    if owner is not None:
        return owner != str(name)
    try:
        return not _OURS.issuperset(path.name for path in directory.iterdir())
    except OSError:
        return True


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def _leads_to(link: Path, directory: Path) -> bool:
    try:
        return link.samefile(directory)
    except OSError:
        return False


def _load(link: Path) -> HeldService | None:
    if not _is_link(link):
        return None
    try:
        directory = SwappedDirectory(link).present()
        chain = read(directory / CHAIN)
        _leaf_of(read(directory / KEY), chain)
        received = json.loads(read(directory / _RECEIVED))
        for file in (ROOTS, WHOLE):
            read(directory / file)
        return _held(directory, Place(link, received["gid"]), chain, float(received["receivedAt"]))
    except (OSError, BadPair, KeyError, *UNREADABLE):
        return None


def _held(directory: Path, place: Place, chain: bytes, at: float) -> HeldService:
    """``chain`` was looked at before."""
    leaf, *above = x509.load_pem_x509_certificates(chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return HeldService(
        directory,
        place,
        Life(max(at, leaf.not_valid_before_utc.timestamp()), leaf.not_valid_after_utc.timestamp()),
        frozenset(names.get_values_for_type(x509.DNSName)),
        _key_type(leaf),
        leaf.fingerprint(hashes.SHA256()).hex(),
        frozenset(authority_id(one) for one in above),
    )


def _leaf_of(key: bytes, chain: bytes) -> x509.Certificate:
    """Return the leaf of a chain whose key this is.

    Raises:
        BadPair
    """
    try:
        private = serialization.load_pem_private_key(key, password=None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        public = leaf.public_key()
    except UNREADABLE:
        raise BadPair("There is no certificate with a key.") from None
    if private.public_key() != public:
        raise BadPair("The certificate is for another key.")
    return leaf


_CURVES: Final[Mapping[int, KeyType]] = {256: "p-256", 384: "p-384"}
_RSA: Final[Mapping[int, KeyType]] = {2048: "rsa-2048", 4096: "rsa-4096"}


def _key_type(leaf: x509.Certificate) -> KeyType | None:
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.key_size)
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA.get(key.key_size)
    return None
