"""Users become what is wanted from whatever there is, and a damaged archive is never taken for a whole one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.saslprep import saslprep

from agent.deployments.mongodb_archive import (
    BadArchive,
    CollectionDump,
    Manifest,
    names_of,
    opened,
    read_manifest,
    verify,
    write_archive,
)
from agent.deployments.mongodb_dump import documents_in
from agent.deployments.mongodb_users import ADMIN_NAME, Change, UserName, WantedUser, changes

SALT = b"0123456789abcdef"


def credentials(password: str) -> dict[str, Any]:
    """As mongod keeps them, with few rounds."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), SALT, 2)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    found = {
        "iterationCount": 2,
        "salt": base64.b64encode(SALT).decode(),
        "storedKey": base64.b64encode(stored).decode(),
    }
    return {"SCRAM-SHA-256": found}


class FakeMongod:
    """Its users, by the rules of createUser, updateUser and dropUser."""

    def __init__(self, users: dict[UserName, dict[str, Any]]) -> None:
        self.users = users

    def found(self) -> list[dict[str, Any]]:
        return [{"db": name.database, "user": name.name, **user} for name, user in self.users.items()]

    def run(self, change: Change) -> None:
        (verb, user), *_ = change.command.items()
        name = UserName(change.database, user)
        assert name != ADMIN_NAME, "the agent's own is left alone"
        if verb == "dropUser":
            del self.users[name]
            return
        assert (verb == "createUser") == (name not in self.users)
        known = self.users.setdefault(name, {})
        if "pwd" in change.command:
            assert change.command["mechanisms"] == ["SCRAM-SHA-256"]
            known["credentials"] = credentials(change.command["pwd"])
        if "roles" in change.command:
            known["roles"] = change.command["roles"]


names = st.builds(UserName, st.sampled_from(["admin", "shop", "blog"]), st.sampled_from(["a", "b", "c"]))
passwords = st.sampled_from(["one", "p@ss/w:rd?#[%]é", "ﬀ", " ", "x" * 40])
roles = st.sampled_from(["read", "readWrite", "dbOwner", "root"])
wanted_users = st.lists(st.builds(WantedUser, names, roles, passwords), max_size=6, unique_by=lambda user: user.name)
old = st.fixed_dictionaries({
    "credentials": st.one_of(st.builds(credentials, passwords), st.just({}), st.just({"SCRAM-SHA-1": {}})),
    "roles": st.lists(st.fixed_dictionaries({"role": roles, "db": st.sampled_from(["admin", "shop"])}), max_size=3),
})  # fmt: skip


@given(wanted_users, st.dictionaries(names, old, max_size=6))
@settings(max_examples=150)
def test_users_become_exactly_what_is_wanted(wanted: list[WantedUser], there: dict[UserName, dict[str, Any]]) -> None:
    """From whatever there is, in one go; a second look changes nothing, and the agent's own user stays."""
    own = {"credentials": credentials("own"), "roles": [{"role": "root", "db": "admin"}]}
    mongod = FakeMongod({ADMIN_NAME: own, **there})
    for change in changes(wanted, mongod.found()):
        mongod.run(change)
    assert mongod.users.pop(ADMIN_NAME) == own
    assert mongod.users == {
        user.name: {"credentials": credentials(user.password), "roles": user.roles} for user in wanted
    } or _same(mongod.users, wanted)
    assert changes(wanted, mongod.found()) == []


def _same(users: dict[UserName, dict[str, Any]], wanted: list[WantedUser]) -> bool:
    """Roles in any order, and as often as they were there."""
    return users.keys() == {user.name for user in wanted} and all(
        users[user.name]["credentials"] == credentials(user.password)
        and {(one["role"], one["db"]) for one in users[user.name]["roles"]}
        == {(one["role"], one["db"]) for one in user.roles}
        for user in wanted
    )


def _document(body: bytes) -> bytes:
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
contents = st.dictionaries(
    st.tuples(words.filter(lambda word: len(word.encode()) < 60), words),
    st.lists(st.binary(max_size=60).map(_document), max_size=5).map(b"".join),
    max_size=4,
)


def archive(folder: Path, found: dict[tuple[str, str], bytes]) -> tuple[Path, Manifest]:
    collections, parts = [], []
    for number, ((database, collection), data) in enumerate(found.items()):
        texts = [data, b"{}"]
        for name, text in zip(names_of(database, collection, "collection"), texts, strict=True):
            path = folder / f"{number}{name[-5:].replace('/', '_')}"
            path.write_bytes(text)
            parts.append((name, path))
        documents, metadata = (hashlib.sha256(text).hexdigest() for text in texts)
        count = len(list(documents_in(data)))
        collections.append(
            CollectionDump(
                database=database, collection=collection, documents=count, bytes=len(data), sha256=documents,
                metadata_sha256=metadata,
            )
        )  # fmt: skip
    manifest = Manifest(
        team="shop", deployment="orders", version="6.0.5", feature_version="6.0", taken_at=1e9, reason="asked",
        consistent=True, collections=tuple(collections),
    )  # fmt: skip
    path = folder / "archive.tar.gz"
    write_archive(path, manifest, parts)
    return path, manifest


@given(contents, st.data())
@settings(max_examples=120)
def test_a_damaged_archive_is_never_taken_for_a_whole_one(
    found: dict[tuple[str, str], bytes], data: st.DataObject
) -> None:
    """It is what was saved, or it is refused; no path in it comes from a name of a collection."""
    with TemporaryDirectory() as name:
        path, manifest = archive(Path(name), found)
        assert verify(path) == read_manifest(path) == manifest
        with opened(path) as reader:
            for member, _ in reader.members():
                assert member.split("/")[0] == "dump"
                assert member.count("/") == 2
        whole = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
        else:
            whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole)
        with suppress(BadArchive):
            assert verify(path) == manifest


@given(st.binary(max_size=200))
def test_what_is_no_archive_is_refused_in_a_sentence(content: bytes) -> None:
    """Whatever it is."""
    with TemporaryDirectory() as name:
        path = Path(name) / "x.tar.gz"
        path.write_bytes(content)
        with pytest.raises(BadArchive, match=r"\.$"):
            verify(path)
