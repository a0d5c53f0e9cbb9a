"""What is in a database, read into files and written back, by the agent's user.

Reading (:func:`dump`): within :func:`still` mongod takes no writes while it is read (``fsync`` with ``lock``), so that
all collections are of one moment; clients that write wait. The lock goes before anything is compressed. Users and roles
are no part of it: those of a database follow from its file in git. Documents are never decoded.

Writing back (:func:`load`): into a database that has no data, or in place of all that it has.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.database import AsyncDatabase

from agent.deployments.mongodb_admin import Client
from agent.deployments.mongodb_archive import BUCKETS, BadArchive, CollectionDump, Reader, names_of

Database = AsyncDatabase[dict[str, Any]]
_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
_INTERNAL: Final = frozenset({"config", "local"})
_KEPT_SYSTEM: Final = frozenset({"system.js"})
_EMPTY: Final = hashlib.sha256().hexdigest()
_LARGEST_DOCUMENT: Final = 16 * 1024 * 1024 + 16 * 1024
"""Bytes, as of BSON with what the server itself may add."""
_BATCH_DOCUMENTS: Final = 1000
_BATCH_BYTES: Final = 8 * 1024 * 1024


class Part(NamedTuple):
    """A member of an archive to be."""

    name: str
    path: Path


class Dumped(NamedTuple):
    collections: tuple[CollectionDump, ...]
    parts: tuple[Part, ...]


async def databases_of(client: Client) -> list[str]:
    """Return the databases that may hold somebody's data."""
    return sorted(name for name in await client.list_database_names() if name not in _INTERNAL)


async def collections_of(database: Database) -> list[dict[str, Any]]:
    """Return what is somebody's, as ``listCollections`` says it, in order of name."""
    cursor = await database.list_collections()
    found = [dict(one) async for one in cursor]
    return sorted((one for one in found if _is_data(str(one["name"]))), key=lambda one: str(one["name"]))


def _is_data(name: str) -> bool:
    return not name.startswith("system.") or name in _KEPT_SYSTEM


async def is_empty(client: Client) -> bool:
    for name in await databases_of(client):
        if await collections_of(client[name]):
            return False
    return True


# --- reading ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def still(client: Client) -> AsyncIterator[None]:
    """Keep every write waiting. Where the agent dies inside, the next one unlocks (``mongodb_admin.unlock``)."""
    await client.admin.command({"fsync": 1, "lock": True})
    try:
        yield
    finally:
        await asyncio.shield(client.admin.command({"fsyncUnlock": 1}))


async def dump(client: Client, folder: Path) -> Dumped:
    """Read everything into files below ``folder``. Raises PyMongoError, OSError."""
    collections: list[CollectionDump] = []
    parts: list[Part] = []
    for name in await databases_of(client):
        database = client[name]
        for found in await collections_of(database):
            one, files = await _dump_one(database, found, folder, len(collections))
            collections.append(one)
            parts += files
    return Dumped(tuple(collections), tuple(parts))


