"""As much of MongoDB's wire protocol as it takes to understand which command a driver sends, and to answer it.

Bytes in, requests out; nothing is opened or waited for. Of a command only its name is read: its BSON is neither decoded
nor kept, so that what anybody on the internet sends meets a few comparisons of lengths and no parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, NamedTuple

import bson

MOST_BYTES: Final = 64 * 1024
"""Of one message. What a driver sends before it is authenticated has a few hundred."""
MOST_NAME: Final = 64
"""Of the name of a command or a collection, in bytes."""
_HEADER: Final = Struct("<iiii")
_INT32: Final = Struct("<i")
_UINT32: Final = Struct("<I")
_OP_REPLY: Final = 1
_OP_QUERY: Final = 2004
_OP_MSG: Final = 2013
_CHECKSUM_PRESENT: Final = 1 << 0
_MORE_TO_COME: Final = 1 << 1
_KNOWN_FLAGS: Final = _CHECKSUM_PRESENT | _MORE_TO_COME | 1 << 16
_LEAST_DOCUMENT: Final = 5


class Malformed(Exception):
    """What came is no message of a driver, or longer than one may be."""


class Request(NamedTuple):
    """One command. ``legacy``: it came as OP_QUERY, as the first one of a connection may, and is answered likewise."""

    id: int
    command: str
    legacy: bool
    wants_answer: bool


class Reader:
    """Cuts one direction of a connection into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Request]:
        """Take what came; return the requests that are whole by now.

        Raises:
            Malformed: nothing more can be understood on this connection.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= _HEADER.size:
            length, request, _, operation = _HEADER.unpack_from(self._buffer)
            if not _HEADER.size < length <= MOST_BYTES:
                raise Malformed
            if operation not in (_OP_QUERY, _OP_MSG):
                raise Malformed
            if len(self._buffer) < length:
                break
            body = bytes(self._buffer[_HEADER.size : length])
            del self._buffer[:length]
            found.append(_query(request, body) if operation == _OP_QUERY else _message(request, body))
        return found


def answer(request: Request, document: Mapping[str, Any]) -> bytes:
    """Return the message that answers ``request`` with ``document``."""
    content = bson.encode(document)
    if request.legacy:
        operation, body = _OP_REPLY, Struct("<iqii").pack(0, 0, 0, 1) + content
    else:
        operation, body = _OP_MSG, _UINT32.pack(0) + b"\0" + content
    return _HEADER.pack(_HEADER.size + len(body), 0, request.id, operation) + body


def _query(request: int, body: bytes) -> Request:
    """Flags, the name of a collection, two numbers, a document."""
    end = body.find(b"\0", 4, 4 + 2 * MOST_NAME)
    if end < 0:
        raise Malformed
    start = end + 1 + 2 * _INT32.size
    return Request(request, _command(body, start, len(body)), legacy=True, wants_answer=True)


def _message(request: int, body: bytes) -> Request:
    """Flags, then sections, of which the one of kind 0 is the command; perhaps a checksum."""
    if len(body) < _UINT32.size:
        raise Malformed
    (flags,) = _UINT32.unpack_from(body)
    if flags & 0xFFFF & ~_KNOWN_FLAGS:  # of the lower half, a receiver must know each
        raise Malformed
    end = len(body) - (_UINT32.size if flags & _CHECKSUM_PRESENT else 0)
    position = _UINT32.size
    while position < end:
        kind = body[position]
        if kind == 0:
            name = _command(body, position + 1, end)
            return Request(request, name, legacy=False, wants_answer=not flags & _MORE_TO_COME)
        if kind != 1:
            break
        position += 1 + _length(body, position + 1, end)
    raise Malformed


def _length(body: bytes, position: int, end: int) -> int:
    """Read the length that stands at the head of a document or a section, and counts itself."""
    if position + _INT32.size > end:
        raise Malformed
    (length,) = _INT32.unpack_from(body, position)
    if not _LEAST_DOCUMENT <= length <= end - position:
        raise Malformed
    return int(length)


def _command(body: bytes, position: int, end: int) -> str:
    """Return the name of a document's first element, which is the command."""
    _length(body, position, end)
    start = position + _INT32.size + 1  # after the length and the element's type
    stop = body.find(b"\0", start, min(end, start + MOST_NAME))
    if stop < 0:
        raise Malformed
    try:
        return body[start:stop].decode("ascii")
    except UnicodeDecodeError:
        raise Malformed from None
