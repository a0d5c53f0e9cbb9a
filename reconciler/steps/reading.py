"""From changed files to what became of them: the cache first, then one read of git, then the parser.

Parsing happens in this process, because a process for each file would cost a thousand times more. Should a file ever
kill the parser, the marker left behind names the suspects at the next start; each of them is then tried in a process
of its own, and the one that kills that too is reported and never parsed here again.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import schemas
from reconciler.desired.finding import Finding
from reconciler.desired.news import FileNews, Gone, Unusable
from reconciler.desired.parse import Parsed, examine_path, is_object_path, parse_file
from reconciler.desired.snapshot import REGULAR_FILE, Change
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Transient
from reconciler.git.mirror import TooLarge
from schemas.objects import ADAPTERS, ObjectKey, key_of_path

WHOLE_TREE: Final = 1000
"""From this many files on, the cache is read as a whole instead of by key."""
SUSPECT_SECONDS: Final = 20.0

Pair = tuple[str, str]
"""(path, blob)"""


class Blobs(Protocol):
    """Where contents come from: :class:`reconciler.git.mirror.Mirror`."""

    async def read(self, blobs: Sequence[str], *, max_bytes: int = ...) -> dict[str, bytes | TooLarge]: ...


class Cache(Protocol):
    """What was parsed before: :class:`reconciler.store.blobs.BlobCache`. Blocking."""

    def load_tree(self) -> list[tuple[str, str, bytes]]: ...
    def lookup(self, pairs: Sequence[Pair]) -> dict[Pair, bytes]: ...
    def replace(self, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]) -> None: ...


class DocumentReader:
    """``marker`` is a file in the data directory that exists only while files are being parsed."""

    def __init__(self, blobs: Blobs, cache: Cache, marker: Path) -> None:
        self._blobs = blobs
        self._cache = cache
        self._marker = marker
        self._suspects = _suspects(marker)
        self._news: dict[str, Parsed | None] = {}
        """Path → what the cache does not know of it yet; None where the file is gone."""

    async def read(self, changes: Sequence[Change]) -> list[FileNews]:
        """Say what became of each changed file that the reconciler looks at."""
        news: list[FileNews] = []
        wanted: dict[Pair, ObjectKey] = {}
        for path, file in changes:
            key = key_of_path(path)
            if key is not None and file is not None and file.mode == REGULAR_FILE:  # nearly all of them
                wanted[path, file.blob] = key
            elif not is_object_path(path):
                continue
            elif file is not None and (finding := examine_path(path, file)) is not None:
                news.append(Unusable(path, file.blob, finding))
            elif file is not None and key is not None:
                wanted[path, file.blob] = key
            else:
                news.append(Gone(path))
        known, in_tree = await asyncio.to_thread(self._known, wanted)
        news += known.values()
        news += await self._parse({pair: key for pair, key in wanted.items() if pair not in known})
        for one in news:
            if isinstance(one, Gone):
                self._news[one.path] = None
            elif isinstance(one, Parsed) and not (in_tree and one.kept):
                self._news[one.path] = one
        return news

    async def keep(self) -> None:
        """Tell the cache what was read since the last time. Nobody has to wait for it: it serves the next start."""
        news, self._news = self._news, {}
        if news:
            await asyncio.to_thread(self._keep, news)

    def _keep(self, news: Mapping[str, Parsed | None]) -> None:
        parsed = [one for one in news.values() if one is not None and one.object is not None]
        rows = [(one.path, one.blob, one.document) for one in parsed]
        self._cache.replace(rows, [path for path, one in news.items() if one is None])

    async def contents(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        """Return the contents of blobs, without those that are too large to be read."""
        read = await self._blobs.read(list(dict.fromkeys(blobs)), max_bytes=MAX_BYTES)
        return {blob: content for blob, content in read.items() if isinstance(content, bytes)}

    def _known(self, wanted: Mapping[Pair, ObjectKey]) -> tuple[dict[Pair, Parsed], bool]:
        """Return what the cache has objects of, and whether all that it knows is in the tree that it keeps."""
        documents, in_tree = self._documents(list(wanted))
        return _from_cache(wanted, documents), in_tree

    def _documents(self, wanted: Sequence[Pair]) -> tuple[dict[Pair, bytes], bool]:
        """Return what the cache knows, and whether all of it is in the tree that the cache keeps."""
        if len(wanted) < WHOLE_TREE:
            return (self._cache.lookup(wanted) if wanted else {}), False
        tree = {(path, blob): document for path, blob, document in self._cache.load_tree()}
        rest = [pair for pair in wanted if pair not in tree]
        found = self._cache.lookup(rest) if rest else {}
        return tree | found, not found

    async def _parse(self, wanted: Mapping[Pair, ObjectKey]) -> list[FileNews]:
        if not wanted:
            return []
        contents = await self._blobs.read([blob for _, blob in wanted], max_bytes=MAX_BYTES)
        return await asyncio.to_thread(self._parse_all, wanted, contents)

    def _parse_all(self, wanted: Mapping[Pair, ObjectKey], contents: Mapping[str, bytes | TooLarge]) -> list[FileNews]:
        news: list[FileNews] = []
        safe: list[tuple[str, str, ObjectKey]] = []
        for (path, blob), key in wanted.items():
            content = contents[blob]
            if blob in self._suspects and isinstance(content, bytes) and _kills_the_parser(path, content):
                text = "reading this file ended the parser; it is not read again in this form"
                news.append(Unusable(path, blob, Finding(path, "poison", text, "Write it differently.")))
            else:
                safe.append((path, blob, key))
        self._mark([blob for _, blob, _ in safe])
        parsed = [parse_file(path, blob, _content(contents[blob]), key) for path, blob, key in safe]
        self._marker.unlink(missing_ok=True)
        return [*news, *parsed]

    def _mark(self, blobs: Sequence[str]) -> None:
        try:
            self._marker.write_text(json.dumps(blobs), encoding="utf-8")
        except OSError as error:
            reason = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "StoreUnavailable"
            raise Transient(f"{self._marker} cannot be written: {error.strerror}.", reason=reason) from None


def _content(content: bytes | TooLarge) -> bytes | None:
    return content if isinstance(content, bytes) else None


def _from_cache(wanted: Mapping[Pair, ObjectKey], documents: Mapping[Pair, bytes]) -> dict[Pair, Parsed]:
    return {
        pair: Parsed(*pair, key, ADAPTERS[key.kind].validate_json(document), document)
        for pair, key in wanted.items()
        if (document := documents.get(pair)) is not None
    }


def _suspects(marker: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads(marker.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return frozenset()


def _kills_the_parser(path: str, content: bytes) -> bool:
    command = [sys.executable, "-m", "reconciler.steps.try_parse", path]
    try:
        return subprocess.run(command, input=content, timeout=SUSPECT_SECONDS, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def parser_fingerprint() -> str:
    """Name everything that decides what a document means, so that another program reads its cache afresh."""
    digest = hashlib.sha256()
    for directory in (Path(schemas.__file__).parent, Path(__file__).parents[1] / "desired"):
        for path in sorted(directory.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