async def _dump_one(
    database: Database, found: dict[str, Any], folder: Path, number: int
) -> tuple[CollectionDump, list[Part]]:
    name, kind = str(found["name"]), str(found.get("type", "collection"))
    options = found.get("options", {})
    indexes: list[Any] = []
    if kind != "view":
        indexes = [dict(one) async for one in await database[name].list_indexes()]
    uuid = found.get("info", {}).get("uuid")
    metadata = {
        "options": options,
        "indexes": indexes,
        **({} if uuid is None else {"uuid": uuid.hex() if isinstance(uuid, bytes) else str(uuid)}),
        "collectionName": name,
        "type": kind,
    }
    text = json_util.dumps(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
    data, meta = folder / f"{number}.bson", folder / f"{number}.json"
    await asyncio.to_thread(meta.write_bytes, text)
    documents_name, metadata_name = names_of(database.name, name, kind)
    parts = [Part(metadata_name, meta)]
    count, size, digest = 0, 0, _EMPTY
    if kind != "view":
        source = f"{BUCKETS}{name}" if kind == "timeseries" else name
        count, size, digest = await _documents(database, source, data)
        parts.append(Part(documents_name, data))
    one = CollectionDump(
        database=database.name,
        collection=name,
        kind="view" if kind == "view" else "timeseries" if kind == "timeseries" else "collection",
        documents=count,
        bytes=size,
        sha256=digest,
        metadata_sha256=hashlib.sha256(text).hexdigest(),
    )
    return one, parts


async def _documents(database: Database, collection: str, path: Path) -> tuple[int, int, str]:
    """Write all documents into ``path``; return how many, how many bytes, and their SHA-256."""
    digest, count, size = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        cursor = cast("AsyncIterator[bytes]", database[collection].find_raw_batches(hint=[("$natural", 1)]))
        async for batch in cursor:
            count += sum(1 for _ in documents_in(batch))
            size += len(batch)
            digest.update(batch)
            await asyncio.to_thread(file.write, batch)
    return count, size, digest.hexdigest()


def documents_in(data: bytes) -> Iterator[bytes]:
    """Cut BSON documents apart (bsonspec.org: each begins with its length). Raises BadArchive."""
    begin = 0
    while begin < len(data):
        size = int.from_bytes(data[begin : begin + 4], "little")
        if not 5 <= size <= len(data) - begin:
            raise BadArchive("It holds something that is no document.")
        yield data[begin : begin + size]
        begin += size


# --- writing back -------------------------------------------------------------------------------------------------


async def clear(client: Client) -> None:
    """Remove all data. Users and roles stay."""
    for name in await databases_of(client):
        # views first: they are of no use without what they show
        for found in sorted(await collections_of(client[name]), key=lambda one: str(one.get("type")) != "view"):
            await client[name].drop_collection(str(found["name"]))


class Loader:
    """Writes the members of an archive into a database; feed it each by :meth:`take`, then call :meth:`finish`."""

    def __init__(self, client: Client, told: Callable[[str], None] = lambda _line: None) -> None:
        self._client = client
        self._told = told
        self._views: list[tuple[str, str, dict[str, Any]]] = []

    async def load(self, reader: Reader) -> None:
        """Raises BadArchive, PyMongoError, OSError."""
        of_metadata, of_documents = {}, {}
        for one in reader.manifest.collections:
            documents, metadata = names_of(one.database, one.collection, one.kind)
            of_metadata[metadata], of_documents[documents] = one, one
        members = reader.members()
        while (found := await asyncio.to_thread(next, members, None)) is not None:
            name, content = found
            if name in of_metadata:
                text = await asyncio.to_thread(content.read)
                await self._make(of_metadata[name], text)
            elif name in of_documents:
                await self._fill(of_documents[name], content)
            else:
                raise BadArchive(f"{name!r} is not in its manifest.")
        for database, view, options in self._views:
            await self._client[database].command({"create": view, **options})

    async def _make(self, one: CollectionDump, text: bytes) -> None:
        """Create a collection with its options and, empty as it is, its indexes."""
        try:
            metadata = json_util.loads(text.decode(), json_options=json_util.CANONICAL_JSON_OPTIONS)
            options, indexes = dict(metadata["options"]), list(metadata["indexes"])
        except (ValueError, KeyError, TypeError):
            raise BadArchive(f"What it says of {one.database}.{one.collection} cannot be read.") from None
        if one.kind == "view":
            self._views.append((one.database, one.collection, options))
            return
        database = self._client[one.database]
        await database.command({"create": one.collection, **options})
        wanted = [_index(index) for index in indexes if index.get("name") != "_id_" and not index.get("clustered")]
        if wanted:
            await database.command({"createIndexes": one.collection, "indexes": wanted})
        self._told(f"{one.database}.{one.collection}: {one.documents} documents\n")

    async def _fill(self, one: CollectionDump, content: IO[bytes]) -> None:
        name = f"{BUCKETS}{one.collection}" if one.kind == "timeseries" else one.collection
        collection = self._client[one.database].get_collection(name, codec_options=_RAW)
        batches = _batches(content)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            await collection.insert_many([RawBSONDocument(one) for one in batch], bypass_document_validation=True)


def _index(index: dict[str, Any]) -> dict[str, Any]:
    """Take out what a server tells of an index and does not take."""
    return {name: value for name, value in index.items() if name not in ("ns", "background")}


def _batches(content: IO[bytes]) -> Iterator[list[bytes]]:
    """Read documents, as many at a time as one message takes. Raises BadArchive."""
    batch: list[bytes] = []
    size = 0
    while head := content.read(4):
        length = int.from_bytes(head, "little")
        rest = content.read(length - 4) if 5 <= length <= _LARGEST_DOCUMENT else b""
        if len(head) != 4 or len(rest) != length - 4:
            raise BadArchive("It ends in the middle of a document.")
        if batch and (len(batch) >= _BATCH_DOCUMENTS or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(head + rest)
        size += length
    if batch:
        yield batch
