"""Messages of drivers, as they come from the internet: in pieces, cut, forged."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.mongodb.wire import MOST_BYTES, Malformed, Reader, Request, answer

HELLO = {"hello": 1, "client": {"driver": {"name": "any"}}, "$db": "admin"}


def framed(operation: int, body: bytes, request: int = 7) -> bytes:
    return struct.pack("<iiii", 16 + len(body), request, 0, operation) + body


def message(document: Mapping[str, Any], *, flags: int = 0, before: bytes = b"", after: bytes = b"") -> bytes:
    return framed(2013, struct.pack("<I", flags) + before + b"\0" + bson.encode(document) + after)


def query(document: Mapping[str, Any], collection: bytes = b"admin.$cmd") -> bytes:
    return framed(2004, struct.pack("<i", 4) + collection + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(document))


def section(identifier: bytes = b"documents") -> bytes:
    content = identifier + b"\0" + bson.encode({"_id": 1})
    return b"\x01" + struct.pack("<i", 4 + len(content)) + content


def read(data: bytes) -> list[Request]:
    return Reader().feed(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(HELLO), Request(7, "hello", legacy=False, wants_answer=True)),
        (query({"ismaster": 1}), Request(7, "ismaster", legacy=True, wants_answer=True)),
        (message({"insert": "x"}, before=section()), Request(7, "insert", legacy=False, wants_answer=True)),
        (message({"insert": "x"}, after=section()), Request(7, "insert", legacy=False, wants_answer=True)),
        (message({"insert": "x"}, flags=2), Request(7, "insert", legacy=False, wants_answer=False)),
        (message({"ping": 1}, flags=1, after=b"\1\2\3\4"), Request(7, "ping", legacy=False, wants_answer=True)),
    ],
)
def test_a_command_is_known_by_its_name(data: bytes, expected: Request) -> None:
    """Both forms, with documents beside the command, without a wish for an answer, and with a checksum."""
    assert read(data) == [expected]


@given(cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=40))
def test_how_it_is_cut_makes_no_difference(cuts: list[int]) -> None:
    """Three messages in any pieces are three requests."""
    data = query({"ismaster": 1}) + message(HELLO) + message({"saslStart": 1, "payload": b"n,,n=user"})
    reader, found, position = Reader(), [], 0
    for size in [*cuts, len(data)]:
        found += reader.feed(data[position : position + size])
        position += size
    assert [request.command for request in found] == ["ismaster", "hello", "saslStart"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        struct.pack("<iiii", 16, 1, 0, 2013),
        struct.pack("<iiii", -1, 1, 0, 2013),
        struct.pack("<iiii", MOST_BYTES + 1, 1, 0, 2013),
        framed(2012, b"\0" * 20),
        framed(2013, b"\0\0"),
        framed(2013, struct.pack("<I", 4) + b"\0" + bson.encode(HELLO)),
        framed(2013, struct.pack("<I", 0) + b"\2" + bson.encode(HELLO)),
        framed(2013, struct.pack("<I", 0) + section()),
        framed(2013, struct.pack("<I", 0) + b"\1" + struct.pack("<i", 0)),
        framed(2013, struct.pack("<I", 0) + b"\1" + struct.pack("<i", 2**31 - 1) + b"x\0"),
        framed(2013, struct.pack("<I", 0) + b"\0" + struct.pack("<i", 5) + b"\0"),
        message({"x" * 65: 1}),
        message({"é": 1}),
        query({"ismaster": 1}, b"c" * 200),
        framed(2004, b"\0" * 4),
    ],
)
def test_what_is_no_message_of_a_driver_is_refused(data: bytes) -> None:
    """HTTP, TLS, wrong lengths, unknown flags and sections, names that are too long."""
    with pytest.raises(Malformed):
        read(data)


@given(st.binary(max_size=200), st.sampled_from([2004, 2013, 1, 2012]))
def test_whatever_comes_is_understood_or_refused(body: bytes, operation: int) -> None:
    """No other error leaves, whatever the bytes are."""
    for data in (body, framed(operation, body)):
        with contextlib.suppress(Malformed):
            assert all(request.command.isascii() for request in read(data))


@pytest.mark.parametrize("legacy", [True, False])
def test_an_answer_names_its_request(legacy: bool) -> None:
    """In the form in which the question came."""
    found = answer(Request(41, "ping", legacy, wants_answer=True), {"ok": 1.0})
    length, _, to, operation = struct.unpack_from("<iiii", found)
    assert (length, to, operation) == (len(found), 41, 1 if legacy else 2013)
    assert bson.decode(found[36 if legacy else 21 :]) == {"ok": 1.0}
