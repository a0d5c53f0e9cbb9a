"""git's machine formats: examples, and every value that can be written must be read back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.snapshot import Change, File
from reconciler.git.commits import parse_log
from reconciler.git.parsing import (
    BatchReader,
    PushAnswer,
    Unreadable,
    is_id,
    parse_changes,
    parse_heads,
    parse_push,
    parse_sizes,
    parse_tree,
)

ID = "0123456789abcdef0123456789abcdef01234567"
ids = st.text("0123456789abcdef", min_size=40, max_size=40)
paths = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name)
modes = st.sampled_from(["100644", "100755", "120000", "160000"])
entries = st.dictionaries(paths, st.tuples(modes, ids), max_size=20)


def decoded(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


@given(entries)
def test_tree_is_read_back(tree: dict[bytes, tuple[str, str]]) -> None:
    """Any path of bytes, line feeds and tabs included, keeps its mode and id."""
    output = b"".join(f"{mode} blob {blob}\t".encode() + path + b"\0" for path, (mode, blob) in tree.items())
    assert parse_tree(output) == {decoded(path): File(mode, blob) for path, (mode, blob) in tree.items()}


@given(entries, st.sets(paths, max_size=5))
def test_changes_are_read_back(changed: dict[bytes, tuple[str, str]], deleted: set[bytes]) -> None:
    """Additions, changes and deletions come sorted by path."""
    gone = deleted - changed.keys()
    output = b"".join(
        f":100644 {mode} {ID} {blob} M\0".encode() + path + b"\0" for path, (mode, blob) in changed.items()
    ) + b"".join(f":100644 000000 {ID} {'0' * 40} D\0".encode() + path + b"\0" for path in gone)
    found = parse_changes(output)
    expected = {decoded(path): File(mode, blob) for path, (mode, blob) in changed.items()}
    assert {change.path: change.file for change in found} == expected | dict.fromkeys(map(decoded, gone))
    assert list(found) == sorted(found, key=lambda change: change.path)


@given(
    st.dictionaries(ids, st.none() | st.binary(max_size=200), max_size=10),
    st.lists(st.integers(1, 50), max_size=100),
)
def test_batch_is_read_back_however_it_is_cut(objects: dict[str, bytes | None], cuts: list[int]) -> None:
    """Contents of any bytes and missing ids are told apart, wherever the output is cut into pieces."""
    output = b"".join(
        f"{name} missing\n".encode() if content is None else f"{name} blob {len(content)}\n".encode() + content + b"\n"
        for name, content in objects.items()
    )
    reader = BatchReader(max_bytes=200)
    for size in cuts:
        assert reader.feed(output[:size])
        output = output[size:]
    assert reader.feed(output)
    assert reader.contents == {name: content for name, content in objects.items() if content is not None}
    assert reader.missing == [name for name, content in objects.items() if content is None]


def test_batch_stops_before_a_large_blob() -> None:
    """The header of a blob over the limit ends the reading; what came before is kept."""
    reader = BatchReader(max_bytes=3)
    assert not reader.feed(f"{ID} blob 3\nabc\n{ID[::-1]} blob 4\n".encode())
    assert (reader.contents, reader.saw_too_large) == ({ID: b"abc"}, True)


@given(st.binary(max_size=200))
def test_nonsense_is_unreadable(output: bytes) -> None:
    """Anything else is refused by one error, never by another."""
    for parse in (parse_tree, parse_changes, parse_sizes, parse_log, BatchReader(10).feed):
        with contextlib.suppress(Unreadable):
            parse(output)
    parse_heads(output)
    parse_push(output, "refs/heads/main")


def test_sizes() -> None:
    """Sizes by id, None for what is missing."""
    assert parse_sizes(f"{ID} blob 12\n{ID[::-1]} missing\n".encode()) == {ID: 12, ID[::-1]: None}


def test_heads_with_nonsense() -> None:
    """Only full hex ids count; a remote may send anything."""
    output = f"{ID}\trefs/heads/main\n--help\trefs/heads/x\n{ID.upper()}\trefs/heads/y\nref: z\tHEAD\n".encode()
    assert parse_heads(output) == {"refs/heads/main": ID}


@pytest.mark.parametrize("text", [ID, "a" * 64])
def test_full_ids(text: str) -> None:
    """SHA-1 and SHA-256 ids are full."""
    assert is_id(text)


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", ID.upper(), "g" * 40, ID + "\n", "-" + ID[1:], "HEAD"])
def test_other_ids(text: str) -> None:
    """Short, long, foreign or upper-case texts are no ids."""
    assert not is_id(text)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (" \tx:refs/heads/main\ta..b", PushAnswer(accepted=True, by_remote=False, reason="a..b")),
        ("*\tx:refs/heads/main\t[new branch]", PushAnswer(accepted=True, by_remote=False, reason="[new branch]")),
        ("=\tx:refs/heads/main\t[up to date]", PushAnswer(accepted=True, by_remote=False, reason="[up to date]")),
        (
            "!\tx:refs/heads/main\t[rejected] (stale info)",
            PushAnswer(accepted=False, by_remote=False, reason="stale info"),
        ),
        (
            "!\tx:refs/heads/main\t[remote rejected] (pre-receive hook declined)",
            PushAnswer(accepted=False, by_remote=True, reason="pre-receive hook declined"),
        ),
    ],
)
def test_answers_to_a_push(line: str, answer: PushAnswer) -> None:
    """The line of the ref says whether it was taken, by whom it was not, and why."""
    assert parse_push(f"To /srv/x\n{line}\nDone\n".encode(), "refs/heads/main") == answer


def test_no_answer_to_a_push() -> None:
    """Without a line for the ref there is no answer."""
    assert parse_push(b"To /srv/x\n \tx:refs/heads/other\ta..b\n", "refs/heads/main") is None


def test_change_of_nothing() -> None:
    """No output is no change."""
    nothing: tuple[Change, ...] = ()
    assert parse_changes(b"") == nothing
    assert parse_log(b"") == ()
