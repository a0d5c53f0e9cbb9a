"""One backup, one file: a tar, compressed with gzip, mode 0600, that says itself what it holds.

```
manifest.json                          whose it is, of which version, from when, and the SHA-256 of every other member
dump/<database>/<collection>.bson      the documents, one after the other, as mongod gave them
dump/<database>/<collection>.metadata.json      options and indexes
```

The part below ``dump`` is what MongoDB's own ``mongodump`` writes and ``mongorestore --dir dump`` reads, so that an
archive is of use without this program. Names are percent-encoded in paths, as there. Nothing is unpacked to a path that
an archive names. All functions block.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from agent.keys import sync_directory
from schemas.base import Model
from schemas.names import Name

FORMAT: Final = 1
SUFFIX: Final = ".tar.gz"
MANIFEST: Final = "manifest.json"
BUCKETS: Final = "system.buckets."
"""Before the name of a time series: the collection in which its documents are."""
_LARGEST_MANIFEST: Final = 64 * 1024 * 1024
_PIECE: Final = 1 << 20
_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z]+(?:-[0-9]+)?\Z")
_LEVEL: Final = 1
"""Of compression: the fastest, for the machine has other work."""

Reason = Literal["scheduled", "asked", "replaced"]
"""Made at intervals; asked for; made of what a restore was about to replace."""


class BadArchive(Exception):
    """A file is no archive, is damaged, or is not what was meant. The text is for people."""


class CollectionDump(Model):
    """A collection, a view or the buckets of a time series. Text and numbers, no paths."""

    database: Annotated[str, Field(min_length=1, max_length=64)]
    collection: Annotated[str, Field(min_length=1, max_length=255)]
    kind: Literal["collection", "view", "timeseries"] = "collection"
    documents: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0
    """Of the member with the documents; 0 where there is none."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of that member."""
    metadata_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Model):
    format: Literal[1] = 1
    team: Name
    deployment: Name
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?", max_length=32)]
    """Of mongod."""
    feature_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$", max_length=16)]
    taken_at: float
    """When it began, POSIX seconds."""
    reason: Reason
    consistent: bool
    """No write happened between its first and its last document."""
    collections: tuple[CollectionDump, ...] = ()

    @property
    def documents(self) -> int:
        return sum(one.documents for one in self.collections)


def is_archive_id(word: str) -> bool:
    """Say whether a word may be the name of an archive here, and so part of a path."""
    return _ID.fullmatch(word) is not None


def write_archive(path: Path, manifest: Manifest, members: Sequence[tuple[str, Path]]) -> None:
    """Make ``path`` of files, durably and in one step. Raises OSError."""
    aside = path.with_name(f".{path.name}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL) as tar:
                head = manifest.model_dump_json(by_alias=True, indent=1).encode()
                tar.addfile(_entry(MANIFEST, len(head), manifest.taken_at), io.BytesIO(head))
                for name, source in members:
                    with source.open("rb") as content:
                        tar.addfile(_entry(name, source.stat().st_size, manifest.taken_at), content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _entry(name: str, size: int, time: float) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(time)
    return entry


class Reader:
    """An open archive: the manifest, and the other members one after the other."""

    def __init__(self, plain: gzip.GzipFile, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self.manifest = manifest
        self._plain = plain
        self._tar = tar

    def members(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Yield name and content; each has to be read before the next."""
        while (entry := self._tar.next()) is not None:
            content = self._tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise BadArchive(f"{entry.name!r} in it is no file.")
            yield entry.name, content
        while self._plain.read(_PIECE):
            continue  # at the end of the file gzip compares a checksum of all, the manifest too


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open an archive and read its manifest. Raises BadArchive, OSError where the file cannot be read."""
    try:
        with gzip.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            yield Reader(plain, tar, _manifest(tar))
    except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise BadArchive(f"{path.name} is damaged, or no archive: {type(error).__name__}.") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadArchive(f"{path.name} is damaged, or no archive.") from None  # as gzip says it


def _manifest(tar: tarfile.TarFile) -> Manifest:
    entry = tar.next()
    content = None if entry is None or entry.name != MANIFEST else tar.extractfile(entry)
    if entry is None or content is None or entry.size > _LARGEST_MANIFEST:
        raise BadArchive("It does not begin with a manifest, so it is no archive of a database.")
    try:
        found = json.loads(content.read(_LARGEST_MANIFEST))
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise BadArchive("It is of a newer version of this program.")
        return Manifest.model_validate(found)
    except ValidationError:
        raise BadArchive("Its manifest does not fit; it was changed, or is of another program.") from None


def read_manifest(path: Path) -> Manifest:
    """Raises BadArchive, OSError."""
    with opened(path) as reader:
        return reader.manifest


def verify(path: Path) -> Manifest:
    """Read all of it and compare every checksum. Raises BadArchive, OSError."""
    found: dict[str, str] = {}
    with opened(path) as reader:
        for name, content in reader.members():
            found[name] = sha256_of(content)
        wanted = digests(reader.manifest)
    wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if wrong:
        raise BadArchive(f"{wrong[0]!r} in it is not what was saved ({len(wrong)} of {len(wanted)} parts differ).")
    return reader.manifest


def digests(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each member, by name."""
    wanted: dict[str, str] = {}
    for one in manifest.collections:
        documents, metadata = names_of(one.database, one.collection, one.kind)
        wanted[metadata] = one.metadata_sha256
        if one.kind != "view":
            wanted[documents] = one.sha256
    return wanted


def names_of(database: str, collection: str, kind: str) -> tuple[str, str]:
    """Return the members of a collection: documents and metadata."""
    folder, name = f"dump/{_encoded(database)}", _encoded(collection)
    return f"{folder}/{BUCKETS if kind == 'timeseries' else ''}{name}.bson", f"{folder}/{name}.metadata.json"


def _encoded(name: str) -> str:
    """Percent-encode what a path cannot have; as mongodump, which leaves the rest readable."""
    return "".join(char if char not in "%/\\\x00" and char.isprintable() else _percent(char) for char in name)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def sha256_of(content: IO[bytes], also: Callable[[bytes], Any] | None = None) -> str:
    digest = hashlib.sha256()
    while piece := content.read(_PIECE):
        digest.update(piece)
        if also is not None:
            also(piece)
    return digest.hexdigest()
