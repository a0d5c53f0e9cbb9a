"""Ends TCP connections of this machine from outside, as ``ss -K`` does: Linux's ``SOCK_DESTROY``.

Both ends learn of it at once: the program that holds the socket reads ``ECONNABORTED``, the other side gets a reset.
It takes ``CAP_NET_ADMIN``, and a kernel with ``CONFIG_INET_DIAG_DESTROY``. The kernel shows sockets of the network
namespace of whoever asks. Source: sock_diag(7), ``include/uapi/linux/inet_diag.h``.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Collection, Iterator
from struct import Struct, error
from typing import Final

Peer = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
"""Address and port of the other side."""
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST: Final = 0x1
_ACK: Final = 0x4
_DUMP: Final = 0x300
_HEADER: Final = Struct("=IHHII")
_QUERY: Final = Struct("=BBBBI48s")
_STATUS: Final = Struct("=i")
_PORTS: Final = Struct("!HH")
_ID_AT: Final = 4
_ID: Final = 48
_STATES: Final = 1 << 1 | 1 << 2 | 1 << 8
"""Established, being established, closed by the other side alone."""
_ALL_STATES: Final = 0xFFFFFFFF
_SECONDS: Final = 5.0
_BUFFER: Final = 1 << 16


class Unable(Exception):
    """Connections cannot be ended here. The message says why, as the end of a sentence."""


def destroy(peers: Collection[Peer]) -> int:
    """End every connection of this machine to one of ``peers``; return how many there were.

    Raises:
        Unable: when the kernel refuses.
    """
    count = 0
    with _opened() as link:
        for family in (socket.AF_INET, socket.AF_INET6):
            for one in [found for found, peer in _connections(link, family) if peer in peers]:
                count += _end(link, family, one)
    return count


def probe() -> None:
    """Find out whether connections can be ended, by ending one of our own to ourselves.

    The kernel asks for the capability only once it has found the connection.

    Raises:
        Unable: when they cannot.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        host, port = listener.getsockname()
        if not destroy({(ipaddress.ip_address(host), port)}):
            raise Unable("the kernel does not show connections of this process")


def _opened() -> socket.socket:
    if sys.platform != "linux":
        raise Unable("only Linux can")
    try:
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    except OSError as failure:
        raise Unable(f"there is no socket diagnosis here ({failure.strerror})") from None
    link.settimeout(_SECONDS)
    return link


def _ask(link: socket.socket, kind: int, flags: int, query: bytes) -> Iterator[tuple[int, bytes]]:
    """Send one message; return the kinds and bodies of what comes back, until the end or an acknowledgement."""
    try:
        link.send(_HEADER.pack(_HEADER.size + len(query), kind, _REQUEST | flags, 0, 0) + query)
        while True:
            data, position = link.recv(_BUFFER), 0
            while position < len(data):
                length, answer, *_ = _HEADER.unpack_from(data, position)
                if answer == _NLMSG_DONE:
                    return
                yield answer, data[position + _HEADER.size : position + length]
                if answer == _NLMSG_ERROR:
                    return
                position += (length + 3) & ~3
    except (OSError, error) as failure:
        raise Unable(f"the kernel does not answer ({failure})") from None


def _connections(link: socket.socket, family: int) -> Iterator[tuple[bytes, Peer]]:
    """Return the connections of one family: how the kernel knows them, and their other side."""
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0, _STATES, bytes(_ID))
    size = 4 if family == socket.AF_INET else 16
    for kind, body in _ask(link, _SOCK_DIAG_BY_FAMILY, _DUMP, query):
        if kind == _NLMSG_ERROR:
            if (code := -_STATUS.unpack_from(body)[0]) not in (0, errno.ENOENT):  # a kernel without IPv6
                raise Unable(f"the kernel shows no connections ({errno.errorcode.get(code, code)})")
            return
        if len(body) < _ID_AT + _ID:
            continue
        one = body[_ID_AT : _ID_AT + _ID]
        address = ipaddress.ip_address(one[20 : 20 + size])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        yield one, (mapped or address, _PORTS.unpack_from(one)[1])


def _end(link: socket.socket, family: int, one: bytes) -> int:
    """End one connection; 0 where it ended by itself meanwhile."""
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES, one)
    for kind, body in _ask(link, _SOCK_DESTROY, _ACK, query):
        if kind != _NLMSG_ERROR:
            continue
        code = -_STATUS.unpack_from(body)[0]
        if code == 0:
            return 1
        if code == errno.ENOENT:
            return 0
        if code in (errno.EPERM, errno.EACCES):
            raise Unable("serve lacks the capability CAP_NET_ADMIN")
        if code in (errno.EOPNOTSUPP, errno.EINVAL):
            raise Unable("the kernel was built without CONFIG_INET_DIAG_DESTROY")
        raise Unable(f"the kernel refuses ({errno.errorcode.get(code, code)})")
    return 0
