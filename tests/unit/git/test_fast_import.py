"""Commits of our own, decided and written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.edits import CommitRequest, Conflicted, EditConflict
from reconciler.git.fast_import import Identity, Standing, Written, decide, is_plain_path, message, stream

TIP = "0123456789abcdef0123456789abcdef01234567"
US = Identity("CloudLunacy", "cloudlunacy@localhost")
A = "agents/a.yaml"


def request(identity: str = "r1", **fields: object) -> CommitRequest:
    values: dict[str, object] = {
        "id": identity,
        "path": "agents/a.yaml",
        "edit": lambda _: b"new",
        "subject": "Enrol a",
        "author_name": "A",
        "author_email": "a@x",
        "time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return CommitRequest(**{**values, **fields})  # type: ignore[arg-type]


def test_edits_run_in_order() -> None:
    """Each edit sees what the one before left; equal content is nothing to do; a refusal writes nothing."""

    def refuse(_: bytes | None) -> bytes:
        raise EditConflict("no")

    one, two = request("1", edit=lambda before: (before or b"") + b"1"), request("2", edit=lambda _: b"01")
    three, four = request("3", edit=refuse), request("4", edit=lambda _: None)
    assert decide([one, two, three, four, four], {"agents/a.yaml": b"0"}) == [
        Written(one, {A: b"01"}),
        Standing(1),
        Conflicted("no"),
        Written(four, {A: None}),
        Standing(2),
    ]


def test_path_that_must_not_be_touched() -> None:
    """The edit of a forbidden path is not even run."""
    no = Conflicted("not yours")
    assert decide([request(edit=lambda _: pytest.fail("ran"))], {"agents/a.yaml": no}) == [no]


def test_several_files_are_one_commit() -> None:
    """All edits of a request are made or none; files that stay as they are do not stand in the commit."""

    def refuse(_: bytes | None) -> bytes:
        raise EditConflict("no")

    two = request("1", further={"agents/b.yaml": lambda _: None, "agents/c.yaml": lambda before: before})
    half = request("2", edit=lambda _: b"other", further={"agents/c.yaml": refuse})
    present: dict[str, bytes | Conflicted | None] = {A: b"old", "agents/b.yaml": b"b", "agents/c.yaml": b"c"}
    written = Written(two, {A: b"new", "agents/b.yaml": None})
    assert decide([two, half, two], present) == [written, Conflicted("no"), Standing(1)]
    lines = stream([written], ref="refs/x", tip=TIP, committer=US).decode().split("\n")
    assert lines[lines.index(f"from {TIP}") + 1 :] == [
        f"M 100644 inline {A}", "data 3", "new", "D agents/b.yaml", "get-mark :1", "done", ""
    ]  # fmt: skip


def test_refused_request_is_not_run() -> None:
    """What may not be written is not even looked at."""
    no = Conflicted("no")
    assert decide([request(edit=lambda _: pytest.fail("ran"))], {}, {"r1": no}) == [no]


def test_stream() -> None:
    """The input says author, committer, parent, file and asks for the id; times are in UTC."""
    time = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    batch = [Written(request(time=time), {A: b"a\n"}), Written(request("r2"), {A: None})]
    assert stream(batch, ref="refs/outgoing/main", tip=TIP, committer=US).decode() == (
        "commit refs/outgoing/main\nmark :1\n"
        "author A <a@x> 1767225600 +0000\ncommitter CloudLunacy <cloudlunacy@localhost> 1767225600 +0000\n"
        "data 33\nEnrol a\n\nCloudLunacy-Request: r1\n\n"
        f"from {TIP}\nM 100644 inline agents/a.yaml\ndata 2\na\n\nget-mark :1\n"
        "commit refs/outgoing/main\nmark :2\n"
        "author A <a@x> 1767225600 +0000\ncommitter CloudLunacy <cloudlunacy@localhost> 1767225600 +0000\n"
        "data 33\nEnrol a\n\nCloudLunacy-Request: r2\n\n"
        "from :1\nD agents/a.yaml\nget-mark :2\n"
        "done\n"
    )


@pytest.mark.parametrize(
    "path", ["a\nD fleet.yaml", '"a', "../a", "a/../b", ".git/config", "a/.git/x", "/a", "", "a\0", "ä"]
)
def test_path_that_is_not_plain_never_reaches_the_stream(path: str) -> None:
    """A path with a line end, a quote or a way out of the tree is refused before git is told anything."""
    with pytest.raises(ValueError, match="not a plain path"):
        stream([Written(request(), {path: b"x"})], ref="refs/x", tip=TIP, committer=US)


@given(st.text())
def test_a_file_change_is_one_command(path: str) -> None:
    """Whatever the path, the stream holds one change and it names exactly that path, or there is no stream."""
    wanted = Written(request(), {path: None})
    if not is_plain_path(path):
        return
    lines = stream([wanted], ref="refs/x", tip=TIP, committer=US).decode().split("\n")
    assert lines[lines.index(f"from {TIP}") + 1 :] == [f"D {path}", "get-mark :1", "done", ""]


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_no_text_forges_a_line(subject: str, body: str, name: str, email: str, value: str) -> None:
    """Whatever stands in a request, the header lines stay two and the trailers its own."""
    wanted = request(
        subject=subject,
        body=body,
        author_name=name,
        author_email=email,
        id="r",
        trailers={"Reason": value, "No way": "x"},
    )
    header = stream([Written(wanted, {A: b""})], ref="refs/x", tip=TIP, committer=US).decode().split("\ndata ")[0]
    assert [line.split(" ")[0] for line in header.split("\n")] == ["commit", "mark", "author", "committer"]
    trailers = message(wanted).rstrip("\n").split("\n\n")[-1].split("\n")
    assert [line.partition(":")[0] for line in trailers] == ["CloudLunacy-Request", "Reason"]
